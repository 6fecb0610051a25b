"""From a model's folder to a module that computes. Layer: llm; the part that imports torch and transformers,
inside its functions.

The one idea: nothing is guessed and nothing is held twice. The configuration decides what kind of model it
is; a weight that the files do not hold is an error and never random numbers; a weight whose type on the disk
is the one asked for is mapped, not copied, so memory holds it once and the kernel may drop its pages again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from agent_runtime.contract import FailureCode
from agent_runtime.llm.cpu import available_threads
from agent_runtime.llm.failures import LoadError, failure

log = logging.getLogger("agent_runtime.load")

Kind = Literal["seq2seq", "causal"]
Quantization = Literal["none", "int8", "int4"]
OnWeights = Callable[[float], None]

_LANGUAGE_MODEL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_BAR = "Loading weights"
"""How transformers describes its progress bar over a model's tensors (set_tqdm_hook exists for this)."""
_NAMES_SHOWN = 5
_MESSAGES_KEPT = 1000


def import_quietly() -> None:
    """Import torch and transformers with their own handlers and progress bars off: logs are JSON only."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers
    import transformers.generation  # what every model class needs; else its time would be the weights'
    import transformers.modeling_utils
    from transformers.utils import logging as hf_logging

    hf_logging.disable_default_handler()
    hf_logging.enable_propagation()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    log.debug("torch %s, transformers %s", torch.__version__, transformers.__version__)


def choose_device(wanted: Literal["auto", "cpu", "cuda"], gpu_requested: int) -> str:
    """`cuda` or `cpu`; on the CPU torch gets as many threads as the pod's share has. Raises LoadError when
    CUDA is demanded and absent."""
    import torch

    if wanted != "cpu" and torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise failure(
            FailureCode.CONFIG_INVALID,
            f"model.device is cuda and torch {torch.__version__} finds no CUDA device.",
            "Ask for a device in spec.resources.gpu and use a runtime image built for CUDA, or set the "
            "device to auto or cpu.",
        )
    count = available_threads()
    torch.set_num_threads(count)
    log.info("computing on %d CPU thread(s)", count, extra={"fields": {"threads": count}})
    if gpu_requested > 0 and wanted == "auto":
        log.warning(
            "GPU requested but no CUDA device found: running on CPU",
            extra={"fields": {"gpu_requested": gpu_requested, "device": "cpu"}},
        )
    return "cpu"


def kind_of(folder: Path, quantization: Quantization = "none") -> Kind:
    """What kind of model the configuration describes. Raises LoadError naming its architecture when it is
    none that writes text, or when its weights are quantised already and shall be again."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except OSError:
        raise
    except Exception as error:  # of many classes: unknown types, fields of the wrong type, remote code
        raise _unsupported(folder, f"transformers cannot read its configuration: {error}") from error
    if quantization != "none" and getattr(config, "quantization_config", None) is not None:
        raise failure(
            FailureCode.CONFIG_INVALID,
            f"model.quantization is {quantization} and the weights in {folder} are quantised already.",
            "Set model.quantization to none, or use the model's plain weights.",
        )
    if (kind := _kind(config)) is None:
        name = ", ".join(config.architectures or [config.model_type])
        raise _unsupported(folder, f"its architecture is {name}, which does not write text from text")
    return kind


def _kind(config: Any) -> Kind | None:
    """By transformers' own tables of classes; a configuration in both says itself which it is.

    BERT's, say, is in the causal table too, for the few BERTs trained as decoders: there `architectures`
    tells which one it is.
    """
    from transformers.models.auto import modeling_auto

    def fits(names: Mapping[str, str | tuple[str, ...]]) -> bool:
        found = names.get(config.model_type, ())
        known = {found} if isinstance(found, str) else set(found)
        declared = config.architectures or known
        return bool(known) and any(name in known or name.endswith(_LANGUAGE_MODEL) for name in declared)

    seq2seq = fits(modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    causal = fits(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if seq2seq and (config.is_encoder_decoder or not causal):
        return "seq2seq"
    return "causal" if causal else None


def _unsupported(folder: Path, why: str) -> LoadError:
    return failure(
        FailureCode.MODEL_UNSUPPORTED,
        f"The model in {folder} cannot be served: {why}.",
        "Use a model that AutoModelForSeq2SeqLM or AutoModelForCausalLM loads without remote code, such as "
        "hf://google/flan-t5-base or hf://Qwen/Qwen3-0.6B.",
    )


def tokenizer(folder: Path) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def read(
    folder: Path,
    kind: Kind,
    dtype: str,
    quantization: Quantization,
    device: str,
    *,
    on_weights: OnWeights | None = None,
) -> Any:
    """The model with its weights, from safetensors only. Raises LoadError when the files lack weights.

    `on_weights` is told the share of tensors in place, 0 to 1, as it grows by a hundredth.

    Measured with transformers 5.23 and a T5 of 627 MB in float32: loading it as float32 took 96 MB of
    anonymous memory and the rest were mapped pages; as bfloat16 it took 395 MB, the copy in the new type.
    Quantised weights are made one at a time, on the device.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if kind == "seq2seq" else AutoModelForCausalLM
    with _told(on_weights):
        model, found = auto.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            **_quantized(quantization, device),
        )
    absent = sorted(str(name) for name in found["missing_keys"])
    misshapen = sorted(str(entry[0]) for entry in found["mismatched_keys"])
    if absent or misshapen:
        names = [*absent, *misshapen]
        raise failure(
            FailureCode.MODEL_CORRUPT,
            f"The files in {folder} lack {len(absent)} weights of {type(model).__name__} and have "
            f"{len(misshapen)} of another shape, such as {', '.join(names[:_NAMES_SHOWN])}.",
            "Use the configuration and the weights of the same model, saved together by save_pretrained.",
        )
    return model


@contextmanager
def _told(on_weights: OnWeights | None) -> Iterator[None]:
    """Within the block transformers' progress bar over the weights is told instead of drawn."""
    from transformers.utils import logging as hf_logging

    def bar(factory: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if on_weights is None or named.get("desc") != _BAR or not given:
            return factory(*given, **named)
        return _shares(given[0], on_weights)

    before = hf_logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        hf_logging.set_tqdm_hook(before)


def _shares(items: Any, on_weights: OnWeights) -> Iterator[Any]:
    count, told = max(1, len(items)), 0
    on_weights(0.0)
    for number, item in enumerate(items, 1):
        yield item
        if (share := 100 * number // count) > told:
            told = share
            on_weights(number / count)


def place(model: Any, device: str) -> Any:
    """The model on its device, ready to generate; quantised weights were made there."""
    if getattr(model, "is_quantized", False):
        return model.eval()
    return model.to(device).eval()


def _quantized(quantization: Quantization, device: str) -> dict[str, Any]:
    """The arguments of from_pretrained for bitsandbytes' formats: LLM.int8 (arXiv:2208.07339) and 4-bit
    NormalFloat (arXiv:2305.14314)."""
    if quantization == "none":
        return {}
    from transformers import BitsAndBytesConfig

    # It warns in each layer at each token that it rounds its input, which is what it is for.
    demote(logging.getLogger("bitsandbytes"))
    if quantization == "int8":
        chosen = BitsAndBytesConfig(load_in_8bit=True)
    else:
        chosen = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return {"quantization_config": chosen, "device_map": {"": device}}


class _Once(logging.Handler):
    """Passes each distinct message on once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record's message to our logger."""
        text = f"{record.name}: {record.getMessage()}"
        if text not in self._seen and len(self._seen) < _MESSAGES_KEPT:
            self._seen.add(text)
            log.log(logging.ERROR if record.levelno >= logging.ERROR else logging.DEBUG, "%s", text)


def demote(logger: logging.Logger) -> None:
    """From now on what a library logs reaches our log once, at debug level; its errors stay errors."""
    if not any(isinstance(handler, _Once) for handler in logger.handlers):
        logger.handlers[:] = [_Once()]
        logger.propagate = False
