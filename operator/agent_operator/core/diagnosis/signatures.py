"""The table of signatures. Layer: core, pure; imports api, core.children.secrets, core.diagnosis.*.

The one idea: a signature is a function from what the pod was asked to be and what is known of it to a
diagnosis or None; SIGNATURES is their order, what stops a pod earliest first. Each one was seen on a
real cluster or is spelt in the component's source; messages are matched on the stable part only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agent_operator.api import Reason
from agent_operator.core.children.secrets import SecretUse
from agent_operator.core.diagnosis import mounts
from agent_operator.core.diagnosis.facts import ContainerFacts, PodFacts, Termination
from agent_operator.core.diagnosis.text import clean

LOOPING_ENDINGS = 2
_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_PULLING = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_STARTING = frozenset(
    {"CreateContainerError", "RunContainerError", "PostStartHookError", "CreateContainerConfigError"}
)
_MISSING_OBJECT = re.compile(r'\b(secret|configmap) "([^"]{1,253})" not found')
_MISSING_KEY = re.compile(r"couldn't find key (\S{1,253}) in (Secret|ConfigMap) (?:[^/\s]+/)?(\S{1,253})")
_MISSING_CLAIM = re.compile(r'persistentvolumeclaim "([^"]{1,253})" (?:not found|is being deleted)')
_UNBOUND_CLAIM = re.compile(r"unbound (?:immediate )?PersistentVolumeClaims")
_COUNT_STEPS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One fault. `evidence` says what was seen and where, `remedy` what mends it."""

    reason: str
    evidence: str
    remedy: str
    needs_user: bool = False
    """Nothing goes on until somebody changes something, however long one waits."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the pods of a revision were asked to be."""

    runtime_image: str
    model_image: str | None = None
    """Image reference of an oci:// model."""
    gpu_resource: str | None = None
    gpu_count: str = "0"
    secrets: tuple[SecretUse, ...] = ()
    """The Secrets that are mounted for the runtime."""
    served_by: str | None = None
    """Another revision that serves meanwhile."""

    @property
    def meanwhile(self) -> str:
        """A clause about who serves, "" when nobody does."""
        return f"; revision {self.served_by} keeps serving" if self.served_by else ""


Signature = Callable[[Subject, PodFacts], Diagnosis | None]


def unscheduled(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """The scheduler found no node."""
    if pod.unscheduled is None:
        return None
    # What follows "preemption:" counts nodes again and changes with every attempt.
    said = clean(pod.unscheduled.partition("preemption:")[0])
    if (missing := _MISSING_CLAIM.search(pod.unscheduled)) is not None:
        remedy = f"create PersistentVolumeClaim {missing[1]} in this namespace, or correct spec.model.uri"
        return Diagnosis(Reason.VOLUME_NOT_FOUND, f"pod {pod.name}: {said}", remedy)
    if _UNBOUND_CLAIM.search(pod.unscheduled):
        remedy = (
            "see kubectl describe pvc: the claim needs a PersistentVolume or a StorageClass that makes one"
        )
        return Diagnosis(Reason.VOLUME_NOT_FOUND, f"pod {pod.name}: {said}", remedy)
    if subject.gpu_resource and f"Insufficient {subject.gpu_resource}" in pod.unscheduled:
        asked = f"each pod asks for {subject.gpu_count} {subject.gpu_resource}; scheduler: {said}"
        remedy = (
            f"free a device, add a node with {subject.gpu_resource}, or lower spec.resources.gpu.count or "
            f"spec.replicas{subject.meanwhile}"
        )
        return Diagnosis(Reason.INSUFFICIENT_GPU, asked, remedy)
    remedy = "make room on a node, or change spec.resources or the scheduling fields of spec.template"
    return Diagnosis(Reason.UNSCHEDULABLE, f"pod {pod.name}: {said}", remedy + subject.meanwhile)


def evicted(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """A node ended the pod for lack of resources."""
    if pod.phase != "Failed" or pod.reason != "Evicted":
        return None
    remedy = "raise spec.resources.requests, so that the pod goes where there is room"
    return Diagnosis(Reason.EVICTED, f"pod {pod.name}: {clean(pod.message)}", remedy)


def volume_not_mounted(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """The kubelet cannot mount a volume, as a rule because a Secret is missing."""
    if not pod.mount_error:
        return None
    evidence = f"pod {pod.name}: {clean(pod.mount_error)}"
    missing = [_missing_object(subject, *found) for found in mounts.MISSING.findall(pod.mount_error)]
    missing += [_missing_key(subject, *found) for found in mounts.MISSING_KEY.findall(pod.mount_error)]
    if not missing:
        remedy = "see kubectl describe pod; the volume is named by spec.model.uri or spec.template"
        return Diagnosis(Reason.MOUNT_FAILED, evidence, remedy)
    what = " and ".join(dict.fromkeys(thing for _, thing, _ in missing))
    where = " and ".join(dict.fromkeys(field for _, _, field in missing))
    remedy = f"create {what} in this namespace, or correct {where}"
    return Diagnosis(missing[0][0], evidence, clean(remedy, 340))


def image_not_pulled(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """A node cannot fetch the image of a container, or the model mounted as image volume."""
    container = _waiting(pod, _PULLING)
    if container is None:
        return None
    said = f"{container.waiting_reason}: {clean(container.waiting_message)}"
    if _is_about_model(subject, container):
        evidence = f"model image {subject.model_image}: {said}"
        remedy = "correct spec.model.uri, push the image, or give spec.template.spec.imagePullSecrets"
        return Diagnosis(Reason.MODEL_IMAGE_PULL_FAILED, evidence, remedy)
    image = subject.runtime_image if container.is_runtime else container.image
    evidence = f"image {clean(image, 300)} of container {container.name}: {said}"
    remedy = "correct spec.runtime.image" if container.is_runtime else "correct the image in spec.template"
    remedy += ", push the image, or give spec.template.spec.imagePullSecrets"
    return Diagnosis(Reason.IMAGE_PULL_FAILED, evidence, remedy)


def reference_missing(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """The container refers to a Secret or ConfigMap that is not there."""
    container = _waiting(pod, frozenset({"CreateContainerConfigError"}))
    if container is None:
        return None
    if (missing := _MISSING_OBJECT.search(container.waiting_message)) is not None:
        kind, name, key = missing[1], missing[2], ""
    elif (missing := _MISSING_KEY.search(container.waiting_message)) is not None:
        kind, name, key = missing[2].lower(), missing[3], missing[1]
    else:
        return None
    spelt = "Secret" if kind == "secret" else "ConfigMap"
    reason = Reason.SECRET_NOT_FOUND if kind == "secret" else Reason.CONFIG_MAP_NOT_FOUND
    what = f"key {clean(key, 100)} of {spelt} {clean(name, 260)}" if key else f"{spelt} {clean(name, 260)}"
    remedy = f"create {what} in this namespace, or correct the reference in spec.model or spec.template"
    return Diagnosis(reason, f"pod {pod.name}: {clean(container.waiting_message)}", remedy)


def not_started(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """The node cannot start a container, for another reason than a missing reference."""
    container = _waiting(pod, _STARTING)
    if container is None:
        return None
    evidence = f"container {container.name} of pod {pod.name}: {container.waiting_reason}: "
    remedy = "see the message; as a rule spec.template or the image is at fault"
    return Diagnosis(Reason.CONTAINER_START_FAILED, evidence + clean(container.waiting_message), remedy)


def reported(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """The runtime said why it cannot serve, then ended."""
    for container in _ended(pod):
        if container.is_runtime and container.termination and (report := container.termination.report):
            remedy = clean(report.remedy, 250)
            return Diagnosis(report.code.value, f"pod {pod.name}: {clean(report.message)}", remedy)
    return None


def out_of_memory(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """The kernel killed a container for memory. An exit code of 137 alone does not say so."""
    for container in _ended(pod):
        if container.termination and container.termination.reason == "OOMKilled":
            limit = clean(container.memory_limit, 40)
            bound = f"its memory limit is {limit}" if limit else "it has no memory limit of its own"
            evidence = f"container {container.name} of pod {pod.name} was killed for memory; {bound}"
            remedy = (
                "raise spec.resources.limits.memory above the size of the model"
                if limit
                else "set spec.resources.requests.memory, so that the node has room for the model"
            )
            return Diagnosis(Reason.OUT_OF_MEMORY, evidence, remedy + ", or use a smaller model")
    return None


def crashing(subject: Subject, pod: PodFacts) -> Diagnosis | None:
    """A container ends again and again, or has just ended, and nobody said why."""
    for container in _ended(pod):
        termination = container.termination
        if termination is None:
            continue
        # Not by CrashLoopBackOff: that comes and goes with every attempt.
        looping = container.endings >= LOOPING_ENDINGS
        if not looping and (termination.exit_code == 0 or not container.is_runtime):
            continue
        said = f': "{clean(termination.message, 200)}"' if termination.message.strip() else ""
        evidence = (
            f"container {container.name} of pod {pod.name} ended with {ending(termination)}, "
            f"{times(container.endings)}{said}"
        )
        remedy = f"read its last words: kubectl logs {pod.name} -c {container.name} --previous"
        return Diagnosis(Reason.CRASH_LOOPING if looping else Reason.RUNTIME_CRASHED, evidence, remedy)
    return None


SIGNATURES: tuple[Signature, ...] = (
    unscheduled,
    evicted,
    volume_not_mounted,
    image_not_pulled,
    reference_missing,
    not_started,
    reported,
    out_of_memory,
    crashing,
)


def ending(termination: Termination) -> str:
    """How a container ended, in words: exit code and signal."""
    number = termination.signal or (termination.exit_code - 128 if termination.exit_code > 128 else 0)
    signal = f" ({_SIGNALS.get(number, f'signal {number}')})" if number else ""
    return f"exit code {termination.exit_code}{signal}"


def times(number: int) -> str:
    """A count in steps, so that a status is not rewritten at every attempt: "3 times", "5 times or more"."""
    step = max((s for s in _COUNT_STEPS if s <= number), default=1)
    if step <= 3:
        return "once" if step == 1 else f"{step} times"
    return f"{step} times or more"


def _missing_object(subject: Subject, kind: str, name: str) -> tuple[Reason, str, str]:
    """Reason, what is missing, and the field that names it."""
    if kind == "configmap":
        return Reason.CONFIG_MAP_NOT_FOUND, f"ConfigMap {clean(name, 260)}", "the volume in spec.template"
    used = [use for use in subject.secrets if use.secret == name]
    keys = " and ".join(dict.fromkeys(use.key for use in used if use.key))
    fields = " and ".join(use.field for use in used) or "the volume in spec.template"
    what = f"Secret {clean(name, 260)}"
    return Reason.SECRET_NOT_FOUND, f"{what} with key {clean(keys, 100)}" if keys else what, fields


def _missing_key(subject: Subject, kind: str, key: str) -> tuple[Reason, str, str]:
    """The kubelet names the key and not its Secret: that stands in the template."""
    key = clean(key, 100)
    if kind == "config":
        return Reason.CONFIG_MAP_NOT_FOUND, f"key {key} of the ConfigMap", "the volume in spec.template"
    used = [use for use in subject.secrets if use.key == key]
    names = " or ".join(dict.fromkeys(clean(use.secret, 260) for use in used))
    fields = " and ".join(use.field for use in used) or "the volume in spec.template"
    what = f"key {key} of Secret {names}" if names else f"key {key} of the Secret"
    return Reason.SECRET_NOT_FOUND, what, fields


def _waiting(pod: PodFacts, reasons: frozenset[str]) -> ContainerFacts | None:
    return next((c for c in pod.containers if c.waiting_reason in reasons), None)


def _ended(pod: PodFacts) -> list[ContainerFacts]:
    """Containers that ended and have not recovered. An init container that is done is not ready but well."""
    return [c for c in pod.containers if c.termination is not None and not c.ready and not _done(c)]


def _done(container: ContainerFacts) -> bool:
    ended = container.termination
    return ended is not None and ended.reason == "Completed" and not container.waiting_reason


def _is_about_model(subject: Subject, container: ContainerFacts) -> bool:
    """Whether a pull failure is that of the image volume.

    The kubelet reports it as the container's own, with the volume's reference in the message. Where
    one reference is part of the other, the longer one was meant.
    """
    if subject.model_image is None or subject.model_image not in container.waiting_message:
        return False
    runtime_meant = subject.runtime_image in container.waiting_message
    return not runtime_meant or len(subject.model_image) > len(subject.runtime_image)
