"""What the caller of a step says about it, the same for sync and async."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from .effects import EffectLike, Retry, Undo, effect_of
from .errors import OutlastError
from .steps import Step


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `step`."""

    key: str | Callable[..., str] | None = None
    effect: EffectLike = "pure"
    retry: Retry | None = None
    timeout: float = 60.0
    undo: Callable[[Any], Any] | Undo | None = None
    scope: str | None = None
    business_key: str | None = None
    question: str | None = None

    def step(self, name: str, args: tuple[Any, ...]) -> Step:
        """The step under this name. A key that is a function is made from the arguments."""
        if self.scope is not None and self.business_key is None:
            raise OutlastError(f"step {name!r}: scope= says where a business_key= belongs; there is none")
        key = self.key(*args) if callable(self.key) else self.key
        undo = self.undo if self.undo is None or isinstance(self.undo, Undo) else Undo(self.undo)
        return Step(
            key=key or name,
            name=name,
            effect=effect_of(self.effect),
            timeout=self.timeout,
            retry=self.retry,
            undo=undo,
            scope=(self.scope or name) if self.business_key is not None else None,
            business_key=self.business_key,
            question=self.question,
        )

    def keyed(self, key: str | None) -> Options:
        """The same under a key of the call's own."""
        return self if key is None else replace(self, key=key)


def signals_of(signal: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several."""
    return (signal,) if isinstance(signal, str) else tuple(signal)


def timer_of(timeout: float | None) -> dict[str, Any]:
    """A wait's timer, if it has one."""
    return {} if timeout is None else {"timer_s": timeout}


def alarm_of(time: float | datetime) -> dict[str, Any]:
    """So many seconds from now, or then."""
    if not isinstance(time, datetime):
        return {"timer_s": time}
    if time.tzinfo is None:
        raise OutlastError("sleep: a datetime needs its time zone")
    return {"until": time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")}
