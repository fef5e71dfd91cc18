"""Starting runs, telling them things, asking for their results."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from .definition import Workflow
from .errors import RunCancelled, RunFailed, StepMismatch, StillGoing, ToolFailed
from .flow import Call, Flow, Pause, Reply, drive, drive_async, now
from .steps import tool_error
from .transport import (
    AsyncHttpSender,
    HttpSender,
    Settings,
    accepted,
    exchange,
    retry_after,
)
from .values import recorded

#: Seconds for which one question for a result is held open.
_HOLD = 25.0


class _Calls:
    """Every call as a flow; the two clients perform them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def exchange(self, call: Call) -> Flow[Reply]:
        return exchange(call, self.settings)

    def start(self, workflow: str | Workflow, input: Any, options: dict[str, Any]) -> Flow[str]:
        key = options.pop("idempotency_key", None)
        # An id of the caller's own starts the run once, too.
        headers = {} if key is None and options["id"] else {"idempotency-key": key or str(uuid.uuid4())}
        body: dict[str, Any] = {"input": recorded(input, "the run's input")}
        if isinstance(workflow, Workflow):
            body.update(workflow=workflow.name, version=workflow.version, queue=workflow.queue)
        else:
            body["workflow"] = workflow
        body.update({name: value for name, value in options.items() if value is not None})
        reply = yield from self.exchange(Call("POST", "/v1/runs", body, headers))
        return str(accepted(reply, 200, 201)["id"])

    def get(self, run: str) -> Flow[dict[str, Any]]:
        reply = yield from self.exchange(Call("GET", _run(run)))
        view: dict[str, Any] = accepted(reply, 200)
        return view

    def journal(self, run: str) -> Flow[list[dict[str, Any]]]:
        steps: list[dict[str, Any]] = []
        params: dict[str, str] = {}
        while True:
            page = accepted((yield from self.exchange(Call("GET", f"{_run(run)}/journal", params=params))), 200)
            steps += page["steps"]
            if page.get("next") is None:
                return steps
            params = {"after": str(page["next"])}

    def result(self, run: str, timeout: float | None) -> Flow[Any]:
        until = None if timeout is None else now() + timeout
        while True:
            left = _HOLD if until is None else max(0.0, min(_HOLD, until - now()))
            params = {"wait_s": str(int(left))}
            reply = yield from self.exchange(Call("GET", f"{_run(run)}/result", params=params, read_s=left + 10))
            body = accepted(reply, 200, 202)
            if reply.status == 200:
                return _result(run, body)
            if until is not None and now() >= until:
                raise StillGoing(f"run {run} is {body.get('state')}")
            # A server that does not hold the question open is not asked without a pause.
            yield Pause(min(0.2, left) if left < 1 else 0.0)

    def signal(self, run: str, name: str, payload: Any, id: str | None) -> Flow[bool]:
        body = {"name": name, "id": id or str(uuid.uuid4()), "payload": recorded(payload, "the signal's payload")}
        reply = yield from self.exchange(Call("POST", f"{_run(run)}/signals", body))
        return bool(accepted(reply, 200, 202).get("first", True))

    def cancel(self, run: str) -> Flow[str]:
        reply = yield from self.exchange(Call("POST", f"{_run(run)}/cancel", {}))
        return str(accepted(reply, 200, 202).get("state"))

    def tool(self, name: str, arguments: Any, key: str | None, timeout: float) -> Flow[Any]:
        headers = {"idempotency-key": key} if key is not None else {}
        body = recorded(arguments, f"tool {name!r}: its arguments")
        call = Call("POST", f"/v1/tools/{quote(name, safe='')}", body, headers, read_s=timeout)
        until = now() + timeout
        while True:
            reply = yield from self.exchange(call)
            if reply.status in (200, 202):
                return reply.body
            after = retry_after(reply.headers, 1.0)
            if reply.status not in (409, 503) or now() + after >= until:
                raise tool_error(f"tool/{name}", reply)
            yield Pause(after)

    def escalations(self) -> Flow[Any]:
        return accepted((yield from self.exchange(Call("GET", "/v1/escalations"))), 200)

    def escalation(self, id: str) -> Flow[dict[str, Any]]:
        found: dict[str, Any] = accepted((yield from self.exchange(Call("GET", _escalation(id)))), 200)
        return found

    def decide(self, id: str, verb: str, shown: str, more: dict[str, Any]) -> Flow[Any]:
        body = {"verb": verb, "shown": shown, **recorded(more, "the decision")}
        return accepted((yield from self.exchange(Call("POST", f"{_escalation(id)}/decide", body))), 200)


class Outlast:
    """The server, from a thread. Safe to share between threads.

    `base_url` and `api_key` are read from `OUTLAST_URL` and `OUTLAST_API_KEY` where they are not given. Every call is
    repeated on a lost connection, for `retry_for` seconds at most.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None, *, retry_for: float = 60.0) -> None:
        self.settings = Settings.find(base_url, api_key, retry_for=retry_for)
        self._calls = _Calls(self.settings)
        self._sender = HttpSender(self.settings)

    def start(
        self,
        workflow: str | Workflow,
        input: Any = None,
        *,
        id: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        priority: str | None = None,
        after_s: float | None = None,
        deadline_s: float | None = None,
        cost_max_usd: float | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Starts a run and answers with its id. The same `id` or `idempotency_key` starts it once."""
        options = {name: value for name, value in locals().items() if name not in ("self", "workflow", "input")}
        return drive(self._calls.start(workflow, input, options), self._sender)

    def get(self, run: str) -> dict[str, Any]:
        """The run as it stands."""
        return drive(self._calls.get(run), self._sender)

    def journal(self, run: str) -> list[dict[str, Any]]:
        """All its recorded steps, in their order."""
        return drive(self._calls.journal(run), self._sender)

    def result(self, run: str, timeout: float | None = None) -> Any:
        """Waits for the run's end.

        Raises:
            RunFailed, RunCancelled: it ended otherwise. StillGoing: not within `timeout` seconds.
        """
        return drive(self._calls.result(run, timeout), self._sender)

    def signal(self, run: str, name: str, payload: Any = None, *, id: str | None = None) -> bool:
        """Tells the run something. The same `id` again is the same signal: False."""
        return drive(self._calls.signal(run, name, payload, id), self._sender)

    def cancel(self, run: str) -> str:
        """Cancels the run; its worker undoes what it did. Answers with its state, or `asked`."""
        return drive(self._calls.cancel(run), self._sender)

    def tool(self, name: str, arguments: Any = None, *, key: str | None = None, timeout: float = 120.0) -> Any:
        """Calls a tool outside of any run. `key` is needed where the tool changes the world."""
        return drive(self._calls.tool(name, arguments, key, timeout), self._sender)

    def escalations(self) -> Any:
        """What waits for a person."""
        return drive(self._calls.escalations(), self._sender)

    def escalation(self, id: str) -> dict[str, Any]:
        """One of them, with `shown`: what a decision has to name."""
        return drive(self._calls.escalation(id), self._sender)

    def decide(self, id: str, verb: str, *, shown: str, **more: Any) -> Any:
        """Decides, with a reviewer's key: `result=`, `output=`, `arguments=`, `target=`, `tool=`, `note=`."""
        return drive(self._calls.decide(id, verb, shown, more), self._sender)

    def close(self) -> None:
        """Closes the connections."""
        self._sender.close()

    def __enter__(self) -> Outlast:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncOutlast:
    """The server, from an event loop: `Outlast`, awaited."""

    def __init__(self, base_url: str | None = None, api_key: str | None = None, *, retry_for: float = 60.0) -> None:
        self.settings = Settings.find(base_url, api_key, retry_for=retry_for)
        self._calls = _Calls(self.settings)
        self._sender = AsyncHttpSender(self.settings)

    async def start(
        self,
        workflow: str | Workflow,
        input: Any = None,
        *,
        id: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        priority: str | None = None,
        after_s: float | None = None,
        deadline_s: float | None = None,
        cost_max_usd: float | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """As `Outlast.start`."""
        options = {name: value for name, value in locals().items() if name not in ("self", "workflow", "input")}
        return await drive_async(self._calls.start(workflow, input, options), self._sender)

    async def get(self, run: str) -> dict[str, Any]:
        """As `Outlast.get`."""
        return await drive_async(self._calls.get(run), self._sender)

    async def journal(self, run: str) -> list[dict[str, Any]]:
        """As `Outlast.journal`."""
        return await drive_async(self._calls.journal(run), self._sender)

    async def result(self, run: str, timeout: float | None = None) -> Any:
        """As `Outlast.result`."""
        return await drive_async(self._calls.result(run, timeout), self._sender)

    async def signal(self, run: str, name: str, payload: Any = None, *, id: str | None = None) -> bool:
        """As `Outlast.signal`."""
        return await drive_async(self._calls.signal(run, name, payload, id), self._sender)

    async def cancel(self, run: str) -> str:
        """As `Outlast.cancel`."""
        return await drive_async(self._calls.cancel(run), self._sender)

    async def tool(self, name: str, arguments: Any = None, *, key: str | None = None, timeout: float = 120.0) -> Any:
        """As `Outlast.tool`."""
        return await drive_async(self._calls.tool(name, arguments, key, timeout), self._sender)

    async def escalations(self) -> Any:
        """As `Outlast.escalations`."""
        return await drive_async(self._calls.escalations(), self._sender)

    async def escalation(self, id: str) -> dict[str, Any]:
        """As `Outlast.escalation`."""
        return await drive_async(self._calls.escalation(id), self._sender)

    async def decide(self, id: str, verb: str, *, shown: str, **more: Any) -> Any:
        """As `Outlast.decide`."""
        return await drive_async(self._calls.decide(id, verb, shown, more), self._sender)

    async def close(self) -> None:
        """Closes the connections."""
        await self._sender.close()

    async def __aenter__(self) -> AsyncOutlast:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _result(run: str, body: Any) -> Any:
    if body["state"] == "done":
        return body.get("output")
    if body["state"] == "cancelled":
        raise RunCancelled(f"run {run} was cancelled")
    raise RunFailed(run, body.get("error"))


def _run(run: str) -> str:
    return f"/v1/runs/{quote(run, safe='')}"


def _escalation(id: str) -> str:
    return f"/v1/escalations/{quote(id, safe='')}"
