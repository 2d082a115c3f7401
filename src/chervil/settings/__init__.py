"""Settings: one table of them, and the object that holds an app's values."""

from __future__ import annotations

from chervil.settings.celery_only import CELERY_ONLY, CeleryOnly, modern_name
from chervil.settings.conf import Change, Settings
from chervil.settings.setting import OURS, SAME, Setting
from chervil.settings.sources import UnknownSetting, import_object
from chervil.settings.table import SETTINGS

__all__ = [
    "CELERY_ONLY",
    "OURS",
    "SAME",
    "SETTINGS",
    "CeleryOnly",
    "Change",
    "Setting",
    "Settings",
    "UnknownSetting",
    "import_object",
    "modern_name",
]
