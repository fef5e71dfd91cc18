"""Starting runs and asking for them, what may be written down, and how often a call is repeated."""

import asyncio
import math
import sys

import pytest
from double import Double

import outlast
from outlast import vendors
from outlast.claim import Claim
from outlast.transport import Settings
from outlast.values import canonical, fingerprint, recorded


@pytest.fixture
def server():
    double = Double()
    yield double
    double.close()


@pytest.fixture(params=["sync", "async"])
def ask(request, server):
    """Calls a method of the client of either kind."""
    if request.param == "sync":
        with outlast.Outlast(server.url, "sk-test", retry_for=1.0) as client:
            yield lambda method, *args, **more: getattr(client, method)(*args, **more)
        return

    async def once(method, *args, **more):
        async with outlast.AsyncOutlast(server.url, "sk-test", retry_for=1.0) as client:
            return await getattr(client, method)(*args, **more)

    yield lambda *args, **more: asyncio.run(once(*args, **more))


@outlast.run(name="refund", version="3", queue="money")
def refund(order):
    return order


def test_a_run_is_started_once_however_often_its_answer_is_lost(server, ask):
    server.on(
        "/v1/runs", None, (503, {"error": {"message": "starting", "code": "unavailable"}}), (201, {"id": "run_9"})
    )
    assert ask("start", refund, {"id": 17}, priority="high", after_s=5) == "run_9"
    keys = {headers["idempotency-key"] for _, path, _, headers in server.calls if path == "/v1/runs"}
    assert len(keys) == 1 and len(server.calls) == 3
    assert server.calls[0][2] == {
        "workflow": "refund",
        "version": "3",
        "queue": "money",
        "input": {"id": 17},
        "priority": "high",
        "after_s": 5,
    }


def test_a_result_is_waited_for(server, ask):
    server.on("/result", (202, {"state": "running"}), (200, {"state": "done", "output": [1]}))
    assert ask("result", "run_1") == [1]
    server.on("/result", (200, {"state": "failed", "error": {"message": "no such order"}}))
    with pytest.raises(outlast.RunFailed, match="no such order"):
        ask("result", "run_1")
    server.on("/result", (200, {"state": "cancelled", "error": None}))
    with pytest.raises(outlast.RunCancelled):
        ask("result", "run_1")
    server.on("/result", *[(202, {"state": "parked"})] * 99)
    with pytest.raises(outlast.StillGoing, match="parked"):
        ask("result", "run_1", timeout=0.05)


def test_signals_cancels_and_decisions_go_where_they_belong(server, ask):
    server.on("/signals", (202, {"first": True}), (202, {"first": False}))
    assert ask("signal", "run:1", "paid", {"by": "card"}, id="s1") is True
    assert ask("signal", "run:1", "paid", {"by": "card"}, id="s1") is False
    assert server.bodies("/signals")[0] == {"name": "paid", "id": "s1", "payload": {"by": "card"}}
    server.on("/cancel", (202, {"state": "cancelled"}))
    assert ask("cancel", "run:1") == "cancelled"
    server.on("/decide", (200, {"decided": True}))
    ask("decide", "esc_1", "happened", shown="ab", result={"id": 4})
    assert server.bodies("/decide") == [{"verb": "happened", "shown": "ab", "result": {"id": 4}}]


def test_an_errors_code_and_message_are_the_servers(server, ask):
    server.on("/v1/runs/none", (404, {"error": {"message": "You have no such run.", "code": "no_such_run"}}))
    with pytest.raises(outlast.ApiError, match="no such run") as caught:
        ask("get", "none")
    assert (caught.value.status, caught.value.code) == (404, "no_such_run")


def test_nobody_is_waited_for_without_end(server, ask):
    server.on("/v1/runs/x", *[None] * 99)
    with pytest.raises(outlast.Unreachable, match="GET /v1/runs/x"):
        ask("get", "x")
    assert 2 <= len(server.calls) <= 12
    server.on("/v1/runs/y", *[(500, {"error": {"message": "broken"}})] * 99)
    with pytest.raises(outlast.Unreachable, match="status 500"):
        ask("get", "y")


def test_a_full_inbox_is_an_answer(server, ask):
    server.on("/signals", (429, {"error": {"message": "too many", "code": "too_many_signals"}}))
    with pytest.raises(outlast.ApiError, match="too_many_signals"):
        ask("signal", "r", "paid")
    assert len(server.calls) == 1


def test_the_server_may_be_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("OUTLAST_URL", "http://gateway:8080/v1/")
    monkeypatch.setenv("OUTLAST_API_KEY", "sk-env")
    settings = Settings.find(None, None)
    assert (settings.base_url, settings.api_key) == ("http://gateway:8080", "sk-env")
    monkeypatch.delenv("OUTLAST_URL")
    with pytest.raises(outlast.OutlastError, match="OUTLAST_URL"):
        outlast.Outlast()


def test_only_json_is_written_down_and_the_error_says_where_it_is_not():
    assert recorded({"a": (1, 2.5, None, True, "ä")}, "x") == {"a": [1, 2.5, None, True, "ä"]}
    for value, place in [
        ({"a": [1, {2}]}, "set at .a[1]"),
        ({1: 2}, "key of type int"),
        (math.nan, "nan"),
        (2**64, "beyond 64 bits"),
        ("\ud800", "half a character"),
        (b"x", "bytes"),
    ]:
        with pytest.raises(outlast.NotJson, match=r"the input.*" + place.replace("[", r"\[").replace(".", r"\.")):
            recorded(value, "the input")
    endless = []
    endless.append(endless)
    with pytest.raises(outlast.NotJson, match="deeper"):
        recorded(endless, "the input")


def test_equal_values_have_one_fingerprint():
    assert fingerprint({"b": 1, "a": [2]}) == fingerprint({"a": [2], "b": 1}) != fingerprint({"a": [2], "b": 2})
    assert canonical({"b": "ä", "a": 1.5}) == '{"a":1.5,"b":"ä"}'
    assert len(fingerprint(None)) == 64


def test_a_missing_vendors_package_is_named(monkeypatch):
    claim = Claim("run_1", 7, 30, "refund", "1", Settings("http://gateway", None))
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(outlast.OutlastError, match=r"outlast\[openai\]"):
        vendors.openai_client("OpenAI", claim, {}, {})
