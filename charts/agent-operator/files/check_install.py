"""Run by `helm test`: does the operator answer, and does the API server serve AgentDeployments?

Layer: chart, standard library only; it runs in the operator's image with a ServiceAccount that is
bound to nothing (reading what the API server serves is open to every authenticated identity).
"""
# ruff: noqa: T201, S310 -- its output is its result, and both addresses are the chart's own

import json
import os
import pathlib
import ssl
import sys
import time
import urllib.request

ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEADLINE_SECONDS = 60


def check_operator() -> str:
    """Readiness through the metrics Service, so DNS, Service and pod are all on the way."""
    url = os.environ["OPERATOR_URL"] + "/readyz"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return f"{url} answered {answer.status}"


def check_api() -> str:
    """AgentDeployments in the discovery document, with both subresources."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    url = f"https://{host if ':' not in host else f'[{host}]'}:{port}/apis/{os.environ['API_GROUP_VERSION']}"
    token = (ACCOUNT / "token").read_text()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    # Python is stricter than every other Kubernetes client here: many clusters' CAs lack an extension.
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with urllib.request.urlopen(request, timeout=5, context=trust) as answer:
        served = {resource["name"] for resource in json.load(answer)["resources"]}
    wanted = {"agentdeployments", "agentdeployments/status", "agentdeployments/scale"}
    if not wanted <= served:
        raise ValueError(f"{url} lacks {sorted(wanted - served)}: an older CRD? set crds.install=true")
    return f"{url} serves {sorted(wanted)}"


def main() -> int:
    """Try until both hold or the deadline has passed; 0 or 1."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    for check in (check_operator, check_api):
        while True:
            try:
                print("ok  ", check(), flush=True)
                break
            except (OSError, ValueError, KeyError) as error:
                reason = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                print("FAIL", check.__doc__, reason, flush=True)
                return 1
            print("wait", reason, flush=True)
            time.sleep(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
