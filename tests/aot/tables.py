"""What the schema cannot tell about a field. Layer: tests.

The one idea: every exception to the rules of `values` and `effects` stands here once, with its reason; an
entry for a field that no longer exists fails a test.
"""

from __future__ import annotations

from typing import Any

GOOD: dict[str, list[Any]] = {
    # Every pod that is wanted costs the API server: the upper bound is tried while suspended only.
    "replicas": [0, 2, 5],
    # Cross-field rules bound these more tightly than their own schema, beside the rest of `local`.
    "model.uri": ["hf://example/geography-2", "hf://gpt2"],
    "model.candidates[].uri": ["hf://example/geography-2", "oci://r.example/models/a:v1"],
    "agent.decision.policy": [],
    "agent.decision.temperature": ["0.000001", "999999.999999", "1"],
    "agent.limits.maxToolCalls": [1, 10_000, 16],
    "agent.limits.timeoutSeconds": [20, 86_400, 120],
    "agent.sessions.store": [],
    "resources.gpu.deviceClassName": [],
    "resources.gpu.sharing": ["TimeSlicing"],
    "autoscaling.minReplicas": [1, 3, 0],
    "autoscaling.maxReplicas": [1, 3, 1000],
    "autoscaling.provider": [],
    # What the patterns admit and the operator does not know is among the cross-field mutations.
    "autoscaling.schedules[].timeZone": ["Europe/Zurich", "Etc/GMT+5"],
    "autoscaling.schedules[].minReplicas": [0, 2],
    "resources.requests.cpu": ["1500m", 1, "0", "+.5", "1e-1"],
    "resources.requests.memory": ["4Gi", 1, "1.5G", "0"],
    "resources.requests.ephemeral-storage": ["8589934592", "1k", "8Gi"],
    "resources.limits.cpu": ["100m", 64, "0.1", "1e3"],
    "resources.limits.memory": ["1073741824", "1Ei", "1Gi"],
    "resources.limits.ephemeral-storage": ["1Gi", "2.5Gi", "1E"],
    "template.metadata.labels": [{}, {"team": "maps"}, {f"k{i}": f"v{i}" for i in range(50)}],
    "template.spec.containers[].name": ["sidecar", "s" * 63],
    "template.spec.containers[].image": ["localhost/helper:2", "h" * 255],
    "template.spec.containers[].command": [[], ["sh"], ["true", "$(X)", "é"]],
    "template.spec.containers[].args": [[], ["61"], [f"a{i}" for i in range(64)]],
    "template.spec.containers[].ports": [[], [{"containerPort": 9001}]],
    "template.spec.containers[].resources": [{}, {"requests": {"cpu": "5m"}, "limits": {"memory": "1Gi"}}],
    "template.spec.containers[].startupProbe": [{"tcpSocket": {"port": 9000}, "periodSeconds": 3}],
    "template.spec.containers[].readinessProbe": [{"exec": {"command": ["false"]}}],
    "template.spec.containers[].livenessProbe": [{"httpGet": {"path": "/x", "port": 9000}}],
    "template.spec.containers[].terminationMessagePath": ["/dev/other"],
    "template.spec.containers[].terminationMessagePolicy": ["File"],
    "template.spec.volumes[].name": ["other", "v" * 63],
    "template.spec.serviceAccountName": ["robot", "team.robot"],
    "template.spec.restartPolicy": [],
}
"""Good values of fields whose schema alone does not lead to them."""

GOOD_ON: dict[tuple[str, str], list[Any]] = {
    ("hpa", "autoscaling.minReplicas"): [1, 3],
    ("hpa", "autoscaling.maxReplicas"): [2, 1000],
    ("hpa", "autoscaling.targetConcurrency"): [],
    ("hpa", "replicas"): [2, 5],
}
"""The same for one base, where others have others."""

ALONE: dict[str, list[Any]] = {
    "model.uri": [
        "oci://registry.example.com/models/geography:v1",
        "oci://localhost/none@sha256:" + "a" * 64,
        "pvc://models",
        "pvc://models/geography/v1",
        "s3://models.example/geography",
        "hf://" + "o" * 253 + "/" + "m" * 253,
    ],
    "agent.decision.policy": ["Greedy", "Softmax", "ExpectedUtility", "CVaR"],
    "agent.limits.timeoutSeconds": [1],
    "agent.limits.maxToolCalls": [0],
    "agent.sessions.store": ["Memory"],
    "resources.gpu.count": [0, 1],
    "resources.gpu.deviceClassName": ["gpu.example.com"],
    "replicas": [0, 1000],
    "autoscaling.minReplicas": [1000],
    "autoscaling.provider": ["Native", "HPA", "KEDA"],
    "autoscaling.schedules[].minReplicas": [1000],
}
"""Further values for the field alone in the bare manifest."""

ONLY_ON: dict[str, tuple[str, ...]] = {"suspend": ("running", "local")}
"""Bases on which a field is changed, where not on all: these have a node selector that no node has."""

ONLY_ABOUT: dict[str, tuple[str, ...]] = {
    "running": ("replicas", "suspend"),
    "native": ("replicas", "suspend", "autoscaling"),
    "hpa": ("replicas", "suspend", "autoscaling"),
}
"""Bases of which only these fields are changed, one by one: pods of another template would find a node."""

REFUSED_ALWAYS = {"template.spec.restartPolicy": "a Deployment's pods are always restarted"}
"""Fields that exist to be refused with a sentence."""

UNSET_REFUSED: dict[str, str] = {
    "model.uri": "exactly one of model.uri",
    "model.remote": "exactly one of model.uri",
    "agent.tools[].http": "exactly one of mcpServer and http",
    "agent.tools[].mcpServer": "exactly one of mcpServer and http",
    "agent.decision.policy": "remove it or change policy",
    "agent.prices": "maxCost bounds nothing",
    "agent.sessions.store": "store cannot be changed",
    "agent.sessions.redisUrlSecretRef": "store Redis needs",
    "autoscaling.provider": "only provider HPA scales by CPU",
}
"""Fields of the bases that a cross-field rule wants there, and what it says without them."""

_ANALYSES = tuple(f"strategy.{when}PromotionAnalysis" for when in ("pre", "post"))
NOT_EMPTY = {
    "model": "some source is required",
    "model.selection": "there must be candidates to select from",
    **dict.fromkeys(_ANALYSES, "a test of nothing"),
    **{f"{path}.functional": "neither cases nor a ConfigMap" for path in _ANALYSES},
    **{f"{path}.functional.cases": "neither cases nor a ConfigMap" for path in _ANALYSES},
}
"""Sections that a rule refuses when they are empty."""

INDEPENDENT = (
    "agent.systemPrompt", "agent.prices", "agent.limits.maxSteps", "agent.limits.maxTokens",
    "agent.sessions.ttlSeconds", "agent.sessions.maxSessions", "agent.sessions.redisUrlSecretRef.key",
    "runtime", "health", "strategy.progressDeadlineSeconds", "access.apiKeysSecretRef.name", "access.hold",
    "model.dtype", "model.quantization", "model.revision", "model.tokenSecretRef.key",
    "template.metadata", "template.spec.serviceAccountName", "resources.gpu.resourceName",
)  # fmt: skip
"""Fields that may be changed together: no rule ties one to another."""

ROLLS_FOR_NOTHING: dict[str, str] = {
    "template.metadata": "an empty section is part of the revision as it is written",
    "template.metadata.labels": "an empty map is part of the revision as it is written",
    "template.metadata.annotations": "an empty map is part of the revision as it is written",
    "template.spec": "an empty section is part of the revision as it is written",
    "template.spec.containers": "an empty list is part of the revision as it is written",
    "template.spec.volumes": "an empty list is part of the revision as it is written",
    "resources.gpu.count": "no devices are part of the revision where they are written down",
    "resources.requests": "an empty section is part of the revision as it is written",
    "resources.limits": "an empty section is part of the revision as it is written",
}
"""Fields that, empty in the bare manifest, make a new revision whose pods are those of the old one."""

CHILD_REFUSED: dict[str, str] = {
    "template.spec.containers[].image": "a container other than runtime needs an image of its own",
}
"""Fields of the bases without which the Deployment is refused."""

NO_EFFECT: dict[str, str] = {
    "tuning": "asks for nothing while its mode is Disabled, and any other mode is refused",
    "remediation": "asks for nothing while its mode is Disabled, and any other mode is refused",
    "strategy": "what is not refused is the default; progressDeadlineSeconds is the exception",
    "access.allowedNamespaces": "an empty list asks for nothing, any other is refused",
    "replicas": "the number that it and its bounds come to is predicted as a whole",
    "suspend": "the number that it and its bounds come to is predicted as a whole",
    "autoscaling": "without load targets change no number; number and scaler are predicted as a whole",
    "access.gateway": "what leads to the gateway, and what that is told, is predicted as a whole",
    "access.hold": "what the gateway is told is predicted as a whole",
}
"""Fields that may change without a child changing, or whose effect others decide."""
