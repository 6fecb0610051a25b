"""The table of kinds: what the operator may write is in it, and what a cluster may lack is not asked for."""

from __future__ import annotations

from agent_operator.shell.kinds import SCALED_OBJECT, WATCHED, kind_of, watched


def test_kedas_kind_is_watched_only_where_keda_is_used() -> None:
    assert watched(keda=False) == WATCHED
    assert SCALED_OBJECT not in WATCHED
    assert watched(keda=True) == (*WATCHED, SCALED_OBJECT)


def test_kedas_kind_can_be_written() -> None:
    kind = kind_of({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"})

    assert (
        kind.path("default", "geography")
        == "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects/geography"
    )
