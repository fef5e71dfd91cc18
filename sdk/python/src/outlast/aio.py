"""The parts of an async run: `outlast`'s own, awaited.

from outlast.aio import step, tool, wait_for, sleep, approve
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, overload

from . import steps
from .claim import Claim, claim_here, name_of
from .effects import EffectLike, Retry, Undo
from .errors import OutlastError
from .flow import Flow, drive_async
from .options import Options, alarm_of, signals_of, timer_of
from .senders import async_sender
from .steps import Approval, Signal

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["approve", "sleep", "step", "tool", "wait_for"]


@overload
def step(fn: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...
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
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]: ...
@overload
def step(
    name: str,
    fn: Callable[..., Awaitable[T]],
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
) -> Awaitable[T]: ...
def step(*given: Any, **options: Any) -> Any:
    """As `outlast.step`. An async function is cancelled when its `timeout` is over.

    With `effect=tx(connection)` the function is a plain one, and holds up the loop for as long as it takes.
    """
    if given and isinstance(given[0], str):
        name, fn, *args = given
        return _call(name, fn, tuple(args), Options(**options))
    if given:
        return _decorated(given[0], Options())
    return lambda fn: _decorated(fn, Options(**options))


def _decorated(fn: Callable[P, Awaitable[T]], options: Options) -> Callable[P, Awaitable[T]]:
    @functools.wraps(fn)
    async def recorded(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = inspect.signature(fn).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise OutlastError(f"step {name_of(fn)!r}: a recorded function has no keyword-only arguments")
        return await _call(name_of(fn), fn, bound.args, options)  # type: ignore[no-any-return]

    return recorded


async def _call(name: str, fn: Callable[..., Any], args: tuple[Any, ...], options: Options) -> Any:
    claim = claim_here(True, "step")
    step = options.step(name, args)
    if step.effect.table is not None and inspect.iscoroutinefunction(fn):
        raise OutlastError(f"step {name!r}: a transaction of a DB-API connection is a plain function")
    return await _drive(claim, steps.call(claim, step, fn, args))


async def tool(name: str, arguments: Any = None, *, key: str | None = None, timeout: float = 120.0) -> Any:
    """As `outlast.tool`."""
    claim = claim_here(True, "tool")
    return await _drive(claim, steps.tool(claim, name, arguments, key=key, timeout=timeout))


async def wait_for(
    signal: str | Sequence[str], *, timeout: float | None = None, key: str | None = None
) -> Signal | None:
    """As `outlast.wait_for`."""
    claim = claim_here(True, "wait_for")
    names = signals_of(signal)
    return await _drive(claim, steps.wait(claim, key or "wait/" + "|".join(names), names, timer_of(timeout)))


async def sleep(time: float | datetime, *, key: str = "sleep") -> None:
    """As `outlast.sleep`."""
    claim = claim_here(True, "sleep")
    await _drive(claim, steps.wait(claim, key, (), alarm_of(time)))


async def approve(question: str, arguments: Any = None, *, key: str = "approve") -> Approval:
    """As `outlast.approve`."""
    claim = claim_here(True, "approve")
    return await _drive(claim, steps.approve(claim, key, question, arguments))


async def _drive(claim: Claim, flow: Flow[T]) -> T:
    return await drive_async(flow, async_sender(claim.settings))
