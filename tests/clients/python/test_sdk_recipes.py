"""The examples of the Python package: each is run, killed in its middle and run again."""

import json
import os

import httpx
import pytest
from sdk_world import ROOT, Downstream, Program, Server, until

EXAMPLES = ROOT / "sdk/python/examples"


@pytest.fixture
def downstream():
    double = Downstream()
    yield double
    double.close()


@pytest.fixture
def server(tmp_path, downstream):
    server = Server(tmp_path, downstream)
    yield server
    server.kill()


@pytest.fixture
def example(server, downstream):
    started = []

    def example(name, run, **environment):
        log = f"{name}-{len(started)}.log"
        started.append(Program(server, downstream, EXAMPLES / f"{name}.py", run, log=log, **environment))
        return started[-1]

    yield example
    for program in started:
        program.close()


def model_calls():
    """How many calls of the recipes' model the vendor has seen. The suite's other gateway shares the vendor, and what it has
    queued it asks again for whenever that is due."""
    calls = httpx.get(f"{os.environ['OPENAI_VENDOR_URL']}/fake/log").json()["calls"]
    return sum(call["model"] == "gpt-5.2" for call in calls)


def killed_and_run_again(example, downstream, name, path, times=1):
    """Holds a call of this path, the how-many-th, kills the program there, and runs it to its end."""
    before = model_calls()
    program = example(name, f"{name}-1")
    until(lambda: downstream.paths().count(path) == times - 1 or program.process.poll() is not None, "the calls before")
    gate = downstream.hold(path)
    until(lambda: downstream.paths().count(path) >= times or program.process.poll() is not None, f"a call of {path}")
    assert program.process.poll() is None, program.said()
    program.kill()
    half = model_calls() - before
    gate.set()
    again = example(name, f"{name}-1")
    assert again.ended(60) == 0, again.said()
    return again, half, model_calls() - before


def test_a_graph_of_steps_goes_on_at_the_node_where_it_died(example, downstream, server):
    again, half, whole = killed_and_run_again(example, downstream, "langgraph_loop", "/look_up", times=2)
    assert "'notes': 2" in again.said() and "'answer'" in again.said()
    assert 1 <= half <= 2 and whole == 3, "three thoughts, each paid for once"
    with server.client() as client:
        keys = [step["key"] for step in client.journal("langgraph_loop-1") if step["kind"] == "code"]
    assert keys == ["think/0", "think/1", "think/2"]


def test_the_graph_waits_for_a_person_where_it_is_told_to(example, downstream, server):
    program = example("langgraph_loop", "asking", ASK_FIRST="1")
    with server.client() as client, server.reviewer() as reviewer:
        [id] = until(lambda: [one["id"] for one in reviewer.escalations()["escalations"]], "the question", 30)
        assert client.get("asking")["state"] == "parked"
        reviewer.decide(id, "approve", shown=reviewer.escalation(id)["shown"])
    assert program.ended(30) == 0, program.said()
    assert "'answer'" in program.said()


def test_the_langgraph_package_goes_on_where_it_died(example, downstream):
    again, _, whole = killed_and_run_again(example, downstream, "langgraph_graph", "/ship")
    assert "'parcel'" in again.said() and "'letter'" in again.said()
    assert downstream.effects()["/ship"] == 1 and downstream.paths().count("/look_up") == 1
    assert whole == 1, "one letter, written once"


def test_the_plain_openai_loop_replays_for_free_what_was_answered(example, downstream):
    again, half, whole = killed_and_run_again(example, downstream, "openai_loop", "/look_up", times=2)
    said = again.said().splitlines()
    assert [line["order"] for line in map(json.loads, said[-1:])] == ["19"]
    calls = [line for line in said if "cost" in line]
    assert len(calls) == 6 and whole == 6, "two model calls an order, each made once"
    costs = [(how, float(cost)) for how, cost in (call.split(", cost ") for call in calls)]
    assert half == 3 and costs[:half] == [("replayed", 0.0)] * half
    assert all(how == "answered" and cost > 0 for how, cost in costs[half:])
    assert downstream.paths().count("/look_up") == 3


def test_openai_agents_go_on_where_they_died_and_ship_once(example, downstream):
    again, _, whole = killed_and_run_again(example, downstream, "openai_agents", "/ship")
    assert downstream.effects()["/ship"] == 1 and downstream.paths().count("/look_up") == 1
    assert whole == 2, again.said()
