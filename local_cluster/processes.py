"""Starts, recognises and stops the cluster's processes.

Layer: above paths and console. The one idea: a process is ours only if its pid file's start time fits, or if
it carries the mark we put into its environment, so a recycled pid or a stranger is never killed. Not systemd:
it is not there in containers and small virtual machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.paths import Paths

MARK = "AGENT_OPERATOR_CLUSTER_PROCESS"  # in the environment of all we start, and of what they start


@dataclass(frozen=True)
class Component:
    """One process of the cluster: its name, its command line and how to see that it serves."""

    name: str
    argv: Sequence[str | Path]
    ready: Callable[[], bool]
    timeout: float = 60.0  # seconds until a start counts as failed
    environment: Mapping[str, str] = field(default_factory=dict)


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's clock ticks since boot, or None if there is none (or only a
    zombie).
    """
    try:
        # The command name may hold spaces and brackets: count fields after the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _pid_file(paths: Paths, name: str) -> Path:
    return paths.run / f"{name}.pid"


def running_pid(paths: Paths, name: str) -> int | None:
    """The pid of a component that we started and that still runs."""
    try:
        record = json.loads(_pid_file(paths, name).read_text())
        pid, started = record["pid"], record["started"]
    except (OSError, ValueError, KeyError):
        return None
    # A process that ended before its start time could be read has none on record.
    return pid if started is not None and start_time(pid) == started else None


def start(paths: Paths, component: Component) -> None:
    """Start a component in a session of its own, its output in logs/NAME.log; the log before it becomes
    NAME.log.1.
    """
    log = paths.logs / f"{component.name}.log"
    paths.logs.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    environment = {
        "HOME": os.environ.get("HOME", "/root"),
        "PATH": f"{paths.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        **{name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY")},
        **component.environment,
        MARK: str(paths.state),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(argument) for argument in component.argv], stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, cwd="/", env=environment, umask=0o022,
        )  # fmt: skip
    record = {"pid": process.pid, "started": start_time(process.pid)}
    _pid_file(paths, component.name).write_text(json.dumps(record))


def wait_ready(paths: Paths, component: Component) -> None:
    """Return when the component serves; raise with the end of its log when it ends or takes too long."""
    deadline = time.monotonic() + component.timeout
    while not component.ready():
        reap()
        if running_pid(paths, component.name) is None:
            raise ClusterError(
                f"{component.name} ended right after its start.\n{log_tail(paths, component.name)}"
            )
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{component.name} runs but does not answer after {component.timeout:.0f} s.\n"
                f"{log_tail(paths, component.name)}"
            )
        time.sleep(0.1)


def reap() -> None:
    """Collect ended children, so that they do not look alive."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def log_tail(paths: Paths, name: str, lines: int = 12) -> str:
    """The last lines of a component's log, and where the rest is."""
    log = paths.logs / f"{name}.log"
    try:
        last = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        last = []
    return "\n".join([f"Last lines of {log}:", *(f"  {line[:400]}" for line in last)])


def marked(paths: Paths) -> set[int]:
    """Every process that we or our processes started, containers excepted, whether or not a pid file knows
    it.
    """
    mark = f"{MARK}={paths.state}".encode()
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.add(int(environment.parent.name))
    return found - {os.getpid()}


def stop(paths: Paths, name: str, patience: float = 10.0) -> None:
    """Stop one component: ask, wait up to `patience` seconds, then kill."""
    pid = running_pid(paths, name)
    if pid is not None:
        end([pid], patience)
    _pid_file(paths, name).unlink(missing_ok=True)


def end(pids: Iterable[int], patience: float) -> None:
    """End processes: TERM, up to `patience` seconds, then KILL. Returns when none is left."""
    alive = {pid: started for pid in pids if (started := start_time(pid)) is not None}
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while alive and time.monotonic() < deadline:
            reap()
            alive = {pid: started for pid, started in alive.items() if start_time(pid) == started}
            time.sleep(0.02)
        if not alive:
            return
    raise ClusterError(f"processes {sorted(alive)} do not end, not even when killed")
