"""Conformance with a checklist of operators, row by row. Layer: tests.

The one idea: `rows` names, for each item of the checklist, the tests that prove it or why it does not apply;
tests that no other folder had live here.
"""
