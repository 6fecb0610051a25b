"""Writes configuration files.

Layer: bottom. The one idea: a file is written whole or not at all, and not when it says the same already:
kube-proxy, for one, ends when its configuration is touched.
"""

from __future__ import annotations

from pathlib import Path


def write(path: Path, text: str) -> None:
    """Make the file say this, readable by its owner only, as some of them hold keys."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.touch(mode=0o600)
    partial.chmod(0o600)
    partial.write_text(text)
    partial.rename(path)
