"""What is known of agents beside their objects, said by a test. Layer: tests."""

from __future__ import annotations

from collections.abc import Sequence

from agent_operator.core.signals import NOTHING, Signals
from agent_operator.shell.kube import Object
from agent_operator.shell.snapshots import Key


class NoSignals:
    """A SignalSource without samplers: it knows what it is told."""

    def __init__(self, signals: Signals = NOTHING) -> None:
        self.signals = signals
        self.forgotten: list[Key] = []

    def of(self, key: Key, agent: Object, pods: Sequence[Object]) -> Signals:
        return self.signals

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)
