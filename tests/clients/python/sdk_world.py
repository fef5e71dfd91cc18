"""What the SDK's tests have: a server of their own, worker processes, and a downstream that counts.

The binary and a fake vendor come from the runner (`cargo xtask clients`), by way of the environment.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import outlast

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
KEY = "sk-sdk-suite-caller-key-000000000000001"
REVIEWER = "sk-sdk-suite-reviewer-key-00000000000001"

CONFIG = """
[server]
keys = ["${SDK_KEY}"]

[store]
file = "outlast.db"
plaintext_payloads = true

[providers.openai]
kind = "openai"
base_url = "%(vendor)s/v1"
api_key = "sk-suite"
probes = false

[routes.agent]
targets = ["openai/gpt-5.2"]

[reviewers.anna]
key = "${SDK_REVIEWER}"

[tools.look_up]
kind = "http"
url = "%(downstream)s/look_up"
effect = "pure"
timeout = "20s"

[tools.ship]
kind = "http"
url = "%(downstream)s/ship"
effect = "keyed"
key_ttl = "1h"
timeout = "20s"
retry = { base = "50ms" }

[tools.pack]
kind = "worker"
queue = "packing"
effect = "keyed"
key_ttl = "1h"
timeout = "20s"
%(more)s
"""


def until(condition, what, timeout=20.0):
    """Waits until the condition holds, and answers with what it gave."""
    end = time.monotonic() + timeout
    while not (met := condition()):
        assert time.monotonic() < end, f"{what} did not come about within {timeout} s"
        time.sleep(0.01)
    return met


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Downstream:
    """Takes effects and counts them by key, as a receiver that keeps keys does. A call can be held."""

    def __init__(self):
        self.calls = []
        self.held = {}
        self.results = {}
        downstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                said = json.dumps(downstream.took(self.path, body, self.headers)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # killed clients hang up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def took(self, path, body, headers):
        key = headers.get("idempotency-key")
        first = key is None or key not in self.results
        result = {"path": path, "took": body, "number": len(self.calls) + 1} if first else self.results[key]
        if key is not None:
            self.results.setdefault(key, result)
        self.calls.append((path, body, key, headers.get("x-outlast-epoch")))
        gate = self.held.get(path)
        if gate is not None:
            gate.wait(30)
        return result

    def hold(self, path):
        """Whoever calls this path waits until the event that is given back is set."""
        self.held[path] = threading.Event()
        return self.held[path]

    def paths(self):
        return [path for path, *_ in self.calls]

    def effects(self):
        """How often each path took place: repetitions under one key are one."""
        seen = {(path, key if key is not None else number) for number, (path, _, key, _) in enumerate(self.calls)}
        return Counter(path for path, _ in seen)

    def close(self):
        for gate in self.held.values():
            gate.set()
        self.server.shutdown()
        self.server.server_close()


class Server:
    """A server process that can be killed and started again on its files."""

    def __init__(self, folder, downstream, more=""):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        vendor = os.environ["OPENAI_VENDOR_URL"]
        (folder / "outlast.toml").write_text(CONFIG % {"vendor": vendor, "downstream": downstream.url, "more": more})
        self.process = None
        self.start()

    def start(self):
        command = [os.environ["OUTLAST_BIN"], "serve", "--listen", f"127.0.0.1:{self.port}", "--config", "outlast.toml"]
        environment = {**os.environ, "SDK_KEY": KEY, "SDK_REVIEWER": REVIEWER}
        log = open(self.folder / "server.log", "ab")
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        log.close()
        until(self.is_ready, "the server")

    def is_ready(self):
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def client(self):
        return outlast.Outlast(self.url, KEY)

    def reviewer(self):
        return outlast.Outlast(self.url, REVIEWER)


class Program:
    """A Python program of the tests or of the examples, in a process of its own."""

    def __init__(self, server, downstream, file, *arguments, log="program.log", **environment):
        self.log = server.folder / log
        environment = {
            **os.environ,
            "OUTLAST_URL": server.url,
            "OUTLAST_API_KEY": KEY,
            "OUTLAST_ROUTE": "agent",
            "DOWNSTREAM": downstream.url,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "sdk/python/src"), str(HERE)]),
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "LANGSMITH_TRACING": "false",
            **environment,
        }
        with open(self.log, "ab") as log:
            command = [sys.executable, str(file), *map(str, arguments)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=server.folder)

    def send(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ended(self, timeout=30):
        """Its exit code."""
        return self.process.wait(timeout)

    def said(self):
        return self.log.read_text()

    def close(self):
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.kill()
