"""Text to token ids and back. Layer: llm; takes a transformers tokenizer, imports `tokenizers` only.

The one idea: an answer is decoded as it grows, one token at a time and in constant time, and the pieces
joined are exactly what decoding it as a whole gives. `tokenizers.decoders.DecodeStream` does it in about a
microsecond; a tokenizer that is not of that library is decoded through a sliding window of its newest ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from agent_runtime.llm.base import Chat, Prompt
from agent_runtime.llm.chat import render_plain, template_message

_REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """Decodes one answer, token by token."""

    def push(self, token: int) -> str:
        """The text that became certain with this token, perhaps none."""
        ...

    def finish(self) -> str:
        """What was held back: half a character the answer ended with, say."""
        ...


class _Stream:
    """By `DecodeStream`."""

    __slots__ = ("_ids", "_pending", "_sent", "_stream", "_tokenizer")

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._pending = 0
        self._sent = 0

    def push(self, token: int) -> str:
        self._ids.append(token)
        try:
            piece = self._stream.step(self._tokenizer, token)
        except Exception:
            # An answer of broken characters can confuse the stream ("Invalid prefix"); the whole is decoded
            # at the end, so nothing is lost, only later.
            piece = None
        if piece is None:
            self._pending += 1
            return ""
        self._pending = 0
        self._sent += len(piece)
        return str(piece)

    def finish(self) -> str:
        if not self._pending:
            return ""
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))[self._sent :]


class _Window:
    """By decoding the newest ids twice, with and without the newest token (the way vLLM's slow path does)."""

    def __init__(self, decode: Any) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._prefix = self._read = 0

    def push(self, token: int) -> str:
        self._ids.append(token)
        before = self._decode(self._ids[self._prefix : self._read])
        now = self._decode(self._ids[self._prefix :])
        if len(now) <= len(before) or now.endswith(_REPLACEMENT):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return str(now[len(before) :])

    def finish(self) -> str:
        before = self._decode(self._ids[self._prefix : self._read])
        self._read = len(self._ids)
        return str(self._decode(self._ids[self._prefix :])[len(before) :])


class TokenCodec:
    """One model's tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self._direct = self._fast if self._fast is not None and _agree(tokenizer, self._fast) else None
        self._special = frozenset(getattr(tokenizer, "all_special_ids", ()))
        self.token_text = lru_cache(maxsize=65_536)(self._token_text)
        template = tokenizer.chat_template
        text = "".join(template.values()) if isinstance(template, dict) else (template or "")
        self.has_chat_template = bool(text)
        self.template_knows_tools = "tools" in text

    def detokenizer(self) -> Detokenizer:
        """A decoder for one answer."""
        return _Stream(self._fast) if self._fast is not None else _Window(self.decode)

    def text(self, ids: Sequence[int]) -> str:
        """The text of a whole answer: what the pieces of its `detokenizer` are when joined."""
        if self._fast is None:
            return self.decode(ids)
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Ids of raw text with the special tokens the model expects, nothing cut off."""
        if self._direct is not None:  # a quarter of a millisecond less than through transformers
            return list(self._direct.encode(text).ids)
        return list(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def encode_plain(self, text: str) -> list[int]:
        """Ids of text as the continuation of something: no special tokens."""
        if self._direct is not None:
            return list(self._direct.encode(text, add_special_tokens=False).ids)
        return list(
            self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        )

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt: a conversation by the chat template, without one (T5) by `chat.render_plain`."""
        if not isinstance(prompt, Chat):
            return self.encode(prompt.text)
        if not self.has_chat_template:
            return self.encode(render_plain(prompt.messages, prompt.tools))
        encoded = self.tokenizer.apply_chat_template(
            [template_message(message) for message in prompt.messages],
            tools=[tool.openai() for tool in prompt.tools] or None,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            sanitize_control_tokens=True,
        )
        return list(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without special tokens. Spaces are not cleaned up: that would change sent text."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _token_text(self, token: int) -> tuple[str, bytes]:
        """One token alone: its text for people, and its bytes, which joined give the whole even where a
        character is spread over tokens."""
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        if token in self._special:
            return piece, piece.encode()
        if piece.startswith("<0x") and piece.endswith(">"):
            raw = bytes.fromhex(piece[3:-1])
        elif self._is_byte_level():
            alphabet = _byte_alphabet()
            raw = b"".join(bytes([alphabet[char]]) if char in alphabet else char.encode() for char in piece)
        else:
            raw = piece.replace("\u2581", " ").encode()
        return raw.decode("utf-8", errors="replace"), raw

    @lru_cache(maxsize=1)  # noqa: B019 - one codec lives as long as its model
    def _is_byte_level(self) -> bool:
        return self._fast is not None and "ByteLevel" in str(self._fast.decoder)


def _agree(tokenizer: Any, fast: Any) -> bool:
    """Whether the library's tokenizer alone gives the ids that transformers' wrapper around it gives."""
    probe = "Hello, world! \u00fc \u4e16 1234"
    wanted = [
        list(tokenizer(probe, truncation=False, add_special_tokens=special, verbose=False)["input_ids"])
        for special in (True, False)
    ]
    fast.no_truncation()
    fast.no_padding()
    return [list(fast.encode(probe, add_special_tokens=special).ids) for special in (True, False)] == wanted


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins of byte-level BPE, inverted (Radford et al. 2019: printable bytes stand for
    themselves, the others for the characters from U+0100 on, in order)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    alphabet.update({chr(0x100 + number): byte for number, byte in enumerate(others)})
    return alphabet
