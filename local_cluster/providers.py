"""The three kinds of cluster behind the same commands.

Layer: above lifecycle and kind, below the command line. The one idea: whoever needs a cluster says `up` and
gets a kubeconfig, whatever stands behind it; only a cluster of ours is ever changed or removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from local_cluster import components, existing, kind, lifecycle, status
from local_cluster.console import say
from local_cluster.errors import UnsuitableMachineError
from local_cluster.paths import Paths

Command = Callable[[Paths], int]


def _done(action: Callable[[Paths], object]) -> Command:
    """A command that either succeeds or raises."""

    def run(paths: Paths) -> int:
        action(paths)
        return 0

    return run


def _print_kubeconfig(paths: Paths) -> None:
    say(str(paths.kubeconfig))


PROVIDERS: dict[str, dict[str, Command]] = {
    "embedded": {
        "up": _done(lifecycle.up),
        "down": _done(lifecycle.down),
        "status": lambda paths: 0 if status.show(paths) else 1,
        "kubeconfig": _done(_print_kubeconfig),
        "build": _done(lambda paths: say(f"binaries in {components.ensure(paths)}")),
        "purge": _done(lifecycle.purge),
        "metrics-server": _done(lifecycle.add_metrics_server),
        "no-metrics-server": _done(lifecycle.remove_metrics_server),
    },
    "kind": {
        "up": _done(kind.up),
        "down": _done(kind.down),
        "status": _done(kind.status),
        "kubeconfig": _done(_print_kubeconfig),
    },
    "existing": {
        "up": _done(existing.up),
        "down": _done(existing.down),
        "status": _done(existing.up),
        "kubeconfig": _done(existing.kubeconfig),
    },
}


def unknown(name: str) -> UnsuitableMachineError:
    """The refusal of a provider that does not exist, as CLUSTER may name one."""
    return UnsuitableMachineError(
        f"CLUSTER={name}: no such kind of cluster; choose one of {', '.join(sorted(PROVIDERS))}"
    )


def run(provider: str, command: str, *, without_node: bool = False) -> int:
    """Run a command of a provider and return the exit code.

    `without_node`: `up` starts a control plane only.
    """
    action = PROVIDERS[provider].get(command)
    if action is None:
        say(f"{command}: nothing to do for a cluster of kind {provider!r}")
        return 0
    paths = Paths.from_environment()
    if without_node and provider != "embedded":
        raise UnsuitableMachineError(f"--without-node: a cluster of kind {provider!r} brings its own nodes")
    return action(replace(paths, with_node=not without_node) if command == "up" else paths)
