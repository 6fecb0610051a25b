"""A model that is on the disk already: oci://, pvc://, plain paths, and whatever was downloaded.
Layer: llm, light; imports safetensors, and only to check weights.

The one idea: what is wrong with a folder is found by looking at names, permissions and headers, before
gigabytes are read, and is told with the file's name. Which files make up a model is decided here, once, for
every source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.contract import FailureCode
from agent_runtime.llm.failures import LoadError, failure
from agent_runtime.llm.sources.progress import OnDownload

_WANTED = (".json", ".model", ".txt", ".jinja", ".safetensors")
_OTHER_WEIGHTS = ("consolidated", "adapter_")
"""Safetensors that transformers does not load: the same weights in another layout, or another part."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_NAMES_SHOWN = 8


def is_wanted(name: str) -> bool:
    """Whether a file of a repository or bucket is part of the model: configuration, tokenizer, and weights
    in safetensors. Only names without a folder: nothing else is loaded, and nothing can escape."""
    plain = "/" not in name and "\\" not in name and not name.startswith(".")
    return plain and name.endswith(_WANTED) and not (
        name.endswith(".safetensors") and name.startswith(_OTHER_WEIGHTS)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Folder:
    """A model's folder as a source; there is nothing to fetch."""

    path: Path
    local: bool = True

    def fetch(self, on_download: OnDownload | None = None) -> Path:
        """The folder."""
        return self.path


def open_folder(path: str, uri: str) -> Folder:
    """The folder at this path, once it is known to hold a readable model. Raises LoadError."""
    folder = Path(path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise failure(
            FailureCode.MODEL_NOT_FOUND,
            f"Model path {folder} {what} (model {uri}).",
            "Give the folder that save_pretrained wrote: check spec.model.uri, for pvc:// the path inside "
            "the volume, for oci:// that the image holds the folder's files at its root.",
        )
    if not (folder / "config.json").is_file():
        raise failure(
            FailureCode.MODEL_NOT_FOUND,
            f"{folder / 'config.json'} does not exist; the folder holds: {_inside(folder)} (model {uri}).",
            "The folder must be one that save_pretrained wrote, with config.json at its root.",
        )
    if unreadable := [file.name for file in sorted(folder.iterdir()) if not os.access(file, os.R_OK)]:
        raise failure(
            FailureCode.MODEL_ACCESS_DENIED,
            f"User {os.getuid()} may not read {_some(unreadable)} in {folder} (model {uri}).",
            "Make the model's files readable for everybody (chmod -R a+rX) before packing or copying them; "
            "save_pretrained writes weights that only their owner may read.",
        )
    return Folder(folder)


def check_weights(folder: Path) -> None:
    """Raises LoadError unless every weight file is there and as long as its header says; reads headers."""
    files = weight_files(folder)
    wrong = [f"{file} {what}" for file in files if (what := _not_whole(file))]
    if wrong:
        raise failure(
            FailureCode.MODEL_CORRUPT,
            "; ".join(wrong[:_NAMES_SHOWN]) + ".",
            "Copy or download the file again; its size or content is not what its header says.",
        )


def weight_files(folder: Path) -> list[Path]:
    """The files transformers reads weights from: one, or those its index lists. Raises LoadError."""
    if (folder / WEIGHTS).exists() or (folder / WEIGHTS).is_symlink():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise failure(
            FailureCode.MODEL_NOT_FOUND,
            f"Neither {folder / WEIGHTS} nor {INDEX} exists: the folder holds no weights in safetensors, "
            f"but {_inside(folder)}.",
            "Save the model with save_pretrained, which writes safetensors; other formats can run code and "
            "are not loaded.",
        )
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if not all(is_wanted(name) for name in names):
            raise ValueError(f"it lists {_some(names)}")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise failure(
            FailureCode.MODEL_CORRUPT,
            f"{index} is not an index of weight files: {error}.",
            "Copy or download the file again.",
        ) from error
    return [folder / name for name in names]


def is_whole(folder: Path) -> bool:
    """Whether an earlier download left everything a model needs; contents are not looked at."""
    try:
        weights = weight_files(folder)
    except LoadError:
        return False
    return (folder / "config.json").exists() and has_tokenizer(folder) and all(f.exists() for f in weights)


def broken_json(folder: Path) -> LoadError | None:
    """The report of the first JSON file that is none; asked once loading has failed, to say which file."""
    for file in sorted(folder.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            return failure(
                FailureCode.MODEL_CORRUPT,
                f"{file} is not valid JSON: {error}.",
                "Copy or download the file again, or mend it.",
            )
        except OSError:
            continue
    return None


def has_tokenizer(folder: Path) -> bool:
    """Whether any file could hold a vocabulary."""
    return any(
        file.name == "tokenizer.json" or file.name.startswith("vocab") or file.suffix == ".model"
        for file in folder.iterdir()
    )


def _not_whole(file: Path) -> str:
    """What is wrong with a weight file, or nothing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            return ""
    except FileNotFoundError:
        return "is a broken link" if file.is_symlink() else "does not exist"
    except SafetensorError as error:
        return f"is not a whole safetensors file ({error})"


def _inside(folder: Path) -> str:
    return _some(file.name for file in folder.iterdir())


def _some(names: Iterable[str]) -> str:
    known = sorted(names)
    shown = known[:_NAMES_SHOWN]
    more = len(known) - len(shown)
    return (", ".join(shown) + (f" and {more} more" if more > 0 else "")) or "nothing"
