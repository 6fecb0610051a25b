"""How much of the device the caches may take, learnt from running out of it. Layer: llm, light.

The one idea: nobody knows beforehand how many rows fit, so the first out-of-memory error is a measurement:
less than that is allowed from then on, and a little more again after a long quiet time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SHRINK = 0.75
GROW = 1.02
GROW_EVERY = 256
"""Engine turns without trouble after which the budget grows."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Cached positions (rows times length, padding included) allowed at once; None is unlimited."""

    positions: int | None = None
    quiet: int = 0

    def fits(self, used: int, more: int) -> bool:
        """Whether `more` positions may be added. An empty device takes anything: it might just work."""
        return self.positions is None or used == 0 or used + more <= self.positions

    def after_failure(self, used: int) -> Budget:
        """The budget after memory ran out with `used` positions."""
        return Budget(max(1, int(min(used, self.positions or used) * SHRINK)))

    def after_turn(self) -> Budget:
        """The budget after a turn of the engine that went well."""
        if self.positions is None:
            return self
        if self.quiet + 1 < GROW_EVERY:
            return replace(self, quiet=self.quiet + 1)
        return Budget(int(self.positions * GROW) + 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out. Recognised by name and words: torch's CPU allocator raises
    a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)
