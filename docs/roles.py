"""Hook of the build: references in docstrings, such as ``:meth:`retry```, become links."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|exc|attr|mod|data):<code>(~?)([\w.]+)</code>")
_ID = re.compile(r'\bid="(chervil\.[\w.]+)"')


def on_page_content(html: str, **_: Any) -> str:
    """A link where the page itself has what is meant, otherwise the name alone."""
    targets = _ID.findall(html)

    def link(match: re.Match[str]) -> str:
        name = match[2]
        shown = f"<code>{name.rpartition('.')[2] if match[1] else name}</code>"
        found = next((t for t in targets if t == name or t.endswith(f".{name}")), None)
        return f'<a href="#{found}">{shown}</a>' if found else shown

    return _ROLE.sub(link, html)
