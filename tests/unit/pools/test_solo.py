"""The solo pool's side of the run queue."""

from __future__ import annotations

from typing import Any

from chervil.pools.frames import Job, pack_job
from chervil.pools.runner import Runner
from chervil.pools.solo import Solo


def test_limits_go_with_their_jobs(app: Any) -> None:
    solo = Solo(Runner(app, "n@h", lambda _: None))
    try:
        for number in range(1, 6):
            solo.limit(number, 1.0, 2.0)
            solo.put(pack_job(Job(number, 1, b"{}", b"", "q", True)))
        frames = solo.take_back()
        assert len(frames) == 5
        assert solo._limits == {}, "those that are given back take theirs along"
        solo.put_again(frames[1])
        assert solo._limits == {2: (1.0, 2.0)}
        assert solo.take_back() == [frames[1]]
        assert solo.take_back() == []
        assert solo._limits == solo._given_back == {}
    finally:
        solo.close()
