"""The agent as a Python object. Layer: agent; may import llm and contract."""
