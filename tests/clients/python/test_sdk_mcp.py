"""Tools on servers made with the official `mcp` package, called through `/v1/tools`: over stdio and streamable HTTP."""

import os
import signal
import subprocess
import sys

import httpx
import outlast
import pytest
from sdk_world import HERE, KEY, Downstream, Server, free_port, until

TOOLS = """
[mcp.%(server)s]
%(reached)s

[tools.%(server)s_add]
kind = "mcp"
server = "%(server)s"
tool = "add"
effect = "pure"

[tools.%(server)s_note]
kind = "mcp"
server = "%(server)s"
tool = "note"
effect = "once"

[tools.%(server)s_pid]
kind = "mcp"
server = "%(server)s"
tool = "pid"
effect = "pure"

[tools.%(server)s_refuse]
kind = "mcp"
server = "%(server)s"
tool = "refuse"
effect = "pure"
retry = { attempts = 1, exhausted = "fail" }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One server of Outlast's with both MCP servers."""
    folder = tmp_path_factory.mktemp("mcp")
    notes = {"stdio": folder / "stdio.txt", "http": folder / "http.txt"}
    port = free_port()
    program = HERE / "mcp_server.py"
    serving = subprocess.Popen(
        [sys.executable, str(program), str(port)],
        env={**os.environ, "NOTES": str(notes["http"])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: answers(port), "the MCP server", 30)
    stdio = f'command = ["{sys.executable}", "{program}", "stdio"]\nenv = {{ NOTES = "{notes["stdio"]}" }}'
    more = TOOLS % {"server": "stdio", "reached": stdio}
    more += TOOLS % {"server": "http", "reached": f'url = "http://127.0.0.1:{port}/mcp"'}
    downstream = Downstream()
    server = Server(folder, downstream, more)
    yield server, notes
    server.kill()
    serving.kill()
    serving.wait()
    downstream.close()


def answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/mcp", timeout=1).status_code < 500
    except httpx.TransportError:
        return False


@pytest.fixture
def client(world):
    with world[0].client() as client:
        yield client


both = pytest.mark.parametrize("over", ["stdio", "http"])


@both
def test_a_tool_is_called_and_answers_with_its_value(client, over):
    assert client.tool(f"{over}_add", {"a": 2, "b": 3}) == {"result": 5}


@both
def test_an_effect_happens_once_under_its_key_and_is_replayed(world, client, over):
    first = client.tool(f"{over}_note", {"text": "once"}, key=f"note-{over}")
    assert client.tool(f"{over}_note", {"text": "once"}, key=f"note-{over}") == first
    with pytest.raises(outlast.StepMismatch):
        client.tool(f"{over}_note", {"text": "twice"}, key=f"note-{over}")
    assert world[1][over].read_text() == "once\n"


@both
def test_what_the_tool_refuses_has_failed_in_its_own_words(client, over):
    with pytest.raises(outlast.ToolFailed) as refused:
        client.tool(f"{over}_add", {"a": "many"})
    assert "valid integer" in str(refused.value.error["said"])
    with pytest.raises(outlast.ToolFailed) as refused:
        client.tool(f"{over}_refuse", {"why": "because"})
    assert "refused: because" in str(refused.value.error["said"])
    assert refused.value.error["tool"] == f"{over}_refuse"


def test_the_servers_own_words_are_listed(world, client):
    client.tool("stdio_add", {"a": 1, "b": 1})
    client.tool("http_add", {"a": 1, "b": 1})
    said = httpx.get(f"{world[0].url}/v1/tools", headers={"authorization": f"Bearer {KEY}"}).json()["tools"]
    by_name = {tool["name"]: tool for tool in said}
    for over in ("stdio", "http"):
        add = by_name[f"{over}_add"]
        assert add["description"] == "Adds two numbers." and add["input_schema"]["required"] == ["a", "b"]


def test_a_server_that_died_is_started_again(client):
    first = client.tool("stdio_pid", {})["result"]
    os.kill(first, signal.SIGKILL)
    again = client.tool("stdio_pid", {}, timeout=30)["result"]
    assert again != first
