"""What can go wrong, in two families.

An `OutlastError` is an ordinary exception: the body of a run may catch it. A `Stop` is not: it ends this worker's hold
on the run at a step's boundary, and it derives from `BaseException` so that an `except Exception` in a body cannot
swallow it.
"""

from __future__ import annotations

from typing import Any


class OutlastError(Exception):
    """Anything a caller or a run's body may handle."""


class ApiError(OutlastError):
    """The server answered with an error."""

    def __init__(self, status: int, code: str, message: str, body: Any = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.body = body


class Unreachable(OutlastError):
    """The server did not answer, or not usefully, for as long as was tried."""


class NotJson(OutlastError, TypeError):
    """A value that is to be written down is not JSON."""


class KeyUsedTwice(OutlastError):
    """Two steps of one run have the same key."""


class StepMismatch(OutlastError):
    """The key stands for something else: the step was recorded with other arguments."""


class StepFailed(OutlastError):
    """A step failed for good. The same error is told again whenever the run is gone through anew."""

    def __init__(self, key: str, error: Any) -> None:
        self.key = key
        self.error = error
        self.message = _message(error)
        super().__init__(f"step {key}: {self.message}")


class Denied(StepFailed):
    """A person said no."""


class ToolFailed(StepFailed):
    """A tool failed for good: every attempt and every alternative is spent, or it refused."""


class NotDone(OutlastError):
    """Raise this in a step when it is certain that nothing happened.

    Any other exception of an effect leaves its outcome unknown, and its class says what is done about that. `final`:
    it would be refused again, so the step has failed. `retry_after`: seconds before it may be tried again.
    """

    def __init__(self, message: str, *, final: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.final = final
        self.retry_after = retry_after


class RunFailed(OutlastError):
    """The run whose result was asked for ended with an error."""

    def __init__(self, run: str, error: Any) -> None:
        self.run = run
        self.error = error
        super().__init__(f"run {run}: {_message(error)}")


class RunCancelled(OutlastError):
    """The run whose result was asked for was cancelled."""


class StillGoing(OutlastError, TimeoutError):
    """The run had not ended when the wait for its result was over."""


class Stop(BaseException):
    """This worker stops advancing the run. Let it pass: whatever it stands for is handled above the body."""


class LeaseLost(Stop):
    """The run is somebody else's by now, or over."""


class ServerLost(Stop):
    """The server could not be reached. The run goes on wherever it is claimed next."""


class Draining(Stop):
    """This worker is to stop. The run is given back."""


class NotYet(Stop):
    """The next attempt is too far off to hold the run until then: it is given back until it is due."""

    def __init__(self, after: float) -> None:
        super().__init__(f"not before {after:.1f} s have passed")
        self.after = after


class Waiting(Stop):
    """The run waits for a signal or a timer, and holds no lease meanwhile."""


class Parked(Stop):
    """The run waits for a person."""

    def __init__(self, why: str, escalation: Any = None) -> None:
        super().__init__(why)
        self.why = why
        self.escalation = escalation


class Cancelled(Stop):
    """The run is to be cancelled: what was done is undone, and nothing new begins."""


class NothingMoreMayBegin(Stop):
    """The run is past its deadline (`run_overdue`) or its money is spent (`run_over_budget`)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Unwinding(Stop):
    """The body has been gone through as far as its journal reaches; what it did is undone next."""


def stop_in(error: BaseException) -> Stop | None:
    """The `Stop` that an exception is, or that a task group wrapped."""
    if isinstance(error, Stop):
        return error
    for inner in getattr(error, "exceptions", ()):
        found = stop_in(inner)
        if found is not None:
            return found
    return None


def _message(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return "failed" if error is None else str(error)
