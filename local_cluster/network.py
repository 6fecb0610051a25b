"""The bridge, the routes and the packet filter: made by `up`, removed without a trace by `down`.

Layer: above paths. The one idea: what was on the machine before `up` is written down first; `down` removes
what is not in that record and leaves everything else alone.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cluster.errors import ClusterError, UnsuitableMachineError
from local_cluster.paths import BRIDGE, BRIDGE_ADDRESS, POD_CIDR, SERVICE_CIDR, Paths

COMMENT = "agent-operator-cluster"
CLUSTER_CHAIN = re.compile(r"(KUBE|CNI)-")
# Set by us, by the kubelet, by kube-proxy or by CNI plugins.
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Folders outside the state folder that the kubelet and CNI insist on.
OUTSIDE_FOLDERS = (
    "/var/lib/kubelet",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/cni",
    "/var/lib/cni/results",
    "/var/log/containers",
)
OWN_RULES = (
    ("nat", "POSTROUTING", ["-s", POD_CIDR, "!", "-d", POD_CIDR, "-j", "MASQUERADE"]),
    # A machine whose FORWARD policy is DROP, as Docker sets it, would otherwise drop the pods' packets.
    ("filter", "FORWARD", ["-i", BRIDGE, "-j", "ACCEPT"]),
    ("filter", "FORWARD", ["-o", BRIDGE, "-j", "ACCEPT"]),
)


def command(*arguments: str, text: str | None = None) -> str:
    """Run a system command and return its output; raise with its complaint."""
    try:
        done = subprocess.run(arguments, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ClusterError(f"the command {arguments[0]} is missing on this machine") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def record_system(paths: Paths) -> None:
    """Write down what is on the machine, unless an earlier `up` did and no `down` followed."""
    if paths.system_snapshot.exists():
        return
    record = {
        "sysctls": {name: _sysctl(name).read_text().strip() for name in SYSCTLS if _sysctl(name).exists()},
        "chains": {
            tool: sorted(_chain_keys(parse_rules(command(f"{tool}-save")))) for tool in _filter_tools()
        },
        "folders": [folder for folder in OUTSIDE_FOLDERS if Path(folder).exists()],
    }
    partial = paths.system_snapshot.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1))
    partial.rename(paths.system_snapshot)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def _filter_tools() -> list[str]:
    """iptables, and ip6tables where the kernel has IPv6."""
    return ["iptables", *(["ip6tables"] if Path("/proc/net/if_inet6").exists() else [])]


def check_addresses_free() -> None:
    """Refuse to take addresses that the machine already routes elsewhere."""
    for route in json.loads(command("ip", "-json", "-4", "route", "show")):
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        for cidr in (POD_CIDR, SERVICE_CIDR):
            if ipaddress.ip_network(route["dst"]).overlaps(ipaddress.ip_network(cidr)):
                raise UnsuitableMachineError(
                    f"the cluster needs the addresses {cidr}, but this machine routes {route['dst']} to "
                    f"{route.get('dev', 'another place')}. Remove that route "
                    "(perhaps another cluster's), or use that cluster: CLUSTER=existing."
                )


def bridge_exists() -> bool:
    """Whether our bridge is there."""
    return Path(f"/sys/class/net/{BRIDGE}").exists()


def set_up(paths: Paths) -> None:
    """Bring the bridge, the service route, forwarding and our own rules into place; what is there is left as
    it is.
    """
    record_system(paths)
    if not bridge_exists():
        command("ip", "link", "add", BRIDGE, "type", "bridge")
    prefix = POD_CIDR.split("/")[1]
    command("ip", "address", "replace", f"{BRIDGE_ADDRESS}/{prefix}", "dev", BRIDGE)
    command("ip", "link", "set", BRIDGE, "up")
    # Service addresses that no rule translates stay on this machine instead of leaving it.
    command("ip", "route", "replace", SERVICE_CIDR, "dev", BRIDGE)
    _sysctl("net/ipv4/ip_forward").write_text("1")
    present = command("iptables-save")
    for table, chain, rule in OWN_RULES:
        line = ["-m", "comment", "--comment", COMMENT, *rule]
        if not _has_rule(present, chain, rule):
            command("iptables", "-w", "-t", table, "-I", chain, *line)


def _has_rule(saved: str, chain: str, rule: Iterable[str]) -> bool:
    """Whether iptables-save shows our rule: it reorders arguments, so compare them as sets."""
    wanted = {*rule, COMMENT, "-A", chain}
    return any(wanted <= set(line.split()) for line in saved.splitlines())


def tear_down_links() -> None:
    """Remove the bridge and what hangs on it; the routes go with it."""
    if not bridge_exists():
        return
    for link in json.loads(command("ip", "-json", "link", "show", "master", BRIDGE)):
        subprocess.run(["ip", "link", "delete", link["ifname"]], capture_output=True, check=False)
    command("ip", "link", "delete", BRIDGE)


@dataclass(frozen=True)
class Rules:
    """One table of iptables-save: its chains and its rules."""

    table: str
    chains: tuple[str, ...]
    rules: tuple[str, ...]


def parse_rules(saved: str) -> list[Rules]:
    """The tables in the output of iptables-save."""
    tables: list[tuple[str, list[str], list[str]]] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            tables.append((line[1:].strip(), [], []))
        elif line.startswith(":"):
            tables[-1][1].append(line[1:].split()[0])
        elif line.startswith("-A "):
            tables[-1][2].append(line)
    return [Rules(table, tuple(chains), tuple(rules)) for table, chains, rules in tables]


def _chain_keys(tables: Iterable[Rules]) -> set[str]:
    return {f"{table.table}/{chain}" for table in tables for chain in table.chains}


def removal_script(tables: Iterable[Rules], chains_before: Iterable[str]) -> str:
    """What to feed to iptables-restore --noflush so that exactly the cluster's chains and rules go; "" if
    none is left.

    A chain is the cluster's if its name says so and it was not there before; a rule, if it leads to such a
    chain or carries our comment.
    """
    before, script = set(chains_before), []
    for table in tables:
        ours = [c for c in table.chains if CLUSTER_CHAIN.match(c) and f"{table.table}/{c}" not in before]
        lines = []
        for rule in table.rules:
            words = rule.split()
            leads_to_ours = any(word in ours for word in words[2:])
            if words[1] not in ours and (leads_to_ours or COMMENT in words):
                lines.append("-D" + rule.removeprefix("-A"))
        lines += [f"-F {chain}" for chain in ours] + [f"-X {chain}" for chain in ours]
        if lines:
            script += [f"*{table.table}", *lines, "COMMIT"]
    return "\n".join([*script, ""]) if script else ""


def tear_down_rules(paths: Paths) -> None:
    """Remove the cluster's rules from the packet filter."""
    before = recorded(paths).get("chains", {})
    for tool in _filter_tools():
        script = removal_script(parse_rules(command(f"{tool}-save")), before.get(tool, ()))
        if script:
            command(f"{tool}-restore", "--noflush", "--wait", "10", text=script)


def restore_sysctls(paths: Paths) -> None:
    """Put the kernel's settings back to what they were before `up`."""
    for name, value in recorded(paths).get("sysctls", {}).items():
        if _sysctl(name).read_text().strip() != value:
            _sysctl(name).write_text(value)


def recorded(paths: Paths) -> dict[str, Any]:
    """What `record_system` wrote, or nothing."""
    try:
        record: dict[str, Any] = json.loads(paths.system_snapshot.read_text())
    except (OSError, ValueError):
        return {}
    return record
