"""The parts of a run, as flows: a step, a tool's call, a wait, a person's approval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .claim import Attempt, Claim, Done, current_attempt, is_async
from .effects import ABSENT, Effect, Retry, Undo
from .errors import (
    Cancelled,
    Denied,
    LeaseLost,
    NotDone,
    NothingMoreMayBegin,
    NotJson,
    NotYet,
    OutlastError,
    Parked,
    ServerLost,
    StepFailed,
    StepMismatch,
    ToolFailed,
    Unreachable,
    Waiting,
)
from .flow import Call, Do, Flow, Pause, Reply, now
from .journal import End, find, reach
from .transport import api_error, error_code, exchange, retry_after
from .values import fingerprint, recorded

#: Characters of an exception's text that are written down.
MESSAGE = 2000
#: Characters of a name, which is for people.
NAME = 128


@dataclass(frozen=True)
class Step:
    """What is to be done, before its arguments."""

    key: str
    name: str
    effect: Effect
    kind: str = "code"
    timeout: float = 60.0
    retry: Retry | None = None
    undo: Undo | None = None
    scope: str | None = None
    business_key: str | None = None
    question: str | None = None
    strict: bool = False
    undoes: str | None = None


@dataclass(frozen=True)
class Signal:
    """What a run was told."""

    name: str
    payload: Any


@dataclass(frozen=True)
class Approval:
    """A person's yes."""

    #: As they were approved: the person may have changed them.
    arguments: Any
    #: What else the person decided: verb, name, note.
    decision: Any = None


def call(claim: Claim, step: Step, fn: Callable[..., Any], args: tuple[Any, ...]) -> Flow[Any]:
    """Does a step, or takes what is recorded of it.

    Raises:
        StepFailed: it failed for good. StepMismatch: its key stands for other arguments. NotJson: its arguments or its
            result cannot be written down. A `Stop`: the run does not go on here.
    """
    if step.undo is not None and claim.epoch is None:
        raise OutlastError(f"step {step.key!r}: a program has no worker to undo it; only runs of a Worker have undo=")
    arguments = recorded(args, f"step {step.key!r}: its arguments")
    print_ = fingerprint(arguments)
    claim.use(step.key)
    claim.check()
    yield from reach(claim, step.key)
    end = yield from find(claim, step.key, print_)
    if end is None:
        end = yield from _attempts(claim, step, fn, args, arguments, print_)
    if end.failed:
        raise _failed(step.key, end.error, end.cause)
    if step.undo is not None:
        claim.undos.append(Done(step.key, end.value, step.undo))
    return end.value


def _attempts(
    claim: Claim, step: Step, fn: Callable[..., Any], args: tuple[Any, ...], arguments: Any, print_: str
) -> Flow[End]:
    cause: BaseException | None = None
    while True:
        claim.check()
        asked = now()
        begun = yield from _begin(claim, step, arguments, print_)
        match begun["do"]:
            case "replay":
                if "error" in begun:
                    return End(failed=True, error=begun["error"], cause=cause)
                return End(value=begun.get("ok"))
            case "parked":
                raise Parked(str(begun.get("why")), begun.get("escalation"))
            case "verify":
                outcome, cause = yield from _verify(claim, step, begun, args, asked)
            case "execute":
                outcome, cause = yield from _execute(claim, step, begun, fn, args, asked)
            case other:
                raise OutlastError(f"step {step.key}: the server says {other!r}; is this package too old for it?")
        ended = yield from _end(claim, step, begun, outcome)
        match ended["step"]:
            case "done":
                return End(value=outcome.get("ok"))
            case "failed":
                return End(failed=True, error=outcome.get("error"), cause=cause)
            case "parked":
                raise Parked(str(ended.get("why")), ended.get("escalation"))
            case _:
                yield from _hold(claim, float(ended.get("after_ms", 0)) / 1000)


def _begin(claim: Claim, step: Step, arguments: Any, print_: str) -> Flow[Any]:
    body: dict[str, Any] = {
        "kind": step.kind,
        "name": step.name[:NAME],
        "class": step.effect.wire,
        "input": arguments,
        "fingerprint": print_,
        "timeout_s": step.timeout,
        **_lease(claim),
    }
    more = {
        "retry": step.retry.wire() if step.retry else None,
        "scope": step.scope,
        "key": step.business_key,
        "question": step.question,
        "needs_approval": True if step.question else None,
        "strict": True if step.strict else None,
        "undo": {"name": step.undo.fn.__name__} if step.undo else None,
        "undoes": step.undoes,
    }
    body.update({name: value for name, value in more.items() if value is not None})
    while True:
        reply = yield from ask(claim, Call("POST", f"{path(claim, step.key)}/begin", body))
        if reply.status == 200:
            return reply.body
        if claim.epoch is None and error_code(reply) == "no_such_run":
            yield from _begin_program(claim)
            continue
        yield from _refused(claim, step.key, reply)


def _lease(claim: Claim) -> dict[str, Any]:
    # A step with a claim of its own keeps it for as long as its attempt may take.
    return {} if claim.epoch is None else {"epoch": claim.epoch, "lease_s": claim.lease_s}


def _begin_program(claim: Claim) -> Flow[None]:
    started = {"id": claim.run, "workflow": claim.workflow, "version": claim.version, "unclaimed": True}
    reply = yield from ask(claim, Call("POST", "/v1/runs", started))
    # It may have been begun meanwhile, by a model's call: that is as good.
    if reply.status not in (200, 201, 422):
        raise api_error(reply)


def _refused(claim: Claim, key: str, reply: Reply) -> Flow[None]:
    """Waits where waiting helps, else raises what the refusal stands for."""
    code = error_code(reply)
    if reply.status == 409 and code in ("step_in_flight", "step_not_yet", "in_flight", "not_yet"):
        yield from _hold(claim, retry_after(reply.headers, 1.0))
        return
    stop(claim, reply)
    if reply.status == 422:
        raise StepMismatch(f"step {key}: {api_error(reply).message}")
    raise api_error(reply)


def stop(claim: Claim, reply: Reply) -> None:
    """Raises what ends this worker's hold on the run, if this answer does."""
    code = error_code(reply)
    if code == "lease_lost":
        claim.lose()
        raise LeaseLost(api_error(reply).message)
    if code == "run_cancelled":
        claim.cancel()
        raise Cancelled(api_error(reply).message)
    if code in ("run_overdue", "run_over_budget"):
        raise NothingMoreMayBegin(code, api_error(reply).message)


def _execute(
    claim: Claim, step: Step, begun: Any, fn: Callable[..., Any], args: tuple[Any, ...], asked: float
) -> Flow[tuple[dict[str, Any], BaseException | None]]:
    deadline = asked + float(begun["deadline_ms"]) / 1000
    decision = begun.get("decision")
    edited = decision.get("arguments") if isinstance(decision, dict) else None
    given = tuple(edited) if step.question and isinstance(edited, list) else args
    key = str(begun.get("idempotency_key", ""))
    attempt = Attempt(step.key, key, int(begun["attempt"]), int(begun["epoch"]), deadline, decision)
    if attempt.remaining <= 0:
        # This process slept, or the server's answer took so long. By now somebody else may be at it.
        return {"error": {"message": "not begun in time", "final": False, "sent": False}}, None
    try:
        result = yield from _perform(claim, step, attempt, fn, given)
    except NotDone as error:
        return _not_done(step, error), error
    except Exception as error:
        outcome = _raised(step, error)
        if attempt.cost_usd:
            outcome["cost_usd"] = attempt.cost_usd
        return outcome, error
    outcome = {"ok": result}
    if attempt.cost_usd:
        outcome["cost_usd"] = attempt.cost_usd
    return outcome, None


def _perform(claim: Claim, step: Step, attempt: Attempt, fn: Callable[..., Any], args: tuple[Any, ...]) -> Flow[Any]:
    """Calls the function, as the attempt that it can ask about."""
    token = object()
    task = asyncio.current_task() if is_async.get() else None
    here = current_attempt.set(attempt)
    claim.under_way[token] = attempt.deadline
    if task is not None:
        claim.tasks.add(task)
    try:
        if step.effect.table is not None:
            key = attempt.idempotency_key
            result = yield Do(step.effect.table.once, (key, fn, args))
        else:
            result = yield Do(fn, args, attempt.remaining)
        return recorded(result, f"step {step.key!r}: its result")
    finally:
        current_attempt.reset(here)
        claim.under_way.pop(token, None)
        if task is not None:
            claim.tasks.discard(task)


def _raised(step: Step, error: Exception) -> dict[str, Any]:
    message = _text(error)
    if not step.effect.is_pure:
        return {"unknown": {"message": message}}
    return {"error": {"message": message, "final": isinstance(error, (NotJson, OutlastError))}}


def _not_done(step: Step, error: NotDone) -> dict[str, Any]:
    message = _text(error)
    if error.final and step.undoes is not None:
        # What could not be undone is a person's to settle.
        return {"review": {"why": "human", "output": {"message": message}}}
    proof: dict[str, Any] = {"message": message, "final": error.final, "sent": False}
    if error.retry_after is not None:
        proof["retry_after_s"] = error.retry_after
    return {"error": proof}


def _verify(
    claim: Claim, step: Step, begun: Any, args: tuple[Any, ...], asked: float
) -> Flow[tuple[dict[str, Any], BaseException | None]]:
    check = step.effect.check
    if check is None:
        return {"unknown": {"message": "this step has no check to ask with"}}, None
    key = str(begun.get("idempotency_key", ""))
    deadline = asked + step.timeout
    attempt = Attempt(step.key, key, int(begun["attempt"]), int(begun["epoch"]), deadline)
    here = current_attempt.set(attempt)
    token = object()
    claim.under_way[token] = deadline
    try:
        found = yield Do(check, args, attempt.remaining)
        if found is ABSENT:
            return {"absent": True}, None
        return {"ok": recorded(found, f"step {step.key!r}: what its check found")}, None
    except Exception as error:
        return {"unknown": {"message": _text(error)}}, error
    finally:
        claim.under_way.pop(token, None)
        current_attempt.reset(here)


def _end(claim: Claim, step: Step, begun: Any, outcome: dict[str, Any]) -> Flow[Any]:
    body = {"epoch": begun["epoch"], "attempt": begun["attempt"], **outcome}
    if claim.epoch is not None:
        body["lease_s"] = claim.lease_s
    if step.business_key is not None:
        body["key"] = step.business_key
        if step.scope is not None:
            body["scope"] = step.scope
    reply = yield from ask(claim, Call("POST", f"{path(claim, step.key)}/end", body))
    stop(claim, reply)
    if reply.status != 200:
        raise api_error(reply)
    return reply.body


def _hold(claim: Claim, seconds: float) -> Flow[None]:
    """Waits for so long with the run in hand, or gives it back if that is too long."""
    if seconds > claim.patience:
        raise NotYet(seconds)
    until = now() + seconds
    while (left := until - now()) > 0:
        claim.check()
        if claim.undoing or claim.unwinding:
            yield Pause(min(left, 0.5))
        else:
            yield Pause(left, over=claim.disturbed)
    claim.check()


def tool(claim: Claim, name: str, arguments: Any, *, key: str | None, timeout: float) -> Flow[Any]:
    """Calls a tool of the server's in the name of the run: the server keeps its ledger and retries.

    Raises:
        ToolFailed: it failed for good. StepMismatch: the key stands for other arguments. A `Stop`.
    """
    arguments = recorded(arguments, f"tool {name!r}: its arguments")
    where = f"tool/{name}/{key}" if key else f"tool/{name}"
    claim.use(where)
    yield from reach(claim, where)
    headers = {
        "x-outlast-run": claim.run,
        "x-outlast-epoch": str(claim.epoch),
        "x-outlast-step": quote(where, safe="/:._-"),
    }
    if key is not None:
        headers["idempotency-key"] = key
    request = Call("POST", f"/v1/tools/{quote(name, safe='')}", arguments, headers, read_s=timeout)
    while True:
        claim.check()
        reply = yield from ask(claim, request)
        code = error_code(reply)
        if reply.status == 200:
            return reply.body
        if reply.status == 202:
            parked = reply.body if isinstance(reply.body, dict) else {}
            raise Parked(str(parked.get("parked")), parked.get("escalation"))
        stop(claim, reply)
        # A 503 is not its end: the tool rests, and its budget is not spent.
        if reply.status == 409 or (reply.status == 503 and code == "tool_failed"):
            yield from _hold(claim, retry_after(reply.headers, 1.0))
            continue
        raise tool_error(where, reply)


def run_headers(claim: Claim) -> dict[str, str]:
    """The headers that make a call of the gateway a step of this run."""
    fence = {} if claim.epoch is None else {"x-outlast-epoch": str(claim.epoch)}
    return {"x-outlast-run": claim.run, **fence}


def tool_error(where: str, reply: Reply) -> OutlastError:
    """What an answer for good that is no result stands for."""
    error = api_error(reply)
    if reply.status == 422:
        return StepMismatch(f"{where}: {error.message}")
    if reply.status == 403 or error.code == "tool_failed":
        said = reply.body["error"].get("tool_error") or {"message": error.message}
        return ToolFailed(where, said)
    return error


def wait(claim: Claim, key: str, signals: Sequence[str], timer: dict[str, Any]) -> Flow[Signal | None]:
    """Waits for one of the signals or the timer, and holds no lease meanwhile.

    Raises:
        Waiting: not yet. The run comes back, and the body is gone through anew up to here.
    """
    claim.use(key)
    if claim.epoch is None:
        raise OutlastError(f"{key}: a program has no worker to come back to it; only runs of a Worker wait")
    claim.check()
    yield from reach(claim, key)
    body = {"epoch": claim.epoch, "key": key, "signals": list(signals), **timer}
    reply = yield from ask(claim, Call("POST", f"/v1/runs/{quote(claim.run, safe='')}/wait", body))
    stop(claim, reply)
    if reply.status == 422:
        raise StepMismatch(f"wait {key}: {api_error(reply).message}")
    if reply.status != 200:
        raise api_error(reply)
    if reply.body["do"] == "parked":
        claim.closed = True
        raise Waiting(key)
    told = reply.body.get("signal")
    return Signal(str(told["name"]), told.get("payload")) if isinstance(told, dict) else None


def approve(claim: Claim, key: str, question: str, arguments: Any) -> Flow[Approval]:
    """Asks a person, who sees exactly these arguments.

    Raises:
        Denied: no. Parked: the person has not answered yet.
    """
    asked = recorded(arguments, f"approve {key!r}: its arguments")

    def agreed(_: Any) -> Any:
        decision = current_attempt.get().decision
        edited = decision.get("arguments") if isinstance(decision, dict) else None
        return {"arguments": asked if edited is None else edited, "decision": decision}

    async def agreed_async(given: Any) -> Any:
        return agreed(given)

    step = Step(key, question[:100], Effect("pure"), kind="human", question=question, strict=True)
    try:
        value = yield from call(claim, step, agreed_async if is_async.get() else agreed, (asked,))
    except StepFailed as error:
        raise Denied(error.key, error.error) from error
    if isinstance(value, dict) and "arguments" in value:
        return Approval(value["arguments"], value.get("decision"))
    # A person gave a result, or said to go on without one.
    return Approval(asked if value is None else value)


def ask(claim: Claim, request: Call) -> Flow[Reply]:
    """One call in the name of a run.

    Raises:
        ServerLost: there was no answer; the run goes on elsewhere.
    """
    try:
        return (yield from exchange(request, claim.settings))
    except Unreachable as error:
        claim.lose()
        raise ServerLost(str(error)) from error


def path(claim: Claim, key: str) -> str:
    """Where a step is."""
    return f"/v1/runs/{quote(claim.run, safe='')}/steps/{quote(key, safe='')}"


def _header(text: str) -> str:
    """A text as a header's value: what is not ASCII is escaped, and what would read as an escape."""
    return quote(text, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))


def _failed(key: str, error: Any, cause: BaseException | None) -> StepFailed:
    failed = StepFailed(key, error)
    failed.__cause__ = cause
    return failed


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MESSAGE]
