"""Conditions of an AgentDeployment and their reasons. Layer: api, pure; imports api.base, api.types.

The one idea: scripts and alerts depend on reasons, so every reason the operator can give is named here and
nowhere else. Reasons of a failed start are spelt as in agent_runtime.contract.FailureCode; a test compares.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from agent_operator.api.base import StatusModel
from agent_operator.api.types import MAX_GENERATION, Timestamp


class ConditionType(StrEnum):
    """What a condition is about. Reconciling and Stalled are abnormal when True, as kstatus expects."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    VALIDATED = "Validated"
    SCALING_ACTIVE = "ScalingActive"
    DEGRADED = "Degraded"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why a condition has its status: one CamelCase word, shown by `kubectl get agents` as STATUS."""

    # Working as asked.
    READY = "Ready"
    """All replicas of the current revision serve."""
    SUSPENDED = "Suspended"
    """spec.suspend is true: no replica runs."""
    SCALED_TO_ZERO = "ScaledToZero"
    """No replica is asked for."""
    PAUSED = "Paused"
    """The annotation agentoperator.dev/paused stops all writes to children."""
    AS_EXPECTED = "AsExpected"
    """Nothing to report, for conditions that are abnormal when True."""
    NOT_CONFIGURED = "NotConfigured"
    """The feature behind the condition is not asked for."""
    FIXED_REPLICAS = "FixedReplicas"
    """spec.replicas decides; nothing scales."""
    AUTOSCALING = "Autoscaling"
    """The operator scales by its own measure."""
    EXTERNAL_SCALER = "ExternalScaler"
    """A HorizontalPodAutoscaler or KEDA writes spec.replicas."""
    SIGNALS_MISSING = "SignalsMissing"
    """No replica tells its load: the number of replicas is left as it is."""
    LIMITED_BY_CAPACITY = "LimitedByCapacity"
    """More replicas are needed than the cluster can place."""
    SCALER_NOT_AVAILABLE = "ScalerNotAvailable"
    """The scaler that is asked for does not work in this cluster."""

    # On the way.
    PENDING = "Pending"
    """Seen by the operator, nothing created yet."""
    PROGRESSING = "Progressing"
    """Children are being created or replaced."""
    SCHEDULING = "Scheduling"
    """A pod waits for a node."""
    PULLING_IMAGE = "PullingImage"
    """A node fetches the runtime or model image."""
    STARTING = "Starting"
    """The container starts."""
    LOADING_MODEL = "LoadingModel"
    """The runtime loads weights."""
    WARMING_UP = "WarmingUp"
    """The runtime generates its first tokens."""
    WAKING = "Waking"
    """The gateway holds requests for an agent that was scaled to zero; replicas start."""
    PARTIALLY_READY = "PartiallyReady"
    """Some replicas serve, fewer than asked for."""
    DRAINING = "Draining"
    """Replicas end, finishing their requests."""

    # Refused specification.
    INVALID_SPEC = "InvalidSpec"
    """The specification contradicts itself or this version."""
    FEATURE_NOT_SUPPORTED = "FeatureNotSupported"
    """A field is set whose feature this version of the operator does not have."""

    # The cluster cannot provide.
    INSUFFICIENT_GPU = "InsufficientGPU"
    """No node has the devices asked for."""
    UNSCHEDULABLE = "Unschedulable"
    """No node fits for another reason than devices."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota refuses the pods or another child."""
    ADMISSION_DENIED = "AdmissionDenied"
    """An admission policy or webhook refuses a child."""
    CHILD_NAME_TAKEN = "ChildNameTaken"
    """An object that is not ours has the name of a child."""
    CHILD_INVALID = "ChildInvalid"
    """The API server refuses a child, as a rule because of spec.template."""
    EVICTED = "Evicted"
    """A node ended a pod for lack of resources."""

    # Something the specification names is missing.
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    """A Secret, or the key in it, does not exist."""
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    """A ConfigMap, or the key in it, does not exist."""
    VOLUME_NOT_FOUND = "VolumeNotFound"
    """The PersistentVolumeClaim is missing or not bound."""
    MOUNT_FAILED = "MountFailed"
    """A volume exists but cannot be mounted."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The runtime's image cannot be fetched."""
    MODEL_IMAGE_PULL_FAILED = "ModelImagePullFailed"
    """The oci:// model cannot be fetched."""

    # The runtime reported why it cannot serve (agent_runtime.contract.FailureCode).
    RUNTIME_CONFIG_INVALID = "RuntimeConfigInvalid"
    """The runtime does not understand its configuration: another version, as a rule."""
    MODEL_NOT_FOUND = "ModelNotFound"
    """There is no model at the path or repository."""
    MODEL_CORRUPT = "ModelCorrupt"
    """Files of the model are missing or cannot be read."""
    MODEL_UNSUPPORTED = "ModelUnsupported"
    """The runtime cannot serve this kind of model."""
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    """The hub refuses the token, or the volume the reader."""
    MODEL_REVISION_NOT_FOUND = "ModelRevisionNotFound"
    """The repository exists and has no such branch, tag or commit."""
    MODEL_TOKEN_INVALID = "ModelTokenInvalid"  # noqa: S105 - a reason, not a secret
    """The hub or the bucket's server does not know the credentials."""
    HUB_UNREACHABLE = "HubUnreachable"
    """The hub does not answer."""
    BUCKET_UNREACHABLE = "BucketUnreachable"
    """The bucket's server does not answer."""
    MODEL_HOST_UNRESOLVED = "ModelHostUnresolved"
    """No DNS server knows the name of the host the model is on."""
    MODEL_HOST_TLS_FAILED = "ModelHostTLSFailed"
    """The certificate of the host the model is on is not trusted."""
    MODEL_HOST_OVERLOADED = "ModelHostOverloaded"
    """The host the model is on fails or refuses for a while; the download goes on at the next start."""
    DOWNLOAD_INTERRUPTED = "DownloadInterrupted"
    """The connection broke off again and again; the download goes on at the next start."""
    DISK_FULL = "DiskFull"
    """The model does not fit on the disk."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The model does not fit into the memory of the pod or the device."""
    REMOTE_MODEL_UNREACHABLE = "RemoteModelUnreachable"
    """The API the model is behind does not answer."""
    RUNTIME_CRASHED = "RuntimeCrashed"
    """The runtime failed for a reason it does not know."""

    # The container fails without a report.
    CONTAINER_START_FAILED = "ContainerStartFailed"
    """The node could not start the container."""
    CRASH_LOOPING = "CrashLooping"
    """The container ends again and again."""
    PROBE_FAILED = "ProbeFailed"
    """The kubelet restarted a replica that did not load or did not advance in time."""
    REPLICA_STALLED = "ReplicaStalled"
    """A replica has work and makes no progress; it is restarted."""
    REPLICA_SILENT = "ReplicaSilent"
    """A replica that counts as ready does not answer."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """The rollout made no progress for spec.strategy.progressDeadlineSeconds."""
    RECONCILE_ERROR = "ReconcileError"
    """The operator itself failed; see its log."""


class Condition(StatusModel):
    """One observation, in the form of metav1.Condition."""

    type: str = Field(
        min_length=1,
        max_length=316,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        description="What the condition is about: Ready, Reconciling, Stalled, Validated, ScalingActive or "
        "Degraded.",
    )
    status: ConditionStatus = Field(description="Whether the condition holds.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Why, as one CamelCase word that scripts may depend on.",
    )
    message: str = Field(
        default="", max_length=32_768, description="Why, for people: what, where, and how to mend it."
    )
    observed_generation: int | None = Field(
        default=None,
        ge=0,
        le=MAX_GENERATION,
        description="metadata.generation the condition was computed from.",
    )
    last_transition_time: Timestamp = Field(description="When status last changed.")
