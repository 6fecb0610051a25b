"""Whatever a specification asks for, the runtime can read what it is told and finds what it is pointed to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_operator.core import request
from agent_operator.core.children.config_map import rendered
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.pod import pod_template
from agent_operator.core.children.runtime_config import runtime_config
from agent_operator.core.request import Request
from agent_runtime.contract import RuntimeConfig

NAMES = st.sampled_from(["a", "b", "c-d", "e.f"])
DECIMALS = st.from_regex(r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?", fullmatch=True)
FRACTIONS = st.from_regex(r"(0(\.[0-9]{1,6})?|1(\.0{1,6})?)", fullmatch=True)
REFERENCES = st.fixed_dictionaries({"name": NAMES}, optional={"key": st.sampled_from(["token", "x.y"])})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def whole(low: int, high: int) -> st.SearchStrategy[int]:
    """Integers of a range, its ends often."""
    return st.sampled_from([low, high]) | st.integers(low, high)


REMOTE = st.fixed_dictionaries(
    {"baseUrl": st.just("https://llm.example.com/v1"), "model": st.text(min_size=1, max_size=9)},
    optional={
        "apiKeySecretRef": REFERENCES,
        "contextTokens": whole(1, 10**8),
        "timeoutSeconds": whole(1, 3600),
    },
)
MODELS = (
    st.fixed_dictionaries(
        {"uri": st.just("hf://organisation/model")},
        optional={
            "tokenSecretRef": REFERENCES,
            "quantization": st.sampled_from(["Disabled", "Int8", "Int4"]),
        },
    )
    | st.sampled_from(["oci://localhost/a:b", "pvc://claim/path", "s3://bucket/key"]).map(
        lambda u: {"uri": u}
    )
    | REMOTE.map(lambda remote: {"remote": remote})
)
HTTP = st.fixed_dictionaries(
    {"url": st.just("http://x"), "description": st.text(min_size=1, max_size=9)},
    optional={
        "method": st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
        "parameters": st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    },
)
MCP = st.fixed_dictionaries(
    {"url": st.just("http://x/mcp")},
    optional={"toolNames": st.lists(st.sampled_from("pqr"), unique=True, max_size=3)},
)
TOOLS = st.lists(
    st.tuples(
        st.fixed_dictionaries(
            {"name": st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True)},
            optional={
                "tokenSecretRef": REFERENCES,
                "requireApproval": st.booleans(),
                "timeoutSeconds": whole(1, 3600),
                "retries": whole(0, 10),
                "maxResultBytes": whole(64, 8_388_608),
            },
        ),
        MCP.map(lambda server: {"mcpServer": server}) | HTTP.map(lambda http: {"http": http}),
    ).map(lambda parts: {**parts[0], **parts[1]}),
    max_size=4,
    unique_by=lambda tool: tool["name"],
)
AGENTS = st.fixed_dictionaries(
    {},
    optional={
        "systemPrompt": st.text(max_size=20),
        "tools": TOOLS,
        "decision": st.fixed_dictionaries(
            {"policy": st.sampled_from(["Greedy", "Softmax", "ExpectedUtility", "CVaR"])},
            optional={
                "temperature": DECIMALS.filter(lambda text: float(text) > 0),
                "riskAversion": FRACTIONS,
                "abstainBelow": FRACTIONS,
            },
        ),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "maxSteps": whole(1, 1000),
                "maxToolCalls": whole(0, 10_000),
                "maxTokens": whole(1, 10_000_000),
                "timeoutSeconds": whole(1, 86_400),
                "maxCost": DECIMALS,
            },
        ),
        "prices": st.fixed_dictionaries(
            {},
            optional={
                "perMillionInputTokens": DECIMALS,
                "perMillionOutputTokens": DECIMALS,
                "perToolCall": DECIMALS,
            },
        ),
        "sessions": st.fixed_dictionaries(
            {"ttlSeconds": whole(1, 31_536_000), "maxSessions": whole(1, 10_000_000)},
            optional={"store": st.just("Redis"), "redisUrlSecretRef": REFERENCES},
        ),
    },
)
RUNTIMES = st.fixed_dictionaries(
    {},
    optional={
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "maxConcurrency": whole(1, 4096),
                "maxQueuedRequests": whole(0, 65_536),
                "maxQueuedTokens": whole(1, 100_000_000),
                "maxInputTokens": whole(1, 10_000_000),
                "maxOutputTokens": whole(1, 10_000_000),
                "maxBatchSize": whole(1, 4096),
                "batchWaitMilliseconds": whole(0, 10_000),
                "requestTimeoutSeconds": whole(1, 86_400),
            },
        ),
        "logging": st.fixed_dictionaries(
            {}, optional={"path": st.sampled_from(["/var/log/agent/a.log", "/tmp/a.log", "/logs/a.log"])}
        ),
    },
)
SPECS = st.fixed_dictionaries(
    {"model": MODELS},
    optional={
        "agent": AGENTS,
        "runtime": RUNTIMES,
        "access": st.fixed_dictionaries({}, optional={"apiKeysSecretRef": NAMES.map(lambda n: {"name": n})}),
    },
)
patient = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
OWNER = Owner("geography", "default", "u")


def read(spec: dict[str, Any]) -> Request:
    asked = request.read({"spec": spec})
    assert isinstance(asked, Request), asked
    return asked


def files(value: Any) -> Iterator[str]:
    """Every path that a configuration points to."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key.endswith(("_file", "_path")) and isinstance(item, str):
                yield item
            yield from files(item)
    elif isinstance(value, list):
        for item in value:
            yield from files(item)


@patient
@given(SPECS)
def test_the_runtime_reads_back_exactly_what_it_is_told(spec: dict[str, Any]) -> None:
    asked = read(spec)
    config = runtime_config(OWNER, asked.spec, asked.model, "bcdfghjk")
    assert RuntimeConfig.model_validate_json(rendered(config)) == config


@patient
@given(SPECS)
def test_every_file_the_runtime_is_told_of_is_mounted_and_no_secret_is_in_its_environment(
    spec: dict[str, Any],
) -> None:
    asked = read(spec)
    config = json.loads(rendered(runtime_config(OWNER, asked.spec, asked.model, "bcdfghjk")))
    pod = pod_template(OWNER, asked.spec, asked.model, "bcdfghjk", "image:1")["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}

    assert len(volumes) == len(pod["volumes"]) == len(places)
    assert all("valueFrom" not in variable for variable in container["env"])
    for path in files(config):
        name = PurePosixPath(path).name
        source = places.get(str(PurePosixPath(path).parent), {})
        items = [i for s in source.get("projected", {}).get("sources", ()) for i in s["secret"]["items"]]
        assert path in places or [i["path"] for i in items].count(name) == 1, path
    log = config["logging"].get("path")
    assert log is None or any(PurePosixPath(place) in PurePosixPath(log).parents for place in places)
