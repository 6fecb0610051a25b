"""Brings a model from a folder or the hub into memory. Layer: llm; imports torch and transformers lazily.

The one idea: loading is a list of timed phases, and each way it can fail has one code, one sentence with the
path in it and one remedy, because the person who reads it sees only the status of a Kubernetes object.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_runtime.contract import FailureCode, ModelConfig, TerminationReport
from agent_runtime.llm.cpu import available_threads
from agent_runtime.llm.failures import LoadError, classify

log = logging.getLogger("agent_runtime.load")

_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_NESTED = ["*/*"]

OnPhase = Callable[[str, float], None]


@dataclass(slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, and how long each phase took, in seconds."""

    model: Any
    tokenizer: Any
    device: str
    phases: dict[str, float] = field(default_factory=dict)


def load_seq2seq(config: ModelConfig, gpu_requested: int = 0, on_phase: OnPhase | None = None) -> LoadedModel:
    """The model that `config` names. Raises LoadError, whose report says what failed and how to mend it.

    `on_phase(name, seconds)` is called as each phase ends: resolve, import, check, tokenizer, weights,
    device.
    """
    phases: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        phases[name] = time.monotonic() - started
        log.info("phase %s took %.2f s", name, phases[name], extra={"fields": {"phase": name,
                 "seconds": round(phases[name], 3)}})  # fmt: skip
        if on_phase is not None:
            on_phase(name, phases[name])

    try:
        with phase("resolve"):
            folder = resolve(config)
        with phase("import"):
            _import_quietly()
        with phase("check"):
            check_architecture(folder)
        with phase("tokenizer"):
            tokenizer = _tokenizer(folder)
        with phase("weights"):
            model = _weights(folder, config.dtype)
        with phase("device"):
            device = choose_device(gpu_requested)
            model.to(device)
            model.eval()
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(classify(error, config)) from error
    return LoadedModel(model, tokenizer, device, phases)


def resolve(config: ModelConfig) -> Path:
    """The local folder of the model, downloading it first when it lives on the hub."""
    if config.path is None:
        return _download(config)
    folder = Path(config.path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise LoadError(
            TerminationReport(
                code=FailureCode.MODEL_NOT_FOUND,
                message=f"Model path {folder} {what} (model {config.uri}).",
                remedy="Give the folder that save_pretrained wrote: check spec.model.uri, for pvc:// the "
                "path inside the volume, for oci:// that the image holds the folder's files at its root.",
            )
        )
    if not (folder / "config.json").is_file():
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise LoadError(
            TerminationReport(
                code=FailureCode.MODEL_NOT_FOUND,
                message=f"{folder / 'config.json'} does not exist; the folder holds: {inside} "
                f"(model {config.uri}).",
                remedy="The folder must be one that save_pretrained wrote, with config.json at its root.",
            )
        )
    if unreadable := [file.name for file in sorted(folder.iterdir()) if not os.access(file, os.R_OK)]:
        raise LoadError(
            TerminationReport(
                code=FailureCode.MODEL_ACCESS_DENIED,
                message=f"User {os.getuid()} may not read {', '.join(unreadable[:8])} in {folder} "
                f"(model {config.uri}).",
                remedy="Make the model's files readable for everybody (chmod -R a+rX) before packing or "
                "copying them; save_pretrained writes weights that only their owner may read.",
            )
        )
    return folder


def check_architecture(folder: Path) -> None:
    """Raises LoadError when the model is of a kind this runtime cannot serve, naming its architecture."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except ValueError as error:
        raise _unsupported(folder, f"transformers cannot read its configuration: {error}") from error
    if type(config) in AutoModelForSeq2SeqLM._model_mapping:
        return
    name = ", ".join(config.architectures or [config.model_type])
    raise _unsupported(
        folder, f"its architecture is {name}; only encoder-decoder text models are served, such as T5 or BART"
    )


def _unsupported(folder: Path, why: str) -> LoadError:
    return LoadError(
        TerminationReport(
            code=FailureCode.MODEL_UNSUPPORTED,
            message=f"The model in {folder} cannot be served: {why}.",
            remedy="Use a model that AutoModelForSeq2SeqLM loads without remote code, such as "
            "hf://google/flan-t5-base.",
        )
    )


def choose_device(gpu_requested: int) -> str:
    """`cuda` when there is one, else `cpu`; sets torch's threads to the pod's CPU share."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    count = available_threads()
    torch.set_num_threads(count)
    log.info("computing on %d CPU thread(s)", count, extra={"fields": {"threads": count}})
    if gpu_requested > 0:
        log.warning(
            "GPU requested but no CUDA device found: running on CPU",
            extra={"fields": {"gpu_requested": gpu_requested, "device": "cpu"}},
        )
    return "cpu"


def _import_quietly() -> None:
    """Import torch and transformers with their own handlers and progress bars off: logs are JSON only."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers
    from transformers.utils import logging as hf_logging

    hf_logging.disable_default_handler()
    hf_logging.enable_propagation()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    log.debug("torch %s, transformers %s", torch.__version__, transformers.__version__)


def _download(config: ModelConfig) -> Path:
    if config.repo_id is None:
        raise LoadError(
            TerminationReport(
                code=FailureCode.CONFIG_INVALID,
                message="model has neither path nor repo_id.",
                remedy="Give one of the two in the runtime's configuration.",
            )
        )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import snapshot_download

    log.info("downloading %s", config.repo_id, extra={"fields": {"revision": config.revision or "main"}})
    folder = Path(
        snapshot_download(
            config.repo_id, revision=config.revision, allow_patterns=_HUB_FILES, ignore_patterns=_NESTED
        )
    )
    if not list(folder.glob("*.safetensors")):
        raise _unsupported(folder, f"repository {config.repo_id} has no .safetensors file at its root")
    return folder


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def _weights(folder: Path, dtype: str) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    if not any(folder.glob("*.safetensors")):
        raise LoadError(
            TerminationReport(
                code=FailureCode.MODEL_NOT_FOUND,
                message=f"{folder / 'model.safetensors'} does not exist: the folder holds no weights.",
                remedy="Save the model with save_pretrained, which writes safetensors.",
            )
        )
    if errors := _not_whole(folder):
        raise LoadError(
            TerminationReport(
                code=FailureCode.MODEL_CORRUPT,
                message="; ".join(errors) + ".",
                remedy="Copy or download the file again; its size or content is not what its header says.",
            )
        )
    return AutoModelForSeq2SeqLM.from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, trust_remote_code=False
    )


def _not_whole(folder: Path) -> list[str]:
    """What is wrong with each weight file whose header does not fit it; reads headers only."""
    from safetensors import safe_open

    found = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except OSError as error:
            if error.errno == errno.ENOENT:
                found.append(f"{file} is a broken link")
            else:
                raise
        except Exception as error:
            found.append(f"{file} is not a whole safetensors file ({error})")
    return found
