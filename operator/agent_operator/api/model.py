"""spec.model: which model serves the agent. Layer: api, pure; imports api.base, api.types, api.model_uri."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from agent_operator.api import model_uri
from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.types import ConfigMapKeyRef, HttpUrl, Label, SecretKeyRef

_URI_MATCHES = " || ".join(f"self.uri.matches(r'{pattern}')" for pattern in model_uri.PATTERNS)


class DType(StrEnum):
    """Number format of the weights; the names are those of PyTorch."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Quantization(StrEnum):
    """Whether weights are stored in fewer bits than they were trained in."""

    DISABLED = "Disabled"
    INT8 = "Int8"
    INT4 = "Int4"


class Objective(StrEnum):
    """What makes one candidate better than another."""

    ACCURACY = "Accuracy"
    LATENCY = "Latency"
    BALANCED = "Balanced"


class RemoteModel(ApiModel):
    """A model behind an OpenAI-compatible API, called instead of loading weights."""

    base_url: HttpUrl = Field(
        description="Base URL of the API, with its version path.", examples=["https://llm.example.com/v1"]
    )
    model: str = Field(
        min_length=1, max_length=253, description="Model name sent in requests.", examples=["large-chat"]
    )
    api_key_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Secret key holding the API key, sent as bearer token; mounted as a file.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="The model's context length in tokens, where known: a longer request is then refused "
        "before it is sent.",
        examples=[32768],
    )
    timeout_seconds: int = Field(
        default=120, ge=1, le=3600, description="Longest wait for the first byte of an answer, in seconds."
    )


class ModelReference(ApiModel):
    """A model: weights at a URI, or a remote API."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.uri) || {_URI_MATCHES}",
            f"uri must be {model_uri.FORMS}",
            ".uri",
        ),
        Rule(
            "!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
            "revision is only for hf:// models; pin oci:// by tag or digest, pvc:// and s3:// by path",
            ".revision",
            "FieldValueForbidden",
        ),
        Rule(
            "!has(self.tokenSecretRef) || (has(self.uri) && self.uri.startsWith('hf://'))",
            "tokenSecretRef is only for hf:// models; a private registry needs imagePullSecrets in "
            "spec.template.spec, a bucket AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the env of its "
            "container runtime, a remote model remote.apiKeySecretRef",
            ".tokenSecretRef",
            "FieldValueForbidden",
        ),
        Rule(
            "!has(self.remote) || !has(self.dtype) || self.dtype == 'auto'",
            "dtype is for weights that are loaded; remove it, or use uri instead of remote",
            ".dtype",
            "FieldValueForbidden",
        ),
        Rule(
            "!has(self.remote) || !has(self.quantization) || self.quantization == 'Disabled'",
            "quantization is for weights that are loaded; remove it, or use uri instead of remote",
            ".quantization",
            "FieldValueForbidden",
        ),
    )

    uri: str | None = Field(
        default=None,
        min_length=1,
        max_length=model_uri.MAX_LENGTH,
        description="Where the weights are: hf://organisation/name (Hugging Face hub), "
        "oci://registry/repository:tag or oci://registry/repository@sha256:digest (mounted read-only as "
        "image volume), pvc://claim/path (PersistentVolumeClaim in the same namespace, mounted read-only), "
        "or s3://bucket/key. The folder has the layout of save_pretrained. An s3:// model needs what every "
        "S3 client needs, in the env of container runtime in spec.template.spec: AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY (from a Secret) unless the node or a workload identity gives credentials, "
        "AWS_REGION, and AWS_ENDPOINT_URL for another server than Amazon's.",
        examples=["hf://google/flan-t5-xl"],
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$",
        description="Branch, tag or commit of an hf:// model; a commit is recommended, so that every replica "
        "serves the same weights. When absent, the hub's default branch.",
        examples=["main"],
    )
    token_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Secret key holding the access token for a gated or private hf:// model; mounted as a "
        "file.",
    )
    remote: RemoteModel | None = Field(
        default=None, description="Use a model behind an OpenAI-compatible API instead of uri."
    )
    dtype: DType = Field(
        default=DType.AUTO, description="Number format of the weights in memory; auto takes the model's own."
    )
    quantization: Quantization = Field(
        default=Quantization.DISABLED,
        description="Int8 or Int4 store the weights in 8 or 4 bits by bitsandbytes, for less memory at some "
        "loss of accuracy. Needs a runtime image with the extra quantization.",
    )


class Candidate(ModelReference):
    """One of several models to choose from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.uri) != has(self.remote)",
            "set exactly one of uri and remote in each candidate",
            ".uri",
            "FieldValueRequired",
        ),
    )

    name: Label = Field(description="Name of the candidate, unique in the list.", examples=["small"])


class Evaluation(ApiModel):
    """Questions and answers that candidates are compared on."""

    config_map_ref: ConfigMapKeyRef = Field(description="ConfigMap key holding the cases.")


class Selection(ApiModel):
    """How the model is chosen from the candidates."""

    objective: Objective = Field(default=Objective.BALANCED, description="What the choice maximises.")
    max_p95_milliseconds: int | None = Field(
        default=None,
        alias="maxP95Milliseconds",
        ge=1,
        le=3_600_000,
        description="Candidates whose 95th percentile of latency is above this many milliseconds are out.",
        examples=[800],
    )
    evaluation: Evaluation | None = Field(default=None, description="Cases that measure accuracy.")


class ModelSource(ModelReference):
    """The model that serves the agent: one of uri, remote and candidates."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.uri), has(self.remote), has(self.candidates) && size(self.candidates) > 0]"
            ".exists_one(x, x)",
            "set exactly one of model.uri, model.remote and model.candidates",
            ".uri",
            "FieldValueRequired",
        ),
        Rule(
            "!has(self.selection) || (has(self.candidates) && size(self.candidates) >= 2)",
            "selection needs at least two model.candidates to choose from",
            ".selection",
        ),
    )

    candidates: tuple[Candidate, ...] = Field(
        default=(),
        max_length=8,
        description="Several models to choose from, each with a name; instead of uri and remote.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    selection: Selection | None = Field(
        default=None, description="How to choose among candidates; the first one when absent."
    )
