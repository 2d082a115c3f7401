"""The part of an app that knows its settings."""

from __future__ import annotations

import datetime as dt
import os
import threading
from typing import Any

from chervil import clock
from chervil.exceptions import ImproperlyConfigured
from chervil.settings import CELERY_ONLY, SETTINGS, Settings
from chervil.settings.sources import warn_no_effect
from chervil.signals import Signal


class Configured:
    """Settings that are read from their sources when they are used for the first time.

    :param given: settings that win over all sources.
    :raises ImproperlyConfigured: there is no such setting.
    """

    def __init__(
        self, given: dict[str, Any], config_source: Any = None, namespace: str | None = None
    ) -> None:
        for name in given:
            if name not in SETTINGS and name not in CELERY_ONLY:
                Settings(environ={})[name]  # raises what says which one is meant
        # Here and not when they are read, which is anywhere.
        warn_no_effect(
            name for name in given if name in CELERY_ONLY and not CELERY_ONLY[name].refused
        )
        self._given = given
        self._sources: list[tuple[Any, str | None, bool]] = []
        if config_source is not None:
            self._sources.append((config_source, namespace, False))
        #: Sent when the configuration is about to be read, and when it was read.
        self.on_configure = Signal("app.on_configure")
        self.on_after_configure = Signal("app.on_after_configure", ["source"])
        self._lock = threading.RLock()
        self._conf: Settings | None = None
        #: Receivers of ``on_after_configure`` that were called.
        self._told: set[Any] = set()
        self._zone: tuple[int, dt.tzinfo] | None = None

    @property
    def conf(self) -> Settings:
        """The settings; read from their sources when this is used for the first time.

        :raises ImproperlyConfigured: a source has a wrong name or value.
        """
        return self._conf if self._conf is not None else self._configure()

    @property
    def configured(self) -> bool:
        """Whether the settings were read."""
        return self._conf is not None

    def _configure(self) -> Settings:
        with self._lock:
            if self._conf is not None:
                return self._conf
            self.on_configure.send(sender=self)
            conf = Settings()
            for source, namespace, silent in self._sources:
                conf.config_from_object(source, namespace, silent)
            conf.adopt(self._given)
            self._conf = conf
        self.tell_configured()
        return conf

    def tell_configured(self) -> None:
        """Call the receivers of ``on_after_configure`` that were not called yet.

        Who sets a setting has the configuration read at once, so a receiver that is
        connected further down is called when the app is completed.
        """
        conf = self._conf
        if conf is None:
            return
        late = Signal(self.on_after_configure.name)
        late.receivers = tuple(
            item for item in self.on_after_configure.receivers if item[0] not in self._told
        )
        self._told.update(key for key, _ in late.receivers)
        late.send(sender=self, source=conf)

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take settings from an object, when the settings are needed.

        :param obj: a mapping, module, class or object, or the dotted name of one.
        :param silent: it is no error when a named module does not exist.
        :param force: read it now.
        :param namespace: take names that start so: ``CELERY`` for ``CELERY_TASK_ROUTES``.
        :raises ImproperlyConfigured: a name or value is wrong (when it is read).
        """
        if self._conf is not None:
            self._conf.config_from_object(obj, namespace, silent)
            return
        self._sources.append((obj, namespace, silent))
        if force:
            self._configure()

    def config_from_envvar(
        self,
        variable_name: str,
        silent: bool = False,
        force: bool = False,
        namespace: str | None = None,
    ) -> bool:
        """:meth:`config_from_object` with the dotted name in an environment variable.

        :returns: False when it is empty and ``silent``.
        :raises ImproperlyConfigured: it is empty.
        """
        name = os.environ.get(variable_name, "").strip()
        if not name:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"environment variable {variable_name} is not set; it should name the module "
                "that holds the settings"
            )
        self.config_from_object(name, silent=silent, force=force, namespace=namespace)
        return True

    @property
    def zone(self) -> dt.tzinfo:
        """The time zone that naive times are meant in."""
        conf = self.conf
        if self._zone is None or self._zone[0] != conf.version:
            self._zone = (conf.version, _zone_of(conf))
        return self._zone[1]

    timezone = zone

    def now(self) -> dt.datetime:
        """The present, in the app's time zone."""
        return dt.datetime.fromtimestamp(clock.now(), self.zone)


class _LocalZone(dt.tzinfo):
    """The system's time zone, with its changes between summer and winter."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta | None:
        local = dt.datetime.now() if when is None else when.replace(tzinfo=None)
        return local.astimezone().utcoffset()

    def dst(self, when: dt.datetime | None) -> dt.timedelta | None:
        return None

    def tzname(self, when: dt.datetime | None) -> str | None:
        local = dt.datetime.now() if when is None else when.replace(tzinfo=None)
        return local.astimezone().tzname()

    def fromutc(self, when: dt.datetime) -> dt.datetime:
        local = when.replace(tzinfo=dt.UTC).astimezone()
        return local.replace(tzinfo=self)


def _zone_of(conf: Settings) -> dt.tzinfo:
    zone = conf.timezone
    if zone is None:
        return dt.UTC if conf.enable_utc else _LocalZone()
    if isinstance(zone, dt.tzinfo):
        return zone
    if zone.upper() == "UTC":
        return dt.UTC
    import zoneinfo  # costs 5 ms, and UTC does without

    return zoneinfo.ZoneInfo(zone)
