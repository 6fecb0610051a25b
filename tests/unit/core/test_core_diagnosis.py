"""Each signature by the words the cluster uses for it; what none matches stays unknown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent_operator.core.children.secrets import SecretUse
from agent_operator.core.diagnosis import (
    Diagnosis,
    Subject,
    diagnose,
    recent_restart,
    refused_children,
    refused_pods,
)
from agent_operator.core.diagnosis.signatures import times
from agent_operator.core.diagnosis.text import clean, size
from agent_operator.core.snapshot import ApplyFailure
from agent_runtime.contract import FailureCode, TerminationReport
from tests.property.world import START, set_container, set_ready, set_unschedulable, terminated

MODEL = "registry.example.com/models/geography:v1"
RUNTIME = "registry.example.com/runtime:1"
SUBJECT = Subject(RUNTIME, model_image=MODEL, gpu_resource="nvidia.com/gpu", gpu_count="3")


def pod(name: str = "geography-x-1", **limits: str) -> dict[str, Any]:
    containers = [{"name": "runtime", "image": RUNTIME, "resources": {"limits": limits}}]
    return {"metadata": {"name": name}, "spec": {"containers": containers}, "status": {}}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    made = pod()
    set_container(made, state={"waiting": {"reason": reason, "message": message}}, **more)
    return made


def unschedulable(message: str) -> dict[str, Any]:
    made = pod()
    set_unschedulable(made, message)
    return made


def ended(code: int = 1, message: str = "", reason: str = "Error", **more: Any) -> dict[str, Any]:
    made = pod(memory="2Gi")
    set_container(made, state=terminated(START, code, message, reason), **more)
    return made


def one(made: dict[str, Any], subject: Subject = SUBJECT) -> Diagnosis:
    (found,) = diagnose(subject, [made])
    assert found.remedy
    return found


@pytest.mark.parametrize(
    ("made", "reason", "evidence"),
    [
        (
            unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes"),
            "InsufficientGPU",
            "each pod asks for 3 nvidia.com/gpu; scheduler: 0/1 nodes are available: 1 Insufficient "
            "nvidia.com/gpu.",
        ),
        (
            unschedulable("0/4 nodes are available: 4 Insufficient cpu."),
            "Unschedulable",
            "4 Insufficient cpu",
        ),
        (
            unschedulable('persistentvolumeclaim "models" not found. not found'),
            "VolumeNotFound",
            'persistentvolumeclaim "models" not found',
        ),
        (
            unschedulable("0/1 nodes: pod has unbound immediate PersistentVolumeClaims."),
            "VolumeNotFound",
            "unbound",
        ),
        (
            waiting("CreateContainerConfigError", 'secret "hub" not found'),
            "SecretNotFound",
            'secret "hub" not found',
        ),
        (
            waiting("CreateContainerConfigError", "couldn't find key token in Secret default/hub"),
            "SecretNotFound",
            "token",
        ),
        (
            waiting("CreateContainerConfigError", 'configmap "more" not found'),
            "ConfigMapNotFound",
            "more",
        ),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            "ContainerStartFailed",
            "runAsNonRoot",
        ),
        (
            waiting("ErrImagePull", f'failed to pull and unpack image "{RUNTIME}": not found'),
            "ImagePullFailed",
            RUNTIME,
        ),
        (waiting("ImagePullBackOff", ""), "ImagePullFailed", RUNTIME),
        (waiting("InvalidImageName", 'Failed to apply default image tag "::"'), "ImagePullFailed", RUNTIME),
        (
            waiting("ImagePullBackOff", f'Back-off pulling image "{MODEL}": ErrImagePull: not found'),
            "ModelImagePullFailed",
            MODEL,
        ),
        (waiting("CreateContainerError", "no space left on device"), "ContainerStartFailed", "no space"),
        (waiting("RunContainerError", 'exec: "x": not found'), "ContainerStartFailed", "exec"),
        (ended(137, reason="OOMKilled"), "OutOfMemory", "memory limit is 2Gi"),
        (ended(139, "Segmentation fault"), "RuntimeCrashed", "exit code 139 (SIGSEGV), once"),
        (ended(1, "boom", restartCount=4), "CrashLooping", 'exit code 1, 5 times or more: "boom"'),
    ],
)
def test_a_known_fault_is_named_with_its_evidence(made: dict[str, Any], reason: str, evidence: str) -> None:
    found = one(made)
    assert found.reason == reason
    assert evidence in found.evidence


SECRETS = (
    SecretUse("hub", "token", "spec.model.tokenSecretRef"),
    SecretUse("search", "token", "tokenSecretRef of tool search in spec.agent.tools"),
    SecretUse("redis", "url", "spec.agent.sessions.redisUrlSecretRef"),
    SecretUse("keys", None, "spec.access.apiKeysSecretRef"),
)


def unmounted(words: str) -> Diagnosis:
    """What is made of the kubelet's words about the secrets of a pod."""
    made = pod()
    made["metadata"]["uid"] = "u1"
    note = f'MountVolume.SetUp failed for volume "runtime-secrets" : {words}'
    (found,) = diagnose(Subject(RUNTIME, secrets=SECRETS), [made], {"u1": note})
    assert words in found.evidence
    return found


@pytest.mark.parametrize(
    ("words", "reason", "remedy"),
    [
        (
            'secret "hub" not found',
            "SecretNotFound",
            "create Secret hub with key token in this namespace, or correct spec.model.tokenSecretRef",
        ),
        (
            'secret "keys" not found',
            "SecretNotFound",
            "create Secret keys in this namespace, or correct spec.access.apiKeysSecretRef",
        ),
        (
            '[secret "hub" not found, secret "redis" not found]',
            "SecretNotFound",
            "create Secret hub with key token and Secret redis with key url in this namespace, or correct "
            "spec.model.tokenSecretRef and spec.agent.sessions.redisUrlSecretRef",
        ),
        (
            "references non-existent secret key: url",
            "SecretNotFound",
            "create key url of Secret redis in this namespace, or correct "
            "spec.agent.sessions.redisUrlSecretRef",
        ),
        (
            "references non-existent secret key: token",
            "SecretNotFound",
            "create key token of Secret hub or search in this namespace, or correct "
            "spec.model.tokenSecretRef and tokenSecretRef of tool search in spec.agent.tools",
        ),
        (
            'secret "of-mine" not found',
            "SecretNotFound",
            "create Secret of-mine in this namespace, or correct the volume in spec.template",
        ),
        (
            'configmap "ca" not found',
            "ConfigMapNotFound",
            "create ConfigMap ca in this namespace, or correct the volume in spec.template",
        ),
        (
            "configmap references non-existent config key: ca.crt",
            "ConfigMapNotFound",
            "create key ca.crt of the ConfigMap in this namespace, or correct the volume in spec.template",
        ),
        (
            "rpc error: the disk is attached to another node",
            "MountFailed",
            "see kubectl describe pod; the volume is named by spec.model.uri or spec.template",
        ),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_told_with_what_is_missing(
    words: str, reason: str, remedy: str
) -> None:
    found = unmounted(words)
    assert (found.reason, found.remedy) == (reason, remedy)


@pytest.mark.parametrize("code", list(FailureCode))
def test_what_the_runtime_reports_is_told_as_it_says(code: FailureCode) -> None:
    report = TerminationReport(code=code, message="no config.json in /models/model", remedy="correct it")
    found = one(ended(1, report.encode()))
    assert (found.reason, found.remedy) == (code.value, "correct it")
    assert "/models/model" in found.evidence


def test_a_diagnosis_stays_while_the_container_is_tried_again() -> None:
    report = TerminationReport(code=FailureCode.MODEL_NOT_FOUND, message="m", remedy="r").encode()
    last = terminated(START, 1, report)
    made = [ended(1, report, restartCount=2), pod(), pod()]
    set_container(made[1], state={"running": {}}, lastState=last, restartCount=3)
    back_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    set_container(made[2], state=back_off, lastState=last, restartCount=2)
    assert len({one(m) for m in made}) == 1


def test_a_crash_loop_is_told_the_same_in_each_of_its_states() -> None:
    last = terminated(START, 1, "boom")
    made = [ended(1, "boom", restartCount=1), pod(memory="2Gi"), pod(memory="2Gi")]
    set_container(made[1], state={"running": {}}, lastState=last, restartCount=2)
    set_container(made[2], state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=last, restartCount=1)
    assert len({one(m) for m in made}) == 1


def test_where_one_image_reference_is_part_of_the_other_the_longer_was_meant() -> None:
    subject = Subject("r.example.com/x:1", model_image="r.example.com/x:12")
    message = 'Back-off pulling image "r.example.com/x:12"'
    assert one(waiting("ImagePullBackOff", message), subject).reason == "ModelImagePullFailed"


def test_an_evicted_pod_is_told() -> None:
    made = pod()
    made["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on resource: ephemeral-storage"}
    assert one(made).reason == "Evicted"


@pytest.mark.parametrize(
    "made",
    [
        pod(),
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
        waiting("SomethingNew", "never seen"),
        ended(0, reason="Completed"),
    ],
)
def test_what_no_signature_matches_stays_unknown(made: dict[str, Any]) -> None:
    assert diagnose(SUBJECT, [made]) == ()


def test_an_exit_code_of_137_alone_is_not_called_out_of_memory() -> None:
    found = one(ended(137))
    assert found.reason == "RuntimeCrashed"
    assert "SIGKILL" in found.evidence


def test_a_ready_pod_has_no_fault() -> None:
    made = ended(1, restartCount=3)
    set_ready(made)
    assert diagnose(SUBJECT, [made]) == ()


def test_equal_reasons_are_told_once_and_in_the_order_of_the_table() -> None:
    pods = [
        ended(1, restartCount=3),
        unschedulable("1 Insufficient nvidia.com/gpu"),
        ended(1, restartCount=9),
    ]
    assert [d.reason for d in diagnose(SUBJECT, pods)] == ["InsufficientGPU", "CrashLooping"]


def test_the_remedy_says_who_keeps_serving() -> None:
    subject = Subject(RUNTIME, gpu_resource="nvidia.com/gpu", gpu_count="1", served_by="bcdfghjk")
    found = one(unschedulable("1 Insufficient nvidia.com/gpu"), subject)
    assert "revision bcdfghjk keeps serving" in found.remedy


def test_a_survived_restart_is_told_for_ten_minutes() -> None:
    made = pod()
    set_container(made, lastState=terminated(START, 137), restartCount=1)
    set_ready(made)
    told = recent_restart([made], START)
    assert told is not None
    assert told[0].reason == "RuntimeRestarted"
    assert "2025-12-31T23:59:59Z with exit code 137 (SIGKILL)" in told[0].evidence
    assert told[1] == timedelta(minutes=10, seconds=-1)
    assert recent_restart([made], START + timedelta(minutes=10)) is None


@pytest.mark.parametrize(
    ("code", "message", "reason", "needs_user"),
    [
        ("NameTaken", "Service 'a' exists and is not ours", "ChildNameTaken", True),
        ("Invalid", "spec.template.spec.nodeSelector: Invalid value", "ChildInvalid", True),
        ("Forbidden", 'services "a" is forbidden: exceeded quota: few', "QuotaExceeded", False),
        ("Forbidden", 'admission webhook "x" denied the request: no', "AdmissionDenied", False),
        ("Other", "etcd leader changed", "ReconcileError", False),
    ],
)
def test_a_refused_child_is_told(code: Any, message: str, reason: str, needs_user: bool) -> None:
    (found,) = refused_children((ApplyFailure("Service", "a", code, message),))
    assert (found.reason, found.needs_user) == (reason, needs_user)
    assert "Service a" in found.evidence
    assert message in found.evidence


def test_a_conflict_solves_itself() -> None:
    assert refused_children((ApplyFailure("Service", "a", "Conflict", "changed"),)) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: few, requested: pods=1', "QuotaExceeded"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": x', "AdmissionDenied"),
        ('admission webhook "x" denied the request: no', "AdmissionDenied"),
        ('Pod "x" is invalid: spec.containers[1].image: Required value', "ChildInvalid"),
        ("something else", "ReconcileError"),
    ],
)
def test_refused_pods_are_told(message: str, reason: str) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    (found,) = refused_pods({"status": {"conditions": [failure]}})
    assert found.reason == reason
    assert message in found.evidence


def test_foreign_text_becomes_one_printable_line() -> None:
    assert clean("a\x1b[31m\n\tb\u202ec\x00 d") == "a [31m b c d"


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "😀" * 5000, '"\\' * 5000])
def test_long_text_is_cut_to_its_bytes_in_json(text: str) -> None:
    cut = clean(text, 400)
    assert cut.endswith("…")
    assert 350 < size(cut) <= 400


@pytest.mark.parametrize(
    ("number", "said"), [(1, "once"), (2, "2 times"), (4, "3 times"), (7, "5 times or more")]
)
def test_a_count_is_told_in_steps(number: int, said: str) -> None:
    assert times(number) == said
