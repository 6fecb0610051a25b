"""Decisions. Layer: core, pure. May import api and agent_runtime.contract; no I/O, no clock, no logging.

The one idea: `reconcile.reconcile(snapshot, now)` turns what is seen into what is to be done, as data.
"""
