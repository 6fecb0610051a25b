"""Convergence under faults: the operator's own parts against an API server in memory, in virtual time.

`cluster` plays Kubernetes' controllers, `wire` the network, `process` one operator process with its watches,
`world` all of it together, `judge` states what must never happen, `history` draws, replays and shortens
random histories.
"""
