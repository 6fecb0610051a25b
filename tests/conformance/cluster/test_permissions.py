"""What the operator's account may do in a namespace it serves, as the API server itself answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.cluster.operating import Operator
from tests.support.kubectl import Kubectl

GOLDEN = Path(__file__).parent / "golden" / "can-i.txt"
EVERYBODY = ("selfsubject", "/", "clustertrustbundles")
"""What any authenticated account may do: reviews of its own rights, discovery."""


def answered(kubectl: Kubectl, user: str) -> list[str]:
    """`kubectl auth can-i --list`, one line per resource, all sorted; without what everybody may."""
    found = []
    for line in kubectl.run("auth", "can-i", "--list", "--as", user).splitlines()[1:]:
        resource = line.split()[0]
        if not resource.startswith((*EVERYBODY, "[")):
            rest, _, verbs = " ".join(line.split()).rpartition("[")
            found.append(f"{rest}[{' '.join(sorted(verbs.rstrip(']').split()))}]")
    return sorted(found)


def test_the_account_may_do_exactly_what_was_reviewed(kubectl: Kubectl, operator: Operator) -> None:
    found = answered(kubectl, operator.user)

    if os.environ.get("GOLDEN_UPDATE") == "1":
        GOLDEN.write_text("\n".join(found) + "\n")
    assert found == GOLDEN.read_text().splitlines()


def test_beyond_its_namespace_it_may_do_what_everybody_may(crd: Kubectl, operator: Operator) -> None:
    assert answered(crd, operator.user) == answered(crd, "system:serviceaccount:default:nobody")


@pytest.mark.parametrize("word", ["*", "secrets", "impersonate", "escalate", "bind", "pods/exec"])
def test_no_dangerous_word_is_on_the_list(word: str, kubectl: Kubectl, operator: Operator) -> None:
    assert [line for line in answered(kubectl, operator.user) if word in line] == []
