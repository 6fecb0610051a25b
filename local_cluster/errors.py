"""The one kind of failure this package raises on purpose.

Layer: bottom. The one idea: a message says what is wrong, where, and what to do; the exit code says whose
turn it is.
"""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster could not do what was asked; the message holds the evidence. Exit code 1."""

    exit_code = 1


class UnsuitableMachineError(ClusterError):
    """The machine or the call must be changed by the user first. Exit code 2."""

    exit_code = 2
