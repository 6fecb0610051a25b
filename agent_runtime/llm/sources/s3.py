"""Models in a bucket of Amazon S3 or anything that speaks its protocol. Layer: llm; imports obstore lazily
(extra `s3`).

The one idea: a folder of objects is fixed by its listing, so each listing gets a folder of its own on the
disk, named after the objects' names, sizes and entity tags; a changed bucket never mixes with what was
fetched before. obstore signs requests and finds credentials where every S3 client does: AWS_ACCESS_KEY_ID and
its secret, a web identity, container or instance credentials, AWS_REGION, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runtime.contract import CACHE_PATH, FailureCode, ModelConfig
from agent_runtime.llm.failures import failure
from agent_runtime.llm.sources.folder import INDEX, WEIGHTS, Folder, is_wanted, is_whole, open_folder
from agent_runtime.llm.sources.progress import OnDownload, Reporter
from agent_runtime.llm.sources.s3_errors import explain, first_line
from agent_runtime.llm.sources.transfer import (
    Body,
    CorruptDownloadError,
    InterruptedDownloadError,
    RemoteFile,
    RetryPolicy,
    bytes_on_disk,
    check_space,
    fetch_all,
)
from agent_runtime.secrets import environment_secret

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Store

log = logging.getLogger("agent_runtime.download")

RETRY = RetryPolicy()
_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?", re.DOTALL)
_CHUNK_BYTES = 1 << 18
_LATEST = "latest"
"""File that names the folder of the last complete download."""
_AWAY = frozenset(
    {FailureCode.BUCKET_UNREACHABLE, FailureCode.MODEL_HOST_UNRESOLVED, FailureCode.MODEL_HOST_OVERLOADED}
)
"""Codes of a server that cannot be asked now, as opposed to one that refuses."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A folder in a bucket, and where its copy goes. `prefix` is empty or ends with a slash."""

    name: str
    prefix: str
    uri: str
    cache: Path

    @classmethod
    def for_model(cls, config: ModelConfig) -> Bucket:
        """By the model's URI. Raises LoadError naming what is wrong with it, or the missing extra."""
        uri = config.s3_uri or ""
        found = _URI.fullmatch(uri)
        prefix = (found["prefix"] or "").strip("/") if found else ""
        if found is None or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
            raise failure(
                FailureCode.CONFIG_INVALID,
                f"model.s3_uri is {uri!r}, which is not s3://BUCKET/FOLDER.",
                "Give the bucket's name and the folder that holds config.json, such as s3://models/flan-t5-base.",
            )
        if importlib.util.find_spec("obstore") is None:
            raise failure(
                FailureCode.CONFIG_INVALID,
                f"model.s3_uri is {uri} and the package obstore is not installed.",
                "Install the extra: pip install 'agent-operator[runtime,s3]'. The runtime image has it.",
            )
        return cls(found["bucket"], f"{prefix}/" if prefix else "", config.uri, cache_folder())


def cache_folder() -> Path:
    """The pod's cache volume; outside a pod the user's cache folder (XDG base directory specification)."""
    pod = Path(CACHE_PATH)
    if os.access(pod, os.W_OK):
        return pod / "s3"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "agent-runtime" / "s3"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The objects of one listing, as a source. `tags` are entity tags by file name."""

    bucket: Bucket
    store: S3Store
    files: tuple[RemoteFile, ...]
    tags: Mapping[str, str | None]
    local: bool = False

    def fetch(self, on_download: OnDownload | None = None) -> Path:
        """The folder, once every object is there in full. Raises LoadError and the errors of `transfer`."""
        folder = self.files[0].target.parent
        check_space(self.files, folder)
        reporter = Reporter(
            self.bucket.uri,
            {file.name: file.size for file in self.files},
            {file.name: bytes_on_disk(file) for file in self.files},
            on_download,
        )
        reporter.begin()
        fetch_all(self.files, self._open, reporter, RETRY)
        reporter.end()
        (folder.parent / _LATEST).write_text(folder.name)
        return folder

    @contextmanager
    def _open(self, file: RemoteFile, offset: int) -> Iterator[Body]:
        import obstore
        from obstore.exceptions import BaseError, PreconditionError

        key = f"{self.bucket.prefix}{file.name}"
        options: GetOptions = {"if_match": self.tags[file.name]}
        if offset:
            options["range"] = {"offset": offset}
        try:
            result = obstore.get(self.store, key, options=options)
            yield Body(result.range[0], iter(result.stream(min_chunk_size=_CHUNK_BYTES)))
        except (PreconditionError, FileNotFoundError) as error:
            raise CorruptDownloadError(f"{key} changed in the bucket while it was fetched") from error
        except BaseError as error:
            refused = explain(str(error), self.bucket.name, self.bucket.uri)
            if refused.report.code is not FailureCode.BUCKET_UNREACHABLE:
                raise refused from error
            raise InterruptedDownloadError(f"{key}: {first_line(str(error))}") from error


def open_prefix(config: ModelConfig, bucket: Bucket) -> Prefix | Folder:
    """The objects under the prefix; while the endpoint is away, what was fetched before. Raises LoadError."""
    import obstore
    from obstore.exceptions import BaseError

    store = _store(bucket)
    try:
        listing = obstore.list_with_delimiter(store, bucket.prefix or None)["objects"]
    except (BaseError, FileNotFoundError) as error:
        refused = explain(str(error), bucket.name, bucket.uri)
        if refused.report.code in _AWAY and (folder := _latest(bucket)) is not None:
            log.warning("%s: using the copy in %s", refused.report.message, folder)
            return open_folder(str(folder), config.uri)
        raise refused from error
    objects = sorted(
        (meta["path"].removeprefix(bucket.prefix), meta["size"], meta["e_tag"])
        for meta in listing
        if is_wanted(meta["path"].removeprefix(bucket.prefix))
    )
    _check_names({name for name, _, _ in objects}, bucket)
    folder = _folder(bucket) / hashlib.sha256(repr(objects).encode()).hexdigest()[:16]
    files = tuple(RemoteFile(name, size, folder / name) for name, size, _ in objects)
    return Prefix(bucket, store, files, {name: tag for name, _, tag in objects})


def _store(bucket: Bucket) -> S3Store:
    """The client. Secrets that left the environment are handed over; the rest obstore reads from it."""
    from obstore.store import S3Store

    client: ClientConfig = {
        "allow_http": True,  # only an endpoint that says http:// is spoken to without TLS
        "connect_timeout": "10s",
        "read_timeout": "30s",
        "timeout": "24h",
    }
    if certificates := os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"):
        client["root_certificate"] = Path(certificates).read_bytes()
    config: S3Config = {}
    if secret := environment_secret("AWS_SECRET_ACCESS_KEY"):
        config["secret_access_key"] = secret
    if token := environment_secret("AWS_SESSION_TOKEN"):
        config["session_token"] = token
    retries: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
    return S3Store(bucket.name, config=config, client_options=client, retry_config=retries)


def _check_names(names: set[str], bucket: Bucket) -> None:
    if "config.json" in names and names & {WEIGHTS, INDEX}:
        return
    inside = ", ".join(sorted(names)[:8]) or "no file of a model"
    raise failure(
        FailureCode.MODEL_NOT_FOUND,
        f"Folder {bucket.prefix or '/'} of bucket {bucket.name} has no config.json with {WEIGHTS} or "
        f"{INDEX}: it holds {inside} (model {bucket.uri}).",
        "Check the folder in spec.model.uri; it must hold what save_pretrained wrote, with config.json at "
        "its root.",
    )


def _folder(bucket: Bucket) -> Path:
    place = hashlib.sha256(bucket.prefix.encode()).hexdigest()[:16]
    return bucket.cache / bucket.name / place


def _latest(bucket: Bucket) -> Path | None:
    """What the last complete download left."""
    try:
        folder = _folder(bucket) / (_folder(bucket) / _LATEST).read_text()
    except OSError:
        return None
    return folder if is_whole(folder) else None
