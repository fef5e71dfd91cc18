"""Outlast's own package against a real server: workers that die, hang and leave, and what becomes of their runs."""

import signal
import sqlite3
import subprocess
import sys

import outlast
import pytest
from sdk_world import HERE, ROOT, Downstream, Program, Server, until


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
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def work(server, downstream):
    """Starts worker processes."""
    workers = []

    def work(workflow, lease=30.0, **environment):
        log = f"worker-{len(workers)}.log"
        workers.append(
            Program(server, downstream, HERE / "sdk_programs.py", workflow, lease, log=log, **environment)
        )
        return workers[-1]

    yield work
    for worker in workers:
        worker.close()


both = pytest.mark.parametrize("kind", ["sync", "async"])


def queued(client, workflow, input=None, **more):
    return client.start(workflow, input, queue="default", **more)


def waiting_for_a_person(client, run):
    view = until(lambda: (found := client.get(run))["state"] == "parked" and found, "parking")
    return view["parked"]["escalation"]["id"]


def decide(server, id, verb, **more):
    with server.reviewer() as reviewer:
        reviewer.decide(id, verb, shown=reviewer.escalation(id)["shown"], **more)


@both
def test_a_killed_workers_run_goes_on_from_its_last_step(client, downstream, work, kind):
    gate = downstream.hold("/e1")
    first = work(f"three-{kind}", lease=1)
    run = queued(client, f"three-{kind}", "a")
    until(lambda: "/e1" in downstream.paths(), "the second effect")
    first.kill()
    gate.set()
    work(f"three-{kind}")
    assert client.result(run, timeout=20) == [["a", 0], ["a", 1], ["a", 2]]
    assert downstream.effects() == {"/e0": 1, "/e1": 1, "/e2": 1}
    assert downstream.paths().count("/e0") == 1, "what is recorded is not even sent again"
    epochs = [epoch for path, _, _, epoch in downstream.calls if path == "/e1"]
    assert len(epochs) == 2 and int(epochs[0]) < int(epochs[1])


@both
def test_a_stopped_worker_that_wakes_up_changes_nothing(client, downstream, work, kind):
    gate = downstream.hold("/e1")
    zombie = work(f"three-{kind}", lease=1)
    run = queued(client, f"three-{kind}", "a")
    until(lambda: "/e1" in downstream.paths(), "the second effect")
    zombie.send(signal.SIGSTOP)
    gate.set()
    work(f"three-{kind}")
    assert client.result(run, timeout=20) == [["a", 0], ["a", 1], ["a", 2]]
    before = client.journal(run)
    zombie.send(signal.SIGCONT)
    until(lambda: "lost" in zombie.said(), "the zombie's insight")
    assert client.journal(run) == before
    assert downstream.effects() == {"/e0": 1, "/e1": 1, "/e2": 1}
    assert downstream.paths().count("/e2") == 1, "the zombie began nothing"


@both
def test_an_effect_of_class_once_is_left_to_a_person_and_happens_once(server, client, downstream, work, kind):
    downstream.hold("/mail")
    first = work(f"once-{kind}", lease=1)
    run = queued(client, f"once-{kind}", "hello")
    until(lambda: downstream.calls, "the mail")
    first.kill()
    work(f"once-{kind}")
    id = waiting_for_a_person(client, run)
    # The person looks at the downstream: it is there.
    assert downstream.effects() == {"/mail": 1}
    decide(server, id, "happened", result="hello")
    assert client.result(run, timeout=20) == "hello"
    assert downstream.effects() == {"/mail": 1}


@both
def test_a_run_that_fails_is_undone_backwards(client, downstream, work, kind):
    work(f"trip-{kind}")
    run = queued(client, f"trip-{kind}", "fail")
    with pytest.raises(outlast.RunFailed, match="no car"):
        client.result(run, timeout=20)
    assert [body for path, body, *_ in downstream.calls if path == "/undo"] == ["hotel", "flight"]


@both
def test_a_cancelled_run_is_undone_backwards(client, downstream, work, kind):
    work(f"trip-{kind}")
    run = queued(client, f"trip-{kind}")
    until(lambda: client.get(run)["state"] == "waiting", "the wait")
    client.cancel(run)
    with pytest.raises(outlast.RunCancelled):
        client.result(run, timeout=20)
    assert [body for path, body, *_ in downstream.calls if path == "/undo"] == ["hotel", "flight"]


@both
def test_undoing_goes_on_after_a_kill(client, downstream, work, kind):
    gate = downstream.hold("/undo")
    first = work(f"trip-{kind}", lease=1)
    run = queued(client, f"trip-{kind}", "fail")
    until(lambda: "/undo" in downstream.paths(), "the undoing")
    first.kill()
    gate.set()
    work(f"trip-{kind}")
    with pytest.raises(outlast.RunFailed, match="no car"):
        client.result(run, timeout=20)
    assert downstream.effects() == {"/flight": 1, "/hotel": 1, "/undo": 2}


@both
def test_a_drained_worker_gives_its_run_back_at_the_next_step(client, downstream, work, kind):
    gate = downstream.hold("/e1")
    leaving = work(f"three-{kind}", lease=600)
    run = queued(client, f"three-{kind}", "a")
    until(lambda: "/e1" in downstream.paths(), "the second effect")
    leaving.send(signal.SIGTERM)
    until(lambda: client.get(run)["worker"] is not None, "the run in hand")
    gate.set()
    assert leaving.ended() == 0
    assert client.get(run)["state"] == "ready", "not after ten minutes of its lease, but now"
    work(f"three-{kind}")
    assert client.result(run, timeout=20)
    assert downstream.paths() == ["/e0", "/e1", "/e2"], "nothing was done twice"


@both
def test_signals_are_kept_until_they_are_waited_for(client, work, kind):
    run = queued(client, f"signals-{kind}")
    assert client.signal(run, "paid", {"by": "card"}, id="s1")
    assert not client.signal(run, "paid", {"by": "card"}, id="s1")
    work(f"signals-{kind}")
    assert client.result(run, timeout=20) == ["paid", {"by": "card"}, None]


@both
def test_a_run_waits_without_a_worker_and_wakes_by_a_signal(client, work, kind):
    first = work(f"signals-{kind}")
    run = queued(client, f"signals-{kind}")
    until(lambda: client.get(run)["state"] == "waiting", "the wait")
    first.kill()
    client.signal(run, "refused")
    work(f"signals-{kind}")
    assert client.result(run, timeout=20) == ["refused", None, None]


@both
@pytest.mark.parametrize("verb", ["approve", "edit", "deny"])
def test_a_person_approves_changes_or_denies(server, client, downstream, work, kind, verb):
    work(f"approval-{kind}")
    run = queued(client, f"approval-{kind}", 50)
    id = waiting_for_a_person(client, run)
    assert downstream.calls == []
    decide(server, id, verb, **({"arguments": {"amount": 20}} if verb == "edit" else {}))
    if verb == "deny":
        with pytest.raises(outlast.RunFailed):
            client.result(run, timeout=20)
        assert downstream.calls == []
    else:
        assert client.result(run, timeout=20) == {"amount": 20 if verb == "edit" else 50}
        assert downstream.effects() == {"/refund": 1}


@both
def test_tools_are_steps_of_the_run_and_survive_its_worker(client, downstream, work, kind):
    gate = downstream.hold("/ship")
    first = work(f"tools-{kind}", lease=1)
    run = queued(client, f"tools-{kind}", "o1")
    until(lambda: "/ship" in downstream.paths(), "the shipment")
    first.kill()
    gate.set()
    work(f"tools-{kind}")
    assert client.result(run, timeout=30) == [{"order": "o1"}, {"order": "o1"}]
    assert downstream.effects()["/ship"] == 1 and downstream.paths().count("/look_up") == 1


@both
def test_a_transaction_is_found_by_its_key_after_a_kill(server, client, work, kind):
    shop = sqlite3.connect(server.folder / "shop.db")
    shop.execute("CREATE TABLE bookings (what TEXT)")
    outlast.create_effects_table(shop)
    first = work(f"booking-{kind}", lease=1)
    run = queued(client, f"booking-{kind}", "room 7")
    assert first.ended() == -signal.SIGKILL, "it dies between its commit and the end of the step"
    work(f"booking-{kind}")
    assert client.result(run, timeout=20) == {"booked": "room 7"}
    assert shop.execute("SELECT what FROM bookings").fetchall() == [("room 7",)]


def test_a_killed_server_is_waited_for(server, client, downstream, work):
    gate = downstream.hold("/e1")
    work("three-sync")
    run = queued(client, "three-sync", "a")
    until(lambda: "/e1" in downstream.paths(), "the second effect")
    server.kill()
    gate.set()
    server.start()
    assert client.result(run, timeout=30) == [["a", 0], ["a", 1], ["a", 2]]
    assert downstream.effects() == {"/e0": 1, "/e1": 1, "/e2": 1}


def test_an_unknown_outcome_is_asked_about_after_a_kill(client, downstream, work):
    gate = downstream.hold("/send")
    first = work("asked-sync", lease=1)
    run = queued(client, "asked-sync", "hello")
    until(lambda: "/send" in downstream.paths(), "the sending")
    first.kill()
    gate.set()
    took = downstream.took

    def answer(path, body, headers):
        if path != "/arrived":
            return took(path, body, headers)
        downstream.calls.append((path, None, None, None))
        return {"found": downstream.results.get(headers["x-key"], {}).get("took")}

    downstream.took = answer
    work("asked-sync")
    assert client.result(run, timeout=30) == "hello"
    assert downstream.paths() == ["/send", "/arrived"], "asked, and not sent again"


@both
def test_a_program_without_a_worker_goes_on_where_it_died(client, downstream, work, kind):
    assert work(f"program-{kind}").ended() == -signal.SIGKILL
    again = work(f"program-{kind}")
    assert again.ended() == 0, again.said()
    replayed = work(f"program-{kind}")
    assert replayed.ended() == 0, replayed.said()
    assert "ended ['a', 'b']" in again.said() and again.said()[-30:] == replayed.said()[-30:], "the same reply, too"
    assert downstream.effects() == {"/e0": 1, "/e1": 1} and downstream.paths() == ["/e0", "/e1"]
    assert client.get("nightly")["state"] == "done"


def test_a_worker_serves_a_tool_of_the_config(client, work):
    work("tool:pack")
    assert client.tool("pack", {"order": 1}, key="o1") == {"packed": {"order": 1}}
    assert client.tool("pack", {"order": 1}, key="o1") == {"packed": {"order": 1}}
    with pytest.raises(outlast.StepMismatch):
        client.tool("pack", {"order": 2}, key="o1")


def test_a_changed_effect_is_refused_and_a_changed_look_up_is_replayed(client, server, downstream):
    """The body changed under a recorded run, as a new release might."""
    said = {"amount": 1}

    @outlast.run(name="changing")
    def changing(_):
        outlast.step("look", lambda n: n, said["amount"])
        outlast.step("pay", lambda n: n, said["amount"], effect="once")
        outlast.wait_for("go")
        return "done"

    with outlast.Worker([changing], client, wait=1):
        run = client.start(changing)
        until(lambda: client.get(run)["state"] == "waiting", "the wait")
        said["amount"] = 2
        client.signal(run, "go")
        with pytest.raises(outlast.RunFailed, match="pay"):
            client.result(run, timeout=20)
    look, pay, *_ = client.journal(run)
    assert (look["ok"], look["divergences"]) == (1, 1) and pay["ok"] == 1


def test_the_packages_own_code_is_typed_strictly():
    sdk = ROOT / "sdk/python"
    command = [sys.executable, "-m", "mypy", "--cache-dir", f"{sys.prefix}/mypy", "src", "examples"]
    checked = subprocess.run(command, cwd=sdk, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
