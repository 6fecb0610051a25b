"""KEDA's own CRD of ScaledObjects, fetched and verified. Layer: tests; imports local_cluster's Go toolchain.

The one idea: the definition is not copied into this repository; it is read from KEDA's Go module, which the
Go command fetches through the configured module proxy, keeps in its cache and hashes. The hash is pinned.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from local_cluster.components import find_go
from local_cluster.paths import Paths

MODULE = "github.com/kedacore/keda/v2@v2.21.0"
SUM = "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="
"""The module's hash, as a go.sum would say it."""
FILE = "config/crd/bases/keda.sh_scaledobjects.yaml"
NAME = "scaledobjects.keda.sh"


def scaled_object_crd() -> dict[str, Any]:
    """The CustomResourceDefinition; the first call on a machine downloads 3 MB."""
    cache = Paths.from_environment().cache
    cache.mkdir(parents=True, exist_ok=True)
    go, _ = find_go(cache)
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    with tempfile.TemporaryDirectory() as nowhere:  # outside of any module of ours
        done = subprocess.run(
            [go, "mod", "download", "-json", MODULE], cwd=nowhere, env=environment, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    fetched = json.loads(done.stdout)
    assert fetched["Sum"] == SUM, f"{MODULE} is not the one that was read: {fetched['Sum']}"
    crd: dict[str, Any] = yaml.safe_load((Path(fetched["Dir"]) / FILE).read_text())
    assert crd["metadata"]["name"] == NAME
    return crd


def closed_schema(crd: dict[str, Any]) -> dict[str, Any]:
    """The schema of the stored version as JSON schema, in which a field that the API server would drop is
    an error."""
    (version,) = [v for v in crd["spec"]["versions"] if v["storage"]]
    closed: dict[str, Any] = _closed(version["schema"]["openAPIV3Schema"])
    closed["properties"]["metadata"] = {"type": "object"}
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _closed(value) for key, value in schema.items()}
    is_object = schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
    return {"additionalProperties": False, **inner} if is_object else inner
