"""The vendors' own clients, pointed at the gateway with the run's headers set. Imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

import httpx

from .claim import Claim
from .errors import OutlastError

#: What a vendor's client says of a repetition of its own: the same question, not another one.
RETRIES = "x-stainless-retry-count"


def openai_client(kind: str, claim: Claim, headers: dict[str, str], options: dict[str, Any]) -> Any:
    """`openai.OpenAI` or `openai.AsyncOpenAI`."""
    return _client("openai", kind, f"{claim.settings.base_url}/v1", claim, headers, options)


def anthropic_client(kind: str, claim: Claim, headers: dict[str, str], options: dict[str, Any]) -> Any:
    """`anthropic.Anthropic` or `anthropic.AsyncAnthropic`."""
    return _client("anthropic", kind, claim.settings.base_url, claim, headers, options)


def _client(
    package: str, kind: str, base_url: str, claim: Claim, headers: dict[str, str], options: dict[str, Any]
) -> Any:
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise OutlastError(f"run.{package}() needs the package {package}: pip install 'outlast[{package}]'") from error
    # Where the gateway asks for no key, the vendors' clients still do.
    given = {"base_url": base_url, "api_key": claim.settings.api_key or "none", **options}
    given["default_headers"] = {**(options.get("default_headers") or {}), **headers}
    if "http_client" not in options:
        given["http_client"] = _numbering(module, kind.startswith("Async"), claim)
    return getattr(module, kind)(**given)


def _numbering(module: Any, asynchronous: bool, claim: Claim) -> Any:
    """The vendor's own HTTP client, which says the how many-th time a question is asked: a body that is gone through
    anew asks the same questions in the same order, and the gateway answers each with what it answered then."""

    def number(request: httpx.Request) -> None:
        asked = request.headers.get("x-outlast-step", "").encode() or request.read()
        again = request.headers.get(RETRIES, "0") != "0"
        request.headers["x-outlast-occurrence"] = str(claim.occurrence(request.url.path.encode() + asked, again))

    async def number_async(request: httpx.Request) -> None:
        number(request)

    if asynchronous:
        return module.DefaultAsyncHttpxClient(event_hooks={"request": [number_async]})
    return module.DefaultHttpxClient(event_hooks={"request": [number]})
