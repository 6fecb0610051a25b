"""Text from outside, made fit for a status. Layer: core, pure; imports the standard library only.

The one idea: what a pod, an image registry or an admission webhook writes ends up in conditions that
people and terminals read, so it is one line, printable and short.
"""

from __future__ import annotations

import json
import unicodedata

EVIDENCE_LIMIT = 400
"""Bytes of JSON that foreign text may take in a diagnosis."""
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clean(value: object, limit: int = EVIDENCE_LIMIT) -> str:
    """Printable text on one line whose JSON takes at most `limit` bytes; cut text ends in "…"."""
    if not isinstance(value, str):
        return ""
    # Cut first: cleaning a megabyte that is thrown away would take time.
    seen = value[: 4 * limit]
    visible = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in seen)
    line = " ".join(visible.split())
    if len(line) == len(value) and size(line) <= limit:
        return line
    shortened = line
    while size(shortened) > limit - 3:
        shortened = shortened[: max(len(shortened) - max((size(shortened) - limit + 3) // 6, 1), 0)]
    return shortened if shortened == line and len(seen) == len(value) else shortened.rstrip() + "…"


def size(value: str) -> int:
    """Bytes of a string in JSON, without the quotes."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2
