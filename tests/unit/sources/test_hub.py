"""The hub as a source, against a stand-in that serves real folders over its interface."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from agent_runtime.contract import FailureCode, ModelConfig, TerminationReport
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.sources import Download, resolve
from tests.support.hub import Hub, Mode, point_at, sha256
from tests.unit.sources.certificates import issue

TOKEN = "hf_abcdefghijklmnop1234"


def config(**settings: str) -> ModelConfig:
    """The configuration of acme/model."""
    named = {"uri": "hf://acme/model", "served_name": "m", "repo_id": "acme/model"}
    return ModelConfig.model_validate(named | settings)


def failure(model: ModelConfig) -> TerminationReport:
    """What resolving this model reports."""
    with pytest.raises(LoadError) as caught:
        resolve(model)
    return caught.value.report


def cache(tmp_path: Path) -> Path:
    """Where the repository's files go."""
    return tmp_path / "cache" / "models--acme--model"


def same(folder: Path, original: Path) -> bool:
    """Whether every file of a model arrived as it was."""
    return {f.name: f.read_bytes() for f in folder.iterdir()} == {
        f.name: f.read_bytes() for f in original.iterdir()
    }


def test_a_whole_repository_arrives_as_it_is(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography)

    folder = resolve(config())

    assert same(folder, geography)


def test_only_files_of_the_model_are_fetched(hub: Hub, geography: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(geography, source)
    for name in ("pytorch_model.bin", "consolidated.safetensors", "README.md", "modeling_evil.py"):
        (source / name).write_bytes(b"x")
    (source / "onnx").mkdir()
    (source / "onnx" / "config.json").write_text("{}")
    hub.add("acme/model", source)

    folder = resolve(config())

    assert same(folder, geography)


def test_a_second_time_nothing_is_fetched_again(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography)
    resolve(config())
    hub.seen.clear()

    resolve(config())

    assert [seen.path for seen in hub.seen] == ["/api/models/acme/model"]


def test_a_cache_that_cannot_be_written_serves_what_it_holds(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add("acme/model", geography)
    resolve(config())
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    bind = ["mount", "--bind", str(tmp_path / "cache"), str(mounted)]
    if subprocess.run(bind, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(mounted)], check=True)
        point_at(monkeypatch, hub.url, mounted)

        assert same(resolve(config()), geography)
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def test_a_copy_the_hubs_own_client_made_is_used(hub: Hub, geography: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    hub.add("acme/model", geography)
    snapshot_download("acme/model", cache_dir=tmp_path / "cache", endpoint=hub.url)
    hub.seen.clear()

    folder = resolve(config())

    assert same(folder, geography)
    assert hub.gets("model.safetensors") == 0


def test_the_hubs_own_client_finds_what_was_fetched(hub: Hub, geography: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    hub.add("acme/model", geography)
    folder = resolve(config())

    found = snapshot_download("acme/model", cache_dir=tmp_path / "cache", local_files_only=True)

    assert Path(found) == folder


def test_a_revision_is_fetched_by_name_or_by_commit(hub: Hub, geography: Path) -> None:
    repository = hub.add("acme/model", geography, revisions=("main", "v1"))

    by_name, by_commit = resolve(config(revision="v1")), resolve(config(revision=repository.commit))

    assert by_name == by_commit
    assert by_name.name == repository.commit


@pytest.mark.parametrize("mode", [Mode.FLAKY, Mode.RATE_LIMITED])
def test_a_hub_that_refuses_twice_is_asked_again(hub: Hub, geography: Path, mode: Mode) -> None:
    hub.add("acme/model", geography, mode, retry_after=0)

    assert same(resolve(config()), geography)
    assert hub.gets("model.safetensors") == 3


def test_a_download_that_is_cut_off_goes_on_from_where_it_was(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography, Mode.CUT, cut_after=300_000, times=3)

    folder = resolve(config())

    assert same(folder, geography)
    assert hub.ranges() == ["bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_restarted_process_goes_on_from_where_the_last_one_was(
    hub: Hub, geography: Path, tmp_path: Path
) -> None:
    hub.add("acme/model", geography)
    weights = geography / "model.safetensors"
    left = cache(tmp_path) / "blobs" / f"{sha256(weights)}.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(weights.read_bytes()[:1_000_000])

    folder = resolve(config())

    assert same(folder, geography)
    assert hub.ranges() == ["bytes=1000000-"]


def test_what_an_earlier_process_left_damaged_is_fetched_from_its_beginning(
    hub: Hub, geography: Path, tmp_path: Path
) -> None:
    hub.add("acme/model", geography)
    left = cache(tmp_path) / "blobs" / f"{sha256(geography / 'model.safetensors')}.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"\0" * 1_000_000)

    assert same(resolve(config()), geography)
    assert hub.gets("model.safetensors") == 2


def test_a_server_without_ranges_is_read_from_the_beginning(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography, Mode.CUT, cut_after=300_000, times=1, ranges=False)

    assert same(resolve(config()), geography)


def test_a_connection_that_always_breaks_is_reported_and_keeps_its_bytes(
    hub: Hub, geography: Path, tmp_path: Path
) -> None:
    hub.add("acme/model", geography, Mode.CUT, cut_after=0, times=1000)
    left = cache(tmp_path) / "blobs" / f"{sha256(geography / 'model.safetensors')}.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes((geography / "model.safetensors").read_bytes()[:1000])

    report = failure(config())

    assert report.code is FailureCode.DOWNLOAD_INTERRUPTED
    assert "model.safetensors" in report.message
    assert left.stat().st_size == 1000


def test_wrong_bytes_of_the_right_size_are_corrupt_and_not_kept(
    hub: Hub, geography: Path, tmp_path: Path
) -> None:
    hub.add("acme/model", geography, Mode.CORRUPT)

    report = failure(config())

    assert report.code is FailureCode.MODEL_CORRUPT
    assert "model.safetensors" in report.message
    assert sha256(geography / "model.safetensors") in report.message
    assert [f for f in (cache(tmp_path) / "blobs").iterdir() if f.stat().st_size > 100_000] == []


def test_a_private_repository_is_missing_without_the_token_and_there_with_it(
    hub: Hub, geography: Path, tmp_path: Path
) -> None:
    hub.tokens.add(TOKEN)
    hub.add("acme/model", geography, Mode.PRIVATE)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    report = failure(config())
    folder = resolve(config(token_file=str(file)))

    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert "spec.model.tokenSecretRef" in report.remedy
    assert same(folder, geography)


def test_a_token_goes_to_the_hub_and_not_to_where_it_redirects(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.tokens.add(TOKEN)
    with Hub() as cdn:
        hub.add("acme/model", geography, redirect_to=cdn.url)
        cdn.add("acme/model", geography)

        folder = resolve(config())

    assert same(folder, geography)
    assert {seen.authorization for seen in hub.seen} == {f"Bearer {TOKEN}"}
    assert [(seen.path.rsplit("/", 1)[-1], seen.authorization) for seen in cdn.seen] == [
        ("model.safetensors", None)
    ]


def test_a_gated_repository_says_that_terms_must_be_accepted(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.tokens.add(TOKEN)
    repository = hub.add("acme/model", geography, Mode.GATED)

    report = failure(config())
    repository.granted = (TOKEN,)
    folder = resolve(config())

    assert report.code is FailureCode.MODEL_ACCESS_DENIED
    assert "terms" in report.remedy
    assert same(folder, geography)


def test_a_token_the_hub_does_not_know_is_its_own_error(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("acme/model", geography)

    report = failure(config())

    assert report.code is FailureCode.MODEL_TOKEN_INVALID
    assert TOKEN not in report.encode()


def test_a_token_file_that_is_missing_is_named(hub: Hub, geography: Path, tmp_path: Path) -> None:
    hub.add("acme/model", geography)

    report = failure(config(token_file=str(tmp_path / "gone")))

    assert report.code is FailureCode.CONFIG_INVALID
    assert str(tmp_path / "gone") in report.message
    assert hub.seen == []


def test_a_missing_repository_and_a_missing_revision_are_told_apart(hub: Hub, geography: Path) -> None:
    missing = failure(config())
    hub.add("acme/model", geography)
    revision = failure(config(revision="v9"))

    assert missing.code is FailureCode.MODEL_NOT_FOUND
    assert "spec.model.uri" in missing.remedy
    assert revision.code is FailureCode.MODEL_REVISION_NOT_FOUND
    assert "acme/model at revision v9" in revision.message
    assert "spec.model.revision" in revision.remedy


@pytest.mark.parametrize(
    ("removed", "code", "named"),
    [
        ("config.json", FailureCode.MODEL_NOT_FOUND, "no config.json"),
        ("model.safetensors", FailureCode.MODEL_UNSUPPORTED, "neither model.safetensors nor"),
    ],
)
def test_a_repository_without_a_model_is_refused_before_anything_is_fetched(
    hub: Hub, geography: Path, tmp_path: Path, removed: str, code: FailureCode, named: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(geography, source)
    (source / removed).unlink()
    hub.add("acme/model", source)

    report = failure(config())

    assert report.code is code
    assert named in report.message
    assert not cache(tmp_path).exists()


def test_a_hub_that_stays_down_is_overloaded_not_unreachable(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography, Mode.DOWN)

    assert failure(config()).code is FailureCode.MODEL_HOST_OVERLOADED


def test_a_hub_nobody_answers_at_is_unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path)

    report = failure(config())

    assert report.code is FailureCode.HUB_UNREACHABLE
    assert "acme/model" in report.message


def test_a_name_nobody_knows_is_a_matter_of_dns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The resolver is the system's, and asking it would leave this machine.
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    point_at(monkeypatch, "http://hub.invalid", tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    report = failure(config())

    assert report.code is FailureCode.MODEL_HOST_UNRESOLVED
    assert "HF_ENDPOINT" in report.remedy


def test_a_certificate_nobody_vouches_for_is_a_matter_of_tls_until_it_is_named(
    monkeypatch: pytest.MonkeyPatch, geography: Path, tmp_path: Path
) -> None:
    made = issue(tmp_path)
    with Hub(certificate=made.served) as hub:
        hub.add("acme/model", geography)
        point_at(monkeypatch, hub.url, tmp_path / "cache")
        report = failure(config())
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        point_at(monkeypatch, hub.url, tmp_path / "cache")
        folder = resolve(config())

    assert report.code is FailureCode.MODEL_HOST_TLS_FAILED
    assert "SSL_CERT_FILE" in report.remedy
    assert same(folder, geography)


def test_while_the_hub_is_away_the_whole_copy_in_the_cache_serves(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add("acme/model", geography, revisions=("main", "v1"))
    folder = resolve(config(revision="v1"))
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")

    assert resolve(config(revision="v1")) == folder


def test_offline_mode_uses_the_copy_in_the_cache_and_asks_nobody(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.add("acme/model", geography)
    folder = resolve(config())
    hub.seen.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert resolve(config()) == folder
    assert hub.seen == []


def test_while_the_hub_is_away_half_a_copy_does_not_serve(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = hub.add("acme/model", geography).commit
    folder = resolve(config())
    (folder / "model.safetensors").unlink()
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")

    report = failure(config(revision=commit))

    assert report.code is FailureCode.HUB_UNREACHABLE


def test_a_disk_too_small_is_refused_before_anything_is_written(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch, tiny_disk: Path
) -> None:
    point_at(monkeypatch, hub.url, tiny_disk / "cache")
    hub.add("acme/model", geography)
    needed = sum(file.stat().st_size for file in geography.iterdir())

    report = failure(config())

    assert report.code is FailureCode.DISK_FULL
    assert f"needs {needed} bytes" in report.message
    assert "has 524288 bytes" in report.message
    assert list(tiny_disk.iterdir()) == []
    assert hub.gets("model.safetensors") == 0


def test_a_disk_that_fills_up_on_the_way_is_reported_with_the_bytes_it_took(
    hub: Hub, geography: Path, monkeypatch: pytest.MonkeyPatch, tiny_disk: Path
) -> None:
    # A quota is not seen in a file system's free space: what counts as free here is the other disk's.
    class Elsewhere:
        free = 10**12

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Elsewhere)
    point_at(monkeypatch, hub.url, tiny_disk / "cache")
    hub.add("acme/model", geography)

    report = failure(config())

    assert report.code is FailureCode.DISK_FULL
    assert "model.safetensors" in report.message
    assert "cache volume" in report.remedy


def test_progress_says_what_arrived_of_each_file_and_of_all(hub: Hub, geography: Path) -> None:
    hub.add("acme/model", geography)
    records: list[Download] = []

    resolve(config(), records.append)

    last = records[-1]
    assert last.repository == "acme/model"
    assert {file.name: file.bytes_done for file in last.files} == {
        file.name: file.stat().st_size for file in geography.iterdir()
    }
    assert last.bytes_done == last.bytes_total == sum(file.bytes_total for file in last.files)
    assert records[0].bytes_done == 0
    assert last.bytes_per_second > 0
