"""Builds the images and pushes them to a registry: one command, content-addressed, with progress.

Layer: tooling; standard library only, so that it runs before any virtual environment exists.
The one idea: an image's tag is the hash of what goes into it, so an unchanged image is neither built
nor pushed nor pulled again, and a changed one can never be confused with its predecessor.

Uses buildah (Debian's) and a base bootstrapped by mmdebstrap where there is no Docker; with
`--engine docker` the same Dockerfiles are built by `docker build` on their public base image. Mirrors,
proxies and CA bundles are taken from the environment and passed on as build arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / ".local" / "images.json"
SUITE = "trixie"
PROJECT = "agent-operator"
PASSED_ON = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
"""Build settings a user's environment may hold; the Dockerfiles have no defaults for them."""


MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CA_SETTINGS = ("SSL_CERT_FILE", "PIP_CERT")
BUILD_CA = "/etc/build-ca.crt"
"""Where a build sees the CA bundle that the environment names; not a path a package owns."""
TRAINER = ROOT / "examples" / "models" / "train.py"


class BuildError(Exception):
    """A step failed; the message says which and shows the end of its output."""


@dataclass(frozen=True)
class Image:
    """One image: its Dockerfile, what goes into it, and where its build context is."""

    name: str
    dockerfile: Path
    inputs: tuple[Path, ...]
    needs_base: bool = True

    def tag(self) -> str:
        """First 12 hex digits of the hash over every input file's path and content."""
        return digest((self.dockerfile, *self.inputs))


RUNTIME = Image(
    "runtime",
    ROOT / "images/runtime/Dockerfile",
    (ROOT / "requirements/runtime.txt", ROOT / "agent_runtime"),
)
OPERATOR = Image(
    "operator",
    ROOT / "images/operator/Dockerfile",
    (
        ROOT / "requirements/operator.txt",
        ROOT / "operator/agent_operator",
        ROOT / "agent_runtime/__init__.py",
        ROOT / "agent_runtime/api_keys.py",
        ROOT / "agent_runtime/contract.py",
        ROOT / "agent_runtime/stats.py",
    ),
)


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file below the paths, in a stable order, without caches."""
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        else:
            yield path


def digest(paths: Iterable[Path], root: Path = ROOT) -> str:
    """12 hex digits over the relative names and contents of all files below the paths."""
    total = hashlib.sha256(SUITE.encode())
    for file in files_of(paths):
        name = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        total.update(f"{name}\0{file.stat().st_size}\0".encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:12]


class Progress:
    """Prints `[2/5] what ... 12s` and, while a step runs, the last line it printed."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.tty = sys.stdout.isatty()

    def skip(self, what: str) -> None:
        self.done += 1
        print(f"[{self.done}/{self.total}] {what}: unchanged", flush=True)

    def run(self, what: str, commands: list[list[str]], env: dict[str, str]) -> None:
        self.done += 1
        begin, tail = time.monotonic(), [""]
        head = f"[{self.done}/{self.total}] {what}"
        print(head, flush=True)
        for command in commands:
            self._one(command, env, head, begin, tail)
        print(f"{head}: done in {time.monotonic() - begin:.0f}s", flush=True)

    def _one(self, command: list[str], env: dict[str, str], head: str, begin: float, tail: list[str]) -> None:
        shown = begin
        with subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                tail = [*tail[-40:], line.rstrip()]
                if time.monotonic() - shown > (2 if self.tty else 20):
                    shown = time.monotonic()
                    print(f"    {shown - begin:4.0f}s  {line.strip()[:100]}", flush=True)
        if process.returncode:
            raise BuildError(
                f"{head} failed: {' '.join(command[:4])} … exited {process.returncode}\n"
                + "\n".join(tail[-25:])
            )


class Buildah:
    """Builds without a daemon, as root, in a storage of its own."""

    name = "buildah"

    def __init__(self, store: Path) -> None:
        self.store = store
        self.env = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
        self.prefix = ["buildah", "--root", str(store / "storage"), "--runroot", str(store / "run")]

    def exists(self, reference: str) -> bool:
        command = [*self.prefix, "inspect", "--type", "image", reference]
        return subprocess.run(command, capture_output=True, env=self.env, check=False).returncode == 0

    def base(self) -> str:
        return f"localhost/{PROJECT}/base:{SUITE}"

    def base_commands(self) -> list[list[str]]:
        """Bootstrap a minimal Debian and commit it as the base image."""
        archive = self.store / "base.tar"
        mirror = [os.environ["DEBIAN_MIRROR"]] if "DEBIAN_MIRROR" in os.environ else []
        self.store.mkdir(parents=True, exist_ok=True)
        return [
            ["mmdebstrap", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/doc/*",
             "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
             "--aptopt=APT::Install-Recommends \"false\"", SUITE, str(archive), *mirror],
            [*self.prefix, "bud", "-f", str(self._base_dockerfile()), "-t", self.base(),
             "--disable-compression=true", str(self.store)],
            ["rm", "-f", str(archive)],
        ]  # fmt: skip

    def _base_dockerfile(self) -> Path:
        path = self.store / "Dockerfile.base"
        path.write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
        return path

    def build(self, image: Image, reference: str, context: Path) -> list[str]:
        settings = ["-v", "/etc/pip.conf:/etc/pip.conf:ro"] if Path("/etc/pip.conf").is_file() else []
        if bundle := ca_bundle():
            settings += ["-v", f"{bundle}:{BUILD_CA}:ro"]
            for name in CA_SETTINGS:
                settings += ["--build-arg", f"{name}={BUILD_CA}"]
        base = ["--build-arg", f"BASE_IMAGE={self.base()}"] if image.needs_base else []
        return [
            *self.prefix, "bud", "--layers", "--network", "host", *settings, *base, *passed_on(),
            "-f", str(image.dockerfile), "-t", reference, str(context),
        ]  # fmt: skip

    def tag(self, reference: str, alias: str) -> list[str]:
        return [*self.prefix, "tag", reference, alias]

    def push(self, reference: str) -> list[str]:
        return [*self.prefix, "push", "--tls-verify=false", reference]

    def train(self, reference: str, dataset: Path, output: Path) -> list[list[str]]:
        """Commands that run TRAINER on DATASET in a container of the image, writing to OUTPUT."""
        name = f"{PROJECT}-train-{os.getpid()}"
        volumes = ["-v", f"{TRAINER.parent}:/source:ro", "-v", f"{output}:/output"]
        return [
            [*self.prefix, "from", "--name", name, reference],
            [*self.prefix, "run", "--user", "0", *volumes, name, "--", *training(dataset)],
            [*self.prefix, "rm", name],
        ]


class Docker:
    """Builds with a Docker engine, on the Dockerfiles' own public base image."""

    name = "docker"

    def __init__(self) -> None:
        self.env = dict(os.environ)

    def exists(self, reference: str) -> bool:
        command = ["docker", "image", "inspect", reference]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def build(self, image: Image, reference: str, context: Path) -> list[str]:
        return ["docker", "build", *passed_on(), "-f", str(image.dockerfile), "-t", reference, str(context)]

    def tag(self, reference: str, alias: str) -> list[str]:
        return ["docker", "tag", reference, alias]

    def push(self, reference: str) -> list[str]:
        return ["docker", "push", reference]

    def train(self, reference: str, dataset: Path, output: Path) -> list[list[str]]:
        """Commands that run TRAINER on DATASET in a container of the image, writing to OUTPUT."""
        volumes = ["-v", f"{TRAINER.parent}:/source:ro", "-v", f"{output}:/output"]
        user = ["--user", "0", *volumes, "--entrypoint", "python"]
        return [["docker", "run", "--rm", *user, reference, *training(dataset)[1:]]]


def training(dataset: Path) -> list[str]:
    """The command that trains on the dataset, where /source is the trainer's folder."""
    inside = Path("/source") / dataset.relative_to(TRAINER.parent)
    return ["python", f"/source/{TRAINER.name}", "--dataset", str(inside), "--output", "/output"]


def passed_on() -> list[str]:
    """`--build-arg NAME=VALUE` for every build setting present in the environment."""
    present = [(name, os.environ[name]) for name in PASSED_ON if name in os.environ]
    return [word for name, value in present for word in ("--build-arg", f"{name}={value}")]


def ca_bundle() -> str | None:
    """The file with CA certificates that the environment names for this machine's clients."""
    return next((os.environ[name] for name in CA_SETTINGS if Path(os.environ.get(name, "")).is_file()), None)


def in_registry(registry: str, repository: str, tag: str) -> str | None:
    """The digest of what the registry (plain http on loopback) holds under the tag, if it does."""
    request = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{tag}",
        method="HEAD",
        headers={"Accept": ", ".join(MANIFESTS)},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        raise BuildError(
            f"no registry answers on {registry} ({error}); start the cluster first: make cluster-up"
        ) from error


def store_path() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / PROJECT / "images"


def build_images(registry: str, engine: Buildah | Docker) -> dict[str, str]:
    """Builds and pushes the operator and runtime images that the registry does not hold yet."""
    progress = Progress(3 if isinstance(engine, Buildah) else 2)
    missing = [i for i in (RUNTIME, OPERATOR) if not in_registry(registry, f"{PROJECT}/{i.name}", i.tag())]
    if isinstance(engine, Buildah):
        if missing and not engine.exists(engine.base()):
            progress.run(f"base image (Debian {SUITE})", engine.base_commands(), engine.env)
        else:
            progress.skip("base image")
    references = {}
    for image in (RUNTIME, OPERATOR):
        reference = references[image.name] = f"{registry}/{PROJECT}/{image.name}:{image.tag()}"
        if image not in missing:
            progress.skip(f"{image.name} image {reference}")
            continue
        commands = [engine.build(image, reference, ROOT), engine.push(reference)]
        progress.run(f"{image.name} image {reference}", commands, engine.env)
    return references


def train_model(engine: Buildah | Docker, runtime: str, dataset: Path) -> Path:
    """Trains on DATASET in the runtime image, on the CPU; returns the folder with the saved model.

    The folder's name is the hash of trainer and dataset, so the same data is not trained twice.
    """
    name = f"{dataset.parent.name}-{digest((TRAINER, dataset))}"
    output = ROOT / ".local" / "models" / name
    progress = Progress(1)
    what = f"train {dataset.relative_to(ROOT)} in {runtime}"
    if (output / "eval.json").exists():
        progress.skip(what)
        return output
    output.mkdir(parents=True, exist_ok=True)
    progress.run(what, engine.train(runtime, dataset, output), engine.env)
    return output


def push_model(registry: str, engine: Buildah | Docker, folder: Path, name: str, tag: str | None) -> str:
    """Packs a model folder as an image (FROM scratch) and pushes it, tagged with the hash of its content and,
    if given, with `tag` too; returns the first reference, which never means anything else."""
    image = Image("model", ROOT / "images/model/Dockerfile", (folder,), needs_base=False)
    repository = f"{PROJECT}/models/{name}"
    exact = digest((image.dockerfile, folder), root=folder)
    reference, alias = (f"{registry}/{repository}:{one}" for one in (exact, tag or exact))
    progress = Progress(1)
    held = in_registry(registry, repository, exact)
    if held is not None and held == in_registry(registry, repository, tag or exact):
        progress.skip(f"model image {alias}")
        return reference
    commands = [engine.build(image, reference, folder), engine.push(reference)]
    if tag:
        commands += [engine.tag(reference, alias), engine.push(alias)]
    progress.run(f"model image {alias}", commands, engine.env)
    return reference


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="images/build.py", description=__doc__.splitlines()[0])
    parser.add_argument("--registry", default="127.0.0.1:5000")
    parser.add_argument("--engine", choices=("buildah", "docker"), default="buildah")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, help="pack this model folder instead of building the images")
    model.add_argument("--train", type=Path, help="train a model on this dataset first, then pack it")
    parser.add_argument("--name", help="repository name of the model image (default: its folder's)")
    parser.add_argument("--tag", help="second tag of the model image, beside the hash of its content")
    options = parser.parse_args(argv)
    engine: Buildah | Docker = Docker() if options.engine == "docker" else Buildah(store_path())
    tools = ("docker",) if options.engine == "docker" else ("buildah", "mmdebstrap")
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        print(
            f"{', '.join(absent)} not found; install with: apt-get install {' '.join(absent)}",
            file=sys.stderr,
        )
        return 2
    RESULT.parent.mkdir(exist_ok=True)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    folder = options.model
    try:
        if options.train:
            folder = train_model(engine, known["runtime"], options.train.resolve())
        if folder:
            name = options.name or (options.train.parent if options.train else folder).name
            references = {name: push_model(options.registry, engine, folder, name, options.tag)}
        else:
            references = build_images(options.registry, engine)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.NamedTemporaryFile("w", dir=RESULT.parent, delete=False) as file:
        json.dump({**known, **references}, file, indent=1)
    Path(file.name).replace(RESULT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
