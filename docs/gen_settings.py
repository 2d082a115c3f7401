"""Prints the page of all settings, made from the table that the code uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby

from chervil.settings import CELERY_ONLY, OURS, SAME, SETTINGS, Setting

INTRO = """\
# Settings

Made from the table in `chervil.settings`, which also checks them. Set them on
`app.conf`, in an object or module given to `app.config_from_object`, or in the
environment. Where several say something, code wins over objects, objects over the
environment, and the environment over the default.

```python
app.conf.task_default_queue = "orders"
app.conf.update(result_expires=3600, task_time_limit=60)
app.config_from_object("shop.settings")                      # names as below
app.config_from_object("django.conf:settings", namespace="CELERY")  # CELERY_TASK_TIME_LIMIT
```

In the environment, a setting is `CHERVIL_` and its name in capitals. Lists are
separated by commas, times may have a unit (`500ms`, `30s`, `5m`, `2h`, `1d`), `none`
is None, and everything with more structure is JSON.

An unknown name or a wrong value is an error at once. `app.conf.changes()` shows what
differs from the defaults and where it came from.
"""

NOT_HERE = """\
## Celery's settings that Chervil does not have

Those that would change what the program does are refused, unless they are switched
off; the others warn that they have no effect.
"""


def render() -> str:
    """The page as Markdown."""
    lines = [INTRO]
    for title, settings in groupby(SETTINGS.values(), key=lambda setting: setting.group):
        lines.append(f"## {title}\n")
        for setting in settings:
            lines.extend(_entry(setting))
    lines.append(NOT_HERE)
    lines.extend(_celery_only())
    return "\n".join(lines) + "\n"


def _entry(setting: Setting) -> Iterator[str]:
    yield f"### `{setting.name}`\n"
    yield f"{setting.doc}\n"
    yield f"- Type: {_code_safe(setting.kind.label)}"
    yield f"- Default: `{setting.default!r}`{_comparison(setting)}"
    yield f"- Environment: `{setting.env}`\n"


def _comparison(setting: Setting) -> str:
    if setting.celery == OURS:
        return " (Celery has no such setting)"
    return "" if setting.celery == SAME else f" (Celery: `{setting.celery}`)"


def _code_safe(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _celery_only() -> Iterator[str]:
    yield "| Settings | | Because |"
    yield "|---|---|---|"
    reasons: dict[tuple[bool, str], list[str]] = {}
    for name, entry in CELERY_ONLY.items():
        reasons.setdefault((entry.refused, entry.why), []).append(name)
    for (refused, why), names in reasons.items():
        what = "refused" if refused else "no effect"
        yield f"| {', '.join(f'`{name}`' for name in names)} | {what} | {why} |"


if __name__ == "__main__":
    sys.stdout.write(render())
