"""Agent Operator: runs LLM agents on Kubernetes from one `AgentDeployment` manifest.

Layers, each importing only what stands left of it: api, core, shell, controller, __main__.
"""

__version__ = "0.1.0"
