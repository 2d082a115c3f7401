"""Finding the primary: Redis Sentinel, as kombu writes its URLs.

The steps are those that clients have to follow
(https://redis.io/docs/latest/develop/reference/sentinel-clients/): ask the Sentinels one
after the other, connect to the server that is named, and see that it is a primary; with
every new connection again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from chervil.drivers.redis.location import Location
from chervil.exceptions import OperationalError

#: The Sentinels of a URL, the one that answered last in front.
_order: dict[tuple[Location, ...], tuple[Location, ...]] = {}

#: Has a Sentinel answer a command; raises an OperationalError when it does not.
Ask = Callable[[Location, tuple[str, ...]], Any]


def primaries(location: Location, ask: Ask) -> Iterator[Location | OperationalError]:
    """The servers that Sentinels name as the primary, each once; of Sentinels that name
    none, why.

    :param location: with ``sentinels``.
    """
    known = location.sentinels
    order = _order.get(known, known)
    tried: set[tuple[str, int]] = set()
    for sentinel in order:
        try:
            answer = ask(sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", location.master_name))
        except OperationalError as exc:
            yield exc
            continue
        if answer is None:
            yield OperationalError(
                f"{sentinel.name} knows no primary named {location.master_name!r} (option "
                "master_name)"
            )
            continue
        host, port = answer[0].decode(), int(answer[1])
        if (host, port) not in tried:
            tried.add((host, port))
            _order[known] = (sentinel, *(other for other in order if other != sentinel))
            yield msgspec.structs.replace(location, host=host, port=port, sentinels=())
