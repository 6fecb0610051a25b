"""Effects. Layer: shell. May import core, api, observability, aiohttp and kubernetes (credentials only).

The one idea: everything that touches the cluster is here, thin, behind a protocol of six verbs, and
decides nothing: it reads a snapshot, asks the core, and carries the plan out.
"""
