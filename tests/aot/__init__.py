"""Every field of the specification, changed and changed back on a real API server under a running operator.

Layer: tests. The one idea: the manifests are generated from the CRD's own schema, so a field nobody thought
of cannot be left out; what a change must do is predicted beside the operator, not by it.
"""
