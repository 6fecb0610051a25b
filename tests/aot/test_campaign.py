"""Over 500 changes of a specification, made and taken back on the real API server under our operator."""

from __future__ import annotations

from tests.aot.campaign import Outcome
from tests.support.kubectl import Kubectl, KubectlError


def _told(findings: list[str]) -> str:
    return f"{len(findings)} findings:\n" + "\n".join(findings[:40])


def test_the_api_server_accepts_and_refuses_as_the_schema_says(outcome: Outcome) -> None:
    found = outcome.of("verdict")
    assert not found, _told(found)


def test_every_change_reaches_the_children_it_should_and_no_others(outcome: Outcome) -> None:
    found = outcome.of("effect")
    assert not found, _told(found)


def test_taking_a_change_back_restores_every_child_and_the_status(outcome: Outcome) -> None:
    found = outcome.of("reversal")
    assert not found, _told(found)


def test_the_operator_stays_alive_and_healthy(outcome: Outcome) -> None:
    assert not outcome.unhealthy, outcome.unhealthy


def test_no_reconcile_raises(outcome: Outcome) -> None:
    assert outcome.reconcile_errors == 0


def test_the_operator_logs_no_error(outcome: Outcome) -> None:
    assert not outcome.alarming, _told(outcome.alarming)


def test_once_nothing_changes_the_operator_writes_nothing(outcome: Outcome) -> None:
    assert not outcome.idle_writes, dict(outcome.idle_writes)


def test_deleted_agents_leave_no_children(outcome: Outcome) -> None:
    assert not outcome.left, outcome.left


def test_at_least_five_hundred_changes_were_made(outcome: Outcome) -> None:
    assert sum(outcome.done.values()) >= 500
    for kind in ("changed children", "without effect", "FeatureNotSupported", "InvalidSpec", "ChildInvalid"):
        assert outcome.done[kind] > 0, f"no mutation was {kind}: {outcome.done}"


def test_a_name_that_no_service_can_have_is_refused(kubectl: Kubectl) -> None:
    for name in ("a" * 51, "1st", "a.b"):
        manifest = f"""
apiVersion: agentoperator.dev/v1alpha1
kind: AgentDeployment
metadata: {{name: {name}}}
spec: {{suspend: true, model: {{uri: "hf://example/geography"}}}}
"""
        try:
            kubectl.run("create", "-f", "-", stdin=manifest)
        except KubectlError as error:
            assert "metadata.name must be at most 50 characters" in str(error)
        else:
            raise AssertionError(f"{name} is accepted")
