"""A real S3 server for tests: moto, as a process on loopback. Layer: tests.

The one idea: the client signs, lists and gets as against Amazon; nothing of it is replaced. The server has
its own pinned environment (requirements/s3-standin.txt), made under .local on first use.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Self

import httpx2
from obstore.store import S3Store

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "requirements" / "s3-standin.txt"
ENVIRONMENT = REPOSITORY / ".local" / "s3-standin"

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_REGION": "us-east-1",
}
"""Amazon's own examples, accepted while access is not restricted."""


def environment() -> Path:
    """The Python of the server's environment, made when it is missing or its requirements changed."""
    ENVIRONMENT.mkdir(parents=True, exist_ok=True)
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "ready"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    with (ENVIRONMENT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != wanted:
            ours = REPOSITORY / ".local" / "uv" / "bin" / "uv"
            uv = str(ours) if ours.exists() else shutil.which("uv")
            if uv is None:
                raise RuntimeError("the S3 stand-in needs uv: run `make venv`, or install uv")
            make = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(ENVIRONMENT)]
            fill = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python)]
            subprocess.run(make, check=True)
            subprocess.run([*fill, str(REQUIREMENTS)], check=True)
            ready.write_text(wanted)
    return python


class S3:
    """The server; `url` is what AWS_ENDPOINT_URL should be."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self._tls = certificate

    def __enter__(self) -> Self:
        command = [str(environment()), "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        if self._tls is not None:
            command += ["-c", str(self._tls[0]), "-k", str(self._tls[1])]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        said: list[str] = []
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"Running on (https?://127\.0\.0\.1:\d+)", line):
                self.url = found[1]
                break
        else:
            raise RuntimeError("the S3 stand-in did not start:\n" + "".join(said))
        # It logs each request; a full pipe would stop it.
        threading.Thread(target=deque, args=(self._process.stderr, 0), daemon=True).start()
        self._http = httpx2.Client(base_url=self.url, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(10)

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Put a folder's files under a prefix of a bucket, which is created."""
        self.create(bucket)
        for file in sorted(folder.iterdir()):
            self.put(bucket, f"{prefix}/{file.name}", file.read_bytes())

    def create(self, bucket: str) -> None:
        """Create a bucket, unless it is there."""
        self._http.put(f"/{bucket}").raise_for_status()

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store one object, with a signed request: moto lets nobody else replace one."""
        store = S3Store(
            bucket,
            access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region=CREDENTIALS["AWS_REGION"],
            endpoint=self.url,
            client_options={"allow_http": True},
        )
        store.put(key, content)

    def restrict(self, restricted: bool) -> None:
        """Whether only known users are let in, of which there are none."""
        count = "0" if restricted else "Infinity"
        self._http.post("/moto-api/reset-auth", content=count).raise_for_status()
