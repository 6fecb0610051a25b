"""What a revision is. Layer: core, pure; imports api, core.drift, core.naming, core.reading.

The one idea: a revision is named by a hash of what the user asked for and of the runtime image this
resolved to, never of what we rendered from it. Two consequences, both wanted:

- Replicas, suspend, strategy, autoscaling, tuning and remediation are not part of it: scaling rolls
  nothing. Fields at their default are left out, so a new field with a default changes no hash; a
  default may therefore never change within an API version.
- A new version of the operator restarts no pod. Its other default image does not reach a running
  agent: as long as the spec says what the running revision was made from, that revision keeps the
  image it has (`pinned_image`). Its other rendering does not either: the pod template is recorded on
  the Deployment (`children.deployment`) when the revision is made. The next change of the spec, any
  change, takes the new default image and the new rendering. To ask for it without another change,
  set an annotation in spec.template.metadata.annotations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.core.drift import canonical
from agent_operator.core.naming import digest

HASHED_FIELDS = ("model", "agent", "runtime", "resources", "health", "access", "template")
"""Fields of spec that change the pod or its configuration; the others roll nothing."""
_SAME_AS_ABSENT = ("limits", "prices")
"""Sections of spec.agent that ask for nothing when they are empty; an empty `decision` asks for one."""
_NOT_THE_PODS = ("gateway", "hold")
"""Fields of spec.access that only the gateway reads."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The revision that a spec asks for."""

    name: str
    image: str
    """Runtime image its pods run."""
    image_from_spec: bool
    """The user named the image, so it is not ours to change or to keep."""


@dataclass(frozen=True, slots=True)
class Running:
    """A Deployment that exists, as far as pinning cares."""

    revision: str
    image: str
    image_from_spec: bool


def choose(spec: AgentDeploymentSpec, default_image: str, running: Iterable[Running]) -> Revision:
    """The revision of `spec`: one that runs already where the spec still says what it was made from.

    `running` in order of preference, the one that serves first.
    """
    if spec.runtime.image is not None:
        return Revision(revision_name(spec, spec.runtime.image), spec.runtime.image, image_from_spec=True)
    image = pinned_image(spec, running) or default_image
    return Revision(revision_name(spec, image), image, image_from_spec=False)


def pinned_image(spec: AgentDeploymentSpec, running: Iterable[Running]) -> str | None:
    """The default image that a running revision of exactly this spec was made with, None without one.

    It proves itself: hashed with the spec it must give the revision's name, so an image edited into
    a Deployment by hand is not taken for ours.
    """
    for candidate in running:
        if not candidate.image_from_spec and revision_name(spec, candidate.image) == candidate.revision:
            return candidate.image
    return None


def revision_name(spec: AgentDeploymentSpec, image: str) -> str:
    """Eight characters that stand for the pod-relevant part of the spec and the image."""
    return digest(canonical({"spec": revision_fields(spec), "image": image}))


def revision_fields(spec: AgentDeploymentSpec) -> dict[str, Any]:
    """The pod-relevant part of a spec in its shortest form: no defaults, no runtime image."""
    fields = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(HASHED_FIELDS))
    if spec.template is not None:
        fields["template"] = spec.template.to_manifest()
    fields.get("runtime", {}).pop("image", None)
    for name in _NOT_THE_PODS:
        fields.get("access", {}).pop(name, None)
    if "agent" in fields:
        fields["agent"] = {k: v for k, v in fields["agent"].items() if v != {} or k not in _SAME_AS_ABSENT}
    return {name: value for name, value in fields.items() if value not in (None, {}, [])}
