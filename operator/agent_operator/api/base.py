"""Base classes of the API models and the CEL rules declared on them. Layer: api, pure.

May import pydantic and the standard library. The one idea: a cross-field rule stands in the class it
constrains, so the CRD, the reference page and a reader of the model all see the same sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

RuleReason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule (x-kubernetes-validations) on the object whose class declares it."""

    rule: str
    """CEL expression that must be true; `self` is the object, `oldSelf` makes it a transition rule."""
    message: str
    """What is wrong and how to mend it, shown to the user by kubectl."""
    field: str
    """JSON path, relative to the object, of the field to blame, for example `.uri`."""
    reason: RuleReason = "FieldValueInvalid"

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        return {
            "rule": self.rule,
            "message": self.message,
            "fieldPath": self.field,
            "reason": self.reason,
        }


class ApiModel(BaseModel):
    """Immutable model with camelCase names in manifests and snake_case attributes in Python."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def all_rules(cls) -> tuple[Rule, ...]:
        """Rules of this class and of the classes it extends, the most general first."""
        found: list[Rule] = []
        for klass in reversed(cls.__mro__):
            found.extend(klass.__dict__.get("rules", ()))
        return tuple(found)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        json_schema = handler.resolve_ref_schema(handler(schema))
        rules = cls.all_rules()
        if rules:
            json_schema["x-kubernetes-validations"] = [rule.as_validation() for rule in rules]
        return json_schema

    def to_manifest(self) -> dict[str, Any]:
        """The object as it stands in a manifest: camelCase keys, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """Part of the status. Unknown fields are ignored: an older operator may have written them."""

    model_config = ConfigDict(extra="ignore")


class OpenModel(ApiModel):
    """Part of another Kubernetes type: the fields named here are checked, all others pass through."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})

    def to_manifest(self) -> dict[str, Any]:
        """Exactly what the user wrote."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
