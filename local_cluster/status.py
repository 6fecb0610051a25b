"""What runs, what does not, and where things are.

Layer: above lifecycle. The one idea: the same checks as `up` uses, shown as a table.
"""

from __future__ import annotations

from local_cluster import components, lifecycle, processes
from local_cluster.console import say
from local_cluster.paths import API_URL, REGISTRY, Paths


def show(paths: Paths) -> bool:
    """Print the state of each component and return whether the cluster is healthy."""
    for part in lifecycle.table(paths):
        pid = processes.running_pid(paths, part.name)
        state = "not running" if pid is None else f"pid {pid}, {'serving' if part.ready() else 'NOT SERVING'}"
        say(f"  {part.name:<24} {state}")
    is_healthy = lifecycle.healthy(paths)
    verdict = "healthy" if is_healthy else "not up; `python3 -m local_cluster up` starts it"
    say(f"  cluster                  {verdict}")
    if is_healthy:
        say(f"  API server               {API_URL}")
        say(f"  kubeconfig               {paths.kubeconfig}")
        say(f"  registry                 {REGISTRY}")
    for name, folder in (("state", paths.state), ("binaries", paths.cache)):
        if folder.exists():
            say(f"  {name:<24} {folder} ({components.size_of(folder) / 1e9:.1f} GB)")
    return is_healthy
