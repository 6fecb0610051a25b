"""Brings a model from wherever it is into memory. Layer: llm; imports torch and transformers lazily.

The one idea: loading is a list of timed phases, and each way it can fail has one code, one sentence with the
path in it and one remedy, because the person who reads it sees only the status of a Kubernetes object. The
phases are ordered by price: what a name, a missing package or a missing device can spoil is found before
gigabytes are fetched.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_runtime.contract import FailureCode, ModelConfig
from agent_runtime.llm import weights
from agent_runtime.llm.failures import failure, reported
from agent_runtime.llm.sources import OnDownload, locate
from agent_runtime.llm.sources.folder import broken_json, check_weights, has_tokenizer
from agent_runtime.llm.weights import Kind, OnWeights

log = logging.getLogger("agent_runtime.load")

OnPhase = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, and how long each phase took, in seconds.

    `kind` tells what `model` is: `seq2seq` an AutoModelForSeq2SeqLM, `causal` an AutoModelForCausalLM.
    """

    model: Any
    tokenizer: Any
    kind: Kind
    device: str
    phases: dict[str, float] = field(default_factory=dict)


def load_model(
    config: ModelConfig,
    gpu_requested: int = 0,
    on_phase: OnPhase | None = None,
    on_download: OnDownload | None = None,
    on_weights: OnWeights | None = None,
) -> LoadedModel:
    """The model that `config` names. Blocks, needs no event loop. Raises LoadError, whose report says what
    failed and how to mend it.

    `on_phase(name, seconds)` is called as each phase ends: resolve, import, download (unless the model is
    on the disk already), check, tokenizer, weights, device. `on_download` gets a record of the download
    every half second, `on_weights` the share of the weights in place, 0 to 1. They are called on other
    threads than the caller's, too.
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

    with reported(config):
        _check_packages(config)
        with phase("resolve"):
            source = locate(config)
        with phase("import"):
            weights.import_quietly()
            device = weights.choose_device(config.device, gpu_requested)
        if source.local:
            folder = source.fetch()
        else:
            with phase("download"):
                folder = source.fetch(on_download)
        with _naming_broken_json(folder):
            with phase("check"):
                kind = weights.kind_of(folder, config.quantization)
                check_weights(folder)
            with phase("tokenizer"):
                tokenizer = _tokenizer(folder)
            with phase("weights"):
                model = weights.read(
                    folder, kind, config.dtype, config.quantization, device, on_weights=on_weights
                )
            with phase("device"):
                model = weights.place(model, device)
    return LoadedModel(model, tokenizer, kind, device, phases)


def _check_packages(config: ModelConfig) -> None:
    """Raises LoadError when the configuration asks for something that is not installed."""
    missing = [name for name in ("accelerate", "bitsandbytes") if importlib.util.find_spec(name) is None]
    if config.quantization != "none" and missing:
        raise failure(
            FailureCode.CONFIG_INVALID,
            f"model.quantization is {config.quantization} and {' and '.join(missing)} is not installed.",
            "Install the extra: pip install 'agent-operator[runtime,quantization]', use an image that has "
            "it, or set model.quantization to none.",
        )


@contextmanager
def _naming_broken_json(folder: Path) -> Iterator[None]:
    """Libraries say of a broken file that it is broken, not which it is."""
    try:
        yield
    except Exception as error:
        if (broken := broken_json(folder)) is not None:
            raise broken from error
        raise


def _tokenizer(folder: Path) -> Any:
    try:
        return weights.tokenizer(folder)
    except Exception as error:
        if has_tokenizer(folder):
            raise
        raise failure(
            FailureCode.MODEL_NOT_FOUND,
            f"{folder} holds no tokenizer: neither tokenizer.json nor a vocabulary.",
            "Save the tokenizer into the model's folder: tokenizer.save_pretrained(folder).",
        ) from error
