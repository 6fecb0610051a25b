"""An answer decoded token by token is the answer decoded as a whole."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from agent_runtime.llm.base import Chat, Text
from agent_runtime.llm.chat import Message, ToolCall, ToolSpec
from agent_runtime.llm.tokens import TokenCodec
from tests.model.training import trained

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
    "{% endfor %}{% if tools %}({{ tools[0].function.name }}){% endif %}<assistant>"
)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 and T5 have them: words begin with U+2581, other bytes are `<0x..>`."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581to",
              "\u2581be", "to", "be", ",", "é"]  # fmt: skip
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


class SlowTokenizer:
    """A tokenizer that is not of the tokenizers library: what a codec needs of one, and no more."""

    chat_template = None

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, text: str, **options: Any) -> Any:
        return self._inner(text, **options)

    def decode(self, ids: list[int], **options: Any) -> str:
        return str(self._inner.decode(ids, **options))


def byte_level() -> Any:
    """The tokenizer of the example model: byte-level BPE, as GPT-2 and Llama 3 have it."""
    return AutoTokenizer.from_pretrained(str(trained()))


CODECS = {
    "byte-level": lambda: TokenCodec(byte_level()),
    "sentencepiece": lambda: TokenCodec(sentencepiece_like()),
    "slow": lambda: TokenCodec(SlowTokenizer(byte_level())),
}


@cache
def codec_of(kind: str) -> TokenCodec:
    """The codec of a kind of tokenizer."""
    return CODECS[kind]()


def streamed(codec: TokenCodec, ids: list[int]) -> str:
    """The text as it would be sent, token by token."""
    detokenizer = codec.detokenizer()
    return "".join(detokenizer.push(token) for token in ids) + detokenizer.finish()


@pytest.fixture(scope="module", params=list(CODECS))
def codec(request: pytest.FixtureRequest) -> TokenCodec:
    """One kind of tokenizer after the other."""
    return codec_of(request.param)


@given(text=st.text(max_size=30))
def test_the_pieces_joined_are_the_text_decoded_at_once(codec: TokenCodec, text: str) -> None:
    ids = codec.encode_plain(text)

    assert streamed(codec, ids) == codec.decode(ids)


@settings(max_examples=300)
@given(ids=st.lists(st.integers(3, 250), max_size=40))
def test_even_broken_bytes_are_decoded_alike_by_a_byte_level_tokenizer(ids: list[int]) -> None:
    # With byte fallback (Llama 2) that is impossible: one broken byte changes what its valid neighbours
    # decode to, after they were sent.
    for kind in ("byte-level", "slow"):
        assert streamed(codec_of(kind), ids) == codec_of(kind).decode(ids)


def test_half_a_character_is_held_until_it_is_whole() -> None:
    codec = TokenCodec(byte_level())
    ids = codec.encode_plain("日")
    detokenizer = codec.detokenizer()

    pieces = [detokenizer.push(token) for token in ids]

    assert len(ids) > 1
    assert pieces[:-1] == [""] * (len(ids) - 1)
    assert "".join(pieces).strip() == "日"


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_the_bytes_of_the_tokens_joined_are_the_text(kind: str) -> None:
    codec = codec_of(kind)
    text = "to be é, 日🙂"

    raw = b"".join(codec.token_text(token)[1] for token in codec.encode_plain(text))

    assert raw.decode().strip() == text


def test_a_conversation_goes_through_the_models_own_template_tools_included() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE
    codec = TokenCodec(tokenizer)
    call = ToolCall("1", "find", json.dumps({"city": "Rome"}))
    messages = (Message("user", "hi"), Message("assistant", "", (call,)), Message("tool", "42", (), "1"))

    ids = codec.encode_prompt(Chat(messages, (ToolSpec("find", "finds"),)))

    assert codec.template_knows_tools
    assert '<assistant>[find {"city": "Rome"}]<tool>42(find)<assistant>' in codec.decode(ids)


def test_without_a_template_one_question_reaches_the_model_unchanged(geography: Path) -> None:
    codec = TokenCodec(AutoTokenizer.from_pretrained(str(geography)))
    question = "What is the capital of France?"

    assert codec.encode_prompt(Chat((Message("user", question),))) == codec.encode_prompt(Text(question))
