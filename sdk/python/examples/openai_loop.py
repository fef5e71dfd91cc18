"""The plain `openai` loop with tools. Nothing of Outlast's is imported: `base_url` and one header make it durable.

    pip install openai
    OUTLAST_URL=http://127.0.0.1:8080 OUTLAST_API_KEY=... python openai_loop.py RUN_ID

Kill it anywhere and start it again with the same RUN_ID: it begins at its top, and every model call that was answered
before is answered again from the run's journal, free and alike, up to where it died. Tools called through the server
are steps of the same run, named by the model's own call id, which is recorded, too.
"""

import json
import os
import sys
from typing import Any

from openai import OpenAI

URL = os.environ["OUTLAST_URL"]
KEY = os.environ.get("OUTLAST_API_KEY", "none")
RUN = sys.argv[1]

# The client repeats what was lost on the way, and what another process was still at when it died: both are safe.
client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, default_headers={"x-outlast-run": RUN}, max_retries=8)

LOOK_UP: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks an order up.",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    },
}


def call_tool(name: str, arguments: str, call_id: str) -> str:
    """Through the server, which writes down what it says. A pure look-up could be done right here as well."""
    named = {"x-outlast-step": f"tool/{name}/{call_id}"}
    result = client.post(f"/tools/{name}", cast_to=object, body=json.loads(arguments), options={"headers": named})
    return json.dumps(result)


def answer(question: str) -> str:
    messages: list[Any] = [{"role": "user", "content": question}]
    while True:
        raw = client.chat.completions.with_raw_response.create(
            model=os.environ.get("OUTLAST_ROUTE", "agent"), messages=messages, tools=[LOOK_UP]
        )
        message: Any = raw.parse().choices[0].message
        how = "replayed" if raw.headers.get("x-outlast-replayed") else "answered"
        print(f"{how}, cost {raw.headers.get('x-outlast-cost-usd')}")
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return message.content or ""
        for call in message.tool_calls:
            result = call_tool(call.function.name, call.function.arguments, call.id)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


for order in ("17", "18", "19"):
    print(json.dumps({"order": order, "answer": answer(f"Where is order {order}? Please tool:look_up first.")}))
