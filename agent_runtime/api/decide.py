"""POST /v1/decide: one action out of candidates, with its probabilities and arithmetic. Layer: api.

The one idea: a decision is a validated body, scores from the backend and a pure function; this file joins the
three and holds the shape of the answer. What is wrong with a request is found in `prepare`, before the model
is asked anything.

The answer has the `confidence` and `probabilities` of transformers' `pipeline("decision")`; its `choice`, a
label, is here `label`, beside an object `choice`; and confidence is a probability, not one corrected for
chance. There is no beam search: `agent_runtime.decision.candidates` says why.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime import decision
from agent_runtime.access.gate import principal_of
from agent_runtime.api import errors
from agent_runtime.api.decide_schema import Candidate, DecideRequest, Sample
from agent_runtime.api.disconnect import until_disconnect
from agent_runtime.api.parse import parse
from agent_runtime.api.service import Service, beside_the_loop
from agent_runtime.decision import Decision, Greedy, Policy, Samples, Softmax
from agent_runtime.llm.base import Backend, Chat, Encoded, GenerationError, Score, Text
from agent_runtime.llm.chat import Message, with_system_prompt


@dataclass(frozen=True, slots=True)
class Defaults:
    """The policy of a request that names none, and the most tokens a candidate may have."""

    policy: Policy = Greedy()  # noqa: RUF009 - frozen
    max_output_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request found answerable. `baseline` is the encoded calibration prompt, `max_tokens` the bound of a
    sampled answer, `tokens` the most the model may have to read and write, `rows` how many answers it writes
    at once."""

    body: DecideRequest
    policy: Policy
    encoded: Encoded
    baseline: Encoded | None
    seed: int | None
    max_tokens: int
    tokens: int
    rows: int


async def decide(request: Request) -> Response:
    """Takes one decision."""
    service: Service = request.app.state.service
    backend = service.require_ready().backend
    body = await parse(request, DecideRequest)
    service.check_model(request, body.model)
    agent = service.config.agent
    defaults = Defaults(decision.policy_from(agent.decision), service.parameters.max_output_tokens)
    size = sum(len(turn.content) for turn in body.turns) + len(body.calibration_prompt or "")
    service.check_size(size, body.prompt_field)
    prepared = await beside_the_loop(size, lambda: prepare(backend, body, agent.system_prompt, defaults))
    service.check_length(prepared.encoded, body.prompt_field)
    if prepared.baseline is not None:
        service.check_length(prepared.baseline, "calibration_prompt")
    async with service.admitted(request, prepared.tokens, prepared.rows) as deadline:
        try:
            answer = await until_disconnect(request.receive, run_prepared(backend, prepared, deadline))
        except GenerationError as error:
            raise errors.from_generation(error) from error
    if service.gate is not None:
        service.gate.charge(principal_of(request.scope), answer["usage"]["total_tokens"])
    service.recorder.metrics.decided(prepared.policy.name, answer["abstained"], answer["entropy"])
    head = {
        "id": f"dec-{uuid.uuid4().hex}",
        "object": "decision",
        "created": int(time.time()),
        "model": service.config.model.served_name,
    }
    return JSONResponse(head | answer)


async def run_decision(
    backend: Backend,
    body: DecideRequest,
    deadline: float | None,
    system_prompt: str | None,
    defaults: Defaults,
) -> dict[str, Any]:
    """The answer to a body, all but its id, time and model. Raises ApiError or GenerationError.

    `deadline` is in seconds of `time.monotonic`.
    """
    return await run_prepared(backend, prepare(backend, body, system_prompt, defaults), deadline)


def prepare(backend: Backend, body: DecideRequest, system_prompt: str | None, defaults: Defaults) -> Prepared:
    """Everything that can be known without running the model. Raises ApiError naming the field at fault."""
    policy = defaults.policy if body.policy is None else body.policy.policy()
    _check_possible(backend, body, policy)
    encoded = _encode(backend, body.turns, system_prompt)
    baseline = None
    if body.calibration_prompt is not None:
        baseline = _encode(backend, [Message("user", body.calibration_prompt)], system_prompt)
    room = min(
        _room(backend, encoded, body.prompt_field, defaults.max_output_tokens),
        _room(backend, baseline, "calibration_prompt", defaults.max_output_tokens),
    )
    if body.sample is None:
        max_tokens, written = 0, _candidate_tokens(backend, body.given, room)
    else:
        max_tokens = _sample_tokens(body.sample, room)
        written = body.sample.n * max_tokens
    seed = body.seed
    if seed is None and (body.sample is not None or isinstance(policy, Softmax)):
        seed = decision.new_seed()
    tokens = encoded.count + written + (0 if baseline is None else baseline.count + written)
    rows = 1 if body.sample is None else body.sample.n
    return Prepared(body, policy, encoded, baseline, seed, max_tokens, tokens, rows)


async def run_prepared(backend: Backend, prepared: Prepared, deadline: float | None) -> dict[str, Any]:
    """Asks the model and decides. Raises ApiError, or GenerationError when the model fails."""
    body, samples = prepared.body, None
    texts, labels = [item.text for item in body.given], [item.name for item in body.given]
    if body.sample is not None:
        samples = await _samples(backend, prepared, deadline)
        texts = labels = list(samples.texts)
    scores = await backend.score(prepared.encoded, texts, deadline)
    baseline = None
    if prepared.baseline is not None:
        baseline = await backend.score(prepared.baseline, texts, deadline)
    try:
        decided = decision.decide(
            labels,
            scores,
            prepared.policy,
            utilities=body.payoffs,
            seed=prepared.seed,
            normalization=body.normalization,
            baseline_scores=baseline,
        )
    except decision.ScoreError as error:
        raise GenerationError(str(error)) from error
    return _answer(prepared, decided, scores, baseline, samples)


def _check_possible(backend: Backend, body: DecideRequest, policy: Policy) -> None:
    if not backend.capabilities.score:
        raise errors.unsupported_value(
            "model", "it gives no log-probabilities of given answers, so it cannot decide."
        )
    if body.utilities is not None and not decision.uses_utilities(policy):
        raise errors.invalid_field(
            "utilities",
            f"the policy {policy.name} does not use them: choose expected_utility, mean_variance or cvar.",
        )


def _encode(backend: Backend, turns: Sequence[Message], system_prompt: str | None) -> Encoded:
    return backend.encode(Chat(with_system_prompt(turns, system_prompt)))


def _room(backend: Backend, encoded: Encoded | None, param: str, most: int) -> int:
    """Tokens a candidate may have after this prompt. Raises ApiError when the prompt leaves none."""
    context = backend.limits.context
    if encoded is None or context is None or not backend.limits.shared_context:
        return most
    if encoded.count >= context:
        raise errors.context_length(encoded.count, context - 1, param)
    return min(most, context - encoded.count)


def _candidate_tokens(backend: Backend, candidates: Sequence[Candidate], room: int) -> int:
    """Tokens of all candidates. Raises ApiError for one that is too long, or that the model cannot tell from
    another: its probability would be counted twice."""
    total, seen = 0, dict[tuple[int, ...], int]()
    for index, candidate in enumerate(candidates):
        encoded = backend.encode(Text(candidate.text))
        total += encoded.count
        if encoded.count > room:
            raise errors.invalid_field(
                f"candidates[{index}]", f"it has {encoded.count} tokens; at most {room} are accepted here."
            )
        first = index if encoded.ids is None else seen.setdefault(encoded.ids, index)
        if first != index:
            raise errors.invalid_field(
                f"candidates[{index}]",
                f"the model reads it as the same tokens as candidates[{first}]: leave one out.",
            )
    return total


def _sample_tokens(sample: Sample, room: int) -> int:
    if sample.max_tokens is None:
        return room
    if sample.max_tokens > room:
        raise errors.invalid_field(
            "sample.max_tokens", f"{sample.max_tokens} is more than the {room} tokens accepted here."
        )
    return sample.max_tokens


async def _samples(backend: Backend, prepared: Prepared, deadline: float | None) -> Samples:
    sample, seed = prepared.body.sample, prepared.seed
    assert sample is not None and seed is not None  # noqa: S101 - `prepare` saw to it
    samples = await decision.candidates_from_samples(
        backend,
        prepared.encoded,
        n=sample.n,
        temperature=sample.temperature,
        seed=seed,
        max_tokens=prepared.max_tokens,
        deadline=deadline,
    )
    if not samples.texts:
        raise errors.invalid_field(
            "sample.max_tokens",
            f"none of the {sample.n} answers ended within {prepared.max_tokens} tokens, so there are no "
            "candidates: raise it, or give candidates.",
        )
    return samples


def _answer(
    prepared: Prepared,
    decided: Decision,
    scores: Sequence[Score],
    baseline: Sequence[Score] | None,
    samples: Samples | None,
) -> dict[str, Any]:
    texts = [score.candidate for score in scores]
    answer = {
        "choice": _choice(decided, texts),
        "label": decided.label,
        "confidence": decided.confidence,
        "abstained": decided.abstained,
        "reason": decided.reason,
        "probabilities": dict(zip(decided.labels, decided.probabilities, strict=True)),
        "candidates": _candidates(decided, scores, baseline),
        "entropy": decided.entropy,
        "normalized_entropy": decided.normalized_entropy,
        "margin": decided.margin,
        "candidate_mass": decided.mass,
        "normalization": prepared.body.normalization,
        "policy": {"name": decided.policy.name, **asdict(decided.policy)},
        "arithmetic": _arithmetic(decided),
        "seed": decided.seed,
        "usage": _usage(prepared, scores, baseline, samples),
    }
    if samples is not None:
        answer["unfinished_samples"] = samples.unfinished
    return answer


def _choice(decided: Decision, texts: Sequence[str]) -> dict[str, Any] | None:
    """The action taken; its text when it is a candidate and not an action of a matrix of utilities."""
    if decided.index is None:
        return None
    own = [value.action for value in decided.arithmetic.values] != list(decided.labels)
    text = None if own else texts[decided.index]
    return {"index": decided.index, "label": decided.label, "text": text}


def _candidates(
    decided: Decision, scores: Sequence[Score], baseline: Sequence[Score] | None
) -> list[dict[str, Any]]:
    rows = []
    for index, score in enumerate(scores):
        row = {
            "label": decided.labels[index],
            "text": score.candidate,
            "probability": decided.probabilities[index],
            "logprob": _finite(score.logprob),
            "mean_logprob": _finite(score.mean_logprob),
            "tokens": len(score.token_logprobs),
        }
        if baseline is not None:
            row["baseline_logprob"] = _finite(baseline[index].logprob)
        rows.append(row)
    return rows


def _arithmetic(decided: Decision) -> dict[str, Any]:
    """The arithmetic without what its rule does not have."""
    shown = _present(asdict(decided.arithmetic))
    return shown | {"values": [_present(value) for value in shown["values"]]}


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != ()}


def _usage(
    prepared: Prepared, scores: Sequence[Score], baseline: Sequence[Score] | None, samples: Samples | None
) -> dict[str, int]:
    """Tokens: of the prompts, of the candidates scored (once per prompt), and of sampled answers."""
    prompts = prepared.encoded.count + (0 if prepared.baseline is None else prepared.baseline.count)
    scored = sum(len(score.token_logprobs) for score in (*scores, *(baseline or ())))
    sampled = 0 if samples is None else samples.completion_tokens
    return {
        "prompt_tokens": prompts,
        "candidate_tokens": scored,
        "completion_tokens": sampled,
        "total_tokens": prompts + scored + sampled,
    }


def _finite(log: float) -> float | None:
    """JSON has no infinity: null is the logarithm of probability 0."""
    return log if math.isfinite(log) else None
