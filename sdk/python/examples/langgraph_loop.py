"""A graph of nodes, as LangGraph draws them, without the package: every node's answer is a step of the run.

    OUTLAST_URL=http://127.0.0.1:8080 OUTLAST_API_KEY=... python langgraph_loop.py RUN_ID

Kill it anywhere and start it again with the same RUN_ID: it goes on at the node where it was. Nodes answer with what
they change, not with the whole state, so that the journal stays small.
"""

import os
import sys
from typing import Any

from outlast import Outlast, Worker, approve, run, step, tool

State = dict[str, Any]
ROUTE = os.environ.get("OUTLAST_ROUTE", "agent")


def think(state: State) -> State:
    """Asks the model. The call is itself a recorded step, so a crash right after it costs nothing either."""
    notes = "\n".join(state["notes"]) or "nothing yet"
    reply = run.openai().chat.completions.create(
        model=ROUTE,
        messages=[{"role": "user", "content": f"{state['question']}\nKnown so far: {notes}"}],
    )
    return {"thought": reply.choices[0].message.content}


def search(state: State) -> State:
    """A tool of the server's config: it retries, keeps the ledger and says the same on a repetition."""
    about = {"about": state["question"], "page": len(state["notes"]) + 1}
    found = tool("look_up", about, key=f"look_up/{state['question']}/{about['page']}")
    return {"notes": [*state["notes"], str(found)]}


def after_thinking(state: State) -> str:
    return "publish" if len(state["notes"]) >= 2 else "search"


@run(name="research")
def research(question: str) -> State:
    state: State = {"question": question, "notes": []}
    node = "think"
    while node != "publish":
        visit = f"{node}/{len(state['notes'])}"
        state |= step(node, think, state, key=visit) if node == "think" else search(state)
        node = after_thinking(state) if node == "think" else "think"
    if os.environ.get("ASK_FIRST"):
        approve("May this be published?", {"text": state["thought"]})
    return {"answer": state["thought"], "notes": len(state["notes"])}


if __name__ == "__main__":
    with Outlast() as client:
        name = client.start(research, "What makes software last?", id=sys.argv[1])
        # A short lease: started again after a kill, it goes on within seconds.
        with Worker([research], client, lease=5):
            print(client.result(name))
