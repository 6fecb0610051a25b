"""What no single field shows: the rules between fields, and what only operator or cluster can refuse.

Layer: tests. The one idea: every rule of the CRD is broken at least once (a test compares the messages), and
every way in which an accepted manifest can still fail is there with the condition that must tell it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tests.aot.bases import LOCAL, NATIVE, NEVER_OPEN
from tests.aot.effects import CONFIG, REPLICAS, REVISION, Effect
from tests.aot.schema import Spec


@dataclass(frozen=True)
class Broken:
    """A manifest that one rule refuses."""

    why: str
    base: str
    field: str
    says: str
    """Beginning of the rule's message."""
    patch: Spec


@dataclass(frozen=True)
class Extra:
    """A manifest that the API server accepts, and why it is here."""

    why: str
    base: str
    field: str
    patch: Spec
    effect: Effect | None = None


def merged(base: Any, patch: Any) -> Any:
    """RFC 7386: mappings by key, None removes, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


REMOTE_MODEL = {"baseUrl": "https://llm.example.com/v1", "model": "large"}
HTTP_TOOL: dict[str, Any] = {"name": "weather", "http": {"url": "http://w.svc/x", "description": "Weather."}}
CASE = {"name": "one", "prompt": "Capital of France?"}
PRE, POST = "strategy.prePromotionAnalysis", "strategy.postPromotionAnalysis"


def _runtime(**fields: Any) -> Spec:
    return {"template": {"spec": {"containers": [{"name": "runtime", **fields}]}}}


def _helper(**fields: Any) -> Spec:
    helper = {"name": "helper", "image": "localhost/helper:1", **fields}
    return {"template": {"spec": {"containers": [helper]}}}


def _pod(**fields: Any) -> Spec:
    return {"template": {"spec": fields}}


def _analysis(kind: str, functional: Any) -> Spec:
    return {"strategy": {f"{kind}PromotionAnalysis": functional}}


_MODEL = (
    Broken("no source", "bare", "model", "set exactly one of model.uri", {"model": {"uri": None}}),
    Broken("two sources", "remote", "model", "set exactly one of model.uri", {"model": {"uri": "hf://a/b"}}),
    *(
        Broken(f"uri {uri}", "bare", "model.uri", "uri must be hf://", {"model": {"uri": uri}})
        for uri in ("google/flan-t5-xl", "https://a/b", "pvc://a/../b", "oci://models/a:v1", "s3://bucket", "hf://")
    ),
    Broken("a revision of an oci model", "bare", "model.revision", "revision is only for hf://",
           {"model": {"uri": "oci://r.example/m:v1", "revision": "main"}}),
    Broken("a hub token for a claim", "bare", "model.tokenSecretRef", "tokenSecretRef is only for hf://",
           {"model": {"uri": "pvc://m", "tokenSecretRef": {"name": "hub"}}}),
    Broken("dtype of a remote model", "remote", "model.dtype", "dtype is for weights",
           {"model": {"dtype": "float16"}}),
    Broken("quantization of a remote model", "remote", "model.quantization", "quantization is for weights",
           {"model": {"quantization": "Int4"}}),
    Broken("devices for a remote model", "remote", "resources.gpu", "a remote model runs elsewhere",
           {"resources": {"gpu": {}}}),
    Broken("a choice of one", "bare", "model.selection", "selection needs at least two",
           {"model": {"uri": None, "candidates": [{"name": "a", "uri": "hf://a"}], "selection": {}}}),
    Broken("a candidate without a source", "bare", "model.candidates[].uri",
           "set exactly one of uri and remote", {"model": {"uri": None, "candidates": [{"name": "a"}]}}),
    Broken("two candidates of a name", "bare", "model.candidates[].name", "Duplicate value",
           {"model": {"uri": None, "candidates": [{"name": "a", "uri": "hf://a"}, {"name": "a", "uri": "hf://b"}]}}),
)  # fmt: skip

_AGENT = (
    Broken("a tool of no kind", "bare", "agent.tools[]", "set exactly one of mcpServer and http",
           {"agent": {"tools": [{"name": "search"}]}}),
    Broken("a tool of two kinds", "bare", "agent.tools[]", "set exactly one of mcpServer and http",
           {"agent": {"tools": [{**HTTP_TOOL, "mcpServer": {"url": "http://s.svc"}}]}}),
    Broken("a tool called answer", "bare", "agent.tools[].name", "the name answer stands for",
           {"agent": {"tools": [{**HTTP_TOOL, "name": "answer"}]}}),
    Broken("two tools of a name", "bare", "agent.tools[].name", "Duplicate value",
           {"agent": {"tools": [HTTP_TOOL, HTTP_TOOL]}}),
    Broken("tools that may not be called", "local", "agent.limits.maxToolCalls", "maxToolCalls 0 forbids",
           {"agent": {"limits": {"maxToolCalls": 0}}}),
    Broken("a tool slower than its run", "local", "agent.limits.timeoutSeconds", "a tool's timeoutSeconds",
           {"agent": {"limits": {"timeoutSeconds": 19}}}),
    Broken("a bound of no costs", "bare", "agent.limits.maxCost", "maxCost bounds nothing",
           {"agent": {"limits": {"maxCost": "1"}}}),
    *(
        Broken(f"a temperature of {policy}", "local", "agent.decision.temperature", "temperature is only for",
               {"agent": {"decision": {"policy": policy}}})
        for policy in ("Greedy", "ExpectedUtility", "CVaR")
    ),
    Broken("a temperature of nothing", "local", "agent.decision.temperature", "temperature must be greater",
           {"agent": {"decision": {"temperature": "0.000"}}}),
    *(
        Broken(f"risk aversion of {policy}", "remote", "agent.decision.riskAversion",
               "riskAversion is only for", {"agent": {"decision": {"policy": policy}}})
        for policy in ("Greedy", "Softmax")
    ),
    Broken("another store, from Redis", "local", "agent.sessions.store", "store cannot be changed",
           {"agent": {"sessions": {"store": "Memory", "redisUrlSecretRef": None}}}),
    Broken("another store, from Memory", "remote", "agent.sessions.store", "store cannot be changed",
           {"agent": {"sessions": {"store": "Redis", "redisUrlSecretRef": {"name": "redis"}}}}),
    Broken("Redis without an address", "bare", "agent.sessions.redisUrlSecretRef", "store Redis needs",
           {"agent": {"sessions": {"store": "Redis"}}}),
    Broken("an address for Memory", "remote", "agent.sessions.redisUrlSecretRef", "store Redis needs",
           {"agent": {"sessions": {"redisUrlSecretRef": {"name": "redis"}}}}),
)  # fmt: skip

_REST = (
    Broken("two kinds of devices", "local", "resources.gpu.deviceClassName", "set either deviceClassName",
           {"resources": {"gpu": {"deviceClassName": "gpu.example.com"}}}),
    Broken("MIG without a profile", "local", "resources.gpu.sharing", "sharing MIG needs",
           {"resources": {"gpu": {"sharing": "MIG"}}}),
    Broken("two shares of time", "local", "resources.gpu.count", "sharing TimeSlicing gives",
           {"resources": {"gpu": {"sharing": "TimeSlicing"}}}),
    *(
        Broken(f"more {name} asked for than allowed", "local", f"resources.requests.{name}",
               f"the request of {name} is above", {"resources": {"requests": {name: much}}})
        for name, much in (("cpu", "2001m"), ("memory", "4097Mi"), ("ephemeral-storage", "9G"))
    ),
    Broken("a lower bound above the upper", "bare", "autoscaling.minReplicas", "minReplicas is above",
           {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
    Broken("HPA to zero", "bare", "autoscaling.minReplicas", "provider HPA cannot",
           {"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "provider": "HPA"}}),
    Broken("a schedule above the bound", "bare", "autoscaling.schedules[].minReplicas",
           "a schedule's minReplicas", {"autoscaling": {"maxReplicas": 2, "schedules": [
               {"name": "d", "start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 3}]}}),
    Broken("CPU without an HPA", "bare", "autoscaling.targetCPUUtilizationPercent",
           "only provider HPA scales by CPU",
           {"autoscaling": {"maxReplicas": 2, "targetCPUUtilizationPercent": 70}}),
    *(
        Broken(f"{field} with {provider}", "bare", "autoscaling.provider",
               "schedules, targetQueuedTokens and targetP95Milliseconds",
               {"autoscaling": {"maxReplicas": 2, "provider": provider, field: value}})
        for provider in ("HPA", "KEDA")
        for field, value in (
            ("schedules", [{**NEVER_OPEN, "minReplicas": 1}]), ("targetQueuedTokens", 1),
            ("targetP95Milliseconds", 1),
        )
    ),
    Broken("Recreate that waits for devices", "bare", "strategy.gpuScarcity", "strategy Recreate never runs",
           {"strategy": {"type": "Recreate", "gpuScarcity": "Wait"}}),
    Broken("Recreate by hand", "bare", "strategy.autoPromotionEnabled", "strategy Recreate has nothing",
           {"strategy": {"type": "Recreate", "autoPromotionEnabled": False}}),
    *(
        broken
        for kind, path in (("pre", PRE), ("post", POST))
        for broken in (
            Broken(f"{kind}: a test of nothing", "bare", path, "an analysis needs", _analysis(kind, {})),
            Broken(f"{kind}: no cases", "bare", f"{path}.functional", "set exactly one of cases",
                   _analysis(kind, {"functional": {}})),
            Broken(f"{kind}: a case without expectation", "bare", f"{path}.functional.cases[]",
                   "set exactly one of equals", _analysis(kind, {"functional": {"cases": [CASE]}})),
        )
    ),
    *(
        Broken(f"{name} of the runtime", "bare", f"template.spec.containers[].{name}",
               f"{name} of container runtime", _runtime(**{name: value}))
        for name, value in (
            ("image", "x"), ("command", ["x"]), ("args", ["x"]), ("ports", [{"containerPort": 1}]),
            ("resources", {}), ("startupProbe", {}), ("readinessProbe", {}), ("livenessProbe", {}),
            ("terminationMessagePath", "/x"), ("terminationMessagePolicy", "File"),
        )
    ),
    *(
        Broken(f"volume {name}", "bare", "template.spec.volumes[].name", "volume names config",
               _pod(volumes=[{"name": name, "emptyDir": {}}]))
        for name in ("config", "model", "cache", "tmp", "runtime-secrets", "runtime-api-keys", "runtime-logs")
    ),
    *(
        Broken(f"restart policy {policy}", "bare", "template.spec.restartPolicy", "restartPolicy is set by",
               _pod(restartPolicy=policy))
        for policy in ("Always", "Never")
    ),
    *(
        Broken(f"label {name}", "local", "template.metadata.labels", "labels agentoperator.dev/agent",
               {"template": {"metadata": {"labels": {name: "x"}}}})
        for name in ("agentoperator.dev/agent", "agentoperator.dev/revision", "app.kubernetes.io/managed-by")
    ),
)  # fmt: skip

BROKEN: tuple[Broken, ...] = (*_MODEL, *_AGENT, *_REST)

SAME, ROLLED = Effect(), Effect(frozenset({REVISION}))


def _invalid(named: str) -> Effect:
    return Effect(reason="InvalidSpec", named=named)


def _refused_child(named: str) -> Effect:
    return Effect(reason="ChildInvalid", named=named)


_SOURCE = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
_POD_FIELDS: tuple[Spec, ...] = (
        {"nodeSelector": {"disk": "ssd"}},
        {"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]},
        {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}},
        {"priorityClassName": "system-cluster-critical"},
        {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.example"]}]},
        {"imagePullSecrets": [{"name": "registry"}]},
        {"terminationGracePeriodSeconds": 3600},
        {"securityContext": {"runAsUser": 1234, "supplementalGroups": [5]}},
        {"hostNetwork": True},
        {"shareProcessNamespace": True},
        {"automountServiceAccountToken": True},
        {"enableServiceLinks": True},
        {"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}},
        {"schedulerName": "other"},
        {"runtimeClassName": "gvisor"},
        {"topologySpreadConstraints": [{
            "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"a": "b"}}}]},
        {"initContainers": [{"name": "first", "image": "localhost/first:1"}]},
        {"readinessGates": [{"conditionType": "example.com/ready"}]},
        {"activeDeadlineSeconds": None, "hostname": "agent", "subdomain": "agents"},
)  # fmt: skip
_PASSED_ON = tuple(
    Extra(f"pod field {next(iter(fields))}", "bare", "template.spec", _pod(**fields))
    for fields in _POD_FIELDS
)

_RUNTIME_PASSED_ON = tuple(
    Extra(f"runtime field {next(iter(fields))}", "bare", "template.spec.containers[]", _runtime(**fields))
    for fields in (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", **_SOURCE}]},
        {"envFrom": [{"secretRef": {"name": "env", "optional": True}}]},
        {"imagePullPolicy": "Always"},
        {"securityContext": {"readOnlyRootFilesystem": False}},
        {"lifecycle": {"preStop": {"sleep": {"seconds": 7}}}},
        {"workingDir": "/srv"},
        {"stdin": True, "tty": True},
    )
)  # fmt: skip

_OVERRULED = (
    Extra("a shorter grace period than the drain needs", "bare", "template.spec",
          _pod(terminationGracePeriodSeconds=1), ROLLED),
    Extra("a mount in place of the configuration", "bare", "template.spec.containers[]",
          _runtime(volumeMounts=[{"name": "config", "mountPath": "/etc/agent-runtime"}]), ROLLED),
)  # fmt: skip

_REFUSED_LATER = (
    Extra("a mount of no volume", "bare", "template.spec.containers[]",
          _helper(volumeMounts=[{"name": "nowhere", "mountPath": "/x"}]), _refused_child("volumeMounts")),
    Extra("a second container without an image", "bare", "template.spec.containers[]",
          {"template": {"spec": {"containers": [{"name": "helper"}]}}}, _refused_child("image")),
    Extra("a container name that is no label", "bare", "template.spec.containers[].name",
          _helper(name="Not_A_Label"), _refused_child("name")),
    Extra("a label value with a space", "bare", "template.metadata.labels",
          {"template": {"metadata": {"labels": {"team": "two words"}}}}, _refused_child("labels")),
    Extra("a label name that is none", "bare", "template.metadata.labels",
          {"template": {"metadata": {"labels": {"two words": "x"}}}}, _refused_child("labels")),
    Extra("an annotation name that is none", "bare", "template.metadata.annotations",
          {"template": {"metadata": {"annotations": {"two words": "x"}}}}, _refused_child("annotations")),
    Extra("a volume of two kinds", "bare", "template.spec.volumes[]",
          _pod(volumes=[{"name": "x", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
          _refused_child("volumes")),
    Extra("a pod field that does not exist", "bare", "template.spec", _pod(nodeSelektor={"a": "b"}),
          _refused_child("nodeSelektor")),
    Extra("a pod field of the wrong type", "bare", "template.spec", _pod(hostNetwork="yes"),
          _refused_child("hostNetwork")),
    Extra("a container field of the wrong type", "bare", "template.spec.containers[]", _helper(env="A=1"),
          _refused_child("env")),
    Extra("containers' resources that are no quantities", "bare", "template.spec.containers[].resources",
          _helper(resources={"limits": {"cpu": "lots"}}), _refused_child("")),
    Extra("a termination policy that does not exist", "bare",
          "template.spec.containers[].terminationMessagePolicy", _helper(terminationMessagePolicy="Mail"),
          _refused_child("terminationMessagePolicy")),
    Extra("an environment variable of two sources", "bare", "template.spec.containers[]",
          _runtime(env=[{"name": "A", "value": "x", **_SOURCE}]),
          _refused_child("valueFrom")),
    Extra("a ServiceAccount name that is none", "bare", "template.spec.serviceAccountName",
          _pod(serviceAccountName="Not A Name"), _refused_child("serviceAccountName")),
    Extra("a device that is no device name", "bare", "resources.gpu.resourceName",
          {"resources": {"gpu": {"resourceName": "-.-/gpu"}}}, _refused_child("-.-/gpu")),
    Extra("more memory than 64 bits hold", "bare", "resources.limits.memory",
          {"resources": {"limits": {"memory": "1e99999"}}}, None),
)  # fmt: skip

_LOGS = tuple(
    Extra(f"logs to {path}", "bare", "runtime.logging.path", {"runtime": {"logging": {"path": path}}},
          _invalid("spec.runtime.logging.path"))
    for path in ("/etc/agent/a.log", "/usr/lib/a.log", "/app/logs/a.log", "/var/lib/a.log")
)  # fmt: skip

_SECTIONS = (
    Extra("sessions taken away and all else", "local", "agent", {"agent": None}),
    Extra("a local model becomes a remote one", "bare", "model",
          {"model": {"uri": None, "remote": REMOTE_MODEL}}),
    Extra("a remote model becomes a local one", "remote", "model",
          {"model": {"remote": None, "uri": "oci://localhost/none:1"}}),
    Extra("tools in another order", "local", "agent.tools",
          {"agent": {"tools": list(reversed(LOCAL["agent"]["tools"]))}}, Effect(frozenset({CONFIG}))),
    Extra("a third tool", "local", "agent.tools", {"agent": {"tools": [*LOCAL["agent"]["tools"],
          {"name": "time", "http": {"url": "http://time.svc/now", "description": "The time."}}]}}),
    Extra("everything at its default", "bare", "runtime",
          {"runtime": {"parameters": {"maxConcurrency": 16}, "logging": {"level": "info"}}}, SAME),
    Extra("the same quantity in other words", "local", "resources.limits.memory",
          {"resources": {"limits": {"memory": "4096Mi"}}}, ROLLED),
)  # fmt: skip

_WHILE_RUNNING = (
    Extra("a feature that is not there", "running", "tuning.mode", {"tuning": {"mode": "Auto"}}),
    Extra("logs among the image's files", "running", "runtime.logging.path",
          {"runtime": {"logging": {"path": "/etc/agent/a.log"}}}, _invalid("spec.runtime.logging.path")),
    Extra("a ServiceAccount name that is none", "running", "template.spec.serviceAccountName",
          _pod(serviceAccountName="Not A Name"), _refused_child("serviceAccountName")),
    Extra("another prompt", "running", "agent.systemPrompt", {"agent": {"systemPrompt": "Answer."}}),
    Extra("another deadline", "running", "strategy.progressDeadlineSeconds",
          {"strategy": {"progressDeadlineSeconds": 77}}),
    Extra("more replicas of another image", "running", "replicas",
          {"replicas": 3, "runtime": {"image": "localhost/none:9"}}),
    Extra("resources for every replica", "running", "resources.requests.cpu",
          {"resources": {"requests": {"cpu": "5m"}}}),
)  # fmt: skip


def _windows(base: Spec, **fields: Any) -> Spec:
    window = {**NEVER_OPEN, "minReplicas": 1, **fields}
    return {"autoscaling": {**base.get("autoscaling", {"maxReplicas": 4}), "schedules": [window]}}


_SCALED = (
    *(
        Extra(f"a window's {field} that is none: {value}", base, f"autoscaling.schedules[].{field}",
              _windows(spec, **{field: value}), _invalid(f"spec.autoscaling.schedules[0].{field}"))
        for base, spec in (("native", NATIVE), ("bare", {}))
        for field, value in (
            ("timeZone", "Nowhere/Atlantis"), ("timeZone", "Z" * 64), ("timeZone", "/etc/localtime"),
            ("start", "61 0 1 1 *"), ("start", "0 0 30 2 *"), ("start", "a b c d e"),
            ("end", "0 25 1 1 *"), ("end", "0 0 31 4 *"), ("end", "? ? ? ? ?"),
        )
    ),
    Extra("a window that is open wants more", "native", "autoscaling.schedules[].minReplicas",
          _windows(NATIVE, start="* * * * *", minReplicas=3),
          Effect(frozenset({REPLICAS}), scaling={"desired": 3}, active="Autoscaling")),
    Extra("a window that is open wants less", "native", "autoscaling.schedules[].minReplicas",
          _windows(NATIVE, start="* * * * *", minReplicas=1)),
    Extra("a request for more than the bounds", "native", "replicas",
          {"replicas": 7, "autoscaling": {"maxReplicas": 3}}),
    Extra("a request for more, with the bound", "native", "replicas",
          {"replicas": 5, "autoscaling": {"maxReplicas": 6}}),
    Extra("a request for none", "native", "replicas", {"replicas": 0, "autoscaling": {"minReplicas": 0}}),
    Extra("both bounds above", "native", "autoscaling.minReplicas",
          {"autoscaling": {"minReplicas": 4, "maxReplicas": 5}}),
    Extra("both bounds below", "native", "autoscaling.maxReplicas",
          {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}),
    Extra("suspended with other bounds", "native", "suspend",
          {"suspend": True, "autoscaling": {"minReplicas": 3}}),
    Extra("scaled by Kubernetes instead", "native", "autoscaling.provider", {"replicas": 0, "autoscaling": {
        "provider": "HPA", "schedules": None, "targetQueuedTokens": None, "targetP95Milliseconds": None}}),
    Extra("scaled by KEDA instead", "native", "autoscaling.provider", {"autoscaling": {
        "provider": "KEDA", "schedules": None, "targetQueuedTokens": None, "targetP95Milliseconds": None}}),
    Extra("scaled by the operator instead", "hpa", "autoscaling.provider",
          {"autoscaling": {"provider": "Native", "targetCPUUtilizationPercent": None}}),
    Extra("scaled by KEDA instead", "hpa", "autoscaling.provider",
          {"autoscaling": {"provider": "KEDA", "targetCPUUtilizationPercent": None}}),
    Extra("scaled by requests in flight", "hpa", "autoscaling.targetConcurrency",
          {"autoscaling": {"targetCPUUtilizationPercent": None, "targetConcurrency": 4096}}),
    Extra("the longest window there is", "hpa", "autoscaling.scaleDownDelaySeconds",
          {"autoscaling": {"scaleDownDelaySeconds": 3601}}),
    Extra("percents of no CPU", "hpa", "autoscaling.targetCPUUtilizationPercent",
          {"resources": None}, _invalid("spec.autoscaling.targetCPUUtilizationPercent")),
    Extra("percents of no CPU", "bare", "autoscaling.targetCPUUtilizationPercent",
          {"autoscaling": {"provider": "HPA", "maxReplicas": 2, "targetCPUUtilizationPercent": 70}},
          _invalid("spec.autoscaling.targetCPUUtilizationPercent")),
    Extra("percents of a limit of CPU", "bare", "autoscaling.targetCPUUtilizationPercent",
          {"autoscaling": {"provider": "HPA", "maxReplicas": 2, "targetCPUUtilizationPercent": 70},
           "resources": {"limits": {"cpu": 1}}}),
)  # fmt: skip

_BEHIND_GATEWAY = (
    *(
        Extra(f"a gateway {why}", base, "access.gateway", patch)
        for base in ("bare", "native", "remote")
        for why, patch in (
            ("for who may sleep", {"autoscaling": {"minReplicas": 0, "maxReplicas": 4}}),
            ("always", {"access": {"gateway": "Always"}}),
            ("that holds little", {
                "access": {"gateway": "Always",
                           "hold": {"maxRequests": 1, "maxMebibytes": 1, "seconds": 1}}}),
            ("that holds much", {
                "access": {"hold": {"maxRequests": 100_000, "maxMebibytes": 65_536, "seconds": 86_400}},
                "autoscaling": {"minReplicas": 0, "maxReplicas": 4}}),
            ("with keys", {"access": {"gateway": "Always", "apiKeysSecretRef": {"name": "keys"}}}),
            ("of a larger runtime", {
                "access": {"gateway": "Always"}, "runtime": {"parameters": {"maxConcurrency": 77}}}),
        )
    ),
    Extra("a gateway for who sleeps by KEDA", "bare", "access.gateway",
          {"autoscaling": {"provider": "KEDA", "minReplicas": 0, "maxReplicas": 4}}),
    Extra("bounds of holding nothing", "bare", "access.hold", {"access": {"hold": {"seconds": 5}}}),
)  # fmt: skip

EXTRAS: tuple[Extra, ...] = (
    *_PASSED_ON, *_RUNTIME_PASSED_ON, *_OVERRULED, *_REFUSED_LATER, *_LOGS, *_SECTIONS, *_WHILE_RUNNING,
    *_SCALED, *_BEHIND_GATEWAY,
)  # fmt: skip
