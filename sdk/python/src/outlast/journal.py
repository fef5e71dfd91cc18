"""What is recorded of a run: the pages that came with the claim, and single steps when those do not reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .claim import JOURNAL_AT_HAND, Claim
from .errors import ServerLost, Unreachable, Unwinding
from .flow import Call, Flow
from .transport import exchange


_ENDED = ("done", "failed_final")
_UNRESOLVED = ("intent", "unknown", "verifying", "parked")


@dataclass(frozen=True)
class End:
    """How a step ended, for good."""

    value: Any = None
    failed: bool = False
    error: Any = None
    cause: BaseException | None = None


def keep(claim: Claim, page: Any) -> None:
    """Keeps a page's steps at hand."""
    if not isinstance(page, dict):
        return
    for view in page.get("steps") or ():
        claim.journal[view["key"]] = view
    following = page.get("next")
    claim.next_page = None if following is None else str(following)


def find(claim: Claim, key: str, print_: str) -> Flow[End | None]:
    """The recorded end of a step that was asked for in these very words, if it is at hand."""
    if claim.unwinding:
        return None
    while key not in claim.journal and claim.next_page is not None and len(claim.journal) < JOURNAL_AT_HAND:
        page = yield from _get(claim, f"/v1/runs/{quote(claim.run, safe='')}/journal", {"after": claim.next_page})
        claim.next_page = None
        keep(claim, page)
    view = claim.journal.pop(key, None)
    return end_of(view) if view is not None and view.get("fingerprint") == print_ else None


def recorded_end(claim: Claim, key: str) -> Flow[End | None]:
    """The recorded end of a step that may be anywhere in the journal."""
    if key in claim.journal or claim.next_page is None:
        return end_of(claim.journal.get(key))
    return end_of((yield from _get(claim, _step(claim, key), {})))


def all_steps(claim: Claim) -> Flow[list[Any]]:
    """The whole journal, in its order."""
    steps: list[Any] = []
    params: dict[str, str] = {}
    while True:
        page = yield from _get(claim, f"/v1/runs/{quote(claim.run, safe='')}/journal", params)
        steps += page["steps"] if page else ()
        if page is None or page.get("next") is None:
            return steps
        params = {"after": str(page["next"])}


def reach(claim: Claim, key: str) -> Flow[None]:
    """While a run is unwound, nothing new begins: what ended is told, what may have happened is looked into.

    Raises:
        Unwinding: this step would be new.
    """
    if not claim.unwinding:
        return
    view = yield from _get(claim, _step(claim, key), {})
    state = view.get("state") if isinstance(view, dict) else None
    if state in _ENDED or (state in _UNRESOLVED and view["class"] != "pure" and view["kind"] != "wait"):
        return
    raise Unwinding(key)


def end_of(view: Any) -> End | None:
    """A recorded step's end, if it has one."""
    if not isinstance(view, dict):
        return None
    if view.get("state") == "done":
        return End(value=view.get("ok"))
    if view.get("state") == "failed_final":
        return End(failed=True, error=view.get("error"))
    return None


def _step(claim: Claim, key: str) -> str:
    return f"/v1/runs/{quote(claim.run, safe='')}/steps/{quote(key, safe='')}"


def _get(claim: Claim, path: str, params: dict[str, str]) -> Flow[Any]:
    try:
        reply = yield from exchange(Call("GET", path, params=params), claim.settings)
    except Unreachable as error:
        claim.lose()
        raise ServerLost(str(error)) from error
    return reply.body if reply.status == 200 else None
