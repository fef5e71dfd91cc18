"""What a worker makes of a run, against a scripted server: sync and async bodies alike."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from double import Double

import outlast
from outlast import NotDone, StepFailed, Undo, Worker, aio, keyed, run, step, verify


@pytest.fixture
def server():
    double = Double()
    yield double
    double.close()


@contextmanager
def working(server, *workflows, **options):
    client = outlast.Outlast(server.url, "sk-test", retry_for=options.pop("retry_for", 5.0))
    options = {"wait": 1, "grace": 5, **options}
    worker = Worker(workflows, client, **options)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(10)
        assert not thread.is_alive(), "the worker did not stop"


def executed(server, workflow, input=None, **view):
    """The end of one run."""
    with working(server, workflow):
        server.offer(workflow.name, input, **view)
        server.until(lambda: "run_1" in server.ends, "the end")
    return server.ends["run_1"]


def twice(value):
    return value * 2


async def twice_async(value):
    await asyncio.sleep(0)
    return value * 2


@run(name="doubling")
def doubling(input):
    once = step("double", twice, input)
    return {"doubled": step("again", twice, once)}


@run(name="doubling")
async def doubling_async(input):
    once = await aio.step("double", twice_async, input)
    return {"doubled": await aio.step("again", twice_async, once)}


both = pytest.mark.parametrize("body", [doubling, doubling_async], ids=["sync", "async"])


@both
def test_a_run_is_executed_step_by_step_under_its_epoch(server, body):
    end = executed(server, body, 3)
    assert end == {"epoch": 7, "ok": {"doubled": 12}}
    begun = server.bodies("steps/double/begin")[0]
    assert (begun["epoch"], begun["class"], begun["input"]) == (7, "pure", [3])
    assert server.bodies("steps/double/end")[0]["ok"] == 6
    [claim, *_] = server.bodies("/v1/claim")
    assert claim["accepts"] == {"doubling": ["1"]} and claim["queues"] == ["default"]
    assert server.calls[0][3]["authorization"] == "Bearer sk-test"


@both
def test_what_is_recorded_is_not_done_again_and_not_asked_for(server, body):
    print_ = outlast.values.fingerprint([3])
    server.journals["run_1"]["double"] = {"key": "double", "state": "done", "ok": 60, "fingerprint": print_}
    end = executed(server, body, 3)
    assert end["ok"] == {"doubled": 120}
    assert server.bodies("steps/double/begin") == [], "the claim's journal has it"


def test_a_step_recorded_in_other_words_is_asked_for(server):
    server.journals["run_1"]["double"] = {"key": "double", "state": "done", "ok": 60, "fingerprint": "0" * 64}
    assert executed(server, doubling, 3)["ok"] == {"doubled": 120}
    assert len(server.bodies("steps/double/begin")) == 1, "the server decides: it replays, or says 422"


@both
def test_every_call_is_repeated_when_its_answer_is_lost(server, body):
    for path in ("/v1/claim", "steps/double/begin", "steps/double/end", "finish"):
        server.on(path, None)
    server.on("steps/again/end", (503, {"error": {"message": "locked", "code": "unavailable"}}))
    assert executed(server, body, 3)["ok"] == {"doubled": 12}
    assert len(server.bodies("steps/double/end")) == 2


def test_a_lost_lease_is_not_swallowed_by_the_body(server):
    went_on = []

    @run(name="stubborn")
    def stubborn(_):
        try:
            step("first", twice, 1)
        except Exception:
            went_on.append("swallowed")
        went_on.append("after")

    server.on("steps/first/begin", (410, {"error": {"message": "not yours", "code": "lease_lost"}}))
    with working(server, stubborn) as worker:
        server.offer("stubborn")
        server.until(lambda: server.bodies("first/begin") and not worker._claims, "letting go")
    assert went_on == [] and server.ends == {} and server.released == []


@pytest.mark.parametrize(
    ("answer", "after"),
    [((200, {"lease": "drain"}), [("run_1", 0.0)]), ((410, {"lease": "lost", "error": {"code": "lease_lost"}}), [])],
    ids=["drain", "lost"],
)
def test_a_heartbeat_stops_the_run_at_the_next_step(server, answer, after):
    told = threading.Event()

    @run(name="long")
    def long(_):
        step("first", twice, 1)
        assert told.wait(10)
        step("second", twice, 1)

    server.on("heartbeat", answer)
    with working(server, long, lease=0.3) as worker:
        original = worker._beat_one

        def beat(sender, claim):
            kept = original(sender, claim)
            told.set()
            return kept

        worker._beat_one = beat
        claim = server.claimed
        server.claimed = lambda view: {**claim(view), "lease_s": 0.3}
        server.offer("long")
        server.until(lambda: told.is_set() and not worker._claims, "letting go")
        told_to_leave = worker._stopping.is_set()
    assert told_to_leave == bool(after), "a drained worker leaves, one that lost a run does not"
    assert server.bodies("second/begin") == [] and server.ends == {}
    assert server.released == after


def test_heartbeats_go_on_while_an_async_body_blocks_its_loop(server):
    beating = threading.Event()

    @run(name="blocking")
    async def blocking(_):
        assert beating.wait(10), "blocks the event loop, as no body should"
        return "done"

    claim = server.claimed
    server.claimed = lambda view: {**claim(view), "lease_s": 0.3}
    with working(server, blocking, lease=0.3):
        server.offer("blocking")
        server.until(lambda: len(server.bodies("heartbeat")) >= 2, "heartbeats")
        beating.set()
        server.until(lambda: "run_1" in server.ends)
    assert all(body == {"epoch": 7, "lease_s": 0.3} for body in server.bodies("heartbeat"))


def test_nothing_is_sent_after_the_attempts_deadline(server):
    sent = []

    @run(name="slept")
    def slept(_):
        return step("send", sent.append, 1, effect="once")

    late = (200, {"do": "execute", "attempt": 1, "epoch": 7, "idempotency_key": "ol-1", "deadline_ms": 0})
    server.on("send/begin", late)
    assert executed(server, slept)["ok"] is None
    first, second = server.bodies("send/end")
    assert first["error"]["sent"] is False and first["error"]["final"] is False
    assert sent == [1] and "ok" in second


def hows(server, path_end):
    """How each attempt was said to have ended."""
    ways = {"ok", "error", "unknown", "absent", "review"}
    return [way for body in server.bodies(path_end) for way in body if way in ways]


def test_an_effect_that_raises_is_unknown_and_a_look_up_that_raises_has_failed(server):
    calls = []

    def broken(what):
        calls.append(what)
        raise RuntimeError("the line went dead")

    @run(name="broken")
    def body(_):
        try:
            step("look", broken, "look")
        except StepFailed as error:
            assert "the line went dead" in error.message and isinstance(error.__cause__, RuntimeError)
        step("act", broken, "act", effect="once")

    parked = (200, {"step": "parked", "why": "unknown_effect", "escalation": {"id": "e1"}})
    server.on("act/end", parked)
    with working(server, body) as worker:
        server.offer("broken")
        server.until(lambda: server.bodies("act/end") and not worker._claims)
    assert hows(server, "look/end") == ["error"] * 3
    assert "line went dead" in server.bodies("act/end")[0]["unknown"]["message"]
    assert calls == ["look"] * 3 + ["act"] and server.ends == {}, "the run waits for a person"


def test_what_certainly_did_not_happen_is_said_to_be_so(server):
    answers = [NotDone("closed for now", retry_after=0.01), NotDone("no such account", final=True)]

    def act():
        raise answers.pop(0)

    @run(name="refused")
    def refused(_):
        step("act", act, effect=keyed(60))

    end = executed(server, refused)
    first, second = (body["error"] for body in server.bodies("act/end"))
    assert first == {"message": "NotDone: closed for now", "final": False, "sent": False, "retry_after_s": 0.01}
    assert second["final"] is True
    assert end["error"]["failure"] == "StepFailed" and "no such account" in end["error"]["message"]


def test_an_unknown_outcome_is_asked_about_with_the_same_key(server):
    asked = []

    def check(order):
        asked.append((order, outlast.this_step().idempotency_key))
        return outlast.ABSENT if len(asked) == 1 else {"found": order}

    @run(name="careful")
    def careful(order):
        return step("send", twice, order, effect=verify(2.5, check))

    question = {"do": "verify", "attempt": 1, "epoch": 7, "idempotency_key": "ol-x", "input": ["a"]}
    server.on("send/begin", (200, question), (200, question))
    server.on("send/end", (200, {"step": "again", "after_ms": 0}))
    assert executed(server, careful, "a")["ok"] == {"found": "a"}
    assert asked == [("a", "ol-x")] * 2
    assert server.bodies("send/begin")[0]["class"] == {"verify": {"quiet_period_ms": 2500}}
    assert hows(server, "send/end") == ["absent", "ok"]


def test_the_attempt_is_told_what_to_hand_on(server):
    def act():
        here = outlast.this_step()
        assert 0 < here.remaining <= 9
        here.add_cost(0.25)
        return here.headers

    @run(name="telling")
    def telling(_):
        return step("act", act, effect=keyed(60, verify_after=5, check=act), timeout=9)

    headers = executed(server, telling)["ok"]
    assert headers == {"idempotency-key": "ol-act", "x-outlast-epoch": "7", "x-outlast-attempt": "1"}
    assert server.bodies("act/begin")[0]["class"] == {"keyed": {"key_ttl_ms": 60000, "verify_ms": 5000}}
    assert server.bodies("act/end")[0]["cost_usd"] == 0.25


def reserve(what):
    return f"{what} reserved"


def give_back(done, log=[]):
    log.append(done)
    return f"{done}, and given back"


async def reserve_async(what):
    return f"{what} reserved"


async def give_back_async(done):
    return f"{done}, and given back"


def fail():
    raise NotDone("sold out", final=True)


async def fail_async():
    raise NotDone("sold out", final=True)


@run(name="trip")
def trip(_):
    step("flight", reserve, "flight", effect="once", undo=give_back)
    step("hotel", reserve, "hotel", effect="once", undo=Undo(give_back, effect=keyed(60)))
    step("car", fail, effect="once", undo=give_back)


@run(name="trip")
async def trip_async(_):
    await aio.step("flight", reserve_async, "flight", effect="once", undo=give_back_async)
    await aio.step("hotel", reserve_async, "hotel", effect="once", undo=Undo(give_back_async, effect=keyed(60)))
    await aio.step("car", fail_async, effect="once", undo=give_back_async)


trips = pytest.mark.parametrize("body", [trip, trip_async], ids=["sync", "async"])


def undone(server):
    with server.changed:
        return [
            path.split("/steps/")[1] for _, path, body, _ in server.calls if "/steps/undo/" in path and "ok" in body
        ]


@trips
def test_what_was_done_is_undone_in_reverse_order_under_keys_of_its_own(server, body):
    end = executed(server, body)
    assert undone(server) == ["undo/hotel/end", "undo/flight/end"]
    hotel = server.bodies("undo/hotel/begin")[0]
    assert (hotel["kind"], hotel["undoes"], hotel["input"]) == ("undo", "hotel", ["hotel reserved"])
    assert hotel["class"] == {"keyed": {"key_ttl_ms": 60000}}
    assert server.bodies("undo/flight/begin")[0]["class"] == "once"
    assert "sold out" in end["error"]["message"]


@trips
def test_undoing_goes_on_where_another_worker_died(server, body):
    executed(server, body)
    # Another claim: the failure is on record, one undo is; the body would go on if it were asked.
    journal = server.journals["run_1"]
    assert journal["outlast/failed"]["state"] == "done"
    del journal["undo/flight"], journal["car"]
    server.ends.clear()
    server.calls.clear()
    end = executed(server, body)
    assert undone(server) == ["undo/flight/end"]
    assert server.bodies("car/begin") == [] and "sold out" in end["error"]["message"]


@trips
def test_a_cancelled_run_undoes_what_its_journal_says_was_done(server, body):
    for what in ("flight", "hotel"):
        print_ = outlast.values.fingerprint([what])
        view = {"key": what, "state": "done", "ok": f"{what} reserved", "fingerprint": print_, "undo": {"name": "x"}}
        server.journals["run_1"][what] = view
    end = executed(server, body, cancelling=True)
    assert undone(server) == ["undo/hotel/end", "undo/flight/end"]
    assert end == {"epoch": 7, "cancelled": True} and server.bodies("car/begin") == []


def test_what_cannot_be_undone_goes_to_a_person(server):
    def cannot(_):
        raise NotDone("the fare is gone", final=True)

    @run(name="unlucky")
    def unlucky(_):
        step("flight", reserve, "flight", effect="once", undo=cannot)
        step("car", fail, effect="once")

    with working(server, unlucky) as worker:
        server.offer("unlucky")
        server.until(lambda: server.bodies("undo/flight/end") and not worker._claims)
    assert server.bodies("undo/flight/end")[0]["review"]["why"] == "human"
    assert server.ends == {}


def test_what_a_new_body_no_longer_comes_by_is_a_persons_to_undo(server):
    ship = {"key": "ship", "state": "done", "ok": "cabin 3", "fingerprint": "0" * 64, "undo": {"name": "x"}}
    server.journals["run_1"]["ship"] = ship
    with working(server, trip) as worker:
        server.offer("trip")
        server.until(lambda: server.bodies("undo/ship/end") and not worker._claims)
    assert undone(server) == ["undo/hotel/end", "undo/flight/end"]
    assert "by hand" in server.bodies("undo/ship/end")[0]["review"]["output"]["message"]
    assert server.ends == {}, "it ends when a person has settled that"


def test_a_wait_gives_the_run_up_and_a_distant_retry_gives_it_back(server):
    @run(name="waiting")
    def waiting(_):
        return outlast.wait_for("paid", timeout=60).payload

    server.on("/wait", (200, {"do": "parked"}), (200, {"do": "go", "signal": {"name": "paid", "payload": 5}}))
    with working(server, waiting, doubling) as worker:
        server.offer("waiting")
        server.until(lambda: server.bodies("/wait") and not worker._claims)
        assert server.ends == {} and server.released == []
        server.offer("waiting")
        server.until(lambda: "run_1" in server.ends)
        assert server.ends["run_1"]["ok"] == 5
        assert server.bodies("/wait")[0] == {"epoch": 7, "key": "wait/paid", "signals": ["paid"], "timer_s": 60}
        server.on("double/end", (200, {"step": "again", "after_ms": 90_000}))
        server.offer("doubling", 1, run="run_2")
        server.until(lambda: server.released and not worker._claims)
    assert server.released == [("run_2", 90.0)]


def test_a_person_approves_other_arguments(server):
    @run(name="asking")
    def asking(_):
        return outlast.approve("May we?", {"amount": 50}).arguments

    begun = {"do": "execute", "attempt": 1, "epoch": 7, "idempotency_key": "k", "deadline_ms": 5000}
    parked = (200, {"do": "parked", "why": "approval", "escalation": {"id": "e1", "url": "/"}})
    server.on("approve/begin", parked, (200, {**begun, "decision": {"verb": "edit", "arguments": {"amount": 20}}}))
    with working(server, asking) as worker:
        server.offer("asking")
        server.until(lambda: server.bodies("approve/begin") and not worker._claims)
        server.offer("asking")
        server.until(lambda: "run_1" in server.ends)
    assert server.ends["run_1"]["ok"] == {"amount": 20}
    asked = server.bodies("approve/begin")[0]
    assert asked["needs_approval"] and asked["strict"] and asked["question"] == "May we?"


def test_a_tool_is_called_in_the_runs_name_and_waited_for(server):
    @run(name="calling")
    def calling(_):
        return outlast.tool("ship", {"to": "Bern"}, key="order-1")

    busy = (409, {"error": {"message": "in flight", "code": "step_in_flight"}}, {"retry-after": "0"})
    server.on("/v1/tools/ship", busy, (200, {"parcel": 1}))
    assert executed(server, calling)["ok"] == {"parcel": 1}
    headers = [call[3] for call in server.calls if call[1] == "/v1/tools/ship"][0]
    assert headers["x-outlast-run"] == "run_1" and headers["x-outlast-epoch"] == "7"
    assert headers["idempotency-key"] == "order-1" and headers["x-outlast-step"] == "tool/ship/order-1"


@pytest.mark.parametrize("code", ["run_overdue", "run_over_budget"])
def test_a_run_out_of_time_or_money_undoes_and_fails(server, code):
    server.on("hotel/begin", (409, {"error": {"message": "too late", "code": code}}))
    end = executed(server, trip)
    assert undone(server) == ["undo/flight/end"] and end["error"]["failure"] == code


def test_mistakes_are_told_in_plain_words(server):
    said = []

    def told(fn):
        try:
            fn()
        except (outlast.OutlastError, StepFailed) as error:
            said.append(str(error))

    @run(name="mistaken")
    def mistaken(_):
        step("one", twice, 1)
        told(lambda: step("one", twice, 2))
        told(lambda: step("set", twice, {1, 2}))
        told(lambda: step("object", object))
        told(lambda: step("async", twice_async, 1))
        told(lambda: step("nested", lambda: step("inner", twice, 1)))
        told(lambda: asyncio.run(aio.sleep(1)))

    executed(server, mistaken)
    told(lambda: step("nowhere", twice, 1))
    for text in (
        "the key 'one'",
        "type set at [0]",
        "type object",
        "is async",
        "do not nest",
        "use outlast.",
        "Worker",
    ):
        assert any(text in one for one in said), (text, said)


def test_a_task_group_may_wrap_what_stops_the_run(server):
    @run(name="grouped")
    async def grouped(_):
        async def part(name):
            return await aio.step(name, twice_async, 1)

        if not hasattr(asyncio, "TaskGroup"):
            await part("a")
        async with asyncio.TaskGroup() as group:
            group.create_task(part("a"))
            group.create_task(part("b"))

    server.on("a/begin", (200, {"do": "parked", "why": "approval", "escalation": {"id": "e1"}}))
    with working(server, grouped) as worker:
        server.offer("grouped")
        server.until(lambda: server.bodies("a/begin") and not worker._claims)
    assert server.ends == {}


def test_a_stopping_worker_gives_its_runs_back_and_leaves(server):
    started, go = threading.Event(), threading.Event()

    @run(name="busy")
    def busy(_):
        step("first", twice, 1)
        started.set()
        assert go.wait(10)
        step("second", twice, 1)

    with working(server, busy) as worker:
        server.offer("busy")
        assert started.wait(10)
        worker.stop()
        go.set()
    assert server.released == [("run_1", 0.0)] and server.bodies("second/begin") == []
    said = [call[:2] for call in server.calls]
    assert ("POST", f"/v1/workers/{worker.id}/drain") in said and ("DELETE", f"/v1/workers/{worker.id}") in said


def test_a_worker_serves_on_the_loop_of_its_caller(server):
    async def main():
        loops = []

        @run(name="inside")
        async def inside(input):
            loops.append(asyncio.get_running_loop())
            return await aio.step("double", twice_async, input)

        worker = Worker([inside], outlast.AsyncOutlast(server.url), wait=1)
        serving = asyncio.create_task(worker.serve())
        server.offer("inside", 4)
        await asyncio.to_thread(server.until, lambda: "run_1" in server.ends)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(main())
    assert server.ends["run_1"]["ok"] == 8
