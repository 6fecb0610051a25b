"""Names every way loading can fail. Layer: llm, light: recognises errors by class name, imports no library.

The one idea: libraries report the same trouble in many classes and wrap one in another; what a user can do
about it are the nine codes of the contract. The whole chain of causes is looked at, the first rule that
knows one of its errors wins.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from agent_runtime.contract import FailureCode, ModelConfig, TerminationReport
from agent_runtime.observability.logging import redact


class LoadError(Exception):
    """The model could not be loaded; `report` is what the user is told."""

    def __init__(self, report: TerminationReport) -> None:
        super().__init__(f"{report.code}: {report.message} {report.remedy}")
        self.report = report


_NETWORK = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ConnectionError",
        "LocalEntryNotFoundError",
        "MaxRetryError",
        "NetworkError",
        "OfflineModeIsEnabled",
        "PoolTimeout",
        "ProxyError",
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "SSLError",
        "TimeoutException",
    }
)
_CORRUPT = frozenset({"SafetensorError", "JSONDecodeError", "UnpicklingError", "UnicodeDecodeError"})


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was raised from, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def classify(error: BaseException, model: ModelConfig) -> TerminationReport:
    """The report for any exception raised while this model was being loaded; tokens are removed."""
    chain = list(causes(error))
    place = f"repository {model.repo_id}" if model.path is None else f"path {model.path}"
    code, remedy = _diagnose(chain, model)
    detail = next((text for text in (str(link).strip() for link in chain) if text), "no message")
    first = redact(detail).splitlines()[0][:600]
    return TerminationReport(
        code=code,
        message=f"Loading {place} (model {model.uri}) failed: {type(chain[0]).__name__}: {first}",
        remedy=remedy,
    )


def _diagnose(chain: list[BaseException], model: ModelConfig) -> tuple[FailureCode, str]:
    names = {name for link in chain for name in _class_names(link)}
    statuses = {status for link in chain if (status := _http_status(link)) is not None}
    if any(getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        return FailureCode.DISK_FULL, (
            "Give the model cache more room (the cache volume in spec.template, or the node's disk), "
            "or use a smaller model."
        )
    if names & {"OutOfMemoryError", "MemoryError"} or any(_says_out_of_memory(link) for link in chain):
        return FailureCode.OUT_OF_MEMORY, (
            "Raise spec.resources.limits.memory, use a GPU with more memory, a smaller dtype (bfloat16) "
            "or a smaller model."
        )
    if model.path is None and (verdict := _hub(names, statuses)) is not None:
        return verdict
    if names & _CORRUPT:
        return FailureCode.MODEL_CORRUPT, "Copy or download the model again; a file of it is damaged."
    if names & {"FileNotFoundError", "PermissionError"}:
        return FailureCode.MODEL_NOT_FOUND, (
            "Check that the file exists and that user 65532, as which the runtime runs, may read it."
        )
    return FailureCode.INTERNAL, "See the log of this container; if the model is sound, this is a defect."


def _hub(names: set[str], statuses: set[int]) -> tuple[FailureCode, str] | None:
    if "GatedRepoError" in names or ("RepositoryNotFoundError" not in names and statuses & {401, 403}):
        return FailureCode.MODEL_ACCESS_DENIED, (
            "Accept the model's terms on its page and give a token that may read it in "
            "spec.model.tokenSecretRef."
        )
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError",
                "HFValidationError"} or 404 in statuses:  # fmt: skip
        return FailureCode.MODEL_NOT_FOUND, (
            "Check the spelling of spec.model.uri and spec.model.revision; when the repository is private, "
            "give a token in spec.model.tokenSecretRef (the hub calls it missing without one)."
        )
    if names & _NETWORK or any(status >= 500 or status == 429 for status in statuses):
        return FailureCode.HUB_UNREACHABLE, (
            "Let the pod reach the hub (DNS, egress policy, HTTPS_PROXY), set HF_ENDPOINT to a mirror in "
            "spec.template, or use an oci:// or pvc:// model."
        )
    return None


def _class_names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__} - {"object", "BaseException", "Exception"}


def _http_status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _says_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError; these are its words.
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)
