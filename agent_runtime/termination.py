"""Writes why the process ended to where the kubelet reads it. Layer: shell of the runtime.

The one idea: the message file exists in a pod because the kubelet mounts it; anywhere else it must not be
created, least of all under /dev. TERMINATION_LOG_PATH in the environment names another file, for tests and
for pods with their own terminationMessagePath.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from agent_runtime.contract import TERMINATION_LOG_PATH, TerminationReport

log = logging.getLogger("agent_runtime")


def write(report: TerminationReport) -> None:
    """Log the report and leave it for the kubelet; a file that cannot be written is only logged."""
    log.critical(
        "%s %s", report.message, report.remedy,
        extra={"fields": {"code": report.code.value, "remedy": report.remedy}},
    )  # fmt: skip
    override = os.environ.get("TERMINATION_LOG_PATH")
    path = Path(override or TERMINATION_LOG_PATH)
    if override is None and not path.exists():
        return
    try:
        path.write_text(report.encode(), encoding="utf-8")
    except OSError as error:
        log.warning("cannot write %s: %s", path, error)
