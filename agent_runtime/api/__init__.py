"""The HTTP surface. Layer: api; may import llm.base, llm.chat, llm.pool and the request path, never torch."""
