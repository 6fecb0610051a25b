"""Why an agent does not serve. Layer: core, pure; imports api, core.reading and agent_runtime.contract.

The one idea: an ordered table of signatures over facts, each with evidence and remedy. What no
signature matches stays unknown: a wrong confident label is worse.
"""

from agent_operator.core.diagnosis.diagnose import (
    RUNTIME_RESTARTED,
    Diagnosis,
    Subject,
    diagnose,
    each_once,
    recent_restart,
)
from agent_operator.core.diagnosis.refusals import refused_children, refused_pods

__all__ = [
    "RUNTIME_RESTARTED",
    "Diagnosis",
    "Subject",
    "diagnose",
    "each_once",
    "recent_restart",
    "refused_children",
    "refused_pods",
]
