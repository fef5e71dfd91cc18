"""A run without a worker: a program that is started again from its top, and whose steps are recorded all the same."""

from __future__ import annotations

from contextvars import Token
from typing import Any
from urllib.parse import quote

from .claim import Claim, current_claim, is_async
from .client import AsyncOutlast, Outlast
from .errors import ApiError
from .flow import Call, Flow, drive, drive_async
from .senders import async_sender, sync_sender
from .steps import ask
from .transport import Settings, accepted

#: Seconds for which a program waits for a step that another process was at when it died.
PATIENCE = 900.0


class program:  # noqa: N801 - reads as a statement
    """`with program("nightly-2026-11-21"):` makes what is in the block a run of that id; `async with` for async steps.

    Started again after a crash with the same id, it goes on where it was. When the block ends well the run has ended:
    started once more, it answers from its journal. `step`, `tool`, `approve` and `run.openai()` work in it; what a
    worker is needed for (`wait_for`, `sleep`, `undo=`) does not. A `Parked` that leaves the block says that a person has
    to decide before the program is started again.
    """

    def __init__(self, id: str, client: Outlast | AsyncOutlast | None = None) -> None:
        settings = client.settings if client is not None else Settings.find(None, None)
        self._claim = Claim(id, None, 30.0, "program", "1", settings, patience=PATIENCE)
        self._tokens: list[tuple[Any, Token[Any]]] = []

    def __enter__(self) -> str:
        return self._enter(False)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave()
        if kind is None:
            drive(self._finish(), sync_sender(self._claim.settings))

    async def __aenter__(self) -> str:
        return self._enter(True)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave()
        if kind is None:
            await drive_async(self._finish(), async_sender(self._claim.settings))

    def _enter(self, asynchronous: bool) -> str:
        self._tokens = [(current_claim, current_claim.set(self._claim)), (is_async, is_async.set(asynchronous))]
        return self._claim.run

    def _leave(self) -> None:
        for variable, token in self._tokens:
            variable.reset(token)
        self._claim.closed = True

    def _finish(self) -> Flow[None]:
        path = f"/v1/runs/{quote(self._claim.run, safe='')}/finish"
        try:
            accepted((yield from ask(self._claim, Call("POST", path, {"ok": None}))), 200)
        except ApiError as error:
            # A block without a step has begun no run.
            if error.code != "no_such_run":
                raise
