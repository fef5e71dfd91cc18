"""An MCP server made with the official package: `python mcp_server.py stdio` or `python mcp_server.py PORT`."""

import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("notes")
NOTES = os.environ["NOTES"]


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def note(text: str) -> str:
    """Writes a note down."""
    with open(NOTES, "a") as notes:
        notes.write(text + "\n")
    return f"noted: {text}"


@server.tool()
def pid() -> int:
    """The process that answers."""
    return os.getpid()


@server.tool()
def refuse(why: str) -> str:
    """Never does anything."""
    raise ToolError(f"refused: {why}")


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
