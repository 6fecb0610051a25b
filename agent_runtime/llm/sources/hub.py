"""Models on the Hugging Face hub, or on a mirror that HF_ENDPOINT names. Layer: llm; imports huggingface_hub
lazily.

The one idea: files go where the hub's own client would put them (blobs, snapshots and refs, as described in
https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so that a model fetched by any program is
found by all; but the bytes are brought by `transfer`, which resumes and compares digests. What the hub cannot
send over plain HTTP, which is a file of more than 50 GB, is left to its client.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_runtime.contract import FailureCode, ModelConfig
from agent_runtime.llm.failures import failure
from agent_runtime.llm.sources.folder import INDEX, WEIGHTS, Folder, is_wanted, is_whole, open_folder
from agent_runtime.llm.sources.progress import OnDownload, Reporter
from agent_runtime.llm.sources.transfer import (
    Body,
    CorruptDownloadError,
    Digest,
    InterruptedDownloadError,
    RemoteFile,
    RetryPolicy,
    TransientError,
    bytes_on_disk,
    check_space,
    fetch_all,
    patiently,
)
from agent_runtime.secrets import environment_secret, read_secret

log = logging.getLogger("agent_runtime.download")

RETRY = RetryPolicy()
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, repr=False)
class Hub:
    """Which hub, as whom, and where its cache is; `timeout` is in seconds without a byte."""

    endpoint: str
    cache: Path
    timeout: float
    token: str | None

    @classmethod
    def for_model(cls, config: ModelConfig) -> Hub:
        """By the environment (HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_DOWNLOAD_TIMEOUT, HF_TOKEN) and the
        model's `token_file`. Raises SecretError."""
        from huggingface_hub import constants

        return cls(
            endpoint=constants.ENDPOINT,
            cache=Path(constants.HF_HUB_CACHE),
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            token=_token(config),
        )

    @property
    def credential(self) -> str | bool:
        """The token as the hub's client wants it; False keeps it from looking for one itself."""
        return self.token or False


@dataclass(frozen=True, slots=True)
class Repository:
    """One commit of a repository, as a source: the files that make up its model."""

    hub: Hub
    repo_id: str
    commit: str
    files: tuple[RemoteFile, ...]
    revision: str | None = None
    local: bool = False

    def fetch(self, on_download: OnDownload | None = None) -> Path:
        """The folder of the snapshot, once every file is whole. Raises what the hub's client raises, and
        the errors of `transfer`."""
        from huggingface_hub import constants

        check_space(self.files, self.hub.cache)
        reporter = Reporter(
            self.repo_id,
            {file.name: file.size for file in self.files},
            {file.name: bytes_on_disk(file) for file in self.files},
            on_download,
        )
        reporter.begin()
        plain = [file for file in self.files if file.size <= constants.MAX_HTTP_DOWNLOAD_SIZE]
        fetch_all(plain, self._open, reporter, RETRY, self._link)
        for file in set(self.files).difference(plain):
            self._by_client(file)
            reporter.at(file.name, file.size)
        reporter.end()
        self._remember_revision()
        return self._snapshot

    @property
    def _storage(self) -> Path:
        return storage(self.hub, self.repo_id)

    @property
    def _snapshot(self) -> Path:
        return self._storage / "snapshots" / self.commit

    def _remember_revision(self) -> None:
        """Notes which commit the branch or tag was, as the hub's client does (`refs/` in its cache), so that
        the snapshot is found while the hub is away; only once it is whole. A cache that cannot be written
        and holds the model serves too."""
        name = self.revision or "main"
        reference = self._storage / "refs" / name
        with suppress(OSError):
            if name == self.commit or (reference.exists() and reference.read_text() == self.commit):
                return
            reference.parent.mkdir(parents=True, exist_ok=True)
            temporary = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
            temporary.write_text(self.commit)
            temporary.replace(reference)

    @contextmanager
    def _open(self, file: RemoteFile, offset: int) -> Iterator[Body]:
        import httpx2
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self.repo_id, file.name, revision=self.commit, endpoint=self.hub.endpoint)
        headers = build_hf_headers(token=self.hub.credential) | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with (
            _as_transient(f"{self.hub.endpoint}, {file.name}"),
            get_session().stream(
                "GET", url, headers=headers, timeout=self.hub.timeout, follow_redirects=True
            ) as response,
        ):
            if response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                raise CorruptDownloadError(
                    f"{file.name} should have {file.size} bytes and ends on the server before {offset}"
                )
            hf_raise_for_status(response)
            try:
                yield Body(_start(response), response.iter_bytes())
            except httpx2.TransportError as error:
                raise InterruptedDownloadError(
                    f"the connection broke off within {file.name}: {error or type(error).__name__}"
                ) from error

    def _link(self, file: RemoteFile) -> None:
        """Gives the blob its name in the snapshot."""
        link = self._snapshot / file.name
        if link.exists():
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f"{link.name}.{os.getpid()}.tmp")
        try:
            temporary.symlink_to(Path(os.path.relpath(file.target, link.parent)))
        except PermissionError:  # a file system without symbolic links: the client knows what to do
            self._by_client(file)
        else:
            temporary.replace(link)

    def _by_client(self, file: RemoteFile) -> None:
        from huggingface_hub import hf_hub_download

        for attempt in patiently(RETRY, f"download of {file.name}"):
            with attempt, _as_transient(f"{self.hub.endpoint}, {file.name}"):
                hf_hub_download(
                    self.repo_id,
                    file.name,
                    revision=self.commit,
                    cache_dir=self.hub.cache,
                    endpoint=self.hub.endpoint,
                    token=self.hub.credential,
                    etag_timeout=self.hub.timeout,
                )


def open_repository(config: ModelConfig, hub: Hub) -> Repository | Folder:
    """The commit that `config` names, looked up at the hub; an unreachable hub leaves what is cached.

    Raises LoadError, and what the hub's client raises.
    """
    repo_id = config.repo_id or ""
    try:
        info = _look_up(repo_id, config.revision, hub)
    except Exception as error:
        if (folder := _cached(repo_id, config.revision, hub, error)) is not None:
            return open_folder(str(folder), config.uri)
        raise
    blobs = storage(hub, repo_id) / "blobs"
    files = tuple(
        _remote_file(sibling, blobs) for sibling in info.siblings or () if is_wanted(sibling.rfilename)
    )
    _check_names({file.name for file in files}, repo_id, config.uri)
    return Repository(hub, repo_id, info.sha, files, config.revision)


def storage(hub: Hub, repo_id: str) -> Path:
    """Where the hub's client keeps a repository in its cache."""
    from huggingface_hub.file_download import repo_folder_name

    return hub.cache / repo_folder_name(repo_id=repo_id, repo_type="model")


def _look_up(repo_id: str, revision: str | None, hub: Hub) -> Any:
    """The commit's hash and files with sizes and digests."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint, token=hub.credential)
    for attempt in patiently(RETRY, f"look-up of {repo_id}"):
        with attempt, _as_transient(hub.endpoint):
            return api.model_info(repo_id, revision=revision, files_metadata=True, timeout=hub.timeout)
    raise AssertionError("patiently returns or raises")


def _cached(repo_id: str, revision: str | None, hub: Hub, error: Exception) -> Path | None:
    """The snapshot an earlier download left, when `error` is that the hub did not answer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if not isinstance(error, TransientError | OfflineModeIsEnabled):
        return None
    try:
        folder = Path(
            snapshot_download(repo_id, revision=revision, cache_dir=hub.cache, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None
    if not is_whole(folder):
        return None
    log.warning(
        "%s does not answer, using the copy of %s in %s: %s", hub.endpoint, repo_id, folder, error,
        extra={"fields": {"repository": repo_id, "commit": folder.name}},
    )  # fmt: skip
    return folder


def _check_names(names: set[str], repo_id: str, uri: str) -> None:
    if "config.json" not in names:
        raise failure(
            FailureCode.MODEL_NOT_FOUND,
            f"Repository {repo_id} has no config.json at its root (model {uri}).",
            "Name a repository that holds a model saved by save_pretrained, not a dataset, an adapter or "
            "GGUF files alone.",
        )
    if not names & {WEIGHTS, INDEX}:
        raise failure(
            FailureCode.MODEL_UNSUPPORTED,
            f"Repository {repo_id} has neither {WEIGHTS} nor {INDEX} at its root (model {uri}).",
            "Use a repository or revision with safetensors weights; other formats can run code and are not "
            "loaded.",
        )


def _remote_file(sibling: Any, blobs: Path) -> RemoteFile:
    """A file as the hub lists it. Large files are known by the SHA-256 of their bytes, small ones by the
    SHA-1 git gives a blob, which is over `blob SIZE`, a zero byte, and the bytes."""
    if sibling.lfs is not None:
        digest = Digest("sha256", sibling.lfs.sha256)
    else:
        digest = Digest("sha1", sibling.blob_id, b"blob %d\0" % sibling.size)
    return RemoteFile(sibling.rfilename, sibling.size, blobs / digest.value, digest)


def _start(response: Any) -> int:
    """Where the bytes of a response begin in the file: `Content-Range: bytes 100-199/200`."""
    if response.status_code != 206:
        return 0
    return int(response.headers["Content-Range"].removeprefix("bytes ").split("-")[0])


@contextmanager
def _as_transient(where: str) -> Iterator[None]:
    """Raises TransientError instead of what may go better when it is tried again."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code not in _TRANSIENT:
            raise
        raise TransientError(
            f"{where}: HTTP {error.response.status_code}", _asked_seconds(error.response.headers)
        ) from error
    except (httpx2.TransportError, LocalEntryNotFoundError) as error:
        if _is_final(error):
            raise
        raise TransientError(f"{where}: {error or type(error).__name__}") from error


def _asked_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds the hub asks to wait: by Retry-After, or by its rate limit when that is used up."""
    from huggingface_hub.utils import parse_ratelimit_headers

    if (asked := headers.get("Retry-After", "")).isdigit():
        return float(asked)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def _is_final(error: Exception) -> bool:
    """A certificate that is not trusted now will not be in a minute."""
    import ssl

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _token(config: ModelConfig) -> str | None:
    """The access token: of the model's file, else of the environment, else of `hf auth login`."""
    if config.token_file is not None:
        return read_secret(config.token_file)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environment_secret(name):
            return token
    from huggingface_hub import constants

    stored = Path(constants.HF_TOKEN_PATH)
    return read_secret(stored) if stored.is_file() and stored.stat().st_size else None
