"""How our Kubernetes Events identify themselves. Layer: observability; imports nothing.

The one idea: reasons are an interface (people alert on them) and are decided by the core, beside the
condition they explain; the shell adds only who reports and in the course of what.
"""

from __future__ import annotations

REPORTING_CONTROLLER = "agentoperator.dev/agent-operator"
ACTION = "Reconcile"
NOTE_LIMIT = 1024
"""Characters of a note the API server accepts."""
