"""What a worker holds of one run: its lease and fence, what its journal says, what would have to be undone."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .effects import Undo
from .errors import Cancelled, Draining, KeyUsedTwice, LeaseLost, OutlastError
from .flow import now
from .transport import Settings

#: No more of a journal is kept at hand than this; what is beyond it is asked for step by step.
JOURNAL_AT_HAND = 1000


@dataclass
class Done:
    """A step that took place and can be undone."""

    key: str
    result: Any
    undo: Undo


@dataclass
class Attempt:
    """The attempt that is under way: what an effect hands on to its receiver."""

    step: str
    idempotency_key: str
    number: int
    epoch: int
    deadline: float
    decision: Any = None
    cost_usd: float = 0.0

    @property
    def remaining(self) -> float:
        """Seconds after which nothing of this attempt may be sent any more; use it as the timeout."""
        return max(0.0, self.deadline - now())

    @property
    def headers(self) -> dict[str, str]:
        """Headers for a receiver that keeps keys and fences epochs."""
        return {
            "idempotency-key": self.idempotency_key,
            "x-outlast-epoch": str(self.epoch),
            "x-outlast-attempt": str(self.number),
        }

    def add_cost(self, usd: float) -> None:
        """Counts what the attempt cost against the budgets of the step and the run."""
        self.cost_usd += usd


@dataclass
class Claim:
    """One run in this process's hands. Its heartbeat comes from another thread."""

    run: str
    #: None: a program that no worker claims; every step has a claim of its own.
    epoch: int | None
    lease_s: float
    workflow: str
    version: str
    settings: Settings
    #: Recorded steps by key, taken out as the body comes by.
    journal: dict[str, Any] = field(default_factory=dict)
    #: Where the journal goes on.
    next_page: str | None = None
    #: Seconds to hold the run for a step's next attempt; beyond that it is given back.
    patience: float = 10.0
    cancelling: bool = False
    #: What was asked for is being undone: only what is recorded is gone through.
    unwinding: bool = False
    undoing: bool = False
    closed: bool = False
    lost: bool = False
    drained: bool = False
    #: Set with every one of the flags above that another thread sets: a pause ends at once.
    disturbed: threading.Event = field(default_factory=threading.Event)
    undos: list[Done] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    #: How often each question was put to a model in this pass, by its hash.
    asked: dict[bytes, int] = field(default_factory=dict)
    asking: threading.Lock = field(default_factory=threading.Lock)
    #: Attempts under way, by their tokens: until when they said they would be over.
    under_way: dict[object, float] = field(default_factory=dict)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def check(self) -> None:
        """Raises what stops the run at this boundary, if anything does."""
        if self.closed or self.lost:
            raise LeaseLost(f"run {self.run} is somebody else's, or over")
        if self.drained:
            raise Draining(f"run {self.run} is given back")
        if self.cancelling and not (self.unwinding or self.undoing):
            raise Cancelled(f"run {self.run} is to be cancelled")

    def check_lease(self) -> None:
        """Raises if the run is not this worker's any more."""
        if self.lost:
            raise LeaseLost(f"run {self.run} is somebody else's, or over")

    def use(self, key: str) -> None:
        """Takes a key for a step of this pass through the body."""
        if key in self.used:
            raise KeyUsedTwice(
                f"two steps of run {self.run} have the key {key!r}; give each its own with key=, "
                "made of what the step is about, not of where it stands in a loop"
            )
        self.used.add(key)

    def occurrence(self, question: bytes, again: bool) -> int:
        """The how many-th time this question is put to a model in this pass; a repetition of the last one is none."""
        which = hashlib.blake2b(question, digest_size=16).digest()
        with self.asking:
            if not again or which not in self.asked:
                self.asked[which] = self.asked.get(which, 0) + 1
            return self.asked[which]

    def begin_pass(self, *, unwinding: bool) -> None:
        """The body is gone through from its top."""
        self.unwinding = unwinding
        self.used.clear()
        self.undos.clear()
        with self.asking:
            self.asked.clear()

    def lose(self) -> None:
        """Another claim was given."""
        self.lost = True
        self.disturbed.set()

    def drain(self) -> None:
        """This worker is to stop."""
        self.drained = True
        self.disturbed.set()

    def cancel(self) -> None:
        """The run is to be cancelled."""
        self.cancelling = True
        self.disturbed.set()

    def is_stuck(self) -> bool:
        """Whether an attempt is so far past its deadline that the run is better off elsewhere."""
        late = now() - self.lease_s
        return any(deadline < late for deadline in list(self.under_way.values()))


current_claim: ContextVar[Claim] = ContextVar("outlast_claim")
current_attempt: ContextVar[Attempt] = ContextVar("outlast_attempt")
is_async: ContextVar[bool] = ContextVar("outlast_is_async", default=False)


def claim_here(asynchronous: bool, what: str) -> Claim:
    """The run that this code belongs to."""
    claim = current_claim.get(None)
    if claim is None:
        raise OutlastError(f"{what}() belongs in the body of a run that a Worker claimed")
    if is_async.get() != asynchronous:
        right = "outlast.aio" if is_async.get() else "outlast"
        raise OutlastError(f"this run is {'async' if is_async.get() else 'sync'}: use {right}.{what}")
    if current_attempt.get(None) is not None:
        raise OutlastError(f"{what}() inside a step: steps do not nest; return from the step first")
    return claim


def this_step() -> Attempt:
    """The attempt that this code belongs to: its idempotency key, its number, the seconds that remain."""
    attempt = current_attempt.get(None)
    if attempt is None:
        raise OutlastError("this_step() belongs in the function of a step")
    return attempt


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name, for people."""
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return str(name).strip("<>")
