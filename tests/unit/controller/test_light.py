"""What the operator process loads: memory is decided by imports."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "transformers", "numpy"}


def test_the_operator_imports_neither_models_nor_typed_kubernetes_classes() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import agent_operator.__main__, sys; print('\\n'.join(sys.modules))"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)},
    ).stdout.splitlines()  # fmt: skip
    assert "kopf" in loaded
    assert HEAVY.isdisjoint(loaded)
    clients = [name for name in loaded if name.split(".")[0] in ("kubernetes", "requests", "oauthlib")]
    assert clients == [], "the official client comes with a kubeconfig only: it costs 27 MiB"


def test_a_kubeconfig_brings_the_official_client_and_none_of_its_typed_classes() -> None:
    code = (
        "import agent_operator.__main__, agent_operator.shell.kubeconfig, sys; print('\\n'.join(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)},
    ).stdout.splitlines()  # fmt: skip
    assert "kubernetes.aio.config" in loaded
    typed = [name for name in loaded if name.startswith("kubernetes.") and ".models.v" in name]
    assert len(typed) < 10, "a few come with the loader; all of them would cost 60 MiB"
