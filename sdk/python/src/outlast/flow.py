"""One logic for sync and async: a flow says what is to be done and never waits, reads a clock or a socket itself.

A flow is a generator. It yields what it needs (`Send`, `Pause`, `Do`) and is given the answer, or is thrown the
exception. `drive` performs it in a thread, `drive_async` on an event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, Union

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call of the protocol. Every one of them is safe to repeat."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    #: Seconds until the answer's first byte.
    read_s: float = 30.0
    #: It may have no body at all, as a tool's arguments may be `null`.
    has_body: bool = True


@dataclass(frozen=True)
class Reply:
    """An answer whose body was JSON, or empty (`None`)."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Send:
    """Answered with a `Reply`; `httpx.TransportError` is thrown."""

    call: Call


@dataclass(frozen=True)
class Pause:
    """Answered after so many seconds, or as soon as `over` is set."""

    seconds: float
    over: threading.Event | None = None


@dataclass(frozen=True)
class Do:
    """Answered with what the function returns; an async one is awaited, for `timeout` seconds at most."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    timeout: float | None = None


@dataclass(frozen=True)
class Settled:
    """Answered once none of these tasks of an event loop is under way."""

    tasks: frozenset[Any]


Ask = Union[Send, Pause, Do, Settled]
Flow = Generator[Ask, Any, T]


class Sender(Protocol):
    """Sends calls from threads."""

    def send(self, call: Call) -> Reply: ...


class AsyncSender(Protocol):
    """Sends calls from an event loop."""

    async def send(self, call: Call) -> Reply: ...


def now() -> float:
    """Seconds, of a clock that goes on while the process or the machine sleeps."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def drive(flow: Flow[T], sender: Sender) -> T:
    """Performs a flow in this thread."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            ask = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = _perform(ask, sender)
        except BaseException as raised:  # the flow decides what becomes of it
            error = raised


def _perform(ask: Ask, sender: Sender) -> Any:
    if isinstance(ask, Send):
        return sender.send(ask.call)
    if isinstance(ask, Do):
        return ask.fn(*ask.args)
    if isinstance(ask, Pause):
        if ask.over is not None:
            ask.over.wait(ask.seconds)
        elif ask.seconds > 0:
            time.sleep(ask.seconds)
    return None


async def drive_async(flow: Flow[T], sender: AsyncSender) -> T:
    """Performs a flow on the running event loop."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            ask = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = await _perform_async(ask, sender)
        except BaseException as raised:
            error = raised


async def _perform_async(ask: Ask, sender: AsyncSender) -> Any:
    if isinstance(ask, Send):
        return await sender.send(ask.call)
    if isinstance(ask, Do):
        result = ask.fn(*ask.args)
        if not isinstance(result, Awaitable):
            return result
        return await asyncio.wait_for(result, ask.timeout)
    if isinstance(ask, Settled):
        if ask.tasks:
            await asyncio.wait(ask.tasks)
        return None
    until = now() + ask.seconds
    while (left := until - now()) > 0 and not (ask.over is not None and ask.over.is_set()):
        await asyncio.sleep(min(left, 0.25) if ask.over is not None else left)
    return None
