"""The parts of a sync run: `step`, `tool`, `wait_for`, `sleep`, `approve`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, overload

from . import steps
from .claim import Claim, claim_here, name_of
from .effects import EffectLike, Retry, Undo
from .errors import OutlastError
from .flow import Flow, drive
from .options import Options, alarm_of, signals_of, timer_of
from .senders import sync_sender
from .steps import Approval, Signal

P = ParamSpec("P")
T = TypeVar("T")


@overload
def step(fn: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def step(
    *,
    key: str | Callable[..., str] | None = None,
    effect: EffectLike = "pure",
    retry: Retry | None = None,
    timeout: float = 60.0,
    undo: Callable[[Any], Any] | Undo | None = None,
    scope: str | None = None,
    question: str | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
@overload
def step(
    name: str,
    fn: Callable[..., T],
    /,
    *args: Any,
    key: str | None = None,
    effect: EffectLike = "pure",
    retry: Retry | None = None,
    timeout: float = 60.0,
    undo: Callable[[Any], Any] | Undo | None = None,
    scope: str | None = None,
    business_key: str | None = None,
    question: str | None = None,
) -> T: ...
def step(*given: Any, **options: Any) -> Any:
    """Does something once, or takes what is recorded of it.

    `step(name, fn, *args)` does it here; `@step` and `@step(...)` make a function do it wherever it is called.

    The arguments and the result are JSON. `key` names the step within its run, its name if none is given: two steps of
    one run never share one. `business_key` makes it one effect for all runs that name the same `scope` (the step's name
    if none is given) and key. `effect` says what doing it twice would do to the world, `undo` what takes it back,
    `question` what a person must agree to first, `timeout` the seconds after which nothing of an attempt is sent.

    Raises:
        StepFailed: it failed for good. StepMismatch: its key stands for other arguments.
    """
    if given and isinstance(given[0], str):
        name, fn, *args = given
        return _call(name, fn, tuple(args), Options(**options))
    if given:
        return _decorated(given[0], Options())
    return lambda fn: _decorated(fn, Options(**options))


def _decorated(fn: Callable[P, T], options: Options) -> Callable[P, T]:
    @functools.wraps(fn)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = inspect.signature(fn).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise OutlastError(f"step {fn.__name__!r}: a recorded function has no keyword-only arguments")
        return _call(fn.__name__, fn, bound.args, options)  # type: ignore[no-any-return]

    return recorded


def _call(name: str, fn: Callable[..., Any], args: tuple[Any, ...], options: Options) -> Any:
    claim = claim_here(False, "step")
    if inspect.iscoroutinefunction(fn):
        raise OutlastError(f"step {name!r}: {name_of(fn)} is async and this run is not")
    return _drive(claim, steps.call(claim, options.step(name, args), fn, args))


def tool(name: str, arguments: Any = None, *, key: str | None = None, timeout: float = 120.0) -> Any:
    """Calls a tool of the server's config as a step of this run. The server keeps its ledger, retries, asks.

    `key` is the business key; the tool's name is the step's if none is given, so it can be called once.

    Raises:
        ToolFailed: it failed for good.
    """
    claim = claim_here(False, "tool")
    return _drive(claim, steps.tool(claim, name, arguments, key=key, timeout=timeout))


def wait_for(signal: str | Sequence[str], *, timeout: float | None = None, key: str | None = None) -> Signal | None:
    """Waits for a signal, or one of several, and holds nothing meanwhile. None: `timeout` seconds have passed."""
    claim = claim_here(False, "wait_for")
    names = signals_of(signal)
    return _drive(claim, steps.wait(claim, key or "wait/" + "|".join(names), names, timer_of(timeout)))


def sleep(time: float | datetime, *, key: str = "sleep") -> None:
    """Sleeps for so many seconds, or until then, and holds nothing meanwhile."""
    claim = claim_here(False, "sleep")
    _drive(claim, steps.wait(claim, key, (), alarm_of(time)))


def approve(question: str, arguments: Any = None, *, key: str = "approve") -> Approval:
    """Asks a person, who sees these arguments and agrees to exactly them, or changes them.

    Raises:
        Denied: the person said no.
    """
    claim = claim_here(False, "approve")
    return _drive(claim, steps.approve(claim, key, question, arguments))


def _drive(claim: Claim, flow: Flow[T]) -> T:
    return drive(flow, sync_sender(claim.settings))
