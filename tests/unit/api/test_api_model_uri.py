"""Model URIs: which forms there are, what they mean, how they are shown."""

from __future__ import annotations

import pytest

from agent_operator.api import Scheme, parse_model_uri

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("uri", "scheme", "display"),
    [
        ("hf://google/flan-t5-xl", Scheme.HF, "google/flan-t5-xl"),
        ("hf://gpt2", Scheme.HF, "gpt2"),
        ("oci://127.0.0.1:5000/agent-operator/models/geography:v1", Scheme.OCI, "geography:v1"),
        (f"oci://registry.example.com/geography@{DIGEST}", Scheme.OCI, "geography@01234567"),
        (f"oci://localhost/geography:v1@{DIGEST}", Scheme.OCI, "geography:v1"),
        ("pvc://models/geography", Scheme.PVC, "geography"),
        ("pvc://models", Scheme.PVC, "models"),
        ("s3://bucket/models/geography", Scheme.S3, "geography"),
    ],
)
def test_a_uri_has_a_scheme_and_a_short_name(uri: str, scheme: Scheme, display: str) -> None:
    parsed = parse_model_uri(uri)

    assert (parsed.scheme, parsed.display) == (scheme, display)
    assert f"{parsed.scheme}://{parsed.rest}" == uri


def test_a_volume_uri_names_claim_and_path() -> None:
    parsed = parse_model_uri("pvc://models/geography/v2")

    assert (parsed.claim, parsed.sub_path) == ("models", "geography/v2")


def test_the_root_of_a_volume_has_no_path() -> None:
    assert parse_model_uri("pvc://models").sub_path == ""


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "google/flan-t5-xl",
        "file:///models",
        "hf://",
        "hf://a/b/c",
        "hf://../etc",
        "pvc://models/../secrets",
        "pvc://models/.hidden",
        "pvc://models//geography",
        "oci://registry.example.com/geography",
        "oci://geography:v1",
        "s3://bucket",
        "hf://google/flan t5",
        "hf://google/flan-t5-xl\n",
        "hf://" + "x" * 600,
    ],
)
def test_anything_else_is_refused_with_the_accepted_forms(uri: str) -> None:
    with pytest.raises(ValueError, match="hf://organisation/name, oci://"):
        parse_model_uri(uri)
