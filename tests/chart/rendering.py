"""Renders the chart with the real helm. Layer: test support, used by this folder only.

The one idea: a test sees what an API server would see (parsed objects), never template text.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/agent-operator"
Object = dict[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The CRD has thousands of lines; libyaml reads them ten times faster where PyYAML has it."""


def component(item: Object) -> str:
    """Which part of the chart an object belongs to."""
    return str((item["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))


class Rendered:
    """The objects of one `helm template` run, found by kind and name."""

    def __init__(self, text: str) -> None:
        self.objects: list[Object] = [doc for doc in yaml.load_all(text, LOADER) if doc]

    def all(self, kind: str) -> list[Object]:
        """Every object of the kind, in the order helm would install them."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        """The only object of the kind (and name); AssertionError when there is none or more.

        Without a name the gateway's objects do not count: they are asked for by name.
        """
        found = [item for item in self.all(kind) if name in (None, item["metadata"]["name"])]
        if name is None:
            found = [item for item in found if component(item) != "gateway"]
        assert len(found) == 1, f"{kind} {name or ''}: found {[i['metadata']['name'] for i in found]}"
        return found[0]

    def environment(self) -> dict[str, str]:
        """The operator container's environment; values from elsewhere appear as JSON."""
        container = self.one("Deployment")["spec"]["template"]["spec"]["containers"][0]
        return {
            item["name"]: item.get("value", json.dumps(item.get("valueFrom"))) for item in container["env"]
        }


def helm(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm; values are given as a values file on standard input."""
    binary = shutil.which("helm")
    if binary is None:
        pytest.fail("helm is not on the PATH: run these tests by `make test`, which builds it and adds it")
    given = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [binary, *arguments, *given],
        input=json.dumps(values) if values is not None else None,
        capture_output=True,
        text=True,
        check=False,
    )


def template(values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """`helm template` as a user would install it, without asserting that it worked."""
    return helm(
        "template", "agent-operator", str(CHART), "--namespace", "agent-operator-system", values=values or {}
    )
