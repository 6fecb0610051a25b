"""A stand-in for the Hugging Face hub: real folders served over its HTTP interface. Layer: tests.

`python -m tests.support.hub FOLDER --port N` serves each FOLDER/OWNER/NAME as a repository; point HF_ENDPOINT
at it. In a test: `with Hub() as hub: hub.add("acme/model", folder)`, and `point_at` for this process.

What huggingface_hub 2.4 expects is followed from its source: `/api/models/REPO[/revision/REV][?blobs=true]`
(HfApi.model_info), `/api/models/REPO/tree/REV` (list_repo_tree), and HEAD and GET of
`/REPO/resolve/REV/FILE` (get_hf_file_metadata, http_get) with `X-Repo-Commit`, `ETag`, `X-Linked-Size`,
`X-Linked-ETag` and ranges; errors by `X-Error-Code` and `X-Error-Message` (hf_raise_for_status). It keeps
large files in LFS, known by their SHA-256, and the rest in git, known by their blob's SHA-1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 16 * 1024


class Mode(StrEnum):
    """How a repository behaves."""

    WHOLE = "whole"
    PRIVATE = "private"
    """401 without a token, as if it did not exist."""
    GATED = "gated"
    """Its files are refused with 403 to everybody who has not accepted its terms."""
    SLOW = "slow"
    """`rate` bytes per second and file."""
    CUT = "cut"
    """The first `times` answers with a large file end after `cut_after` bytes."""
    CORRUPT = "corrupt"
    """Large files have the right size and wrong bytes."""
    FLAKY = "flaky"
    """503 to the first `times` requests for each address."""
    RATE_LIMITED = "rate-limited"
    """429 with Retry-After to the first `times` requests for each address."""
    DOWN = "down"
    """503 to everything."""


@dataclass
class Repository:
    """A folder served as a repository."""

    folder: Path
    mode: Mode = Mode.WHOLE
    revisions: tuple[str, ...] = ("main",)
    granted: tuple[str, ...] = ()
    """Tokens whose owners have accepted the terms."""
    rate: float = 1e6
    cut_after: int = 1 << 16
    times: int = 2
    retry_after: int = 1
    ranges: bool = True
    """Whether Range is obeyed; otherwise the whole file comes with status 200."""
    redirect_to: str | None = None
    """Base address that large files are redirected to, as the hub does to its CDN."""

    @property
    def commit(self) -> str:
        """A hash that changes with the files."""
        known = "".join(f"{file.name} {blob_id(file)}" for file in self.files())
        return hashlib.sha1(known.encode()).hexdigest()

    def files(self) -> list[Path]:
        """Every file in the folder and below it."""
        return sorted(file for file in self.folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class Seen:
    """One request that came."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """The server, in a thread of its own, on loopback and a free port unless told otherwise."""

    host: str = "127.0.0.1"
    port: int = 0
    tokens: set[str] = field(default_factory=set)
    """Tokens of known users; any other is refused."""
    certificate: tuple[Path, Path] | None = None
    """Certificate and key, to serve over TLS."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def add(self, repo_id: str, folder: Path, mode: Mode = Mode.WHOLE, **settings: Any) -> Repository:
        """Serve this folder under this name."""
        self.repositories[repo_id] = Repository(folder, mode, **settings)
        return self.repositories[repo_id]

    def ranges(self) -> list[str]:
        """The ranges that GET requests asked for, in order."""
        return [seen.range for seen in self.seen if seen.method == "GET" and seen.range]

    def gets(self, name: str) -> int:
        """How many times a file's content was asked for."""
        return sum(seen.method == "GET" and seen.path.endswith(f"/{name}") for seen in self.seen)

    def __enter__(self) -> Self:
        self._failures: Counter[str] = Counter()
        self._listener = socket.create_server((self.host, self.port))
        self.port = self._listener.getsockname()[1]
        certificate, key = self.certificate or (None, None)
        self.url = f"http{'s' if certificate else ''}://{self.host}:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app(), log_config=None, log_level="critical", access_log=False, lifespan="off",
                ssl_certfile=certificate, ssl_keyfile=key, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the hub's stand-in did not start")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/models/{rest:path}", self._api),
                Route("/{repo:path}/resolve/{revision}/{name:path}", self._resolve),
                Route("/cdn/{repo:path}/{revision}/{name:path}", self._cdn),
            ]
        )

    def _note(self, request: Request) -> None:
        headers = request.headers
        self.seen.append(
            Seen(request.method, request.url.path, headers.get("range"), headers.get("authorization"))
        )

    async def _api(self, request: Request) -> Response:
        self._note(request)
        repo_id, what, revision = _parts(request.path_params["rest"])
        repository = self.repositories.get(repo_id)
        if (refusal := self._refusal(request, repository, revision)) is not None:
            return refusal
        assert repository is not None
        if what == "tree":
            return JSONResponse([_tree_entry(repository, file) for file in repository.files()])
        details = request.query_params.get("blobs", "").lower() == "true"
        siblings = [_sibling(repository, file, details) for file in repository.files()]
        return JSONResponse({"id": repo_id, "sha": repository.commit, "siblings": siblings, "tags": []})

    async def _resolve(self, request: Request) -> Response:
        self._note(request)
        where = request.path_params
        repository = self.repositories.get(where["repo"])
        if (refusal := self._refusal(request, repository, where["revision"])) is not None:
            return refusal
        assert repository is not None
        if repository.mode is Mode.GATED and _bearer(request) not in repository.granted:
            return _error(403, "GatedRepo", f"Access to model {where['repo']} is restricted.")
        file = repository.folder / where["name"]
        if not file.is_file():
            return _error(404, "EntryNotFound", "Entry not found")
        headers = _file_headers(repository, file)
        if repository.redirect_to is not None and is_large(file):
            place = f"{repository.redirect_to}/cdn/{where['repo']}/{where['revision']}/{where['name']}"
            return RedirectResponse(place, 302, headers)
        return self._content(request, repository, file, headers)

    async def _cdn(self, request: Request) -> Response:
        self._note(request)
        repository = self.repositories[request.path_params["repo"]]
        file = repository.folder / request.path_params["name"]
        return self._content(request, repository, file, _file_headers(repository, file))

    def _refusal(
        self, request: Request, repository: Repository | None, revision: str | None
    ) -> Response | None:
        token = _bearer(request)
        if token is not None and token not in self.tokens:
            return _error(401, None, "Invalid credentials in Authorization header")
        if repository is None:
            return _error(404, "RepoNotFound", "Repository not found")
        if repository.mode is Mode.PRIVATE and token is None:
            return _error(401, "RepoNotFound", "Repository not found")
        if repository.mode is Mode.DOWN:
            return _error(503, None, "The service is down")
        if repository.mode in (Mode.FLAKY, Mode.RATE_LIMITED) and self._fails(request, repository):
            if repository.mode is Mode.FLAKY:
                return _error(503, None, "Try again")
            return _error(429, None, "Too many requests", {"Retry-After": str(repository.retry_after)})
        if revision is not None and revision not in (*repository.revisions, repository.commit):
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _fails(self, request: Request, repository: Repository) -> bool:
        address = f"{request.method} {request.url.path}"
        self._failures[address] += 1
        return self._failures[address] <= repository.times

    def _content(
        self, request: Request, repository: Repository, file: Path, headers: dict[str, str]
    ) -> Response:
        size = file.stat().st_size
        if request.method == "HEAD":
            return Response(None, 200, headers | {"Content-Length": str(size)})
        start = _range_start(request) if repository.ranges else 0
        if start >= size > 0:
            return Response(None, 416, headers | {"Content-Range": f"bytes */{size}"})
        if start:
            headers |= {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        headers |= {"Content-Length": str(size - start)}
        status = 206 if start else 200
        large = is_large(file)
        if repository.mode is Mode.CUT and large and self._fails(request, repository):
            return _Cut(_bytes(file, start, repository.cut_after), status, headers)
        rate = repository.rate if repository.mode is Mode.SLOW else None
        wrong = repository.mode is Mode.CORRUPT and large
        return StreamingResponse(_bytes(file, start, None, rate, wrong), status, headers)


class _Cut(StreamingResponse):
    """Sends what it has and never says that this was all, upon which uvicorn closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _bytes(
    file: Path, start: int, limit: int | None, rate: float | None = None, wrong: bool = False
) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(start)
        left = limit if limit is not None else file.stat().st_size
        while left > 0 and (chunk := opened.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            if rate is not None:
                await anyio.sleep(len(chunk) / rate)
            yield bytes(byte ^ 0xFF for byte in chunk) if wrong else chunk


def is_large(file: Path) -> bool:
    """Whether the hub would keep the file in LFS: by its kind here, so that small models have large files."""
    return file.suffix in (".safetensors", ".model", ".bin")


def blob_id(file: Path) -> str:
    """The SHA-1 git gives the file's content."""
    return _hashes(file, file.stat().st_mtime_ns)[0]


def sha256(file: Path) -> str:
    """The SHA-256 of the file's content."""
    return _hashes(file, file.stat().st_mtime_ns)[1]


@lru_cache(maxsize=1024)
def _hashes(file: Path, modified: int) -> tuple[str, str]:
    content = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return blob, hashlib.sha256(content).hexdigest()


def _parts(rest: str) -> tuple[str, str, str | None]:
    """`OWNER/NAME/revision/REV` as repository, what is asked of it, and revision."""
    for what in ("revision", "tree"):
        repo_id, found, revision = rest.partition(f"/{what}/")
        if found:
            return repo_id, what, revision.partition("/")[0] if what == "tree" else revision
    return rest, "info", None


def _file_headers(repository: Repository, file: Path) -> dict[str, str]:
    etag = sha256(file) if is_large(file) else blob_id(file)
    headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    if is_large(file):
        headers |= {"X-Linked-Size": str(file.stat().st_size), "X-Linked-ETag": f'"{etag}"'}
    return headers


def _sibling(repository: Repository, file: Path, details: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": file.relative_to(repository.folder).as_posix()}
    if details:
        entry |= {"size": file.stat().st_size, "blobId": blob_id(file)}
        if is_large(file):
            entry["lfs"] = {"size": file.stat().st_size, "sha256": sha256(file), "pointerSize": 134}
    return entry


def _tree_entry(repository: Repository, file: Path) -> dict[str, Any]:
    name, size = file.relative_to(repository.folder).as_posix(), file.stat().st_size
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": blob_id(file)}
    if is_large(file):
        entry["lfs"] = {"size": size, "oid": sha256(file), "pointerSize": 134}
    return entry


def _range_start(request: Request) -> int:
    wanted = request.headers.get("range", "")
    return int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted.startswith("bytes=") else 0


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def _error(
    status: int, code: str | None, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    told = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | (headers or {})
    return JSONResponse({"error": message}, status, told)


def point_at(monkeypatch: Any, endpoint: str, cache: Path) -> None:
    """Make huggingface_hub in this process use this endpoint and cache; it read its environment already."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))


def main() -> None:
    """Serve a folder of repositories until interrupted; prints one JSON line with the address."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.hub", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder holding OWNER/NAME folders")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", action="append", default=[], help="a token the hub knows")
    parser.add_argument(
        "--mode", action="append", default=[], metavar="OWNER/NAME=MODE", help=f"{', '.join(Mode)}"
    )
    options = parser.parse_args()
    modes = dict(entry.split("=", 1) for entry in options.mode)
    hub = Hub(options.host, options.port, set(options.token))
    for folder in sorted(options.folder.glob("*/*")):
        if folder.is_dir():
            name = folder.relative_to(options.folder).as_posix()
            hub.add(name, folder, Mode(modes.get(name, Mode.WHOLE)))
    with hub:
        print(json.dumps({"url": hub.url, "repositories": sorted(hub.repositories)}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
