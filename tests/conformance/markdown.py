"""The few things the tests read from our own Markdown pages. Layer: tests."""

from __future__ import annotations

import re
from pathlib import Path


def links(text: str) -> list[str]:
    """Targets of the links into this repository."""
    found = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    return [target for target in found if not target.startswith(("http://", "https://"))]


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    return [target for target in links(page.read_text()) if not (page.parent / target).exists()]


def tables(text: str) -> dict[str, list[list[str]]]:
    """Cells of the table's rows under each second-level heading, its head left out."""
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        rows = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("|")]
        found[title] = [[cell.strip() for cell in row] for row in rows[2:]]
    return found
