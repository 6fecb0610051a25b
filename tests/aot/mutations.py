"""The mutations: right and wrong values of every field, none, it alone, and what breaks the rules.

Layer: tests. The one idea: a mutation is a base, a manifest, and what must come of it. The list depends on
the schema and on the seed and on nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.aot import cross_field, schema, tables, values
from tests.aot.bases import BARE, BASES, scaffold
from tests.aot.effects import REVISION, Effect
from tests.aot.schema import UNSET, Schema, Spec

SEED = 20_260_731
GOOD_EACH = 3
"""Good values of one field on one base."""
SEVERAL = 40
"""Mutations that change more than one field."""


@dataclass(frozen=True)
class Mutation:
    """One change of an agent's specification."""

    name: str
    base: str
    field: str
    """Path of the field it is about."""
    spec: Spec
    refused: str | None = None
    """What the API server's refusal must contain beside the field; None when it must accept."""
    place: str = ""
    """The field as a refusal spells it."""
    effect: Effect | None = None
    """Set where the effect does not follow from the fields."""


def generate(seed: int = SEED) -> list[Mutation]:
    """All mutations, in an order that the seed fixes."""
    rng = random.Random(seed)
    single = list(_one_field_each(rng))
    found = [*single, *_sections(), *_several(rng, single), *cross_field_mutations()]
    named: dict[str, Mutation] = {}
    for mutation in found:
        name = mutation.name
        while name in named:
            name += "'"
        named[name] = Mutation(**{**vars(mutation), "name": name})
    ordered = list(named.values())
    rng.shuffle(ordered)
    return ordered


def _one_field_each(rng: random.Random) -> Iterator[Mutation]:
    for path, node in schema.leaves().items():
        homes = [base for base in tables.ONLY_ON.get(path, BASES) if _present(path, base)]
        for base in homes:
            yield from _changed(path, node, base, rng)
        if path not in tables.ONLY_ON:
            yield from _alone(path, node, bool(homes), rng)
        if path not in tables.REFUSED_ALWAYS:
            yield from _wrong(path, node, homes)


def _present(path: str, base: str) -> bool:
    """Whether the base says something there and may be changed there."""
    spec = BASES[base]
    about = tables.ONLY_ABOUT.get(base, ("",))
    return path.startswith(about) and schema.get(spec, schema.place(path, spec)) is not UNSET


def _changed(path: str, node: Schema, base: str, rng: random.Random) -> Iterator[Mutation]:
    """Another good value in place of the base's; and none at all."""
    spec = BASES[base]
    where = schema.place(path, spec)
    chosen = tables.GOOD_ON.get((base, path), tables.GOOD.get(path))
    choice = values.good(node, rng) if chosen is None else chosen
    others = [value for value in choice if value != schema.get(spec, where)]
    for value in others[:GOOD_EACH]:
        yield Mutation(f"{base}: {path} = {_brief(value)}", base, path, schema.put(spec, where, value))
    nothing = rng.choice([UNSET, None])
    yield _taken_away(path, base, nothing)


def _taken_away(path: str, base: str, nothing: Any) -> Mutation:
    spec = BASES[base]
    where = schema.place(path, spec)
    refused = tables.UNSET_REFUSED.get(path)
    place = ""
    if _required(path):
        refused, place = "Required value", schema.spelt(where)
    effect = None
    if path in tables.CHILD_REFUSED:
        effect = Effect(reason="ChildInvalid", named=path.rpartition(".")[2])
    name = f"{base}: {path} {'is null' if nothing is None else 'unset'}"
    return Mutation(name, base, path, schema.put(spec, where, nothing), refused, place, effect)


def _required(path: str) -> bool:
    parent, _, name = path.rpartition(".")
    if not parent:
        return name == "model"
    node = schema.fields()[parent.removesuffix("[]")]
    return name in (node["items"] if parent.endswith("[]") else node).get("required", ())


def _alone(path: str, node: Schema, elsewhere: bool, rng: random.Random) -> Iterator[Mutation]:
    """The field as the only one of the bare manifest, beside what it cannot do without."""
    spec = scaffold(path)
    where = schema.place(path, spec)
    choice = tables.GOOD[path] if path in tables.GOOD else values.good(node, rng)
    here = schema.get(spec, where)
    chosen = [v for v in choice if v not in (here, node.get("default"))][: 1 if elsewhere else GOOD_EACH]
    default = [node["default"]] if "default" in node and path not in tables.GOOD else []
    for value in [*chosen, *default, *tables.ALONE.get(path, [])]:
        complete = _completed(path, schema.put(spec, where, value))
        effect = _for_nothing(path, value)
        yield Mutation(f"bare: {path} = {_brief(value)}", "bare", path, complete, effect=effect)


def _completed(path: str, spec: Spec) -> Spec:
    """The manifest with what the sections around a field require beside it."""
    names = path.split(".")
    for size in range(1, len(names)):
        section = ".".join(names[:size])
        node = schema.fields()[section.removesuffix("[]")]
        for name in (node["items"] if section.endswith("[]") else node).get("required", ()):
            where = schema.place(f"{section}.{name}", spec)
            if schema.get(spec, where) is UNSET:
                example = values.good(schema.fields()[f"{section}.{name}"], random.Random(0))[0]
                spec = schema.put(spec, where, example)
    return spec


def _wrong(path: str, node: Schema, homes: list[str]) -> Iterator[Mutation]:
    base = homes[0] if homes else "bare"
    spec = BASES[base] if homes else scaffold(path)
    where = schema.place(path, spec)
    for wrong in values.bad(node):
        bad = schema.put(spec, where, wrong.value)
        name = f"{base}: {path} is {wrong.why} ({_brief(wrong.value)})"
        yield Mutation(name, base, path, bad, wrong.says, schema.spelt(where))


def _sections() -> Iterator[Mutation]:
    """Sections and lists of sections: taken away, empty, of the wrong type, with a field nobody knows."""
    for path, node in schema.fields().items():
        if not schema.sections_below(node):
            continue
        homes = [base for base in BASES if _present(path, base)]
        for base in homes[:2]:
            yield _taken_away(path, base, UNSET)
        base = homes[0] if homes else "bare"
        spec = BASES[base] if homes else scaffold(path)
        where = schema.place(path, spec)
        for wrong in values.bad(node):
            name = f"{base}: {path} is {wrong.why}"
            bad = schema.put(spec, where, wrong.value)
            yield Mutation(name, base, path, bad, wrong.says, schema.spelt(where))
        item = f"{path}[]" if node["type"] == "array" else path
        if not schema.open_section(item):
            where = schema.place(f"{item}.nobodyKnows", spec)
            unknown = schema.put(spec, where, 1)
            says = f'unknown field "{schema.spelt(where)}"'
            yield Mutation(f"{base}: {item}.nobodyKnows", base, path, unknown, says)
        if "[]" not in path and path not in tables.NOT_EMPTY and not node.get("required"):
            empty: Any = {} if node["type"] == "object" else []
            around = scaffold(path) if path.startswith("autoscaling") else BARE
            spec = schema.put(around, schema.place(path, BARE), empty)
            effect = _for_nothing(path, empty)
            yield Mutation(f"bare: {path} is empty", "bare", path, spec, effect=effect)


def _for_nothing(path: str, value: Any) -> Effect | None:
    """A new revision and nothing else, where the table says so of an empty value."""
    return Effect(frozenset({REVISION})) if not value and path in tables.ROLLS_FOR_NOTHING else None


def _several(rng: random.Random, single: list[Mutation]) -> Iterator[Mutation]:
    """Some fields of `local` at once, of those that no rule ties to another."""
    free = [
        mutation
        for mutation in single
        if mutation.base == "local" and mutation.refused is None and mutation.effect is None
        and mutation.field.startswith(tables.INDEPENDENT) and "unset" not in mutation.name
    ]  # fmt: skip
    for number in range(SEVERAL):
        chosen = rng.sample(free, rng.randint(2, 5))
        spec = BASES["local"]
        for mutation in chosen:
            where = schema.place(mutation.field, mutation.spec)
            spec = schema.put(spec, where, schema.get(mutation.spec, where))
        told = ", ".join(sorted({mutation.field for mutation in chosen}))
        yield Mutation(f"local: several, {number}: {told}", "local", chosen[0].field, spec)


def cross_field_mutations() -> Iterator[Mutation]:
    """What the rules between fields refuse, and what only the operator or the cluster can refuse."""
    for broken in cross_field.BROKEN:
        spec = cross_field.merged(BASES[broken.base], broken.patch)
        yield Mutation(f"{broken.base}: {broken.why}", broken.base, broken.field, spec, broken.says)
    for extra in cross_field.EXTRAS:
        spec = cross_field.merged(BASES[extra.base], extra.patch)
        yield Mutation(f"{extra.base}: {extra.why}", extra.base, extra.field, spec, effect=extra.effect)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)})"
