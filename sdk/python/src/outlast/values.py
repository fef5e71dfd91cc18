"""JSON, and nothing else, is what a journal can give back as it was."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from .errors import NotJson

_LEAST, _MOST = -(2**63), 2**64 - 1


def recorded(value: Any, what: str) -> Any:
    """The value as the journal gives it back: tuples are lists. `what` names it in the error.

    Raises:
        NotJson: it holds something else than None, bool, int (64 bits), finite float, str, list, tuple or dict with
            str keys.
    """
    return _copy(value, what, "", 0)


def _copy(value: Any, what: str, path: str, depth: int) -> Any:
    if depth > 100:
        raise NotJson(f"{what}: deeper than 100 levels at {path or 'its top'}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotJson(f"{what}: half a character (a lone surrogate) at {path or 'its top'}") from None
        return str(value)
    if isinstance(value, int):
        if not _LEAST <= value <= _MOST:
            raise NotJson(f"{what}: an int beyond 64 bits at {path or 'its top'}; write it as a str")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotJson(f"{what}: {value} at {path or 'its top'} is no JSON number")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_copy(item, what, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        copied = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotJson(
                    f"{what}: a key of type {type(key).__name__} at {path or 'its top'}; JSON has only str keys"
                )
            copied[_copy(key, what, path, depth)] = _copy(item, what, f"{path}.{key}", depth + 1)
        return copied
    raise NotJson(f"{what}: a value of type {type(value).__name__} at {path or 'its top'} is not JSON")


def canonical(value: Any) -> str:
    """One text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """64 hex digits that stand for a recorded value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
