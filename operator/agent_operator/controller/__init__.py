"""Generic controller machinery. Layer: controller. May import shell.kube's protocol, observability, kopf.

The one idea: cache, queue, workers, resync and leader election know nothing of agents; what they need
to know (which object belongs to which key) is handed to them as functions by `__main__`.
"""
