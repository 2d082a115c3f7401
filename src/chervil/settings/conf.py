"""The settings of one app.

Each value comes from the highest layer that has it: code, then objects
(``config_from_object``), then the environment, then the defaults. The effective
values are plain attributes of the instance, so that reading one costs what
reading any attribute costs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final

from chervil.drivers.registry import has_results
from chervil.exceptions import ImproperlyConfigured
from chervil.settings.celery_only import CELERY_ONLY
from chervil.settings.fields import Fields
from chervil.settings.masking import masked
from chervil.settings.sources import (
    UnknownSetting,
    load,
    read_environment,
    read_object,
    unknown,
    warn_no_effect,
)
from chervil.settings.table import SETTINGS
from chervil.wire import compression, serializers

_ENVIRONMENT, _OBJECT, _CODE = range(3)
_ORIGINS: Final = ("environment", "object", "code")


class Change:
    """A setting that is not at its default.

    :param origin: "environment", "object" or "code".
    """

    __slots__ = ("default", "origin", "value")

    def __init__(self, value: Any, default: Any, origin: str) -> None:
        self.value = value
        self.default = default
        self.origin = origin

    def __repr__(self) -> str:
        return f"<Change: {self.value!r} instead of {self.default!r}, from {self.origin}>"


class Settings(Fields, MutableMapping[str, Any]):
    """Typed settings: attributes and a mapping at the same time.

    :param environ: take the environment from here; ``os.environ`` when None.
    :raises ImproperlyConfigured: a variable ``CHERVIL_<NAME>`` has a wrong value.
    """

    __slots__ = ("_celery_only", "_layers", "version")

    #: Grows with every change, so that what was derived from settings can tell
    #: that it is out of date. A value that was changed in place does not count.
    version: int

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        layers: tuple[dict[str, Any], ...] = ({}, {}, {})
        object.__setattr__(self, "version", 0)
        object.__setattr__(self, "_layers", layers)
        object.__setattr__(self, "_celery_only", {})
        vars(self).update((name, item.fresh_default()) for name, item in SETTINGS.items())
        texts = read_environment(os.environ if environ is None else environ)
        self._store({name: _parse(name, text) for name, text in texts.items()}, _ENVIRONMENT)

    # --- one setting ---------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        self._change({name: value}, _CODE)

    def __setitem__(self, name: str, value: Any) -> None:
        self._change({name: value}, _CODE)

    def __getattr__(self, name: str) -> Any:
        """Only called for names that are no settings."""
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._celery_only:
            return self._celery_only[name]
        if name in CELERY_ONLY:
            raise UnknownSetting(
                f"Celery's setting {name!r} is not set, and has none of its effects here: "
                f"{CELERY_ONLY[name].why}",
                name=name,
            )
        raise unknown(name)

    def __getitem__(self, name: str) -> Any:
        if name in SETTINGS:
            return vars(self)[name]
        return self.__getattr__(name)

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __delitem__(self, name: str) -> None:
        """Back to the environment's value or the default."""
        if name not in SETTINGS:
            raise unknown(name)
        for layer in self._layers[_OBJECT:]:
            layer.pop(name, None)
        environment = self._layers[_ENVIRONMENT]
        default = SETTINGS[name].fresh_default()
        self._store({name: environment.get(name, default)}, None)

    # --- all of them -----------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __len__(self) -> int:
        return len(vars(self))

    def __contains__(self, name: object) -> bool:
        return name in vars(self) or name in self._celery_only

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Settings: {', '.join(self.changes()) or 'all defaults'}>"

    def update(  # type: ignore[override]
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any
    ) -> None:
        """Set several; when one is wrong, none is set.

        :raises ImproperlyConfigured: a name or value is wrong.
        """
        self._change({**dict(other), **more}, _CODE)

    def adopt(self, values: Mapping[str, Any]) -> None:
        """:meth:`update` without warnings, for what has been warned of already."""
        self._change(values, _CODE, warn=False)

    def copy(self) -> Settings:
        """Independent settings with the same values and origins."""
        twin = Settings(environ={})
        for rank, layer in enumerate(self._layers):
            twin._layers[rank].update(layer)
        vars(twin).update({name: _copied(value) for name, value in vars(self).items()})
        twin._celery_only.update(self._celery_only)
        return twin

    # --- sources ---------------------------------------------------------------------

    def config_from_object(
        self, source: Any, namespace: str | None = None, silent: bool = False
    ) -> bool:
        """Take settings from an object; what code has set stays.

        :param source: a mapping, module, class, object, or the dotted name of one
            (``"pkg.mod"``, ``"pkg.mod:attr"``).
        :param namespace: take the names that start so: with ``"CELERY"``,
            ``CELERY_TASK_SERIALIZER`` is ``task_serializer``.
        :param silent: it is no error when the named module does not exist.
        :returns: False when it did not exist.
        :raises ImproperlyConfigured: it cannot be imported, or a name or value in it
            is wrong; nothing was taken.
        """
        found = load(source, silent)
        if found is None and silent:
            return False
        where = f" (in {source!r})" if isinstance(source, str) else ""
        self._change(read_object(found, namespace), _OBJECT, where)
        return True

    def config_from_envvar(self, variable: str, silent: bool = False) -> bool:
        """As :meth:`config_from_object`, with the dotted name in an environment variable.

        :param silent: it is no error when the variable is empty or the module does
            not exist; the return value is False then.
        """
        name = os.environ.get(variable, "").strip()
        if not name:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"environment variable {variable} is not set; it should name the module "
                "that holds the settings"
            )
        return self.config_from_object(name, silent=silent)

    # --- what follows from them --------------------------------------------------------

    @property
    def effective_result_backend(self) -> str:
        """URL of the result store in use: ``result_backend``, or else the broker's own."""
        if self.result_backend is not None:
            return self.result_backend
        return self.broker_url if has_results(self.broker_url) else "disabled://"

    def validate(self) -> None:
        """Check what single settings cannot show. The app calls it before it starts.

        :raises ImproperlyConfigured: two settings contradict each other.
        """
        soft, hard = self.task_soft_time_limit, self.task_time_limit
        if soft and hard and soft >= hard:
            raise ImproperlyConfigured(
                f"task_soft_time_limit ({soft:g} s) must be less than task_time_limit "
                f"({hard:g} s), or tasks are ended before they can clean up"
            )
        priority, highest = self.task_default_priority, self.task_queue_max_priority
        if priority and highest and priority > highest:
            raise ImproperlyConfigured(
                f"task_default_priority ({priority}) is more than task_queue_max_priority "
                f"({highest})"
            )
        # Not when they are set: an app may register its own later.
        for name in ("task_serializer", "result_serializer"):
            _check_known(name, self[name], serializers.names())
        for name in ("task_compression", "result_compression"):
            if self[name] is not None:
                _check_known(name, self[name], compression.names())

    # --- showing -----------------------------------------------------------------------

    def changes(self, censored: bool = True) -> dict[str, Change]:
        """What differs from the defaults, and where it came from.

        :param censored: replace passwords and the like.
        """
        found = {}
        for name, value in vars(self).items():
            default = SETTINGS[name].default
            origin = self._origin(name)
            if origin == "default" and value == default:
                continue
            shown = masked(value, name) if censored else value
            found[name] = Change(shown, default, "code" if origin == "default" else origin)
        return found

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """The values that are not at their defaults, or all of them."""
        if with_defaults:
            return {k: masked(v, k) if censored else v for k, v in vars(self).items()}
        return {name: change.value for name, change in self.changes(censored).items()}

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """The same as lines of text, with the origin of each value."""
        return "\n".join(
            f"{name}: {value!r} ({self._origin(name)})"
            for name, value in self.table(with_defaults, censored).items()
        )

    # --- inside ------------------------------------------------------------------------

    def _origin(self, name: str) -> str:
        for rank in (_CODE, _OBJECT, _ENVIRONMENT):
            if name in self._layers[rank]:
                return _ORIGINS[rank]
        return "default"

    def _change(
        self, values: Mapping[str, Any], rank: int, where: str = "", warn: bool = True
    ) -> None:
        checked: dict[str, Any] = {}
        without_effect: dict[str, Any] = {}
        for name, value in values.items():
            if name in SETTINGS:
                checked[name] = _check(name, value, where)
            elif name not in CELERY_ONLY:
                raise unknown(name)
            elif not CELERY_ONLY[name].refused:
                without_effect[name] = value
            elif value:
                raise ImproperlyConfigured(
                    f"Celery's setting {name!r} is not supported{where}: {CELERY_ONLY[name].why}"
                )
        if without_effect and warn:
            warn_no_effect(without_effect)
        self._celery_only.update(without_effect)
        self._store(checked, rank)

    def _store(self, values: Mapping[str, Any], rank: int | None) -> None:
        for name, value in values.items():
            if rank is not None:
                self._layers[rank][name] = value
                if any(name in layer for layer in self._layers[rank + 1 :]):
                    continue
            vars(self)[name] = value
        object.__setattr__(self, "version", self.version + 1)


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (list, dict)) else value


def _check(name: str, value: Any, where: str) -> Any:
    try:
        return SETTINGS[name].kind.check(value)
    except ValueError as exc:
        shown = repr(masked(value, name))
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        raise ImproperlyConfigured(f"setting {name!r} is {shown}{where}; expected {exc}") from None


def _parse(name: str, text: str) -> Any:
    try:
        return SETTINGS[name].kind.parse(text)
    except ValueError as exc:
        raise ImproperlyConfigured(
            f"environment variable {SETTINGS[name].env} is {masked(text, name)!r}; expected {exc}"
        ) from None


def _check_known(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known and "/" not in value:  # a content type does as well
        raise ImproperlyConfigured(
            f"setting {name!r} is {value!r}, which nobody has registered; known: {', '.join(known)}"
        )
