"""Names are valid, distinct and stable for any agent name."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from agent_operator.core import naming

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
good_names = st.from_regex(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True)
any_names = good_names | st.text(max_size=300) | st.from_regex(r"[-a-z0-9.]{1,253}", fullmatch=True)
revisions = st.builds(naming.digest, st.text())


@given(any_names, revisions)
def test_every_name_is_a_dns_label_of_at_most_63_characters(agent: str, revision: str) -> None:
    for name in (naming.agent_stem(agent), naming.revisioned(agent, revision)):
        assert len(name) <= naming.MAX_NAME
        assert NAME.fullmatch(name)
    for value in naming.revision_labels(agent, revision).values():
        assert len(value) <= naming.MAX_NAME


@given(good_names, revisions)
def test_a_good_agent_name_is_kept_as_it_is(agent: str, revision: str) -> None:
    assert naming.agent_stem(agent) == agent
    assert naming.revisioned(agent, revision) == f"{agent}-{revision}"


@given(any_names, revisions)
def test_the_revision_is_read_back_from_the_name(agent: str, revision: str) -> None:
    assert naming.revision_of(agent, naming.revisioned(agent, revision)) == revision
    assert naming.revision_of(agent + "x", naming.revisioned(agent, revision)) is None


@given(any_names, any_names)
def test_different_agents_have_different_names(one: str, other: str) -> None:
    assert (naming.agent_stem(one) == naming.agent_stem(other)) == (one == other)
