"""Where the Service points and what is removed, case by case."""

from __future__ import annotations

import pytest

from agent_operator.core.rollout import RevisionState, decide


def revision(name: str, ready: int = 0, *, complete: bool = False, proven: bool = False) -> RevisionState:
    return RevisionState(name, ready, complete, proven or ready > 0)


def up(name: str) -> RevisionState:
    return revision(name, 1, complete=True)


down = revision


@pytest.mark.parametrize(
    ("case", "active", "revisions", "serve", "remove"),
    [
        ("the first revision is served from the start", None, [], "new", ()),
        ("it stays selected while it starts", "new", [down("new")], "new", ()),
        ("the old one serves while the new one starts", "old", [up("old"), down("new")], "old", ()),
        ("partly ready is not ready", "old", [up("old"), revision("new", 1)], "old", ()),
        ("the ready new one takes over, the old one is kept until that is seen", "old",
         [up("old"), up("new")], "new", ()),
        ("then the old one goes", "new", [up("old"), up("new")], "new", ("old",)),
        ("the old one stays while the new one is not complete again", "new",
         [up("old"), revision("new", 1)], "new", ()),
        ("traffic returns to the old one if the new one breaks before it went", "new",
         [up("old"), down("new")], "old", ()),
        ("a first attempt that never was ready is replaced at once", "bad", [down("bad"), down("new")],
         "new", ("bad",)),
        ("several superseded attempts go at once", "old",
         [up("old"), down("bad"), down("worse"), down("new")], "old", ("bad", "worse")),
        ("a superseded attempt that got ready goes when the old one serves", "old",
         [up("old"), up("other"), down("new")], "old", ("other",)),
        ("what served last is kept selected when nothing is ready", "old",
         [down("old", proven=True), down("new")], "old", ()),
        ("a healthy bystander is better than nothing", "old",
         [down("old", proven=True), up("other"), down("new")], "other", ("old",)),
        ("a Service that selects nothing of ours is pointed at what is ready", "gone",
         [up("other"), down("new")], "other", ()),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_blue_green(
    case: str, active: str | None, revisions: list[RevisionState], serve: str, remove: tuple[str, ...]
) -> None:
    decision = decide(target="new", active=active, revisions=tuple(revisions), wanted_replicas=1)
    assert (decision.serve, decision.remove) == (serve, remove), case


def test_with_no_replicas_wanted_the_target_is_selected_and_only_what_is_empty_goes() -> None:
    states = (up("old"), down("idle"), down("new"))
    decision = decide(target="new", active="old", revisions=states, wanted_replicas=0)
    assert (decision.serve, decision.remove) == ("new", ("idle",))


def test_a_deployment_that_is_being_deleted_does_not_count() -> None:
    gone = RevisionState("old", 1, True, True, terminating=True)
    decision = decide(target="new", active="old", revisions=(gone, down("new")), wanted_replicas=1)
    assert (decision.serve, decision.remove) == ("new", ())
