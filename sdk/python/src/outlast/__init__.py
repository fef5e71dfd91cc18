"""Durable runs from Python: steps that survive crashes, effects that happen once, people as the last backstop.

    from outlast import Worker, keyed, run, step

    @run(name="refund")
    def refund(order):
        charge = step("charge", find_charge, order["id"])
        return step("reverse", reverse_charge, charge, effect=keyed(ttl=86_400))

    Worker([refund]).run()

An async run uses the same names from `outlast.aio`.
"""

from .claim import Attempt, this_step
from .client import AsyncOutlast, Outlast
from .database import create_effects_table
from .definition import Workflow, run
from .effects import ABSENT, Effect, Retry, Undo, keyed, tx, verify
from .errors import (
    ApiError,
    Cancelled,
    Denied,
    Draining,
    KeyUsedTwice,
    LeaseLost,
    NotDone,
    NothingMoreMayBegin,
    NotJson,
    NotYet,
    OutlastError,
    Parked,
    RunCancelled,
    RunFailed,
    ServerLost,
    StepFailed,
    StepMismatch,
    StillGoing,
    Stop,
    ToolFailed,
    Unreachable,
    Waiting,
)
from .program import program
from .steps import Approval, Signal
from .sync import approve, sleep, step, tool, wait_for
from .worker import Worker

__all__ = [
    "ABSENT",
    "ApiError",
    "Approval",
    "AsyncOutlast",
    "Attempt",
    "Cancelled",
    "Denied",
    "Draining",
    "Effect",
    "KeyUsedTwice",
    "LeaseLost",
    "NotDone",
    "NotJson",
    "NotYet",
    "NothingMoreMayBegin",
    "Outlast",
    "OutlastError",
    "Parked",
    "Retry",
    "RunCancelled",
    "RunFailed",
    "ServerLost",
    "Signal",
    "StepFailed",
    "StepMismatch",
    "StillGoing",
    "Stop",
    "ToolFailed",
    "Undo",
    "Unreachable",
    "Waiting",
    "Worker",
    "Workflow",
    "approve",
    "create_effects_table",
    "keyed",
    "program",
    "run",
    "sleep",
    "step",
    "this_step",
    "tool",
    "tx",
    "verify",
    "wait_for",
]
