"""What the gateway decides. Layer: gateway core, pure; no I/O, no clock, no chance, no logging.

The one idea: every rule is a function or a state machine over a `now` that is handed in.
"""
