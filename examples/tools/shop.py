"""An MCP server with the clerk's two tools: what a shop has and what it costs. Layer: example, alone.

    python shop.py [PORT]        # http://0.0.0.0:8080/mcp, until SIGTERM

Needs the `mcp` package (the runtime's image has it). What is in the shop comes from SHOP, one
`item=how many,euros` a word, so the same program serves another shop.
"""

from __future__ import annotations

import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

SHOP = "lamps=12,49 umbrellas=0,35 teapots=7,64"
GOODS = {
    name: tuple(map(int, numbers.split(",")))
    for name, _, numbers in (word.partition("=") for word in os.environ.get("SHOP", SHOP).split())
}
server = MCPServer("shop")
READS = ToolAnnotations(read_only_hint=True)


@server.tool(annotations=READS)
def stock(item: str) -> str:
    """How many are left."""
    return f"{GOODS[item][0] if item in GOODS else 0} left"


@server.tool(annotations=READS)
def price(item: str) -> str:
    """What one costs."""
    if item not in GOODS:
        raise ValueError(f"there are no {item}")
    return f"{GOODS[item][1]} euros"


if __name__ == "__main__":
    server.run("streamable-http", host="0.0.0.0", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
