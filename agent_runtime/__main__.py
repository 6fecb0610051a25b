"""Command line: `serve`, `chat`, `ask`, `decide` and `keys`. Layer: entry point.

The one idea: whatever goes wrong before or while serving becomes one TerminationReport: in the log, in the
termination message, and in the exit code 1. Wrong usage is exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agent_runtime import secrets, termination
from agent_runtime.contract import (
    CONFIG_PATH,
    AccessConfig,
    AdminConfig,
    FailureCode,
    RuntimeConfig,
    TerminationReport,
)
from agent_runtime.observability import logging as runtime_logging
from agent_runtime.observability.log_output import LogPathError

if TYPE_CHECKING:
    from agent_runtime.app import BackendFactory


class ConfigError(Exception):
    """The configuration cannot be used; `report` says where and how to mend it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.report = TerminationReport(code=FailureCode.CONFIG_INVALID, message=message, remedy=remedy)


_BY_OPERATOR = (
    "The operator writes this file: run operator and runtime images of the same version. "
    "By hand: `agent-runtime serve MODEL` needs no file."
)
UNTAKEN_MILLISECONDS = 60_000
POLICIES = ("greedy", "softmax", "expected_utility", "mean_variance", "cvar")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="agent-runtime", description="Serve one model of one agent.")
    commands = root.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the OpenAI API until SIGTERM")
    serve.add_argument("model", nargs="?", help="model folder or hub id; without it --config is read")
    serve.add_argument("--config", type=Path, help=f"configuration file (default {CONFIG_PATH})")
    serve.add_argument("--host", help="address to listen on (0.0.0.0 with --config, else 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: the configuration's, 8000)")
    serve.add_argument("--admin-port", type=int, help="port of metrics, stats, parameters (default 8001)")
    serve.add_argument("--api-keys", type=Path, help="folder or file of API keys; else anybody may call")
    chat = commands.add_parser("chat", help="talk to a model in the terminal")
    ask = commands.add_parser("ask", help="load a model, print its answer to one question, and exit")
    decide = commands.add_parser("decide", help="choose among candidates by their exact probabilities")
    for command in (chat, ask, decide):
        command.add_argument("model", help="model folder or hub id")
    for command in (ask, decide):
        command.add_argument("question")
    for command in (chat, ask):
        command.add_argument("--max-new-tokens", type=int, default=128)
    decide.add_argument("candidates", nargs="+", help="two or more possible answers")
    decide.add_argument(
        "--policy",
        default="greedy",
        choices=["greedy", "softmax", "expected_utility", "mean_variance", "cvar"],
    )
    decide.add_argument("--temperature", type=float, default=1.0, help="of the softmax policy")
    decide.add_argument("--risk-aversion", type=float, default=0.0, help="of mean_variance and cvar")
    decide.add_argument("--rewards", type=float, nargs="+", help="what each candidate is worth when right")
    decide.add_argument("--seed", type=int)
    keys = commands.add_parser("keys", help="make an API key").add_subparsers(dest="keys", required=True)
    new = keys.add_parser("new", help="print a new key, and the entry that the server is given")
    new.add_argument("--name", default="key", help="name of the entry in the Secret or folder")
    return root


def read_config(path: Path) -> RuntimeConfig:
    """The mounted configuration. Raises ConfigError naming file and field."""
    try:
        return RuntimeConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {error}.", _BY_OPERATOR) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {field}: {first['msg']}.", _BY_OPERATOR) from error


def local_config(model: str) -> RuntimeConfig:
    """Configuration for a model named on the command line."""
    from agent_runtime.agent.agent import model_config

    named = model_config(model)
    name = re.sub(r"[^a-z0-9]+", "-", named.served_name.lower()).strip("-") or "agent"
    return RuntimeConfig(name=name, namespace="local", revision="local", model=named)


def configured(options: argparse.Namespace) -> RuntimeConfig:
    """What `serve` is to do. Raises ConfigError."""
    if options.model is not None and options.config is not None:
        raise ConfigError("Both a model and --config were given.", "Give one of the two.")
    local = options.model is not None
    config = local_config(options.model) if local else read_config(options.config or Path(CONFIG_PATH))
    changes: dict[str, object] = {}
    if options.port is not None:
        changes["port"] = options.port
    if options.admin_port is not None:
        changes["admin"] = AdminConfig(port=options.admin_port, token_sha256=config.admin.token_sha256)
    if options.api_keys is not None:
        changes["access"] = AccessConfig(api_keys_path=str(options.api_keys))
    return config.model_copy(update=changes)


def _listen(host: str, port: int, option: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio sets it on sockets it makes itself; without it every small answer waits 40 ms for an
        # acknowledgement. Accepted sockets inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A client that takes nothing of its answer for so long is gone; nobody else would notice.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MILLISECONDS)
        return listener
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            f"Choose another {option} or stop the process that has it.",
        ) from error


def serve(options: argparse.Namespace, factory: BackendFactory | None = None) -> int:
    """Serve until SIGTERM (exit 0) or until it is impossible (report written, exit 1).

    `factory` makes another backend than the configuration's.
    """
    secrets.take_secrets()
    runtime_logging.configure("info")
    try:
        config = configured(options)
        _configure_logging(config)
        host = options.host or ("127.0.0.1" if options.model is not None else "0.0.0.0")  # noqa: S104 - a pod's own address
        listener = _listen(host, config.port, "--port")
        admin_listener = _listen(host, config.admin.port, "--admin-port")
    except ConfigError as error:
        termination.write(error.report)
        return 1
    from agent_runtime.app import Runtime
    from agent_runtime.llm.open import open_backend
    from agent_runtime.observability import tracing
    from agent_runtime.observability.process import process_started

    tracing.configure(
        {
            "service.name": config.name,
            "service.namespace": config.namespace,
            "service.version": config.revision,
        }
    )
    logging.getLogger("agent_runtime").info(
        "listening", extra={"fields": {"host": host, "port": listener.getsockname()[1],
                                       "admin_port": admin_listener.getsockname()[1],
                                       "agent": config.name, "revision": config.revision}}
    )  # fmt: skip
    runtime = Runtime(config, factory or open_backend, process_started())
    report = runtime.run(listener, admin_listener)
    if report is not None:
        termination.write(report)
    tracing.shutdown()
    return 0 if report is None else 1


def _configure_logging(config: RuntimeConfig) -> None:
    wanted = config.logging
    try:
        runtime_logging.configure(
            wanted.level, path=wanted.path, max_bytes=wanted.max_bytes, backups=wanted.backups, queued=True
        )
    except LogPathError as error:
        raise ConfigError(error.message, error.remedy) from error


def new_key(options: argparse.Namespace) -> int:
    """Prints a key once, and what the server is told of it."""
    from agent_runtime.api_keys import new_key as make

    made = make()
    print(f"key:    {made.key}")
    print("        (give it to the caller; it cannot be shown again)")
    print(f"entry:  {made.entry}")
    print(f"        kubectl create secret generic agent-keys --from-literal={options.name}='{made.entry}'")
    return 0


def main(arguments: Sequence[str] | None = None, factory: BackendFactory | None = None) -> int:
    """Run a command; returns its exit code."""
    options = parser().parse_args(arguments)
    if options.command == "serve":
        return serve(options, factory)
    if options.command == "keys":
        return new_key(options)
    from agent_runtime.terminal import talk

    return talk(options)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A hung generation or a half-done load must not keep the process: its threads are left behind.
    os._exit(code)
