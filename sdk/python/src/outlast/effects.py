"""What happens in the world when a step is done twice, said with each step.

| effect | who keeps it from happening twice |
|---|---|
| `"pure"` | nobody has to: model calls, look-ups. The default |
| `tx(connection)` | your database: our key commits in the same transaction. Exactly once |
| `keyed(ttl)` | the receiver: it keeps our key for `ttl` seconds. Exactly once for that long |
| `verify(quiet, check=fn)` | `check` asks the receiver whether it happened. Bounded, not exactly once |
| `"once"` | a person, whenever the outcome is unknown. At most once |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Union

from .database import EffectsTable

#: What a `check` returns when the receiver knows nothing of it.
ABSENT: Final = type("Absent", (), {"__repr__": lambda self: "outlast.ABSENT"})()


@dataclass(frozen=True)
class Effect:
    """A class of effect as the server reads it, and how its outcome is found out here."""

    wire: Any
    check: Callable[..., Any] | None = None
    table: EffectsTable | None = None

    @property
    def is_pure(self) -> bool:
        return bool(self.wire == "pure")


EffectLike = Union[Effect, Literal["pure", "once"]]


def tx(connection: Any) -> Effect:
    """The effect is a transaction of this DB-API connection; the step must leave its commit to Outlast.

    The key's row is in the table `outlast_effects`, see `create_effects_table`.
    """
    return Effect("tx", table=EffectsTable(connection))


def keyed(ttl: float, *, verify_after: float | None = None, check: Callable[..., Any] | None = None) -> Effect:
    """The receiver keeps `this_step().idempotency_key` for `ttl` seconds and answers a repetition with the first result.

    Past that a repetition would be a second effect: `check` asks, `verify_after` seconds after the last moment it may
    still happen, or without one a person decides.
    """
    if (verify_after is None) != (check is None):
        raise ValueError("keyed: verify_after and check go together")
    wire: dict[str, Any] = {"key_ttl_ms": _millis(ttl)}
    if verify_after is not None:
        wire["verify_ms"] = _millis(verify_after)
    return Effect({"keyed": wire}, check=check)


def verify(quiet: float, check: Callable[..., Any]) -> Effect:
    """`check` is called with the step's arguments, `quiet` seconds after the last moment it may still happen.

    It returns the result, or `ABSENT` when the receiver knows nothing of it; what it raises leaves the question open.
    """
    return Effect({"verify": {"quiet_period_ms": _millis(quiet)}}, check=check)


def effect_of(effect: EffectLike) -> Effect:
    """The class behind a name."""
    if isinstance(effect, Effect):
        return effect
    if effect in ("pure", "once"):
        return Effect(effect)
    raise ValueError(f"effect={effect!r}: one of 'pure', 'once', tx(connection), keyed(ttl), verify(quiet, check)")


@dataclass(frozen=True)
class Retry:
    """How often, how long and for how much a step is tried. Seconds; the server waits between attempts."""

    attempts: int = 4
    within: float | None = None
    cost_max_usd: float | None = None
    base: float = 1.0
    cap: float = 60.0
    #: `escalate`: a person decides; `fail`: the step has failed.
    exhausted: Literal["escalate", "fail"] = "escalate"

    def wire(self) -> dict[str, Any]:
        """As the server reads it."""
        wire: dict[str, Any] = {
            "attempts": self.attempts,
            "base_ms": _millis(self.base),
            "cap_ms": _millis(self.cap),
            "exhausted": self.exhausted,
        }
        if self.within is not None:
            wire["within_ms"] = _millis(self.within)
        if self.cost_max_usd is not None:
            wire["cost_max_usd"] = self.cost_max_usd
        return wire


@dataclass(frozen=True)
class Undo:
    """What undoes a step: called with its result, as a step of its own, with its own key."""

    fn: Callable[[Any], Any]
    effect: EffectLike = "once"
    retry: Retry | None = None
    timeout: float = 60.0


def _millis(seconds: float) -> int:
    if not seconds >= 0:
        raise ValueError(f"{seconds} is no time")
    return round(seconds * 1000)
