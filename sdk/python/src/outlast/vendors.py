"""The vendors' own clients, pointed at the gateway with the run's headers set. Imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from .claim import Claim
from .errors import OutlastError


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
    return getattr(module, kind)(**given)
