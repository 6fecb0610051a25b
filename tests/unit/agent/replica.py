"""A replica as a process of its own, to be killed: `python -m tests.unit.agent.replica URL PREFIX RUN TOOL
KIND`.

It begins the run RUN (KIND `background` or `request`), whose model calls TOOL (`gate`, or `look`, which is
idempotent); the tool says so on standard output and never returns.
"""

from __future__ import annotations

import asyncio
import sys

from agent_runtime.agent import live
from agent_runtime.agent.redis_store import RedisStore
from agent_runtime.agent.tools import function_tool
from tests.unit.agent.agents import agent, ask, call


async def _hang() -> str:
    """Never returns."""
    print("called", flush=True)
    await asyncio.Event().wait()
    return ""


async def main(url: str, prefix: str, run_id: str, tool: str, kind: str) -> None:
    live.CLAIM_SECONDS = 0.6
    made = function_tool(_hang, name=tool, idempotent=tool == "look")
    async with agent([call(tool)], [made], store=RedisStore(url, prefix)) as service:
        await service.begin(ask(session_id="s", background=kind == "background"), run_id=run_id)
        await service.wait(run_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
