"""The command line: python3 -m local_cluster up|down|status|kubeconfig|build|purge|[no-]metrics-server.

Layer: top. The one idea: the exit code says whose turn it is: 0 done, 1 the cluster failed, 2 the user must
change something first.
"""

from __future__ import annotations

import argparse
import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  before any import that an old Python cannot read
    sys.stderr.write(
        "error: local_cluster needs Python 3.11 or newer, this is " + sys.version.split()[0] + "\n"
    )
    sys.exit(2)

from local_cluster import providers
from local_cluster.errors import ClusterError

COMMANDS = {
    "up": "make the cluster run (builds it first where needed)",
    "down": "remove the cluster; keep images, logs and binaries",
    "status": "show what runs",
    "kubeconfig": "print the path of the kubeconfig",
    "build": "only build the binaries",
    "purge": "remove the cluster, its images, logs and binaries",
    "metrics-server": "add a metrics-server to the cluster that runs (kubectl top, autoscaling by CPU)",
    "no-metrics-server": "remove it again",
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line as data."""
    parser = argparse.ArgumentParser(
        prog="python3 -m local_cluster", description="A Kubernetes to develop with."
    )
    parser.add_argument(
        "--provider",
        choices=sorted(providers.PROVIDERS),
        default=os.environ.get("CLUSTER") or "embedded",
        help="embedded: processes here, needs root; kind: in Docker; existing: the cluster of $KUBECONFIG",
    )
    parser.add_argument(
        "command", choices=COMMANDS, help="; ".join(f"{name}: {text}" for name, text in COMMANDS.items())
    )
    parser.add_argument(
        "--without-node",
        action="store_true",
        help="up: only etcd, API server, controllers and scheduler, for simulated nodes (embedded)",
    )
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Run one command."""
    options = parse()
    try:
        if options.provider not in providers.PROVIDERS:
            raise providers.unknown(options.provider)
        return providers.run(options.provider, options.command, without_node=options.without_node)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
