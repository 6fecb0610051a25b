"""Autoscalers beside each other on simulated traces. Layer: tooling.

The one idea: the data path is the same for all (one queue, replicas with slots, cold starts, drains), so
that only the decisions differ; ours is the operator's own code, the peers are models of theirs.
"""
