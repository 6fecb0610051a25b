"""Responses that are kept, so that a conversation can go on from them. Layer: api, shell over the agent's
store.

The one idea: each entry holds its whole conversation, so no later one breaks when an earlier one expires or
is deleted. An entry belongs to the key that made it; to any other it does not exist. It lives as long as
the store's entries do, and its size is bounded: log-probabilities are not kept, and a conversation above
MAX_CONVERSATION_BYTES is answered but not kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent_runtime.agent.errors import AgentError
from agent_runtime.agent.store import Store
from agent_runtime.api.agent_runs import from_agent
from agent_runtime.api.errors import ApiError
from agent_runtime.api.responses_items import Item
from agent_runtime.api.sse import encode

MAX_CONVERSATION_BYTES = 2**20
"""As JSON, without the answer, which max_output_tokens bounds."""

_ID = re.compile(r"resp_[0-9a-f]{32}")


class Kept(BaseModel):
    """A finished response, as the JSON text that is answered. `items` is the conversation with it:
    everything read and said, without instructions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: str | None
    items: tuple[Item, ...]
    response: str


class Shelf:
    """The kept responses of one caller; `owner` is the key's name, None where no keys are configured."""

    def __init__(self, store: Store, owner: str | None) -> None:
        self._store, self._owner = store, owner

    async def find(self, response_id: str) -> Kept | None:
        """The response, or None. Raises ApiError 503 when the store does not answer."""
        if _ID.fullmatch(response_id) is None:
            return None
        try:
            raw = await self._store.get(_key(response_id))
        except AgentError as error:
            raise from_agent(error) from error
        try:
            kept = None if raw is None else Kept.model_validate_json(raw)
        except ValidationError:
            return None  # written by another version of this program
        return kept if kept is not None and kept.owner == self._owner else None

    async def put(self, response: dict[str, Any], items: Sequence[Item]) -> None:
        """Keeps a finished response with its conversation. Raises ApiError 503."""
        every = (*items, *response["output"])
        text = encode(response).decode()
        kept = Kept.model_validate({"owner": self._owner, "items": every, "response": text})
        value = kept.model_dump_json(by_alias=True).encode()
        try:
            await self._store.update(_key(response["id"]), lambda before: value)
        except AgentError as error:
            raise from_agent(error) from error

    async def delete(self, response_id: str) -> bool:
        """Whether there was such a response of this caller's. Raises ApiError 503."""
        if await self.find(response_id) is None:
            return False
        try:
            return await self._store.delete(_key(response_id))
        except AgentError as error:
            raise from_agent(error) from error


def conversation_bytes(items: Sequence[Item]) -> int:
    """What the items take in the store."""
    return sum(len(item.model_dump_json(by_alias=True).encode()) for item in items)


def _key(response_id: str) -> str:
    return f"response:{response_id}"


# errors


def response_not_found(response_id: str, kept: bool) -> ApiError:
    """No such response, or it expired, or it is another key's. `kept` is whether this server keeps any."""
    message = f"There is no response '{response_id}', or it has expired."
    if not kept:
        message = f"There is no response '{response_id}': {NOT_KEPT}"
    return ApiError(404, "response_not_found", message, param="id")


def previous_not_found(response_id: str) -> ApiError:
    """The response to go on from does not exist, by OpenAI's status and code."""
    return ApiError(
        400, "previous_response_not_found",
        f"There is no response '{response_id}', or it has expired: send the conversation as input.",
        param="previous_response_id",
    )  # fmt: skip


def not_background() -> ApiError:
    """There is nothing to cancel."""
    return ApiError(
        400, "not_background",
        "Only a background response can be cancelled, and this server makes none: to stop a response while "
        "it is made, close its connection.",
        param="id",
    )  # fmt: skip


NOT_KEPT = "this server keeps no responses. Whoever runs it enables that with agent.sessions."
