"""Who the operator is: the pod's own account first, then a kubeconfig, and a clear word without either."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent_operator.shell import credentials
from agent_operator.shell.credentials import NoClusterError, PodCredentials, load_credentials
from agent_operator.shell.kubeconfig import KubeconfigCredentials

DEFAULT_FILE = "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://api.example.com:6443/"}}]
users: [{name: u, user: {token: from-the-file}}]
"""


def authority() -> bytes:
    """A certificate authority, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kubelet mounts into a pod."""
    (tmp_path / "ca.crt").write_bytes(authority())
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("ops\n")
    monkeypatch.setattr(credentials, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


async def test_in_a_pod_its_account_is_used(account: Path) -> None:
    found = await load_credentials()
    assert found.server == "https://10.96.0.1:443"
    assert await found.authorization() == "Bearer first"
    assert found.ssl_context is not None
    assert len(found.ssl_context.get_ca_certs()) == 1
    assert found.ssl_context.check_hostname


async def test_a_rotated_token_is_read_within_a_minute(account: Path) -> None:
    now = [0.0]
    found = PodCredentials("10.96.0.1", "443", clock=lambda: now[0])
    assert await found.authorization() == "Bearer first"
    (account / "token").write_text("second")
    now[0] = 59.0
    assert await found.authorization() == "Bearer first"
    now[0] = 61.0
    assert await found.authorization() == "Bearer second"


def test_an_address_of_version_six_stands_in_brackets(account: Path) -> None:
    assert PodCredentials("fd00::1", "443").server == "https://[fd00::1]:443"


async def test_a_kubeconfig_that_is_set_wins_even_in_a_pod(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (account / "config").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(account / "config"))
    monkeypatch.setattr(DEFAULT_FILE, str(account / "config"))
    found = await load_credentials()
    assert isinstance(found, KubeconfigCredentials)
    assert found.server == "https://api.example.com:6443"
    assert await found.authorization() == "Bearer from-the-file"


def test_an_account_that_cannot_be_used_is_named(account: Path) -> None:
    (account / "ca.crt").write_text("no certificate")
    with pytest.raises(NoClusterError, match="cannot use"):
        PodCredentials("10.96.0.1", "443")


async def test_a_token_that_is_gone_is_named(account: Path) -> None:
    (account / "token").unlink()
    with pytest.raises(NoClusterError, match="token"):
        await PodCredentials("10.96.0.1", "443").authorization()


async def test_without_credentials_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(DEFAULT_FILE, str(tmp_path / "nothing"))
    with pytest.raises(NoClusterError, match="KUBECONFIG"):
        await load_credentials()
