"""How a program of this package is told its settings. Layer: top, beside __main__; imports pydantic.

The one idea: one model; every field is an environment variable PREFIX<FIELD> and a flag --<field>, and flags
win. Everything wrong is reported in one message that names the variable, its value and what is allowed,
before anything else happens. Unknown variables are ignored: Kubernetes itself sets such names in pods beside
a Service of the program's name. pydantic-settings would do half of it and says which field is wrong, not
which variable or flag.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)

DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Label = Annotated[str, Field(pattern=DNS_LABEL)]


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


Labels = Annotated[tuple[Label, ...], BeforeValidator(_split)]
"""Several labels, comma-separated."""


class SettingsError(Exception):
    """Settings are invalid; the message is complete and for users."""


def flag_of(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Program(Generic[M]):
    """One program: its settings' model, the prefix of its variables, its name and what it is."""

    model: type[M]
    prefix: str
    name: str
    description: str

    def load(self, arguments: Sequence[str], environment: Mapping[str, str]) -> M:
        """Settings from flags and environment; flags win. An empty variable counts as not set.

        Raises:
            SettingsError: with one line per problem.
            SystemExit: for --help (0) and unknown flags (2).
        """
        flags = {k: v for k, v in vars(self._parser().parse_args(arguments)).items() if v is not None}
        variables = {
            name: value
            for name in self.model.model_fields
            if (value := environment.get(self.prefix + name.upper(), "").strip())
        }
        try:
            return self.model.model_validate({**variables, **flags})
        except ValidationError as error:
            lines = [self._explain(problem, flags) for problem in error.errors(include_url=False)]
            raise SettingsError("invalid settings:\n" + "\n".join(f"  {line}" for line in lines)) from None

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=self.name,
            description=f"{self.description} Every flag can also be given as environment variable "
            f"{self.prefix}<FLAG>, for example {self.prefix}LOG_LEVEL=debug. Credentials come from the pod's "
            "service account or from KUBECONFIG.",
            allow_abbrev=False,
        )
        for name, info in self.model.model_fields.items():
            default = f" (default: {info.default})" if info.default and not info.is_required() else ""
            # A switch may stand alone or have a value, as with Go programs: --leader-elect=false.
            switch: dict[str, Any] = {"nargs": "?", "const": "true"} if info.annotation is bool else {}
            parser.add_argument(flag_of(name), metavar="VALUE", help=f"{info.description}{default}", **switch)
        return parser

    def _explain(self, problem: ErrorDetails, flags: Mapping[str, Any]) -> str:
        """One problem: which variable or flag, its value, what is allowed."""
        if not problem["loc"]:
            return problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0])
        variable, meaning = self.prefix + name.upper(), self.model.model_fields[name].description
        if problem["type"] == "missing":
            return f"{variable} (or {flag_of(name)}) is not set. {meaning}"
        source = flag_of(name) if name in flags else variable
        return f"{source}={json.dumps(problem['input'])}: {problem['msg']}. {meaning}"
