"""A namespace of the campaign's own, with the committed CRD on the server and the operator beside it."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.aot.campaign import Outcome, conduct
from tests.aot.mutations import generate
from tests.aot.process import operator
from tests.support.alone import no_installed_operator
from tests.support.crd import ensure_committed_crd
from tests.support.kubectl import Kubectl, kubeconfig


@pytest.fixture(scope="session")
def committed_crd() -> None:
    """The committed CRD, installed where there is none; another one ends the tests.

    It stays: whoever else uses the cluster may have come to rely on it.
    """
    ensure_committed_crd(Kubectl("default"))


@pytest.fixture(scope="session")
def kubectl(committed_crd: None) -> Iterator[Kubectl]:
    """kubectl bound to a namespace that lives as long as the tests."""
    bound = Kubectl(f"aot-{uuid.uuid4().hex[:6]}")
    with no_installed_operator():
        Kubectl("default").run("create", "namespace", bound.namespace)
        yield bound
        bound.run("delete", "agentdeployments", "--all", "--timeout=60s")
        Kubectl("default").run("delete", "namespace", bound.namespace, "--wait=false")


@pytest.fixture(scope="session")
def outcome(
    kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory, monkeypatch_session: pytest.MonkeyPatch
) -> Outcome:
    """The campaign, run once."""
    monkeypatch_session.setenv("KUBECONFIG", kubeconfig())
    folder = tmp_path_factory.mktemp("aot")
    with operator(kubectl, folder) as process:
        found = asyncio.run(conduct(process, generate()))
    report(found)
    return found


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    """monkeypatch for as long as the session lasts."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def report(outcome: Outcome) -> None:
    """What was done, for whoever watches."""
    total = sum(outcome.done.values())
    print(
        f"\n  {total} mutations in {outcome.seconds:.0f} s; slowest effect {outcome.slowest:.1f} s",
        file=sys.stderr,
    )
    for kind, count in outcome.done.most_common():
        print(f"  {count:5} {kind}", file=sys.stderr)
