"""The objects of an agent, one builder per kind. Layer: core, pure; imports api, core.* and the contract.

The one idea: a builder is a function from what was asked to a dict, read beside the YAML it makes
(tests/unit/core/golden). Defaults of the API server are left to it.
"""
