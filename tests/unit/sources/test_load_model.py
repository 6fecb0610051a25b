"""From a configuration to a model that computes: kinds, types, devices, formats, phases."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agent_runtime.contract import FailureCode, ModelConfig
from agent_runtime.llm import weights
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.load import LoadedModel, load_model
from agent_runtime.llm.sources import Download
from tests.support.hub import Hub
from tests.support.s3 import S3

QUESTION = "What is the capital of France?"
LOCAL_PHASES = ["resolve", "import", "check", "tokenizer", "weights", "device"]
REMOTE_PHASES = ["resolve", "import", "download", "check", "tokenizer", "weights", "device"]


@pytest.fixture(scope="session")
def llama(geography: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder-only model with random weights and the geography model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(geography)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def local(folder: Path, **settings: Any) -> ModelConfig:
    """The configuration of a folder."""
    return ModelConfig.model_validate(
        {"uri": str(folder), "served_name": "m", "path": str(folder), **settings}
    )


def answer(loaded: LoadedModel) -> str:
    """What the model says to the question."""
    inputs = loaded.tokenizer(QUESTION, return_tensors="pt").to(loaded.device)
    made = loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return str(loaded.tokenizer.decode(made[0], skip_special_tokens=True))


def test_an_encoder_decoder_model_is_seq2seq_and_answers(geography: Path) -> None:
    loaded = load_model(local(geography))

    assert loaded.kind == "seq2seq"
    assert answer(loaded) == "Paris"
    assert not loaded.model.training


def test_a_decoder_only_model_is_causal(llama: Path) -> None:
    loaded = load_model(local(llama))

    assert loaded.kind == "causal"
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert answer(loaded).startswith(QUESTION)


@pytest.mark.parametrize(("encoder_decoder", "kind"), [(True, "seq2seq"), (False, "causal")])
def test_of_an_architecture_that_is_both_the_configuration_decides(
    tmp_path: Path, geography: Path, encoder_decoder: bool, kind: str
) -> None:
    from transformers import AutoTokenizer, BartConfig, BartForCausalLM, BartForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(geography)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        max_position_embeddings=64, is_encoder_decoder=encoder_decoder,
    )  # fmt: skip
    (BartForConditionalGeneration if encoder_decoder else BartForCausalLM)(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    assert load_model(local(tmp_path)).kind == kind


def test_phases_are_told_in_order_and_a_folder_has_no_download(geography: Path) -> None:
    told: list[tuple[str, float]] = []
    shares: list[float] = []

    loaded = load_model(
        local(geography),
        on_phase=lambda name, seconds: told.append((name, seconds)),
        on_weights=shares.append,
    )

    assert [name for name, _ in told] == LOCAL_PHASES
    assert dict(told) == loaded.phases
    assert shares == sorted(set(shares)) and (shares[0], shares[-1]) == (0.0, 1.0)
    assert 2 < len(shares) <= 101


def test_a_hub_repository_is_downloaded_and_loaded(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography)
    records: list[Download] = []

    loaded = load_model(
        ModelConfig(uri="hf://acme/model", served_name="m", repo_id="acme/model"), on_download=records.append
    )

    assert answer(loaded) == "Paris"
    assert list(loaded.phases) == REMOTE_PHASES
    assert records[-1].bytes_done == records[-1].bytes_total


def test_a_bucket_is_downloaded_and_loaded(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "geography")

    loaded = load_model(ModelConfig(uri="s3", served_name="m", s3_uri="s3://models/geography"))

    assert answer(loaded) == "Paris"


def test_a_model_in_several_files_is_loaded(tmp_path: Path, geography: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    AutoModelForSeq2SeqLM.from_pretrained(geography).save_pretrained(tmp_path, max_shard_size="1MB")
    AutoTokenizer.from_pretrained(geography).save_pretrained(tmp_path)

    loaded = load_model(local(tmp_path))

    assert (tmp_path / "model.safetensors.index.json").exists()
    assert answer(loaded) == "Paris"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_type_asked_for(geography: Path, dtype: str) -> None:
    loaded = load_model(local(geography, dtype=dtype))

    assert loaded.model.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(("quantization", "stored"), [("int8", torch.int8), ("int4", torch.uint8)])
@pytest.mark.parametrize("which", ["geography", "llama"])
def test_quantised_weights_are_smaller_and_the_model_still_answers(
    request: pytest.FixtureRequest, which: str, quantization: str, stored: torch.dtype
) -> None:
    folder = request.getfixturevalue(which)
    plain = load_model(local(folder))

    loaded = load_model(local(folder, quantization=quantization))

    assert stored in {parameter.dtype for parameter in loaded.model.parameters()}
    assert loaded.model.get_memory_footprint() < plain.model.get_memory_footprint()
    assert answer(loaded) == answer(plain) or which == "llama"


class Collected(logging.Handler):
    """What reaches the root logger, which is what the runtime's own handler sees."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the record."""
        self.records.append(record)


@pytest.fixture
def collected(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """Records that reach the root logger, from debug level on; caplog also listens where they stop."""
    caplog.set_level(logging.DEBUG)
    handler = Collected()
    logging.getLogger().addHandler(handler)
    yield handler.records
    logging.getLogger().removeHandler(handler)


def test_what_bitsandbytes_warns_of_at_each_token_is_no_warning_of_ours(
    geography: Path, collected: list[logging.LogRecord], capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(local(geography, quantization="int8"))

    answer(loaded)

    assert [record for record in collected if record.name.startswith("bitsandbytes")] == []
    assert [record for record in collected if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().err == ""


def test_a_demoted_librarys_messages_come_once_at_debug_level_and_its_errors_stay_errors(
    collected: list[logging.LogRecord],
) -> None:
    weights.demote(logging.getLogger("noisy"))
    below = logging.getLogger("noisy.part")

    for _ in range(100):
        below.warning("I round")
    below.error("I break")

    said = [(record.levelno, record.getMessage()) for record in collected]
    assert said == [(logging.DEBUG, "noisy.part: I round"), (logging.ERROR, "noisy.part: I break")]


def test_quantisation_without_its_packages_names_the_extra(
    geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)
    )

    with pytest.raises(LoadError) as caught:
        load_model(local(geography, quantization="int4"))

    assert caught.value.report.code is FailureCode.CONFIG_INVALID
    assert "model.quantization is int4 and bitsandbytes is not installed" in caught.value.report.message
    assert "quantization]" in caught.value.report.remedy


def test_weights_that_are_quantised_already_are_not_quantised_again(tmp_path: Path, geography: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(geography, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(LoadError) as caught:
        load_model(local(folder, quantization="int8"))

    assert caught.value.report.code is FailureCode.CONFIG_INVALID
    assert "quantised already" in caught.value.report.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_demanded_and_absent_is_an_error_before_anything_is_fetched(
    hub: Hub, geography: Path
) -> None:
    hub.add("acme/model", geography)
    model = ModelConfig(uri="hf://acme/model", served_name="m", repo_id="acme/model", device="cuda")

    with pytest.raises(LoadError) as caught:
        load_model(model)

    assert caught.value.report.code is FailureCode.CONFIG_INVALID
    assert "model.device is cuda" in caught.value.report.message
    assert hub.gets("model.safetensors") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("device", "warned"), [("auto", True), ("cpu", False)])
def test_a_requested_gpu_that_is_absent_is_a_warning_unless_the_cpu_was_chosen(
    geography: Path, caplog: pytest.LogCaptureFixture, device: str, warned: bool
) -> None:
    loaded = load_model(local(geography, device=device), gpu_requested=1)

    assert loaded.device == "cpu"
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ("GPU requested but no CUDA device found: running on CPU" in said) is warned


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, geography: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(geography, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "brand-new", "auto_map": {"AutoConfig": "evil.Config"}})
    )

    with pytest.raises(LoadError) as caught:
        load_model(local(folder))

    assert caught.value.report.code is FailureCode.MODEL_UNSUPPORTED
    assert not (tmp_path / "ran").exists()


def test_weights_of_the_wanted_type_are_mapped_and_not_copied(tmp_path: Path, geography: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(geography)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=768, intermediate_size=3072, num_hidden_layers=4)
    )
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    del model
    load_model(local(geography))
    before = anonymous_bytes()

    loaded = load_model(local(tmp_path))

    assert loaded.model.num_parameters() * 4 == size > 100e6
    assert anonymous_bytes() - before < size / 2


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
