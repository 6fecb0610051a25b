"""What a row of the checklist is, and the files that prove most of them. Layer: tests.

The one idea: `proofs` are node ids of pytest, of a file or of one test in it; `gap` says what of the item is
not there, or, without proofs, why the item does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass

API_CRD = "tests/unit/api/test_api_crd.py"
API_MODELS = "tests/unit/api/test_api_models.py"
ACCEPTANCE = "tests/contract/test_acceptance.py"
REFUSALS = "tests/contract/test_refusals.py"
RECONCILE = "tests/unit/core/test_core_reconcile.py"
ROLLOUTS = "tests/property/test_rollout_properties.py"
GARBAGE = "tests/property/test_garbage_properties.py"
AGENT_LIFE = "tests/e2e/test_agent_life.py"
OPERATOR_LIFE = "tests/e2e/test_operator_life.py"
FAULTS = "tests/e2e/test_unsatisfiable.py"
WORKLOAD = "tests/chart/test_workload.py"
VALUES = "tests/chart/test_values.py"
STATUS = "tests/conformance/test_status.py"
OPERAND = "tests/conformance/test_operand.py"
PACKAGING = "tests/conformance/test_packaging.py"
DOCUMENTS = "tests/conformance/test_documents.py"
GENERATED = "tests/aot/test_campaign.py"
LIVE_API = "tests/conformance/cluster/test_api.py"
OWNERSHIP = "tests/conformance/cluster/test_ownership.py"
LIFE = "tests/conformance/cluster/test_life.py"


@dataclass(frozen=True)
class Row:
    """One item of the checklist."""

    number: int
    area: str
    item: str
    check: str
    """What is checked, in a few words."""
    proofs: tuple[str, ...] = ()
    gap: str = ""
