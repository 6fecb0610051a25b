"""Each way loading can fail has its code, its place and its remedy; no token is ever in it."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_runtime.contract import FailureCode, ModelConfig, TerminationReport
from agent_runtime.llm.failures import LoadError, classify
from agent_runtime.llm.load import load_model
from agent_runtime.llm.sources import hub as hub_source
from agent_runtime.llm.sources.transfer import (
    CorruptDownloadError,
    InterruptedDownloadError,
    NoSpaceError,
    RetryPolicy,
)
from agent_runtime.secrets import SecretError
from tests.support.hub import point_at

HUB = ModelConfig(uri="hf://acme/model", served_name="m", repo_id="acme/model")
LOCAL = ModelConfig(uri="pvc://claim/model", served_name="m", path="/models/model")


def hub_error(name: str, status: int, text: str = "boom") -> Exception:
    """An error shaped like huggingface_hub's: known by its class name and its response."""
    kind = type(name, (OSError,), {})
    error: Exception = kind(text)
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


def wrapped(inner: BaseException) -> Exception:
    """The error as a library wraps it."""
    try:
        raise OSError("Can't load the model") from inner
    except OSError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "model", "code"),
    [
        (hub_error("GatedRepoError", 403), HUB, FailureCode.MODEL_ACCESS_DENIED),
        (hub_error("HfHubHTTPError", 401), HUB, FailureCode.MODEL_TOKEN_INVALID),
        (hub_error("HfHubHTTPError", 403), HUB, FailureCode.MODEL_ACCESS_DENIED),
        (hub_error("RepositoryNotFoundError", 401), HUB, FailureCode.MODEL_NOT_FOUND),
        (hub_error("RepositoryNotFoundError", 404), HUB, FailureCode.MODEL_NOT_FOUND),
        (hub_error("RevisionNotFoundError", 404), HUB, FailureCode.MODEL_REVISION_NOT_FOUND),
        (hub_error("HfHubHTTPError", 503), HUB, FailureCode.MODEL_HOST_OVERLOADED),
        (hub_error("HfHubHTTPError", 429), HUB, FailureCode.MODEL_HOST_OVERLOADED),
        (ConnectionRefusedError(111, "refused"), HUB, FailureCode.HUB_UNREACHABLE),
        (TimeoutError("timed out"), HUB, FailureCode.HUB_UNREACHABLE),
        (type("LocalEntryNotFoundError", (FileNotFoundError,), {})("no"), HUB, FailureCode.HUB_UNREACHABLE),
        (ssl.SSLCertVerificationError("self-signed"), HUB, FailureCode.MODEL_HOST_TLS_FAILED),
        (socket.gaierror(-2, "Name or service not known"), HUB, FailureCode.MODEL_HOST_UNRESOLVED),
        (InterruptedDownloadError("ended after 3 of 9 bytes"), HUB, FailureCode.DOWNLOAD_INTERRUPTED),
        (CorruptDownloadError("sha256 is another"), HUB, FailureCode.MODEL_CORRUPT),
        (NoSpaceError("9 needed, 3 free"), HUB, FailureCode.DISK_FULL),
        (SecretError("cannot read /secret"), HUB, FailureCode.CONFIG_INVALID),
        (OSError(errno.ENOSPC, "No space left on device"), HUB, FailureCode.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), LOCAL, FailureCode.DISK_FULL),
        (MemoryError(), LOCAL, FailureCode.OUT_OF_MEMORY),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), LOCAL, FailureCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), LOCAL, FailureCode.OUT_OF_MEMORY),
        (type("SafetensorError", (Exception,), {})("header"), LOCAL, FailureCode.MODEL_CORRUPT),
        (json.JSONDecodeError("bad", "{", 0), LOCAL, FailureCode.MODEL_CORRUPT),
        (ModuleNotFoundError("No module named 'gptqmodel'"), LOCAL, FailureCode.MODEL_UNSUPPORTED),
        (PermissionError(13, "denied"), LOCAL, FailureCode.MODEL_NOT_FOUND),
        (RuntimeError("surprise"), LOCAL, FailureCode.INTERNAL),
    ],
)
@pytest.mark.parametrize("wrap", [False, True])
def test_a_known_failure_has_its_code_however_it_is_wrapped(
    error: Exception, model: ModelConfig, code: FailureCode, wrap: bool
) -> None:
    report = classify(wrapped(error) if wrap else error, model)

    assert report.code is code
    assert (model.path or model.repo_id or "") in report.message
    assert report.remedy


def test_tokens_are_cut_out_of_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret-value")
    error = hub_error("HfHubHTTPError", 401, "token hf_abcdefghij1234 or very-secret-value, Bearer xyz")

    report = classify(error, HUB)

    assert not {"hf_abcdefghij1234", "very-secret-value", "xyz"} & set(
        report.message.replace(",", " ").split()
    )


def test_a_report_survives_the_trip_and_fits_the_kubelets_limit() -> None:
    report = classify(RuntimeError("x" * 100_000), LOCAL)

    assert TerminationReport.decode(report.encode()) == report
    assert len(report.encode().encode()) <= 4096


def failure(model: ModelConfig) -> TerminationReport:
    """What loading this model reports."""
    with pytest.raises(LoadError) as caught:
        load_model(model)
    return caught.value.report


def local(folder: Path) -> ModelConfig:
    """The configuration of a folder."""
    return ModelConfig(uri=f"pvc://claim/{folder.name}", served_name="m", path=str(folder))


def copy(model: Path, to: Path) -> Path:
    """A copy of a model's folder that a test may damage."""
    to.mkdir()
    for file in model.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    report = failure(local(tmp_path / "nowhere"))

    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert str(tmp_path / "nowhere") in report.message
    assert "spec.model.uri" in report.remedy


def test_a_folder_without_config_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")

    report = failure(local(tmp_path))

    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert "config.json does not exist; the folder holds: weights.bin" in report.message


def test_files_the_user_may_not_read_are_named(
    tmp_path: Path, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These tests may run as root, who may read everything: the question is answered for another user.
    monkeypatch.setattr(os, "access", lambda file, mode: bool(Path(file).stat().st_mode & stat.S_IROTH))
    folder = copy(geography, tmp_path / "m")
    (folder / "model.safetensors").chmod(0o600)

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_ACCESS_DENIED
    assert f"may not read model.safetensors in {folder}" in report.message
    assert "chmod" in report.remedy


def test_a_config_that_is_not_json_is_corrupt_and_named(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    (folder / "config.json").write_text("{ half")

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert f"{folder / 'config.json'} is not valid JSON" in report.message


def test_cut_off_weights_are_corrupt_and_the_file_is_named(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert str(weights) in report.message


def test_a_shard_that_is_missing_is_named(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert f"{folder / 'model-00002-of-00002.safetensors'} does not exist" in report.message


def test_an_index_cannot_name_files_outside_the_folder(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert "../x.safetensors" in report.message


def test_weights_the_files_do_not_hold_are_named_and_never_random(tmp_path: Path, geography: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy(geography, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    removed = sorted(name for name in tensors if "EncDecAttention" in name)[0]
    del tensors[removed]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert removed in report.message


def test_weights_of_another_shape_are_named(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_ff": config["d_ff"] * 2}))

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert "of another shape" in report.message


def test_a_tokenizer_that_is_not_json_is_corrupt_and_named(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    (folder / "tokenizer.json").write_text('{"version": "1.0", ')

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_CORRUPT
    assert str(folder / "tokenizer.json") in report.message


def test_a_folder_without_tokenizer_says_so(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    (folder / "tokenizer.json").unlink()

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert "no tokenizer" in report.message


@pytest.mark.parametrize(
    "settings",
    [{}, {"path": "/m", "repo_id": "acme/model"}, {"remote": {"base_url": "http://h", "model": "m"}}],
)
def test_a_configuration_without_exactly_one_source_is_refused(settings: dict[str, object]) -> None:
    model = ModelConfig.model_validate({"uri": "x", "served_name": "m", **settings})

    assert failure(model).code is FailureCode.CONFIG_INVALID


def test_a_folder_without_weights_says_so(tmp_path: Path, geography: Path) -> None:
    folder = copy(geography, tmp_path / "m")
    (folder / "model.safetensors").unlink()

    report = failure(local(folder))

    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert "no weights" in report.message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ({"model_type": "vit"}, "vit"),
        ({"model_type": "brand-new"}, "brand-new"),
    ],
)
def test_another_kind_of_model_is_refused_by_its_name(
    tmp_path: Path, config: dict[str, object], named: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))

    report = failure(local(tmp_path))

    assert report.code is FailureCode.MODEL_UNSUPPORTED
    assert named in report.message


def test_a_hub_nobody_answers_at_is_unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path)
    monkeypatch.setattr(hub_source, "RETRY", RetryPolicy(attempts=1))

    report = failure(HUB)

    assert report.code is FailureCode.HUB_UNREACHABLE
    assert "acme/model" in report.message
