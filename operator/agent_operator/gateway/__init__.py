"""The gateway: holds an agent's requests while it has no pod, and may balance them when it has. Layer: top,
beside __main__; may import everything below, and nothing imports it.

The one idea: a process of its own that learns everything by watching EndpointSlices and writes nothing. The
port a request arrives at says whose it is; who holds requests is asked by the operator (GET /demand).
`core/` decides, in virtual time; the rest moves bytes.
"""
