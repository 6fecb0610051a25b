"""Values for a field, right and wrong, from its schema. Layer: tests.

The one idea: the bounds of the schema are where mistakes live, so they are taken first; what lies between is
drawn by the seed. A pattern cannot be turned into good examples by rule: each has its line in PATTERNS, and a
test says which one is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.aot.schema import Schema


@dataclass(frozen=True)
class Texts:
    """Examples of a pattern; `long` makes one of so many characters."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    long: Callable[[int], str] | None = None


@dataclass(frozen=True)
class Wrong:
    """A value that the API server refuses, and a part of what it says."""

    why: str
    value: Any
    says: str = ""


def _segments(size: int) -> str:
    """A DNS subdomain of so many characters, in labels of at most 63."""
    text = ".".join(["a" * 60] * 9)[:size]
    return text[:-1] + "z"


PATTERNS: dict[str, Texts] = {
    r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$": Texts(
        ("main", "refs/pr/1", "0123abcdef"), ("-x", "a b", "../x"), lambda n: "r" * n
    ),
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": Texts(
        ("keys", "team-a.keys", "0"), ("Keys", "-a", "a..b", "a_b"), _segments
    ),
    r"^[-._a-zA-Z0-9]+$": Texts(("token", "API_KEY", "a.b-c"), ("a b", "a/b"), lambda n: "k" * n),
    r"^https?://[^\s/?#@]+(/[^\s?#]*)?$": Texts(
        ("http://a.b", "https://llm.example.com:8443/v1", "http://[::1]:80/x"),
        ("ftp://a.example", "https://me:pw@host/x", "http://a/b?c=d"),
        lambda n: "http://h.example/" + "p" * (n - 17),
    ),
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": Texts(("day", "a-1", "0"), ("Day", "a.b", "-a"), lambda n: "n" * n),
    r"^[A-Za-z_][A-Za-z0-9_-]*$": Texts(
        ("find", "_private", "Look-up_2"), ("2nd", "a b", "é"), lambda n: "t" * n
    ),
    r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?$": Texts(
        ("0.000001", "999999.999999", "12.5"), ("-1", "01", ".5", "1e3")
    ),
    r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$": Texts(("0", "1.0", "0.333333"), ("1.2", "-0.1", "00")),
    r"^[A-Za-z0-9][^\s]*$": Texts(
        ("localhost/none:3", "r.example:5000/a/b@sha256:" + "0" * 64), ("a b", "/x", "-x")
    ),
    r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*){2,}$": Texts(
        ("/var/log/other/agent.log", "/data/logs/a.log", "/tmp/agent.log"),
        ("logs/a.log", "/a.log", "/var/../etc/x"),
        lambda n: ("/logs" + "/d2345678" * 200)[: n - 1] + "z",
    ),
    r"^[a-z0-9.-]+/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$": Texts(
        ("amd.com/gpu", "nvidia.com/mig-1g.10gb"), ("gpu", "a.b/", "A.b/gpu")
    ),
    r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$": Texts(
        ("1", "1500m"), ("lots", "-1", "1 Gi", "1gb")
    ),
    r"^\S+( +\S+){4}$": Texts(("0 8 * * 1-5", "*/5 0 1 1 *"), ("at eight o'clock", "0  8 * *")),
    r"^[A-Za-z0-9_+/-]+$": Texts(("Europe/Zurich", "Etc/GMT+5"), ("Not A Zone",), lambda n: "Z" * n),
}

WORDS = ("maps", "rivers", "Grüße aus Zürich", "a\nb", '{"not": "parsed"}', "$(HOME) ${x} %s", "🙂 \u2028 x")
LONGEST = 4096
"""Longer texts are tried for being refused only: 32 kB of prompt a hundred times tells nothing more."""


def good(node: Schema, rng: random.Random) -> list[Any]:
    """Values that satisfy the schema, the bounds first."""
    if "enum" in node:
        return list(node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return ["1", 1]
    match node["type"]:
        case "boolean":
            return [True, False]
        case "integer":
            low, high = node["minimum"], node["maximum"]
            return _once(
                [low, high, rng.randint(low, high), *([node["default"]] if "default" in node else [])]
            )
        case "string":
            return _texts(node, rng)
        case "array":
            return _lists(node, rng)
        case _ if "additionalProperties" in node:
            return [{}, {"team": "maps"}, {f"k{i}": f"v{i}" for i in range(node["maxProperties"])}]
    return [{}, {"type": "object", "properties": {"city": {"type": "string"}}, "x": [1, None, {"y": 0.5}]}]


def _texts(node: Schema, rng: random.Random) -> list[str]:
    longest = node["maxLength"]
    if "pattern" not in node:
        return [rng.choice(WORDS), "x" * longest if longest <= LONGEST else "x" * LONGEST]
    texts = PATTERNS[node["pattern"]]
    found = [text for text in texts.good if node.get("minLength", 0) <= len(text) <= longest]
    return _once([*found[:2], *([texts.long(longest)] if texts.long else []), *found[2:]])


def _lists(node: Schema, rng: random.Random) -> list[Any]:
    if node["items"]["type"] == "object":
        return [[]]
    one = good(node["items"], rng)
    return [[], one[:1], [f"item{number}" for number in range(node["maxItems"])]]


def bad(node: Schema) -> list[Wrong]:
    """Values that break one constraint of the schema each."""
    if node.get("x-kubernetes-int-or-string"):
        texts = [Wrong("no quantity", text, "Invalid value") for text in PATTERNS[node["pattern"]].bad]
        return [
            *texts,
            Wrong("a fraction", 0.5, "integer,string"),
            Wrong("a boolean", True, "integer,string"),
        ]
    if "enum" in node:
        known = node["enum"][0]
        other = known.upper() if known.upper() not in node["enum"] else known.lower()
        return [
            Wrong("an unknown word", "Sometimes", "Unsupported value"),
            Wrong("the wrong case", other, "Unsupported value"),
            Wrong("a number", 1, "must be of type string"),
        ]
    kind: str = node["type"]
    mistaken = {"integer": "three", "boolean": "yes", "string": 7, "array": "x", "object": ["x"]}[kind]
    found = [Wrong("the wrong type", mistaken, f"must be of type {kind}")]
    match kind:
        case "integer":
            found += [
                Wrong("below the minimum", node["minimum"] - 1, "greater than or equal to"),
                Wrong("above the maximum", node["maximum"] + 1, "less than or equal to"),
                Wrong("a fraction", node["minimum"] + 0.5, "integer"),
            ]
        case "string":
            found += _bad_texts(node)
        case "array":
            found += _bad_lists(node)
        case "object" if "additionalProperties" in node:
            many = {f"k{number}": "v" for number in range(node["maxProperties"] + 1)}
            long = {"k": "v" * (node["additionalProperties"]["maxLength"] + 1)}
            found += [
                Wrong("too many", many),
                Wrong("a long value", long),
                Wrong("a number", {"k": 1}, "string"),
            ]
    return found


def _bad_texts(node: Schema) -> list[Wrong]:
    found = [Wrong("too long", "x" * (node["maxLength"] + 1), "Too long")]
    if node.get("minLength"):
        found.append(Wrong("empty", "", "Invalid value"))
    if "pattern" in node:
        longest = PATTERNS[node["pattern"]].long
        if longest is not None:
            found[0] = Wrong("too long", longest(node["maxLength"] + 1), "Too long")
        found += [Wrong("misspelt", text, "Invalid value") for text in PATTERNS[node["pattern"]].bad]
    return found


def _bad_lists(node: Schema) -> list[Wrong]:
    item = node["items"]
    if item["type"] == "object":
        many = [{"name": f"n{number}"} for number in range(node["maxItems"] + 1)]
        return [Wrong("too many", many, "Too many")]
    found = [
        Wrong("too many", [f"item{number}" for number in range(node["maxItems"] + 1)], "Too many"),
        Wrong("a number in it", [5], "must be of type string"),
        Wrong("a long item", ["x" * (item["maxLength"] + 1)], "Too long"),
    ]
    if node.get("x-kubernetes-list-type") == "set":
        found.append(Wrong("the same twice", ["same", "same"], "Duplicate value"))
    return found


def _once(values: list[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]
