"""Command line: `serve` and `ask`. Layer: entry point.

The one idea: whatever goes wrong before or while serving becomes one TerminationReport: in the log, in the
termination message, and in the exit code 1. Wrong usage is exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agent_runtime import termination
from agent_runtime.contract import CONFIG_PATH, FailureCode, RuntimeConfig, TerminationReport
from agent_runtime.observability import logging as runtime_logging

if TYPE_CHECKING:
    from agent_runtime.app import EngineFactory


class ConfigError(Exception):
    """The configuration cannot be used; `report` says where and how to mend it."""

    def __init__(self, report: TerminationReport) -> None:
        super().__init__(report.message)
        self.report = report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="agent-runtime", description="Serve one model of one agent.")
    commands = root.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the OpenAI API until SIGTERM")
    serve.add_argument("model", nargs="?", help="model folder or hub id; without it --config is read")
    serve.add_argument("--config", type=Path, help=f"configuration file (default {CONFIG_PATH})")
    serve.add_argument("--host", help="address to listen on (0.0.0.0 with --config, else 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: the configuration's, 8000)")
    ask = commands.add_parser("ask", help="load a model, print its answer to one question, and exit")
    ask.add_argument("model", help="model folder or hub id")
    ask.add_argument("question")
    ask.add_argument("--max-new-tokens", type=int, default=128)
    return root


def read_config(path: Path) -> RuntimeConfig:
    """The mounted configuration. Raises ConfigError naming file and field."""
    try:
        return RuntimeConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _config_error(f"Cannot read {path}: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _config_error(f"{path}: {field}: {first['msg']}.") from error


def _config_error(message: str) -> ConfigError:
    return ConfigError(
        TerminationReport(
            code=FailureCode.CONFIG_INVALID,
            message=message,
            remedy="The operator writes this file: run operator and runtime images of the same version. "
            "By hand: `agent-runtime serve MODEL` needs no file.",
        )
    )


def local_config(model: str) -> RuntimeConfig:
    """Configuration for a model named on the command line."""
    from agent_runtime.agent.agent import model_config

    named = model_config(model)
    return RuntimeConfig(agent=named.served_name, namespace="local", revision="local", model=named)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            TerminationReport(
                code=FailureCode.CONFIG_INVALID,
                message=f"Cannot listen on {host}:{port}: {error.strerror or error}.",
                remedy="Choose another --port or stop the process that has it.",
            )
        ) from error


def serve(options: argparse.Namespace, factory: EngineFactory | None = None) -> int:
    """Serve until SIGTERM (exit 0) or until it is impossible (report written, exit 1).

    `factory` makes another engine than the configuration's.
    """
    runtime_logging.configure("info")
    try:
        local = options.model is not None and options.config is None
        if options.model is not None and options.config is not None:
            raise ConfigError(_config_error("Both a model and --config were given; give one.").report)
        config = local_config(options.model) if local else read_config(options.config or Path(CONFIG_PATH))
        runtime_logging.configure(config.logging.level)
        host = options.host or ("127.0.0.1" if local else "0.0.0.0")  # noqa: S104 - a pod's own address
        port = config.port if options.port is None else options.port
        listener = _listen(host, port)
    except ConfigError as error:
        termination.write(error.report)
        return 1
    from agent_runtime.app import Runtime, load_engine

    logging.getLogger("agent_runtime").info(
        "listening", extra={"fields": {"host": host, "port": listener.getsockname()[1],
                                       "agent": config.agent, "revision": config.revision}}
    )  # fmt: skip
    report = Runtime(config, factory or load_engine).run(listener)
    if report is not None:
        termination.write(report)
        return 1
    return 0


def ask(options: argparse.Namespace) -> int:
    """Print one answer."""
    runtime_logging.configure("error", sys.stderr)
    from agent_runtime import Agent
    from agent_runtime.llm.failures import LoadError

    try:
        agent = Agent.from_pretrained(options.model)
    except LoadError as failure:
        print(f"{failure.report.code}: {failure.report.message}\n{failure.report.remedy}", file=sys.stderr)
        return 1
    print(agent.generate_text(options.question, max_new_tokens=options.max_new_tokens))
    return 0


def main(arguments: Sequence[str] | None = None, factory: EngineFactory | None = None) -> int:
    """Run a command; returns its exit code."""
    options = parser().parse_args(arguments)
    return serve(options, factory) if options.command == "serve" else ask(options)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A hung generation or a half-done load must not keep the process: its threads are left behind.
    os._exit(code)
