"""Sunrise, sunset, and the twilights."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.schedules.base import UTC, BaseSchedule, aware

#: Celery's names of events: the function, and the sun's depression in degrees.
_EVENTS: dict[str, tuple[str, float | None]] = {
    "dawn_astronomical": ("dawn", 18.0),
    "dawn_nautical": ("dawn", 12.0),
    "dawn_civil": ("dawn", 6.0),
    "sunrise": ("sunrise", None),
    "solar_noon": ("noon", None),
    "sunset": ("sunset", None),
    "dusk_civil": ("dusk", 6.0),
    "dusk_nautical": ("dusk", 12.0),
    "dusk_astronomical": ("dusk", 18.0),
}
#: Within a year each event comes again wherever it comes at all.
_DAYS = 370


class solar(BaseSchedule):
    """Due when the sun is somewhere, seen from a place on Earth.

    :param event: ``sunrise``, ``solar_noon``, ``sunset``, or ``dawn_`` or ``dusk_`` with
        ``civil``, ``nautical`` or ``astronomical``: 6, 12 or 18 degrees below the horizon.
    :param lat: degrees, positive to the north.
    :param lon: degrees, positive to the east.
    :raises ImproperlyConfigured: an argument is wrong, or the extra ``solar`` is not installed.

    Near the poles there are days without some events; they are left out.
    """

    kind = "solar"

    def __init__(
        self,
        event: str,
        lat: float,
        lon: float,
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun=nowfun, app=app)
        if event not in _EVENTS:
            raise ImproperlyConfigured(f"solar event {event!r} is none of: {', '.join(_EVENTS)}")
        for name, value, most in (("lat", lat, 90), ("lon", lon, 180)):
            if not isinstance(value, int | float) or not -most <= value <= most:
                raise ImproperlyConfigured(f"{name}={value!r} is not within -{most} to {most}")
        self.event, self.lat, self.lon = event, lat, lon
        try:
            from astral import Observer, sun
        except ImportError as exc:
            raise ImproperlyConfigured(
                "solar schedules need the library astral: pip install chervil[solar]"
            ) from exc
        name, depression = _EVENTS[event]
        self._function: Callable[..., dt.datetime] = getattr(sun, name)
        self._options = {} if depression is None else {"depression": depression}
        self._observer = Observer(lat, lon)

    def next_after(
        self, moment: dt.datetime, default_tz: dt.tzinfo | None = None
    ) -> dt.datetime | None:
        """See :meth:`BaseSchedule.next_after`."""
        moment = aware(moment).astimezone(UTC)
        for days in range(-1, _DAYS):
            try:
                day = moment.date() + dt.timedelta(days=days)
                due = self._function(self._observer, day, tzinfo=UTC, **self._options)
            except (ValueError, OverflowError):
                continue  # the sun does not get there on that day
            if due > moment:
                return due
        return None

    def arguments(self) -> dict[str, Any]:
        """See :meth:`BaseSchedule.arguments`."""
        return {"event": self.event, "lat": self.lat, "lon": self.lon}

    def words(self) -> str:
        """See :meth:`BaseSchedule.words`."""
        place = f"{abs(self.lat):g}°{'N' if self.lat >= 0 else 'S'}"
        place += f" {abs(self.lon):g}°{'E' if self.lon >= 0 else 'W'}"
        return f"{self.event.replace('_', ' ')} at {place}"

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"
