"""Random numbers of a decision, as functions of its seed. Layer: decision; pure but for `new_seed`.

The one idea: whoever has the seed can repeat the decision, in any language and any version of Python, because
a number is read off SHA-256 of a short text. `random.Random` promises that for one method only, takes -1 and
1 for the same seed, and keeps a state nobody needs for a single number.
"""

from __future__ import annotations

import hashlib
import secrets

_BITS = 53
"""Of a double's fraction; integers up to here are also exact in every JSON reader."""


def new_seed() -> int:
    """A seed nobody chose, 0 to 2^53 - 1."""
    return secrets.randbits(_BITS)


def uniform(seed: int) -> float:
    """A number in [0, 1): the first 53 bits of SHA-256("decision/SEED") over 2^53."""
    return _bits(f"decision/{seed}") / 2**_BITS


def sample_seed(seed: int, draw: int) -> int:
    """The seed of a sampled candidate: the first 53 bits of SHA-256("sample/SEED/DRAW")."""
    return _bits(f"sample/{seed}/{draw}")


def _bits(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - _BITS)
