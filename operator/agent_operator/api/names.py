"""Fixed names of the API. Layer: api, pure; imports nothing.

The one idea: a name that users, RBAC rules or other controllers may rely on is spelt once.
"""

GROUP = "agentoperator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AgentDeployment"
LIST_KIND = "AgentDeploymentList"
PLURAL = "agentdeployments"
SINGULAR = "agentdeployment"
SHORT_NAMES = ("agents", "agent", "agd")
CATEGORIES = ("agentoperator",)

FIELD_MANAGER = "agent-operator"
"""Field manager of every server-side apply, on children and on status."""

LABEL_AGENT = f"{GROUP}/agent"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_SHARD = f"{GROUP}/shard"
"""Which of several operators serves an agent; children carry it too, so that each watches only its own."""
LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
OWNED_LABELS = (LABEL_AGENT, LABEL_REVISION, LABEL_SHARD, LABEL_NAME, LABEL_INSTANCE, LABEL_MANAGED_BY)
"""Labels the operator selects on; a template may not set them."""

ANNOTATION_APPLIED_HASH = f"{GROUP}/applied-hash"
ANNOTATION_PAUSED = f"{GROUP}/paused"

RUNTIME_CONTAINER = "runtime"
RUNTIME_PORT_NAME = "http"
ADMIN_PORT_NAME = "admin"
"""Port of probes, metrics and changes while serving; no Service exposes it."""

VOLUME_CONFIG = "config"
VOLUME_MODEL = "model"
VOLUME_CACHE = "cache"
VOLUME_TMP = "tmp"
VOLUME_SECRETS = "runtime-secrets"
VOLUME_API_KEYS = "runtime-api-keys"
VOLUME_LOGS = "runtime-logs"
OWNED_VOLUMES = (
    VOLUME_CONFIG, VOLUME_MODEL, VOLUME_CACHE, VOLUME_TMP, VOLUME_SECRETS, VOLUME_API_KEYS, VOLUME_LOGS,
)  # fmt: skip
"""Volumes of the runtime pod; a template may add others but not redefine these."""

NAME_MAX_LENGTH = 50
"""Longest AgentDeployment name: leaves room for `-` and an 8-character revision in 63 characters."""
NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS label that starts with a letter, because the agent's Service takes the same name."""
