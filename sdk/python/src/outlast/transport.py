"""HTTP to the server, and how often a call is repeated."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .errors import ApiError, OutlastError, Unreachable
from .flow import Call, Flow, Pause, Reply, Send, now

#: Statuses of a server that cannot answer now, or of a proxy before it.
_PASSING = {429, 500, 502, 503, 504}
#: Codes that are answers for good, whatever their status.
_ANSWERS = {"tool_failed", "too_many_signals"}


@dataclass(frozen=True)
class Settings:
    """Where the server is, and how patient its callers are."""

    base_url: str
    api_key: str | None
    #: A call is repeated for so many seconds at most.
    retry_for: float = 60.0
    #: And so many times.
    attempts: int = 12
    #: Seconds until a connection stands.
    connect_s: float = 5.0
    #: For tests.
    transport: Callable[[], Any] | None = None

    @staticmethod
    def find(base_url: str | None, api_key: str | None, **more: Any) -> Settings:
        """What is not given is read from `OUTLAST_URL` and `OUTLAST_API_KEY`."""
        url = base_url or os.environ.get("OUTLAST_URL")
        if not url:
            raise OutlastError("where is the server? Give base_url or set OUTLAST_URL")
        url = url.rstrip("/").removesuffix("/v1")
        return Settings(url, api_key or os.environ.get("OUTLAST_API_KEY"), **more)

    def headers(self) -> dict[str, str]:
        """Headers of every call."""
        headers = {"user-agent": "outlast-python/0.1", "accept": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return headers


class HttpSender:
    """Sends from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        made = settings.transport() if settings.transport else None
        self._http = httpx.Client(base_url=settings.base_url, headers=settings.headers(), transport=made)

    def send(self, call: Call) -> Reply:
        return _reply(self._http.request(**_request(call, self.settings)))

    def close(self) -> None:
        self._http.close()


class AsyncHttpSender:
    """Sends from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        made = settings.transport() if settings.transport else None
        self._http = httpx.AsyncClient(base_url=settings.base_url, headers=settings.headers(), transport=made)

    async def send(self, call: Call) -> Reply:
        return _reply(await self._http.request(**_request(call, self.settings)))

    async def close(self) -> None:
        await self._http.aclose()


def _request(call: Call, settings: Settings) -> dict[str, Any]:
    timeout = httpx.Timeout(connect=settings.connect_s, read=call.read_s, write=call.read_s, pool=call.read_s)
    request: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "headers": dict(call.headers),
        "params": dict(call.params),
        "timeout": timeout,
    }
    if call.has_body and call.method != "GET":
        request["content"] = json.dumps(call.body, ensure_ascii=False, allow_nan=False).encode()
        request["headers"].setdefault("content-type", "application/json")
    return request


def _reply(response: httpx.Response) -> Reply:
    body = None
    if response.content:
        try:
            body = response.json()
        except ValueError:
            body = {"error": {"message": "the answer is not JSON; is something else listening there?"}}
    return Reply(response.status_code, response.headers, body)


def exchange(call: Call, settings: Settings) -> Flow[Reply]:
    """Sends until there is an answer: repeated on a lost connection and on a passing status, with full jitter.

    Raises:
        Unreachable: there was none within `retry_for` seconds and `attempts` tries.
    """
    began, tries = now(), 0
    while True:
        tries += 1
        wait = random.uniform(0.05, min(5.0, 0.1 * 2 ** min(tries, 10)))
        try:
            reply: Reply = yield Send(call)
        except httpx.UnsupportedProtocol as error:
            raise Unreachable(f"{settings.base_url}: {error}") from error
        except httpx.TransportError as error:
            why: BaseException | None = error
            what = f"{type(error).__name__} {error}".strip()
        else:
            if reply.status not in _PASSING or error_code(reply) in _ANSWERS:
                return reply
            why, what = None, f"status {reply.status} {error_code(reply)}".strip()
            wait = max(wait, min(retry_after(reply.headers, 0.0), 30.0))
        if tries >= settings.attempts or now() - began + wait > settings.retry_for:
            raise Unreachable(f"{call.method} {call.path}: {what}, tried {tries} times") from why
        yield Pause(wait)


def accepted(reply: Reply, *statuses: int) -> Any:
    """The body, if the status is one of these.

    Raises:
        ApiError: it is another.
    """
    if reply.status in statuses:
        return reply.body
    raise api_error(reply)


def api_error(reply: Reply) -> ApiError:
    """What the server says went wrong."""
    error = reply.body.get("error") if isinstance(reply.body, dict) else None
    error = error if isinstance(error, dict) else {}
    message = str(error.get("message") or "no message")
    return ApiError(reply.status, error_code(reply) or "unknown", message, reply.body)


def error_code(reply: Reply) -> str:
    """The error's code, or an empty text."""
    error = reply.body.get("error") if isinstance(reply.body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""


def retry_after(headers: Mapping[str, str], otherwise: float) -> float:
    """Seconds of the Retry-After header."""
    try:
        return max(0.0, float(headers.get("retry-after", otherwise)))
    except ValueError:
        return otherwise
