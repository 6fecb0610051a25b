"""What a request to decide may hold. Layer: api, pure: pydantic and the decision model.

The one idea: as in `schema`, a field is honoured or refused by its path. Here the fields must also fit each
other (as many utilities as candidates, no candidate twice), and all of that is settled before the model is
asked. Tags of union branches are no identifiers on purpose: `errors.field_path` leaves such parts out, so a
path reads `policy.temperature`, as the caller wrote it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent_runtime.api.schema import Body, ChatMessage
from agent_runtime.decision import (
    CVaR,
    ExpectedUtility,
    Greedy,
    MeanVariance,
    Normalization,
    Policy,
    Softmax,
    Utilities,
)
from agent_runtime.decision.policies import MAX_RISK_AVERSION
from agent_runtime.decision.utilities import MAX_UTILITY
from agent_runtime.llm.chat import Message

MAX_CANDIDATES = 256
MAX_CANDIDATE_CHARACTERS = 8192
MAX_SAMPLES = 64
MAX_MATRIX_ENTRIES = 4096
"""Actions times candidates: bounds the arithmetic, done on the event loop, and its report."""

Text = Annotated[str, Field(min_length=1, max_length=MAX_CANDIDATE_CHARACTERS)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
Utility = Annotated[float, Field(ge=-MAX_UTILITY, le=MAX_UTILITY, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Candidate(Body):
    """An answer to weigh: the text whose probability is taken, and a name for it, by default the text."""

    text: Text
    label: Label | None = None

    @property
    def name(self) -> str:
        """The label, or the text."""
        return self.text if self.label is None else self.label


class Sample(Body):
    """Candidates are drawn from the model: n answers, each of at most max_tokens (by default the server's
    limit)."""

    n: int = Field(default=16, ge=2, le=MAX_SAMPLES)
    temperature: float = Field(default=1.0, gt=0, le=2, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)


class _PolicyBody(Body):
    abstain_below: Share = 0.0

    def policy(self) -> Policy:
        """The policy this describes."""
        fields = self.model_dump()
        made: Policy = _POLICIES[fields.pop("name")](**fields)
        return made


class GreedyBody(_PolicyBody):
    """See agent_runtime.decision.Greedy."""

    name: Literal["greedy"]


class SoftmaxBody(_PolicyBody):
    """See agent_runtime.decision.Softmax."""

    name: Literal["softmax"]
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class ExpectedUtilityBody(_PolicyBody):
    """See agent_runtime.decision.ExpectedUtility."""

    name: Literal["expected_utility"]


class MeanVarianceBody(_PolicyBody):
    """See agent_runtime.decision.MeanVariance."""

    name: Literal["mean_variance"]
    risk_aversion: float = Field(ge=0, le=MAX_RISK_AVERSION, allow_inf_nan=False)


class CVaRBody(_PolicyBody):
    """See agent_runtime.decision.CVaR."""

    name: Literal["cvar"]
    risk_aversion: Share


_POLICIES: dict[str, Any] = {
    policy.name: policy for policy in (Greedy, Softmax, ExpectedUtility, MeanVariance, CVaR)
}


class UtilityMatrix(Body):
    """`matrix[a][y]` is what action a is worth when candidate y is the truth."""

    actions: list[Label] = Field(min_length=1, max_length=MAX_CANDIDATES)
    matrix: list[list[Utility]]

    @field_validator("actions")
    @classmethod
    def _named_once(cls, actions: list[str]) -> list[str]:
        _refuse_repeats(actions, "actions[{second}] is the same as actions[{first}]: name each action once")
        return actions

    @field_validator("matrix")
    @classmethod
    def _one_row_per_action(cls, matrix: list[list[float]], known: ValidationInfo) -> list[list[float]]:
        actions = len(known.data.get("actions", matrix))
        if len(matrix) != actions:
            raise _mismatch(f"it has {len(matrix)} rows; expected {actions}, one per action")
        return matrix


def _candidate_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, dict | Candidate) else None


def _policy_tag(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return f"policy {name}" if isinstance(name, str) and name in _POLICIES else None


def _utilities_tag(value: Any) -> str | None:
    if isinstance(value, list):
        return "one per candidate"
    return "a matrix" if isinstance(value, dict | UtilityMatrix) else None


CandidateItem = Annotated[
    Annotated[Text, Tag("a text")] | Annotated[Candidate, Tag("an object")],
    Discriminator(
        _candidate_tag,
        custom_error_type="candidate",
        custom_error_message="it must be a string or an object with text and label",
    ),
]
PolicyItem = Annotated[
    Annotated[GreedyBody, Tag("policy greedy")]
    | Annotated[SoftmaxBody, Tag("policy softmax")]
    | Annotated[ExpectedUtilityBody, Tag("policy expected_utility")]
    | Annotated[MeanVarianceBody, Tag("policy mean_variance")]
    | Annotated[CVaRBody, Tag("policy cvar")],
    Discriminator(
        _policy_tag,
        custom_error_type="policy",
        custom_error_message=f"it must be an object whose name is one of {', '.join(_POLICIES)}",
    ),
]
UtilitiesItem = Annotated[
    Annotated[list[Utility], Tag("one per candidate")] | Annotated[UtilityMatrix, Tag("a matrix")],
    Discriminator(
        _utilities_tag,
        custom_error_type="utilities",
        custom_error_message="it must be a list of one number per candidate, "
        "or an object with actions and a matrix of one row per action and one column per candidate",
    ),
]


class DecideRequest(Body):
    """Body of POST /v1/decide. Exactly one of `input` and `messages`, and of `candidates` and `sample`."""

    model: str | None = None
    input: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)] | None = Field(
        default=None, validate_default=True
    )
    candidates: Annotated[list[CandidateItem], Field(min_length=2, max_length=MAX_CANDIDATES)] | None = None
    sample: Sample | None = Field(default=None, validate_default=True)
    policy: PolicyItem | None = None
    utilities: UtilitiesItem | None = None
    normalization: Normalization = "sum"
    calibration_prompt: Annotated[str, Field(min_length=1)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    user: str | None = None

    @field_validator("messages")
    @classmethod
    def _one_prompt(cls, messages: Any, known: ValidationInfo) -> Any:
        return _exactly_one("input", "messages", messages, known)

    @field_validator("candidates")
    @classmethod
    def _all_different(cls, value: list[str | Candidate] | None) -> list[str | Candidate] | None:
        candidates = _objects(value)
        for what in ("text", "label"):
            _refuse_repeats(
                [item.text if what == "text" else item.name for item in candidates],
                f"candidates[{{second}}] has the same {what} as candidates[{{first}}]: they must differ",
            )
        return value

    @field_validator("sample")
    @classmethod
    def _one_source(cls, sample: Any, known: ValidationInfo) -> Any:
        return _exactly_one("candidates", "sample", sample, known)

    @field_validator("utilities")
    @classmethod
    def _one_per_candidate(cls, value: Any, known: ValidationInfo) -> Any:
        if known.data.get("sample") is not None:
            raise _mismatch("they need given candidates: sampled ones are not known beforehand")
        if value is None or known.data.get("candidates") is None:
            return value
        _check_shape(value, len(known.data["candidates"]))
        return value

    @property
    def prompt_field(self) -> str:
        """The field the prompt came in."""
        return "messages" if self.input is None else "input"

    @property
    def turns(self) -> list[Message]:
        """The conversation; an input is one user message."""
        if self.input is not None:
            return [Message("user", self.input)]
        return [message.message() for message in self.messages or ()]

    @property
    def given(self) -> tuple[Candidate, ...]:
        """The candidates as objects; none when they are to be sampled."""
        return tuple(_objects(self.candidates))

    @property
    def payoffs(self) -> Utilities | list[float] | None:
        """The utilities as the decision model takes them."""
        if isinstance(self.utilities, UtilityMatrix):
            matrix = tuple(tuple(row) for row in self.utilities.matrix)
            return Utilities(tuple(self.utilities.actions), matrix)
        return self.utilities


def _objects(value: list[str | Candidate] | None) -> list[Candidate]:
    return [Candidate(text=item) if isinstance(item, str) else item for item in value or ()]


def _exactly_one(one: str, other: str, value: Any, known: ValidationInfo) -> Any:
    if one in known.data and (known.data[one] is None) == (value is None):
        if value is None:
            raise PydanticCustomError(
                "missing_one", "one of {one} and {other} is required", _pair(one, other)
            )
        raise PydanticCustomError("both", "{one} and {other} exclude each other", _pair(one, other))
    return value


def _pair(one: str, other: str) -> dict[str, Any]:
    return {"one": one, "other": other}


def _refuse_repeats(values: list[str], message: Any) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        first = seen.setdefault(value, index)
        if first != index:
            raise PydanticCustomError("repeated", message, {"first": first, "second": index})


def _check_shape(value: list[float] | UtilityMatrix, candidates: int) -> None:
    if not isinstance(value, UtilityMatrix):
        if len(value) != candidates:
            raise _mismatch(f"it has {len(value)} numbers; expected {candidates}, one per candidate")
        return
    for index, row in enumerate(value.matrix):
        if len(row) != candidates:
            raise _mismatch(
                f"matrix[{index}] has {len(row)} numbers; expected {candidates}, one per candidate"
            )
    if len(value.matrix) * candidates > MAX_MATRIX_ENTRIES:
        raise _mismatch(f"the matrix has more than {MAX_MATRIX_ENTRIES} numbers")


def _mismatch(message: Any) -> PydanticCustomError:
    return PydanticCustomError("mismatch", message)
