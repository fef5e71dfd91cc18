"""The loop that claims runs and executes their bodies, with heartbeats from a thread of their own."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from .claim import Claim, current_claim, is_async
from .client import AsyncOutlast, Outlast
from .definition import Workflow
from .errors import ApiError, OutlastError, Stop
from .execution import advance, hear
from .flow import Call, Flow, drive, drive_async, now
from .journal import keep
from .senders import async_sender, close_async, sync_sender
from .transport import HttpSender, Settings, accepted, exchange, retry_after

log = logging.getLogger("outlast")


class Worker:
    """Executes runs of these workflows until it is told to stop.

    `slots` runs at a time at most; `lease` seconds pass before the runs of a dead worker go on elsewhere. A standby
    worker claims only what no other takes. SIGTERM and SIGINT drain: nothing more is claimed, and what is under way
    stops at its next step and is given back, within `grace` seconds.
    """

    def __init__(
        self,
        workflows: Iterable[Workflow],
        client: Outlast | AsyncOutlast | None = None,
        *,
        queues: Sequence[str] | None = None,
        slots: int = 1,
        lease: float = 30.0,
        wait: float = 25.0,
        standby: bool = False,
        label: str | None = None,
        grace: float = 30.0,
        patience: float = 10.0,
    ) -> None:
        self.workflows = {(one.name, one.version): one for one in workflows}
        if not self.workflows:
            raise OutlastError("a worker needs a workflow: Worker([my_run])")
        self.settings: Settings = client.settings if client is not None else Settings.find(None, None)
        self.queues = list(queues) if queues else sorted({one.queue for one in self.workflows.values()})
        #: Random per process: a host's name would hide that its worker is another one by now.
        self.id = f"py-{uuid.uuid4().hex}"
        self.label = label or "python"
        self.lease, self.wait, self.grace, self.patience = lease, wait, grace, patience
        self.standby = standby
        self._free = threading.Semaphore(slots)
        self._stopping = threading.Event()
        self._idle = threading.Condition()
        self._claims: dict[int, Claim] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Works until `stop` or a signal. In the main thread it takes SIGTERM and SIGINT."""
        loop = _LoopThread() if any(one.is_async for one in self.workflows.values()) else None
        self._loop = loop.loop if loop else None
        handled = self._take_signals(signal.signal) if threading.current_thread() is threading.main_thread() else []
        try:
            self._work()
        finally:
            for number, before in handled:
                signal.signal(number, before)
            if loop is not None:
                loop.close()

    async def serve(self) -> None:
        """Works on the running event loop, for async runs that share what belongs to it. Cancel it to drain."""
        self._loop = asyncio.get_running_loop()
        work = asyncio.create_task(asyncio.to_thread(self._work))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self.stop()
            await work
            raise

    def __enter__(self) -> Worker:
        """Works in the background while the block lasts, then drains."""
        self._background = threading.Thread(target=self.run, name="outlast-worker", daemon=True)
        self._background.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._background.join()

    def stop(self) -> None:
        """Drains: claims nothing more and gives back what is under way. From any thread; does not wait."""
        self._stopping.set()
        with self._idle:
            for claim in self._claims.values():
                claim.drain()

    def _take_signals(self, take: Callable[..., Any]) -> list[tuple[int, Any]]:
        def drain(number: int, _: Any) -> None:
            if self._stopping.is_set():
                raise KeyboardInterrupt  # told twice: at once
            # A signal's handler may interrupt a thread that holds our lock.
            threading.Thread(target=self.stop, daemon=True).start()
            self._stopping.set()

        return [(number, take(number, drain)) for number in (signal.SIGTERM, signal.SIGINT)]

    def _work(self) -> None:
        beats = threading.Thread(target=self._beat, name="outlast-heartbeats", daemon=True)
        claims = threading.Thread(target=self._claim, name="outlast-claims", daemon=True)
        self._over = threading.Event()
        beats.start()
        claims.start()
        while not self._stopping.wait(3600):
            pass
        self.stop()
        self._tell("POST", f"/v1/workers/{self.id}/drain")
        until = now() + self.grace
        # A question for work that is still open ends with its connection; what it brings is given back.
        claims.join(min(self.grace, 1.0))
        with self._idle:
            while self._claims and (left := until - now()) > 0:
                self._idle.wait(left)
            for claim in self._claims.values():
                log.warning("run %s: still under way; it goes on elsewhere once its lease is over", claim.run)
        self._over.set()
        self._tell("DELETE", f"/v1/workers/{self.id}")

    def _tell(self, method: str, path: str, body: Any = None) -> None:
        """Says something that does no harm if it is not heard."""
        try:
            sync_sender(self.settings).send(Call(method, path, body or {}, read_s=5.0))
        except httpx.TransportError as error:
            log.debug("%s %s: %s", method, path, type(error).__name__)

    def _claim(self) -> None:
        """Asks for work whenever there is a free slot."""
        sender = HttpSender(self.settings)
        try:
            while not self._stopping.is_set():
                if not self._free.acquire(timeout=0.5):
                    continue
                if not self._claim_one(sender):
                    self._free.release()
        finally:
            sender.close()

    def _claim_one(self, sender: HttpSender) -> bool:
        accepts: dict[str, list[str]] = {}
        for name, version in self.workflows:
            accepts.setdefault(name, []).append(version)
        body = {
            "worker": self.id,
            "label": self.label,
            "queues": self.queues,
            "accepts": accepts,
            "wait_s": self.wait,
            "lease_s": self.lease,
            "standby": self.standby,
            "journal": 100,
        }
        try:
            asked = Call("POST", "/v1/claim", body, read_s=self.wait + 10)
            reply = drive(exchange(asked, self.settings), sender)
            given = accepted(reply, 200, 204)
        except OutlastError as error:
            refused = isinstance(error, ApiError)
            log.error("no work was given: %s", error) if refused else log.warning("no work was given: %s", error)
            self._stopping.wait(5.0)
            return False
        if reply.status == 204:
            # It says so when too many wait already.
            self._stopping.wait(retry_after(reply.headers, 0.0))
            return False
        if self._stopping.is_set():
            run = quote(given["run"]["id"], safe="")
            self._tell("POST", f"/v1/runs/{run}/release", {"epoch": given["epoch"]})
            return False
        self._start(given)
        return True

    def _start(self, given: dict[str, Any]) -> None:
        view = given["run"]
        claim = Claim(
            run=view["id"],
            epoch=int(given["epoch"]),
            lease_s=float(given.get("lease_s", self.lease)),
            workflow=view["workflow"],
            version=view["version"],
            settings=self.settings,
            patience=self.patience,
            cancelling=bool(view.get("cancelling")),
        )
        keep(claim, given.get("journal"))
        with self._idle:
            self._claims[id(claim)] = claim
            if self._stopping.is_set():
                claim.drain()
        workflow = self.workflows[claim.workflow, claim.version]
        args = (given.get("input"),) if workflow.takes_input else ()
        if workflow.is_async and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._execute_async(claim, workflow, args), self._loop)
        else:
            work = threading.Thread(target=self._execute, args=(claim, workflow, args), daemon=True)
            work.name = f"outlast-{claim.run}"
            work.start()

    def _execute(self, claim: Claim, workflow: Workflow, args: tuple[Any, ...]) -> None:
        current_claim.set(claim)
        try:
            self._ended(claim, drive(advance(claim, workflow.body, args), sync_sender(self.settings)))
        except BaseException as error:
            self._broke(claim, error)
        finally:
            self._let_go(claim)

    async def _execute_async(self, claim: Claim, workflow: Workflow, args: tuple[Any, ...]) -> None:
        current_claim.set(claim)
        is_async.set(True)
        try:
            flow: Flow[str] = advance(claim, workflow.body, args)
            self._ended(claim, await drive_async(flow, async_sender(self.settings)))
        except BaseException as error:
            self._broke(claim, error)
        finally:
            self._let_go(claim)

    def _ended(self, claim: Claim, word: str) -> None:
        log.info("run %s (%s %s, claim %d): %s", claim.run, claim.workflow, claim.version, claim.epoch, word)

    def _broke(self, claim: Claim, error: BaseException) -> None:
        """What no flow handles: a refusal that makes no sense, or a body that ends its process or its task."""
        said = str(error) if isinstance(error, (OutlastError, Stop)) else ""
        log.error("run %s: let go: %s %s", claim.run, type(error).__name__, said)

    def _let_go(self, claim: Claim) -> None:
        claim.closed = True
        with self._idle:
            self._claims.pop(id(claim), None)
            self._idle.notify_all()
        self._free.release()

    def _beat(self) -> None:
        """Keeps the leases. Its own thread, so that a body that computes, or blocks its loop, keeps its run."""
        sender = HttpSender(self.settings)
        due: dict[int, float] = {}
        while not self._over.wait(0.05 if self.lease < 3 else 0.25):
            with self._idle:
                held = dict(self._claims)
            due = {which: due.get(which, now() + claim.lease_s / 3) for which, claim in held.items()}
            for which, claim in held.items():
                if due[which] <= now() and not (claim.lost or claim.closed):
                    kept = self._beat_one(sender, claim)
                    due[which] = now() + (claim.lease_s / 3 if kept else min(1.0, claim.lease_s / 6))
        sender.close()

    def _beat_one(self, sender: HttpSender, claim: Claim) -> bool:
        if claim.is_stuck():
            log.warning("run %s: a step is far past its timeout; its lease is not kept", claim.run)
            claim.lose()
            return True
        body = {"epoch": claim.epoch, "lease_s": claim.lease_s}
        path = f"/v1/runs/{quote(claim.run, safe='')}/heartbeat"
        try:
            reply = sender.send(Call("POST", path, body, read_s=max(1.0, claim.lease_s / 6)))
        except httpx.TransportError as error:
            log.warning("run %s: no heartbeat: %s", claim.run, type(error).__name__)
            return False
        if not claim.closed:
            hear(claim, reply)
            if claim.drained and not self._stopping.is_set():
                log.info("told to drain")
                self.stop()
        return reply.status < 500


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="outlast-async", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it, if what runs on it lets it."""
        closing: Coroutine[Any, Any, None] = close_async()
        try:
            asyncio.run_coroutine_threadsafe(closing, self.loop).result(5)
        except Exception as error:
            log.debug("the event loop does not end: %s", type(error).__name__)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
