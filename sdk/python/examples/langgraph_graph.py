"""The `langgraph` package itself, inside of a run: its nodes are steps, so its graph goes on where it died.

    pip install langgraph
    OUTLAST_URL=http://127.0.0.1:8080 OUTLAST_API_KEY=... python langgraph_graph.py RUN_ID

The graph needs no checkpointer: it is gone through from its start, and recorded nodes answer at once.
"""

import os
import sys
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from outlast import Outlast, Worker, run, step, tool

ROUTE = os.environ.get("OUTLAST_ROUTE", "agent")


class State(TypedDict, total=False):
    order: str
    address: Any
    letter: str
    parcel: Any


def address(state: State) -> State:
    return {"address": tool("look_up", {"order": state["order"]}, key=f"address/{state['order']}")}


@step(timeout=30)
def write_letter(order: str) -> str:
    asked = [{"role": "user", "content": f"A kind letter for order {order}."}]
    reply = run.openai().chat.completions.create(model=ROUTE, messages=asked)
    return str(reply.choices[0].message.content)


def letter(state: State) -> State:
    return {"letter": write_letter(state["order"])}


def ship(state: State) -> State:
    return {"parcel": tool("ship", {"order": state["order"], "letter": state["letter"]}, key=f"ship/{state['order']}")}


def build() -> Any:
    graph = StateGraph(State)
    for name, node in (("address", address), ("letter", letter), ("ship", ship)):
        graph.add_node(f"{name}_node", node)
    graph.add_edge(START, "address_node")
    graph.add_edge("address_node", "letter_node")
    graph.add_edge("letter_node", "ship_node")
    graph.add_edge("ship_node", END)
    return graph.compile()


@run(name="parcel")
def parcel(order: str) -> Any:
    return dict(build().invoke({"order": order}))


if __name__ == "__main__":
    with Outlast() as client:
        name = client.start(parcel, "order-17", id=sys.argv[1])
        # A short lease: started again after a kill, it goes on within seconds.
        with Worker([parcel], client, lease=5):
            print(client.result(name))
