"""A bucket as a source, against moto's S3 server in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_runtime.contract import FailureCode, ModelConfig, TerminationReport
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.sources import Download, resolve
from agent_runtime.llm.sources import s3 as s3_source
from agent_runtime.llm.sources.s3_errors import explain
from agent_runtime.llm.sources.transfer import partial
from tests.support.proxy import CuttingProxy
from tests.support.s3 import S3
from tests.unit.sources.certificates import issue


def config(uri: str = "s3://models/geography/v1") -> ModelConfig:
    """The configuration of a folder in a bucket."""
    return ModelConfig(uri=uri, served_name="m", s3_uri=uri)


def failure(model: ModelConfig) -> TerminationReport:
    """What resolving this model reports."""
    with pytest.raises(LoadError) as caught:
        resolve(model)
    return caught.value.report


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_of_a_bucket_arrives_as_it_is(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "geography/v1")
    records: list[Download] = []

    folder = resolve(config(), records.append)

    assert contents(folder) == contents(geography)
    assert records[-1].repository == "s3://models/geography/v1"
    assert records[-1].bytes_done == records[-1].bytes_total > 0


def test_a_whole_bucket_can_be_the_folder(s3: S3, geography: Path) -> None:
    s3.create("one-model")
    for file in geography.iterdir():
        s3.put("one-model", file.name, file.read_bytes())

    assert contents(resolve(config("s3://one-model"))) == contents(geography)


def test_only_files_of_the_model_are_fetched(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "more")
    s3.put("models", "more/pytorch_model.bin", b"x")
    s3.put("models", "more/onnx/config.json", b"x")
    s3.put("models", "more-of-another/config.json", b"x")

    assert contents(resolve(config("s3://models/more/"))) == contents(geography)


def test_a_download_goes_on_from_what_an_earlier_process_left(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "half")
    located = s3_source.open_prefix(
        config("s3://models/half"), s3_source.Bucket.for_model(config("s3://models/half"))
    )
    assert isinstance(located, s3_source.Prefix)
    weights = next(file for file in located.files if file.name == "model.safetensors")
    weights.target.parent.mkdir(parents=True)
    partial(weights).write_bytes((geography / weights.name).read_bytes()[:-1000])
    records: list[Download] = []

    folder = resolve(config("s3://models/half"), records.append)

    assert contents(folder) == contents(geography)
    assert records[0].bytes_done == weights.size - 1000


def test_a_connection_that_is_cut_goes_on_from_where_it_was(
    s3: S3, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.upload(geography, "models", "cut")
    with CuttingProxy(s3.url, cut_after=1_000_000, times=2) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        folder = resolve(config("s3://models/cut"))

    assert contents(folder) == contents(geography)
    assert proxy.cuts_left == 0


def test_a_changed_object_makes_a_new_folder(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "changing")
    before = resolve(config("s3://models/changing"))
    s3.put("models", "changing/eval.json", (geography / "eval.json").read_bytes()[::-1])

    after = resolve(config("s3://models/changing"))

    assert before != after
    assert (after / "eval.json").read_bytes() != (before / "eval.json").read_bytes()


def test_an_object_that_changes_between_listing_and_fetching_is_not_mixed_in(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "race")
    model = config("s3://models/race")
    located = s3_source.open_prefix(model, s3_source.Bucket.for_model(model))
    s3.put("models", "race/model.safetensors", (geography / "model.safetensors").read_bytes()[::-1])

    with pytest.raises(Exception, match=r"race/model\.safetensors changed in the bucket"):
        located.fetch()


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("s3://no-such-bucket/x", "no-such-bucket"),
        ("s3://models/no/such/folder", "no/such/folder/"),
    ],
)
def test_a_missing_bucket_or_folder_is_named(s3: S3, geography: Path, uri: str, named: str) -> None:
    s3.upload(geography, "models", "geography/v1")

    report = failure(config(uri))

    assert report.code is FailureCode.MODEL_NOT_FOUND
    assert named in report.message


def test_credentials_the_server_does_not_know_are_their_own_error(s3: S3, geography: Path) -> None:
    s3.upload(geography, "models", "geography/v1")
    s3.restrict(True)
    try:
        report = failure(config())
    finally:
        s3.restrict(False)

    assert report.code is FailureCode.MODEL_TOKEN_INVALID
    assert "InvalidAccessKeyId" in report.message
    assert "AWS_SECRET_ACCESS_KEY" in report.remedy


def test_an_endpoint_nobody_answers_at_is_unreachable(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    report = failure(config())

    assert report.code is FailureCode.BUCKET_UNREACHABLE
    assert "AWS_ENDPOINT_URL" in report.remedy


def test_while_the_endpoint_is_away_the_last_whole_copy_serves(
    s3: S3, geography: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.upload(geography, "models", "geography/v1")
    folder = resolve(config())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    assert resolve(config()) == folder


def test_a_host_name_that_cannot_exist_is_a_matter_of_dns(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    # A label of 64 characters is refused by the resolver itself, without a question to any server.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{'a' * 64}.invalid")

    assert failure(config()).code is FailureCode.MODEL_HOST_UNRESOLVED


def test_a_certificate_nobody_vouches_for_is_a_matter_of_tls_until_it_is_named(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = issue(tmp_path)
    with S3(made.served) as secure:
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.url)
        report = failure(config())
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        named = failure(config("s3://no-such-bucket/x"))

    assert report.code is FailureCode.MODEL_HOST_TLS_FAILED
    assert "SSL_CERT_FILE" in report.remedy
    assert named.code is FailureCode.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://UPPER/x", "s3://models/../x", "https://models/x", "s3://m/a//b"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(uri: str) -> None:
    report = failure(config(uri))

    assert report.code is FailureCode.CONFIG_INVALID
    assert repr(uri) in report.message


def test_a_disk_too_small_is_refused_before_anything_is_written(
    s3: S3, geography: Path, monkeypatch: pytest.MonkeyPatch, tiny_disk: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny_disk))
    s3.upload(geography, "models", "geography/v1")

    report = failure(config())

    assert report.code is FailureCode.DISK_FULL
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("status code: 403 Forbidden: <Error><Code>AccessDenied</Code></Error>", "ModelAccessDenied"),
        ("status code: 403 Forbidden: no body", "ModelAccessDenied"),
        ("status code: 403: <Error><Code>ExpiredToken</Code></Error>", "ModelTokenInvalid"),
        ("status code: 503: <Error><Code>SlowDown</Code></Error>", "ModelHostOverloaded"),
        ("Error performing PUT http://169.254.169.254/latest/api/token in 3s", "ModelAccessDenied"),
        ("Received redirect without LOCATION, this is the wrong region", "RuntimeConfigInvalid"),
        ("something nobody has seen yet", "BucketUnreachable"),
    ],
)  # fmt: skip
def test_what_s3_answers_has_its_code(text: str, code: str) -> None:
    report = explain(text, "models", "s3://models/x").report

    assert report.code == code
    assert "s3://models/x" in report.message
    assert report.remedy
