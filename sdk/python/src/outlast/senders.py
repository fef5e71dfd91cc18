"""One connection pool per server for all threads of this process, and one per server for each event loop."""

from __future__ import annotations

import asyncio
import threading
from weakref import WeakKeyDictionary

from .transport import AsyncHttpSender, HttpSender, Settings

_lock = threading.Lock()
_sync: dict[Settings, HttpSender] = {}
_async: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, AsyncHttpSender]] = WeakKeyDictionary()


def sync_sender(settings: Settings) -> HttpSender:
    """The pool of all threads."""
    with _lock:
        if settings not in _sync:
            _sync[settings] = HttpSender(settings)
        return _sync[settings]


def async_sender(settings: Settings) -> AsyncHttpSender:
    """The pool of the running loop."""
    loop = asyncio.get_running_loop()
    with _lock:
        pools = _async.setdefault(loop, {})
        if settings not in pools:
            pools[settings] = AsyncHttpSender(settings)
        return pools[settings]


async def close_async() -> None:
    """Closes the pools of the running loop."""
    with _lock:
        pools = _async.pop(asyncio.get_running_loop(), {})
    for pool in pools.values():
        await pool.close()
