"""With a grammar every complete answer is well-formed, whatever the model would have liked."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from agent_runtime.llm.base import GenerationError, Grammar
from agent_runtime.llm.grammar import MAX_GRAMMAR_CHARACTERS, GrammarCompiler, GrammarUnavailableError

EOS = frozenset({1})
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "size": {"type": "integer"}},
    "required": ["city", "size"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(geography: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(geography))


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, len(tokenizer), EOS)


def follow(compiler: GrammarCompiler, grammar: Grammar, dice: random.Random, most: int = 200) -> list[int]:
    """Tokens of an answer made by taking any allowed token, the end as soon as it is allowed."""
    matcher, tokens = compiler.matcher(grammar), []
    for _ in range(most):
        allowed = matcher.allowed().nonzero().flatten().tolist()
        if 1 in allowed:
            return tokens
        token = dice.choice(allowed)
        matcher.accept(token)
        tokens.append(token)
    raise AssertionError("the answer did not end")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_walk_through_the_allowed_tokens_satisfies_the_schema(
    compiler: GrammarCompiler, tokenizer: Any, seed: int
) -> None:
    tokens = follow(compiler, Grammar("json_schema", json.dumps(SCHEMA)), random.Random(seed))

    answer = json.loads(tokenizer.decode(tokens))
    assert answer["city"] in {"Paris", "Rome"}
    assert isinstance(answer["size"], int)


def test_a_regular_expression_and_a_lark_grammar_are_followed(
    compiler: GrammarCompiler, tokenizer: Any
) -> None:
    dice = random.Random(0)

    number = tokenizer.decode(follow(compiler, Grammar("regex", r"[0-9]{3}-[0-9]{2}"), dice))
    word = tokenizer.decode(follow(compiler, Grammar("lark", 'start: "yes" | "no"'), dice))

    assert re.fullmatch(r"[0-9]{3}-[0-9]{2}", number)
    assert word in {"yes", "no"}


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", "not json"),
        Grammar("json_schema", '{"type": "no such type"}'),
        Grammar("regex", "(unclosed"),
        Grammar("lark", "start: nowhere"),
        Grammar("regex", "a" * (MAX_GRAMMAR_CHARACTERS + 1)),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused_with_a_reason(
    compiler: GrammarCompiler, grammar: Grammar
) -> None:
    with pytest.raises(GenerationError) as refused:
        compiler.matcher(grammar)

    assert refused.value.code == "invalid_grammar"
    assert str(refused.value)


def test_a_vocabulary_without_braces_is_recognised_before_anybody_asks() -> None:
    pieces = ["<pad>", "</s>", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    inner = Tokenizer(models.BPE(vocab={piece: n for n, piece in enumerate(pieces)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")

    with pytest.raises(GrammarUnavailableError):
        GrammarCompiler(tokenizer, len(pieces), EOS)


def test_a_model_without_an_end_token_cannot_be_made_to_stop(tokenizer: Any) -> None:
    with pytest.raises(GrammarUnavailableError, match="end-of-sequence"):
        GrammarCompiler(tokenizer, len(tokenizer), frozenset())
