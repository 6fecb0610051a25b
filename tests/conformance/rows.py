"""The checklist: what is expected of an operator, and which tests prove it here. Layer: tests.

The one idea: a table and nothing else. The rows follow the Kubernetes API conventions, the operator
capability levels, kstatus and the practice of controller-runtime and cert-manager.
"""

from __future__ import annotations

from tests.conformance.row import Row
from tests.conformance.rows_operator import DELIVERING, RUNNING
from tests.conformance.rows_resource import API, RECONCILING

ROWS: tuple[Row, ...] = (*API, *RECONCILING, *RUNNING, *DELIVERING)
