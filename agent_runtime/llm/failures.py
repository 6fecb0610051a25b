"""Names every way loading can fail. Layer: llm, light: recognises errors by class name, imports no library.

The one idea: libraries report the same trouble in many classes and wrap one in another; what a user can do
about it are the codes of the contract. The whole chain of causes is looked at, and the first rule of one
table that knows one of its errors wins.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent_runtime.contract import FailureCode, ModelConfig, TerminationReport
from agent_runtime.observability.logging import redact


class LoadError(Exception):
    """The model could not be loaded; `report` is what the user is told."""

    def __init__(self, report: TerminationReport) -> None:
        super().__init__(f"{report.code}: {report.message} {report.remedy}")
        self.report = report


def failure(code: FailureCode, message: str, remedy: str) -> LoadError:
    """The error for a cause that is known where it is found."""
    return LoadError(TerminationReport(code=code, message=redact(message), remedy=remedy))


@contextmanager
def reported(model: ModelConfig) -> Iterator[None]:
    """Whatever is raised inside comes out as LoadError."""
    try:
        yield
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(classify(error, model)) from error


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
    seen = _Seen(
        names=frozenset(name for link in chain for name in _class_names(link)),
        statuses=frozenset(status for link in chain if (status := _http_status(link)) is not None),
        codes=frozenset(code for link in chain if isinstance(code := getattr(link, "errno", None), int)),
        out_of_memory=any(_says_out_of_memory(link) for link in chain),
        remote=model.path is None,
    )
    rule = next(rule for rule in _RULES if rule.applies(seen))
    return TerminationReport(
        code=rule.code,
        message=f"Loading {_place(model)} (model {model.uri}) failed: {_detail(chain)}",
        remedy=rule.remedy,
    )


def _detail(chain: list[BaseException]) -> str:
    """What the outermost error that says anything says: its first two lines, because the hub's client
    begins with the status and goes on with the address (the query may be a signature and is left out).
    Our own classes' names would tell users nothing."""
    said = next((text for text in (str(link).strip() for link in chain) if text), "no message")
    lines = [line.strip() for line in redact(said).splitlines() if line.strip()]
    text = re.sub(r"(https?://[^\s?]+)\?[^\s)]+", r"\1", " ".join(lines[:2]))[:600]
    ours = type(chain[0]).__module__.startswith("agent_runtime.")
    return text if ours else f"{type(chain[0]).__name__}: {text}"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a chain of exceptions tells: class names, HTTP statuses and error numbers of the system."""

    names: frozenset[str]
    statuses: frozenset[int]
    codes: frozenset[int]
    out_of_memory: bool
    remote: bool


@dataclass(frozen=True, slots=True)
class _Rule:
    """One kind of trouble: how it is recognised, its code, and what the user can do."""

    applies: Callable[[_Seen], bool]
    code: FailureCode
    remedy: str


def _named(*names: str) -> Callable[[_Seen], bool]:
    return lambda seen: bool(seen.names & set(names))


def _remote(*names: str) -> Callable[[_Seen], bool]:
    return lambda seen: seen.remote and bool(seen.names & set(names))


_RULES = (
    _Rule(
        lambda seen: bool(seen.codes & {errno.ENOSPC, errno.EDQUOT}) or "NoSpaceError" in seen.names,
        FailureCode.DISK_FULL,
        "Give the model cache more room (the cache volume in spec.template, or the node's disk), or use a "
        "smaller model.",
    ),
    _Rule(
        lambda seen: seen.out_of_memory or bool(seen.names & {"OutOfMemoryError", "MemoryError"}),
        FailureCode.OUT_OF_MEMORY,
        "Raise spec.resources.limits.memory, use a GPU with more memory, a smaller dtype (bfloat16), "
        "quantization, or a smaller model.",
    ),
    _Rule(
        _named("CorruptDownloadError"),
        FailureCode.MODEL_CORRUPT,
        "The file was deleted and will be fetched again at the next start. When it fails again, the copy on "
        "the server, or a cache or proxy before it, is damaged.",
    ),
    _Rule(
        _named("SecretError"),
        FailureCode.CONFIG_INVALID,
        "Check that the Secret named in spec.model.tokenSecretRef has the key and that it holds one line.",
    ),
    _Rule(
        _remote("GatedRepoError"),
        FailureCode.MODEL_ACCESS_DENIED,
        "Accept the model's terms on its page and give a token that may read it in "
        "spec.model.tokenSecretRef.",
    ),
    _Rule(
        _remote("RevisionNotFoundError"),
        FailureCode.MODEL_REVISION_NOT_FOUND,
        "Check spec.model.revision: it must be a branch, a tag or a full commit of that repository.",
    ),
    _Rule(
        lambda seen: seen.remote
        and (
            bool(seen.names & {"RepositoryNotFoundError", "RemoteEntryNotFoundError", "HFValidationError"})
            or 404 in seen.statuses
        ),
        FailureCode.MODEL_NOT_FOUND,
        "Check the spelling of spec.model.uri; when the repository is private, give a token in "
        "spec.model.tokenSecretRef (the hub calls it missing without one).",
    ),
    _Rule(
        lambda seen: seen.remote and 401 in seen.statuses,
        FailureCode.MODEL_TOKEN_INVALID,
        "The hub does not know the token: create a new one on its settings page and put it into the Secret "
        "of spec.model.tokenSecretRef.",
    ),
    _Rule(
        lambda seen: seen.remote and 403 in seen.statuses,
        FailureCode.MODEL_ACCESS_DENIED,
        "The token is valid and may not read this repository: give it that permission, or another token in "
        "spec.model.tokenSecretRef.",
    ),
    _Rule(
        lambda seen: seen.remote and any(status >= 500 or status in (408, 429) for status in seen.statuses),
        FailureCode.MODEL_HOST_OVERLOADED,
        "Nothing is wrong here: the server answers with errors or refuses for a while, and the next start "
        "goes on where this one ended. A token (spec.model.tokenSecretRef) raises the hub's rate limit.",
    ),
    _Rule(
        _remote("SSLError"),
        FailureCode.MODEL_HOST_TLS_FAILED,
        "Name the certificate of the server's or the proxy's authority in SSL_CERT_FILE (spec.template), and "
        "check the clock of the node and the host name in HF_ENDPOINT or AWS_ENDPOINT_URL.",
    ),
    _Rule(
        _remote("gaierror"),
        FailureCode.MODEL_HOST_UNRESOLVED,
        "Let the pod ask its DNS server (egress to port 53), and check the host name in HF_ENDPOINT or "
        "AWS_ENDPOINT_URL.",
    ),
    _Rule(
        _remote("InterruptedDownloadError"),
        FailureCode.DOWNLOAD_INTERRUPTED,
        "What arrived was kept, and the next start goes on from there. When it happens again and again, look "
        "for a proxy or a firewall that ends long connections.",
    ),
    _Rule(
        _remote(
            "ConnectionError", "IncompleteSnapshotError", "LocalEntryNotFoundError", "NetworkError",
            "OfflineModeIsEnabled", "ProtocolError", "TimeoutError", "TimeoutException", "TransportError",
        ),
        FailureCode.HUB_UNREACHABLE,
        "Let the pod reach the hub (DNS, egress policy, HTTPS_PROXY), set HF_ENDPOINT to a mirror in "
        "spec.template, or use an oci:// or pvc:// model.",
    ),
    _Rule(
        _named("SafetensorError", "JSONDecodeError", "UnpicklingError", "UnicodeDecodeError"),
        FailureCode.MODEL_CORRUPT,
        "Copy or download the model again; a file of it is damaged.",
    ),
    _Rule(
        _named("ImportError"),
        FailureCode.MODEL_UNSUPPORTED,
        "The model needs a package this image does not have: use its plain weights, or an image with it.",
    ),
    _Rule(
        _named("FileNotFoundError", "PermissionError"),
        FailureCode.MODEL_NOT_FOUND,
        "Check that the file exists and that user 65532, as which the runtime runs, may read it.",
    ),
    _Rule(
        lambda seen: True,
        FailureCode.INTERNAL,
        "See the log of this container; if the model is sound, this is a defect.",
    ),
)  # fmt: skip


def _place(model: ModelConfig) -> str:
    if model.path is not None:
        return f"path {model.path}"
    if model.repo_id is None:
        return f"bucket folder {model.s3_uri}"
    return f"repository {model.repo_id}" + (f" at revision {model.revision}" if model.revision else "")


def _class_names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__} - {"object", "BaseException", "Exception"}


def _http_status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _says_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError; these are its words.
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)
