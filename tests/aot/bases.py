"""The manifests that mutations start from, and what a field needs around it. Layer: tests.

The one idea: six agents stand for all. `local` says something in every field that works, so that each can be
changed and taken away; `remote` has what excludes that; `bare` says nothing, so that each field can be the
only one; `running` wants replicas; the operator scales `native` and Kubernetes `hpa`. Where pods are wanted,
none gets to a node: a change costs writes, not containers.
"""

from __future__ import annotations

from typing import Any

from tests.aot.schema import Spec

NOWHERE = {"aot.agentoperator.dev/no-such-node": "true"}
"""A node selector that no node has."""
NOBODY = "aot-nobody"
"""A scheduler that does not exist. Unlike a pod that fits no node, one that nobody looked at is no proof that
nothing can be placed, so it does not keep the operator from asking for more."""

LOCAL: Spec = {
    "suspend": True,
    "replicas": 2,
    "model": {
        "uri": "hf://example/geography",
        "revision": "v1",
        "tokenSecretRef": {"name": "hub", "key": "hub-token"},
        "dtype": "bfloat16",
        "quantization": "Int8",
    },
    "agent": {
        "systemPrompt": "Answer in one word.",
        "tools": [
            {
                "name": "weather",
                "http": {
                    "url": "http://weather.tools.svc/today",
                    "method": "GET",
                    "description": "The weather of a city, today.",
                    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
                },
                "tokenSecretRef": {"name": "weather", "key": "bearer"},
                "requireApproval": True,
                "timeoutSeconds": 20,
                "retries": 2,
                "maxResultBytes": 4096,
            },
            {"name": "search", "mcpServer": {"url": "http://search.tools.svc/mcp", "toolNames": ["look"]}},
        ],
        "decision": {"policy": "Softmax", "temperature": "0.7", "abstainBelow": "0.2"},
        "limits": {
            "maxSteps": 4,
            "maxToolCalls": 7,
            "maxTokens": 2048,
            "timeoutSeconds": 7200,
            "maxCost": "0.05",
        },
        "prices": {"perMillionInputTokens": "0.1", "perMillionOutputTokens": "0.4", "perToolCall": "0.001"},
        "sessions": {
            "store": "Redis",
            "redisUrlSecretRef": {"name": "redis", "key": "url"},
            "ttlSeconds": 60,
            "maxSessions": 5,
        },
    },
    "runtime": {
        "image": "localhost/none:2",
        "parameters": {
            "maxConcurrency": 4,
            "maxQueuedRequests": 5,
            "maxQueuedTokens": 6000,
            "maxInputTokens": 700,
            "maxOutputTokens": 80,
            "maxBatchSize": 3,
            "batchWaitMilliseconds": 9,
            "requestTimeoutSeconds": 33,
        },
        "logging": {"level": "debug", "path": "/var/log/agent/agent.log"},
    },
    "resources": {
        "gpu": {"count": 2, "resourceName": "example.com/gpu"},
        "requests": {"cpu": "100m", "memory": "1Gi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "8Gi"},
    },
    "strategy": {"progressDeadlineSeconds": 601},
    "health": {"startupDeadlineSeconds": 901, "stallSeconds": 31},
    "access": {
        "apiKeysSecretRef": {"name": "api-keys"},
        "gateway": "Always",
        "hold": {"maxRequests": 70, "maxMebibytes": 17, "seconds": 75},
    },
    "template": {
        "metadata": {"labels": {"team": "atlas"}, "annotations": {"note": "base"}},
        "spec": {
            "nodeSelector": NOWHERE,
            "serviceAccountName": "default",
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "containers": [
                {
                    "name": "helper",
                    "image": "localhost/helper:1",
                    "command": ["sleep"],
                    "args": ["60"],
                    "ports": [{"containerPort": 9000, "name": "helper"}],
                    "resources": {"limits": {"cpu": "10m"}},
                    "startupProbe": {"exec": {"command": ["true"]}},
                    "readinessProbe": {"exec": {"command": ["true"]}},
                    "livenessProbe": {"exec": {"command": ["true"]}},
                    "terminationMessagePath": "/dev/helper-log",
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                },
                {"name": "runtime", "env": [{"name": "TZ", "value": "UTC"}]},
            ],
        },
    },
}

REMOTE: Spec = {
    "suspend": True,
    "model": {
        "remote": {
            "baseUrl": "https://llm.example.com/v1",
            "model": "large-chat",
            "apiKeySecretRef": {"name": "llm", "key": "api-key"},
            "contextTokens": 32768,
            "timeoutSeconds": 44,
        }
    },
    "agent": {"decision": {"policy": "CVaR", "riskAversion": "0.5"}, "sessions": {"ttlSeconds": 90}},
}

BARE: Spec = {"suspend": True, "model": {"uri": "hf://example/geography"}}

RUNNING: Spec = {
    "replicas": 1,
    "model": {"uri": "hf://example/geography"},
    "template": {"spec": {"nodeSelector": NOWHERE}},
}

NEVER_OPEN = {"name": "leap-day", "start": "0 0 29 2 *", "end": "0 0 29 2 *", "timeZone": "Asia/Tokyo"}
"""A window that opens as it closes."""

NATIVE: Spec = {
    "replicas": 2,
    "model": {"uri": "hf://example/geography"},
    "autoscaling": {
        "minReplicas": 1,
        "maxReplicas": 4,
        "targetConcurrency": 9,
        "targetQueuedTokens": 8000,
        "targetP95Milliseconds": 1500,
        "tolerancePercent": 11,
        "stableWindowSeconds": 61,
        "scaleUpDelaySeconds": 12,
        "scaleDownDelaySeconds": 62,
        "schedules": [{**NEVER_OPEN, "minReplicas": 1}],
    },
    "template": {"spec": {"schedulerName": NOBODY}},
}

HPA: Spec = {
    # An HPA leaves a target of none alone: whatever else is changed, it writes no replicas.
    "replicas": 0,
    "model": {"uri": "hf://example/geography"},
    "resources": {"requests": {"cpu": "100m"}},
    "autoscaling": {
        "provider": "HPA",
        "minReplicas": 2,
        "maxReplicas": 9,
        "targetConcurrency": 9,
        "targetCPUUtilizationPercent": 70,
        "scaleUpDelaySeconds": 12,
        "scaleDownDelaySeconds": 62,
    },
    "template": {"spec": {"nodeSelector": NOWHERE}},
}

BASES: dict[str, Spec] = {
    "local": LOCAL, "remote": REMOTE, "bare": BARE, "running": RUNNING, "native": NATIVE, "hpa": HPA,
}  # fmt: skip

_TOOL = {"name": "weather", "http": {"url": "http://weather.svc", "description": "The weather."}}
_REMOTE_MODEL = {"baseUrl": "https://llm.example.com/v1", "model": "large"}
_CANDIDATES = [{"name": "small", "uri": "hf://a/small"}, {"name": "large", "uri": "hf://a/large"}]
_CASE = {"name": "one", "prompt": "Capital of France?", "contains": "Paris"}


def _case(expectation: str) -> dict[str, Any]:
    case = {"name": "one", "prompt": "Capital of France?", expectation: "Paris"}
    return {"functional": {"cases": [case]}}


def _analyses() -> dict[str, Spec]:
    found: dict[str, Spec] = {}
    for name in ("prePromotionAnalysis", "postPromotionAnalysis"):
        path = f"strategy.{name}"
        found[path] = {"strategy": {name: {"functional": {"cases": [_CASE]}}}}
        found[f"{path}.performance"] = {"strategy": {name: {"performance": {}}}}
        found[f"{path}.functional.configMapRef"] = {
            "strategy": {name: {"functional": {"configMapRef": {"name": "cases"}}}}
        }
        for expectation in ("equals", "matches"):
            found[f"{path}.functional.cases[].{expectation}"] = {"strategy": {name: _case(expectation)}}
    return found


SCAFFOLDS: dict[str, Spec] = {
    "model.remote": {"model": {"remote": _REMOTE_MODEL}},
    "model.candidates": {"model": {"candidates": _CANDIDATES}},
    "model.candidates[].remote": {
        "model": {"candidates": [{"name": "small", "remote": _REMOTE_MODEL}, _CANDIDATES[1]]}
    },
    "model.selection": {"model": {"candidates": _CANDIDATES, "selection": {}}},
    "agent.tools[]": {"agent": {"tools": [_TOOL]}},
    "agent.tools[].timeoutSeconds": {"agent": {"tools": [_TOOL], "limits": {"timeoutSeconds": 7200}}},
    "agent.tools[].mcpServer": {
        "agent": {"tools": [{"name": "search", "mcpServer": {"url": "http://search.svc/mcp"}}]}
    },
    "agent.decision.temperature": {"agent": {"decision": {"policy": "Softmax"}}},
    "agent.decision.riskAversion": {"agent": {"decision": {"policy": "CVaR"}}},
    "agent.limits.maxCost": {"agent": {"prices": {"perToolCall": "0.001"}}},
    "agent.sessions.redisUrlSecretRef": {
        "agent": {"sessions": {"store": "Redis", "redisUrlSecretRef": {"name": "redis"}}}
    },
    "resources.gpu": {"resources": {"gpu": {}}},
    "autoscaling": {"autoscaling": {"maxReplicas": 1000}},
    "autoscaling.targetCPUUtilizationPercent": {
        "resources": {"requests": {"cpu": "100m"}},
        "autoscaling": {"maxReplicas": 1000, "provider": "HPA"},
    },
    "autoscaling.schedules[]": {
        "autoscaling": {
            "maxReplicas": 1000,
            "schedules": [{"name": "day", "start": "0 8 * * *", "end": "0 18 * * *", "minReplicas": 2}],
        }
    },
    "template.spec.containers[]": {
        "template": {"spec": {"containers": [{"name": "helper", "image": "localhost/helper:1"}]}}
    },
    "template.spec.volumes[]": {"template": {"spec": {"volumes": [{"name": "extra", "emptyDir": {}}]}}},
    **_analyses(),
}
"""What must stand around a field of the bare manifest for it to be accepted; the longest prefix counts."""


def scaffold(path: str) -> Spec:
    """The bare manifest with what a field needs around it."""
    prefixes = [p for p in SCAFFOLDS if path == p or path.startswith((f"{p}.", f"{p}[]"))]
    spec = SCAFFOLDS[max(prefixes, key=len)] if prefixes else {}
    return {**BARE, **spec}
