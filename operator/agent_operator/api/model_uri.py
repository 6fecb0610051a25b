"""Model URIs: where the weights come from. Layer: api, pure; imports the standard library only.

The one idea: the forms of a URI are defined once, as regular expressions that Python and CEL (RE2) read
alike; the CRD rule, the reference page and the operator's parser are all made from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

MAX_LENGTH = 512
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
"""One path segment; it cannot start with a dot, so `..` cannot leave the volume or bucket."""
HF_PATTERN = rf"^hf://{_SEGMENT}(/{_SEGMENT})?$"
OCI_PATTERN = (
    r"^oci://([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?|[A-Za-z0-9-]+:[0-9]+|localhost)"
    r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})$"
)
PVC_PATTERN = rf"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/{_SEGMENT})*$"
S3_PATTERN = rf"^s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/{_SEGMENT})+$"
PATTERNS = (HF_PATTERN, OCI_PATTERN, PVC_PATTERN, S3_PATTERN)
FORMS = (
    "hf://organisation/name, oci://registry/repository:tag (or @sha256:digest), "
    "pvc://claim/path or s3://bucket/key"
)


class Scheme(StrEnum):
    """Where a model is fetched from."""

    HF = "hf"
    OCI = "oci"
    PVC = "pvc"
    S3 = "s3"


@dataclass(frozen=True, slots=True)
class ModelUri:
    """A parsed model URI; only the fields of its scheme are set."""

    scheme: Scheme
    rest: str
    """What follows `scheme://`: hub repository, image reference, claim and path, or bucket and key."""

    @property
    def repo_id(self) -> str:
        """Hub repository of an `hf://` URI."""
        return self.rest

    @property
    def image(self) -> str:
        """Image reference of an `oci://` URI."""
        return self.rest

    @property
    def claim(self) -> str:
        """PersistentVolumeClaim of a `pvc://` URI."""
        return self.rest.partition("/")[0]

    @property
    def sub_path(self) -> str:
        """Path inside the claim of a `pvc://` URI; empty for its root."""
        return self.rest.partition("/")[2]

    @property
    def display(self) -> str:
        """Short name for tables: the hub repository, or the last part of the path with its tag."""
        if self.scheme is Scheme.HF:
            return self.rest
        if self.scheme is Scheme.OCI and "@" in self.rest:
            name, _, digest = self.rest.rpartition("/")[2].partition("@sha256:")
            return name if ":" in name else f"{name}@{digest[:8]}"
        return self.rest.rpartition("/")[2]


def parse_model_uri(uri: str) -> ModelUri:
    """Split a URI into scheme and rest; ValueError naming the accepted forms when it has none of them."""
    if len(uri) > MAX_LENGTH or not any(re.fullmatch(pattern, uri) for pattern in PATTERNS):
        raise ValueError(f"{uri[:MAX_LENGTH]!r} is not a model URI: use {FORMS}")
    scheme, _, rest = uri.partition("://")
    return ModelUri(Scheme(scheme), rest)
