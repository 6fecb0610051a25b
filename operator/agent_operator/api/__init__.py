"""The API of Agent Operator: models of spec and status, condition reasons, CRD generator. Layer: api, pure.

May import pydantic, PyYAML (generator only), the standard library and agent_runtime.contract. The one idea:
these models are the single source of the CRD, of the reference page and of what the operator reads.
"""

from agent_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from agent_operator.api.model_uri import ModelUri, Scheme, parse_model_uri
from agent_operator.api.root import AgentDeployment, AgentDeploymentSpec
from agent_operator.api.status import AgentDeploymentStatus

__all__ = [
    "AgentDeployment",
    "AgentDeploymentSpec",
    "AgentDeploymentStatus",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "ModelUri",
    "Reason",
    "Scheme",
    "parse_model_uri",
]
