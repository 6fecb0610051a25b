"""kopf without the Kubernetes clients it would load. Layer: controller; imports kopf for `kopf_adapter`.

The one idea: kopf imports every Kubernetes client that is installed, only to recognise their objects when a
handler returns some; ours never do, and the official client alone costs 25 MiB. So kopf is imported while
those clients cannot be. The kubeconfig loader imports the official one afterwards, where it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CLIENTS = ("kubernetes", "kubernetes_asyncio", "pykube")


@contextmanager
def _unimportable(names: tuple[str, ...]) -> Iterator[None]:
    """None in sys.modules makes an import of that name fail."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _unimportable(_CLIENTS):
    import kopf

__all__ = ["kopf"]
