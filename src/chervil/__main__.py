"""``python -m chervil`` is the same as ``chervil``."""

from __future__ import annotations

from chervil.cli.main import main

if __name__ == "__main__":
    main()
