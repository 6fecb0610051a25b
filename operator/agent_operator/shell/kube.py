"""Six verbs on plain dicts. Layer: shell; imports the standard library and the table of kinds.

The one idea: what the operator needs of Kubernetes is get, list, create, replace, apply and delete. The
real adapter (`http_kube`) and the fake in the tests speak the same protocol and raise the same typed
errors, so nothing above this line knows HTTP. Why not a client library: the typed ones cost ten times
the CPU per object, and none of the dict-based ones here applies server-side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple, Protocol

from agent_operator.shell.kinds import Kind

Object = dict[str, Any]

FIELD_MANAGER = "agent-operator"


class KubeError(Exception):
    """The API server refused or did not answer. `code` is the HTTP status, 0 without an answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class NotFoundError(KubeError):
    """The object, its namespace or its kind does not exist."""


class ConflictError(KubeError):
    """A precondition (uid, resourceVersion) failed or another manager owns a field."""


class AlreadyExistsError(ConflictError):
    """A create found the name in use."""


class InvalidError(KubeError):
    """The request can never succeed as it is: retrying without a change is useless."""


class ForbiddenError(KubeError):
    """RBAC, quota or admission said no, or the credentials were not accepted."""


class InternalError(KubeError):
    """The API server failed while handling the request, for example in an admission webhook."""


class UnavailableError(KubeError):
    """No answer, or 429 or 5xx after all attempts: worth retrying later."""


class Listing(NamedTuple):
    """A list or a page of one; every object carries apiVersion and kind."""

    objects: list[Object]
    resource_version: str


class Kube(Protocol):
    """The six verbs. Every one raises KubeError subclasses only."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Read one object from the API server, never from a cache."""

    def pages(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[Listing]:
        """A complete list in parts, so that it need not be held in memory; all name its one version."""

    async def list(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> Listing:
        """All objects of a kind, in one namespace or in all (None), chosen by labels and by fields."""

    async def create(self, obj: Object) -> Object:
        """POST. Raises AlreadyExistsError when the name is taken."""

    async def replace(self, obj: Object) -> Object:
        """PUT with the resourceVersion in `obj` as precondition. Raises ConflictError when it moved on."""

    async def apply(self, obj: Object, *, subresource: str = "", force: bool = True) -> Object:
        """Server-side apply as FIELD_MANAGER; a metadata.uid in `obj` is a precondition (ConflictError)."""

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> Object | None:
        """Delete in the background if the uid still matches; None when the object is gone at once."""
