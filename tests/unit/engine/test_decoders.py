"""Rows that come and go get the answers that `generate` gives them alone, in every family of models."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from agent_runtime.llm.causal import CausalDecoder
from agent_runtime.llm.decoder import Cohort, Decoder, agree
from agent_runtime.llm.seq2seq import Seq2SeqDecoder
from tests.unit.engine.models import CAUSAL, JOINING, SEQ2SEQ, build

TOKENS = 12
FAMILIES = [*SEQ2SEQ, *CAUSAL]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """One family after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> Any:
    """Its model."""
    return build(family)


@pytest.fixture(scope="module")
def decoder(family: str, model: Any) -> Decoder:
    """Its decoder."""
    return Seq2SeqDecoder(model, "cpu") if family in SEQ2SEQ else CausalDecoder(model, "cpu")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Three prompts of different lengths."""
    dice = random.Random(1)
    return [[dice.randrange(5, 190) for _ in range(length)] for length in (3, 9, 20)]


@pytest.fixture(scope="module")
def expected(family: str, model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """What `generate` answers to each prompt alone, greedily, TOKENS tokens without an end."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, min_new_tokens=TOKENS,
            do_sample=False, num_beams=1, forced_eos_token_id=None, pad_token_id=0,
        )[0].tolist()  # fmt: skip
        answers.append(output[-TOKENS:])
    return answers


def decode(decoder: Decoder, prompts: list[list[int]], starts: dict[int, list[int]]) -> list[list[int]]:
    """Greedy answers; `starts` maps a step to the prompts that join the running rows at it."""
    answers: list[list[int]] = [[] for _ in prompts]
    cohort: Cohort | None = None
    rows: list[int] = []
    for step in range(max(starts) + TOKENS + 1):
        if fresh := starts.get(step):
            begun = decoder.start([prompts[n] for n in fresh], [answers[n] for n in fresh], lambda: None)
            if cohort is None:
                cohort = begun
            else:
                decoder.join(cohort, begun)
            rows += fresh
        if cohort is None:
            continue
        scores = cohort.last.clone()
        scores[:, sorted(decoder.eos)] = -torch.inf
        for number, token in zip(rows, scores.argmax(dim=-1).tolist(), strict=True):
            answers[number].append(token)
        stay = [place for place, number in enumerate(rows) if len(answers[number]) < TOKENS]
        if len(stay) < len(rows):
            rows = [rows[place] for place in stay]
            if not rows:
                cohort = None
                continue
            decoder.keep(cohort, stay)
        decoder.step(cohort, [answers[number][-1] for number in rows])
    return answers


def test_rows_of_one_start_answer_as_each_alone(
    decoder: Decoder, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    assert decode(decoder, prompts, {0: [0, 1, 2]}) == expected


def test_rows_that_join_later_answer_as_each_alone(
    family: str, decoder: Decoder, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    assert decoder.may_join == (family in JOINING)
    if decoder.may_join:
        assert decode(decoder, prompts, {0: [2], 3: [0], 7: [1]}) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_half_precision_keeps_nobody_apart_and_wrong_positions_do(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    expected = torch.randn(2, 128_256)
    rounded = (expected + 0.03 * torch.randn_like(expected)).to(dtype)

    assert (rounded.float() - expected).abs().max() > 0.1
    assert agree(rounded, expected)
    assert not agree(rounded.float(), expected)  # in single precision that is no rounding
    assert not agree(expected.roll(1, dims=0).to(dtype), expected)


@pytest.mark.parametrize("name", ["t5", "llama", "bart", "marian"])
def test_families_join_in_half_precision_as_in_single(name: str) -> None:
    model = build(name).to(torch.bfloat16)
    make = Seq2SeqDecoder if name in SEQ2SEQ else CausalDecoder

    assert make(model, "cpu").may_join == (name in JOINING)


def test_a_row_started_again_in_the_middle_goes_on_as_before(
    decoder: Decoder, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    for prompt, answer in zip(prompts, expected, strict=True):
        cohort = decoder.start([prompt], [answer[:5]], lambda: None)
        scores = cohort.last.clone()
        scores[:, sorted(decoder.eos)] = -torch.inf

        assert int(scores.argmax()) == answer[5]


def test_scores_are_the_models_own_log_probabilities(
    family: str, model: Any, decoder: Decoder, prompts: list[list[int]]
) -> None:
    candidates = [[7, 8, 9], [11], [], [12, 13, 14, 15, 16]]

    scores = decoder.score(prompts[1], candidates)

    for candidate, found in zip(candidates, scores, strict=True):
        with torch.inference_mode():
            if isinstance(decoder, Seq2SeqDecoder):
                read = torch.tensor([[decoder.start_token, *candidate]])
                logits = model(input_ids=torch.tensor([prompts[1]]), decoder_input_ids=read).logits[0]
            else:
                logits = model(torch.tensor([[*prompts[1], *candidate]])).logits[0][len(prompts[1]) - 1 :]
        table = logits.log_softmax(dim=-1)
        alone = [float(table[place, token]) for place, token in enumerate(candidate)]
        if decoder.eos:
            alone.append(float(table[len(candidate), sorted(decoder.eos)].logsumexp(dim=0)))
        assert found == pytest.approx(alone, abs=1e-4)


def test_a_long_prompt_is_read_in_pieces_with_a_sign_of_life_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent_runtime.llm.causal.PIECE", 8)
    decoder, signs = CausalDecoder(build("llama"), "cpu"), []
    prompt = list(range(5, 35))

    in_pieces = decoder.start([prompt], [[]], lambda: signs.append(1))
    monkeypatch.setattr("agent_runtime.llm.causal.PIECE", 1000)
    at_once = decoder.start([prompt], [[]], lambda: None)

    assert len(signs) == 4
    assert torch.allclose(in_pieces.last, at_once.last, atol=1e-5)


def test_thinning_drops_the_columns_that_only_others_needed() -> None:
    decoder = CausalDecoder(build("llama"), "cpu")
    cohort = decoder.start([[5] * 20, [6] * 3], [[], []], lambda: None)

    decoder.keep(cohort, [1])

    assert cohort.mask.tolist() == [[1, 1, 1]]
    assert cohort.cache.layers[0].keys.shape[2] == 3
