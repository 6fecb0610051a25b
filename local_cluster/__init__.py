"""The embedded cluster: a real single-node Kubernetes on a machine without Docker.

Layer: a development tool beside the product; nothing in the product imports it. Standard library only,
because it runs before any virtual environment exists. `python3 -m local_cluster up` is the way in;
`lifecycle` tells the story.
"""
