"""Pages of the documentation that are made while it is built.

``docs/gen_NAME.py`` prints the Markdown of ``reference/NAME.md``. A generator
that fails ends the build.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in ``docs/``."""
    for script in sorted(Path(config.docs_dir).glob("gen_*.py")):
        name = script.stem.removeprefix("gen_")
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=60
        )
        if done.returncode or not done.stdout.strip():
            raise PluginError(f"{script} made no page (exit {done.returncode}):\n{done.stderr}")
        files.append(File.generated(config, f"reference/{name}.md", content=done.stdout))
    return files
