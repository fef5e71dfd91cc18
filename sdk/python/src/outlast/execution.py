"""A claimed run from its claim to its end, as a flow: the body, then its end or its undoing.

The body is gone through from its top with every claim; recorded steps are not done again. When it fails, or the run is
cancelled, what it did is undone in reverse order. Which of the two it is, is written down first (`outlast/failed`, or
the server's mark), so that a later claim goes on undoing even if the body would not fail a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .claim import Claim, Done
from .effects import Effect, Undo, effect_of
from .errors import (
    Cancelled,
    Draining,
    LeaseLost,
    NothingMoreMayBegin,
    NotDone,
    NotJson,
    NotYet,
    OutlastError,
    Parked,
    ServerLost,
    Stop,
    Unwinding,
    Waiting,
    stop_in,
)
from .flow import Call, Do, Flow, Reply, Settled
from .journal import all_steps, recorded_end
from .steps import MESSAGE, Step, ask, call
from .transport import api_error
from .values import fingerprint, recorded

#: The key under which it is recorded that, and why, the body failed.
FAILED = "outlast/failed"
#: Codes of errors by which the gateway tells a vendor's client in the body that the run does not go on here.
_STOPS = {"lease_lost", "run_cancelled", "run_overdue", "run_over_budget"}

log = logging.getLogger("outlast")


@dataclass
class Ending:
    """Why a run is being undone."""

    #: None: it is cancelled.
    error: Any = None
    #: It is on record already, or cannot be put there.
    known: bool = False


def advance(claim: Claim, body: Callable[..., Any], args: tuple[Any, ...]) -> Flow[str]:
    """Advances a run as far as it goes here. Answers with a word for it."""
    try:
        ending = yield from _go_through(claim, body, args)
        if ending is None:
            return "done"
        claim.undoing = True
        yield from _undo(claim, ending)
        end = {"cancelled": True} if ending.error is None else {"error": ending.error}
        yield from _finish(claim, end)
        return "cancelled" if ending.error is None else "failed"
    except (LeaseLost, ServerLost):
        return "lost"
    except (Parked, Waiting) as stop:
        return type(stop).__name__.lower()
    except Draining:
        yield from _release(claim, 0.0)
        return "given back"
    except NotYet as stop:
        yield from _release(claim, stop.after)
        return "given back until it is due"
    finally:
        claim.closed = True


def _go_through(claim: Claim, body: Callable[..., Any], args: tuple[Any, ...]) -> Flow[Ending | None]:
    """The body; none if the run ended well."""
    failed = yield from recorded_end(claim, FAILED)
    if failed is not None:
        yield from _rewind(claim, body, args)
        return Ending(failed.value, known=True)
    if claim.cancelling:
        yield from _rewind(claim, body, args)
        return Ending()
    claim.begin_pass(unwinding=False)
    try:
        output = yield Do(body, args)
    except Exception as error:
        yield Settled(frozenset(claim.tasks))
        return (yield from _broken(claim, body, args, error))
    except BaseException as error:
        stop = stop_in(error)
        if stop is None:
            raise
        yield Settled(frozenset(claim.tasks))
        return (yield from _stopped(claim, body, args, stop))
    try:
        output = recorded(output, f"run {claim.run}: what its body returned")
    except NotJson as error:
        return Ending(_error(error))
    claim.check_lease()
    yield from _finish(claim, {"ok": output})
    return None


def _broken(claim: Claim, body: Callable[..., Any], args: tuple[Any, ...], error: Exception) -> Flow[Ending]:
    """The body raised. That may be how a vendor's client tells that the run does not go on."""
    inner = stop_in(error)
    if inner is not None:
        return (yield from _stopped(claim, body, args, inner))
    code = getattr(error, "code", None)
    if code in _STOPS:
        yield from _beat(claim)
        if code in ("run_overdue", "run_over_budget"):
            return Ending(_error(error), known=True)
    claim.check_lease()
    if claim.cancelling:
        yield from _rewind(claim, body, args)
        return Ending()
    return Ending(_error(error))


def _stopped(claim: Claim, body: Callable[..., Any], args: tuple[Any, ...], stop: Stop) -> Flow[Ending]:
    if isinstance(stop, Cancelled):
        yield from _rewind(claim, body, args)
        return Ending()
    if isinstance(stop, NothingMoreMayBegin):
        return Ending({"message": stop.message, "failure": stop.code}, known=True)
    raise stop


def _rewind(claim: Claim, body: Callable[..., Any], args: tuple[Any, ...]) -> Flow[None]:
    """Goes through the body as far as the journal reaches, to learn what there is to undo."""
    claim.begin_pass(unwinding=True)
    try:
        yield Do(body, args)
    except Exception as error:
        log.debug("run %s: gone through up to %s", claim.run, type(error).__name__)
    except BaseException as error:
        stop = stop_in(error)
        if not isinstance(stop, (Unwinding, Cancelled, NothingMoreMayBegin)):
            raise
    finally:
        claim.unwinding = False
    yield Settled(frozenset(claim.tasks))


def _undo(claim: Claim, ending: Ending) -> Flow[None]:
    done = yield from _to_be_undone(claim)
    if done and ending.error is not None and not ending.known:
        yield from _write_down(claim, ending.error)
    claim.used.clear()
    for one in reversed(done):
        yield from _undo_one(claim, one)


def _to_be_undone(claim: Claim) -> Flow[list[Done]]:
    """What was done, in the journal's order. What the body no longer comes by is a person's to undo."""
    reached = {done.key: done for done in claim.undos}
    found = []
    for view in (yield from all_steps(claim)):
        if view.get("state") == "done" and view.get("undo") is not None:
            lost = Done(view["key"], view.get("ok"), Undo(_by_hand))
            found.append(reached.pop(view["key"], lost))
    return [*found, *reached.values()]


def _by_hand(_: Any) -> None:
    raise NotDone("the body does not come by this step any more: undo it by hand", final=True)


def _undo_one(claim: Claim, done: Done) -> Flow[None]:
    undo = done.undo
    step = Step(
        key=f"undo/{done.key}",
        name=undo.fn.__name__,
        effect=effect_of(undo.effect),
        kind="undo",
        timeout=undo.timeout,
        retry=undo.retry,
        undoes=done.key,
    )
    try:
        yield from call(claim, step, undo.fn, (done.result,))
    except OutlastError as error:
        # A person has settled it, or nothing more can be done; the rest is undone all the same.
        log.warning("run %s: step %s is not undone: %s", claim.run, done.key, type(error).__name__)


def _write_down(claim: Claim, error: Any) -> Flow[None]:
    print_ = fingerprint(error)
    step = Step(FAILED, "failed", Effect("pure"))

    def why(_: Any) -> Any:
        return error

    log.debug("run %s: failed, fingerprint %s", claim.run, print_[:8])
    yield from call(claim, step, why, (None,))


def _finish(claim: Claim, end: dict[str, Any]) -> Flow[None]:
    reply = yield from _post(claim, "finish", end)
    if reply.status == 410:
        raise LeaseLost(api_error(reply).message)
    if reply.status in (400, 413, 422) and "ok" in end:
        yield from _finish(claim, {"error": {"message": f"its result was refused: {api_error(reply).message}"}})
    elif reply.status != 200:
        raise api_error(reply)


def _release(claim: Claim, after: float) -> Flow[None]:
    try:
        yield from _post(claim, "release", {"after_s": round(after, 3)})
    except (ServerLost, OutlastError) as error:
        log.debug("run %s: not given back, its lease runs out: %s", claim.run, type(error).__name__)


def _beat(claim: Claim) -> Flow[None]:
    reply = yield from _post(claim, "heartbeat", {"lease_s": claim.lease_s})
    hear(claim, reply)


def hear(claim: Claim, reply: Reply) -> None:
    """Takes a heartbeat's answer."""
    lease = reply.body.get("lease") if isinstance(reply.body, dict) else None
    if reply.status == 410 or lease == "lost":
        claim.lose()
    elif lease == "cancel":
        claim.cancel()
    elif lease == "drain":
        claim.drain()


def _post(claim: Claim, verb: str, body: dict[str, Any]) -> Flow[Reply]:
    target = f"/v1/runs/{quote(claim.run, safe='')}/{verb}"
    return (yield from ask(claim, Call("POST", target, {"epoch": claim.epoch, **body})))


def _error(error: BaseException) -> dict[str, Any]:
    code = getattr(error, "code", None)
    failure = code if isinstance(code, str) else type(error).__name__
    return {"message": str(error)[:MESSAGE] or type(error).__name__, "failure": failure}
