"""The `openai-agents` package inside of a run: its model calls are recorded by the gateway, its tools are steps.

    pip install openai-agents
    OUTLAST_URL=http://127.0.0.1:8080 OUTLAST_API_KEY=... python openai_agents.py RUN_ID

The model's call ids are recorded with its answers, so they name the tools' steps: whoever goes on with the run finds
what each call did.
"""

import os
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from agents.tool_context import ToolContext

from outlast import Outlast, Worker, aio, run

set_tracing_disabled(True)


@function_tool
async def look_up(context: ToolContext, order: str) -> str:
    """Looks an order up."""
    return str(await aio.tool("look_up", {"order": order}, key=context.tool_call_id))


@function_tool
async def ship(context: ToolContext, order: str) -> str:
    """Ships an order. The key is the order's: however often a model asks, one parcel leaves."""
    return str(await aio.tool("ship", {"order": order}, key=f"ship/{order}"))


@run(name="clerk")
async def clerk(question: str) -> str:
    model = OpenAIChatCompletionsModel(os.environ.get("OUTLAST_ROUTE", "agent"), openai_client=run.async_openai())
    agent = Agent(name="clerk", instructions="You handle orders.", model=model, tools=[look_up, ship])
    result = await Runner.run(agent, question, max_turns=6)
    return str(result.final_output)


if __name__ == "__main__":
    with Outlast() as client:
        name = client.start(clerk, "Order 17: tool:look_up it, then tool:ship it.", id=sys.argv[1])
        # A short lease: started again after a kill, it goes on within seconds.
        with Worker([clerk], client, lease=5):
            print(client.result(name))
