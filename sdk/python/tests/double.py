"""A server that speaks the protocol as far as the tests need it, on loopback. What it says can be scripted."""

import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Double:
    """Keeps one journal per run; `on` puts scripted answers before what it would say itself."""

    def __init__(self):
        self.calls = []
        self.scripted = defaultdict(list)
        self.queue = []
        self.journals = defaultdict(dict)
        self.ends = {}
        self.released = []
        self.changed = threading.Condition()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                split = urlsplit(self.path)
                said = double.said(self.command, unquote(split.path), body, dict(self.headers))
                if said is None:  # cut the connection without an answer
                    self.close_connection = True
                    self.connection.close()
                    return
                status, body, headers = (*said, {})[:3]
                text = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def on(self, path_end, *answers):
        """The next calls of a path that ends so get these answers: (status, body) or (status, body, headers), None to
        cut the connection, or a function of the body that gives one of them."""
        self.scripted[path_end] += answers

    def offer(self, workflow, input=None, run="run_1", version="1", **view):
        """Lets the run be claimed."""
        with self.changed:
            self.queue.append({"id": run, "workflow": workflow, "version": version, "input": input, **view})
            self.changed.notify_all()

    def said(self, method, path, body, headers):
        with self.changed:
            self.calls.append((method, path, body, headers))
            self.changed.notify_all()
            scripted = next((answers for end, answers in self.scripted.items() if answers and path.endswith(end)), None)
            answer = scripted.pop(0) if scripted else self.itself(method, path, body)
            self.changed.notify_all()
        return answer(body) if callable(answer) else answer

    def itself(self, method, path, body):
        parts = path.split("/", 4)  # "", v1, runs, ID, the rest
        if path == "/v1/claim":
            if not self.queue:
                self.changed.wait(0.05)
            return (200, self.claimed(self.queue.pop(0))) if self.queue else (204, None)
        if path == "/v1/runs" and method == "POST":
            return 201, {"id": "run_1"}
        if len(parts) < 5:
            return 200, {}
        run, rest = parts[3], parts[4]
        if rest.startswith("steps/"):
            return self.step(method, self.journals[run], rest, body)
        if rest == "journal":
            return 200, {"steps": list(self.journals[run].values()), "next": None}
        if rest == "finish":
            self.ends[run] = body
            return 200, {}
        if rest == "release":
            self.released.append((run, body["after_s"]))
            return 200, {}
        if rest == "heartbeat":
            return 200, {"lease": "held"}
        return 404, {"error": {"message": f"nothing at {path}", "code": "no_such_run"}}

    def claimed(self, view):
        steps = list(self.journals[view["id"]].values())
        page = {"steps": steps, "next": None}
        return {"run": view, "epoch": 7, "lease_s": 30, "input": view["input"], "journal": page}

    def step(self, method, journal, rest, body):
        if method == "GET":
            key = rest.removeprefix("steps/")
            return (200, journal[key]) if key in journal else (404, {"error": {"message": "no", "code": "no_such_run"}})
        key, verb = rest.removeprefix("steps/").rsplit("/", 1)
        kept = journal.setdefault(key, {"key": key, "state": "absent", "attempts": 0})
        if verb == "begin":
            if kept["state"] == "done":
                return 200, {"do": "replay", "ok": kept["ok"], "diverged": False}
            if kept["state"] == "failed_final":
                return 200, {"do": "replay", "error": kept["error"], "diverged": False}
            kept.update(state="intent", attempts=kept["attempts"] + 1, fingerprint=body["fingerprint"])
            kept["kind"], kept["class"], kept["undo"] = body["kind"], body["class"], body.get("undo")
            return 200, {
                "do": "execute",
                "attempt": kept["attempts"],
                "epoch": 7,
                "idempotency_key": f"ol-{key}",
                "deadline_ms": int(body["timeout_s"] * 1000),
            }
        if "ok" in body:
            kept.update(state="done", ok=body["ok"])
            return 200, {"step": "done"}
        if "unknown" in body:
            kept.update(state="unknown")
            return 200, {"step": "unknown", "after_ms": 0}
        if "review" in body:
            return 200, {"step": "parked", "why": "human", "escalation": {"id": "e1", "url": "/"}}
        if body.get("error", {}).get("final") or kept["attempts"] >= 3:
            kept.update(state="failed_final", error=body["error"])
            return 200, {"step": "failed"}
        return 200, {"step": "again", "after_ms": 0}

    def bodies(self, path_end):
        with self.changed:
            return [body for _, path, body, _ in self.calls if path.endswith(path_end)]

    def until(self, condition, what="a condition", timeout=10.0):
        """Waits until the condition holds."""
        end = time.monotonic() + timeout
        with self.changed:
            while not condition():
                left = end - time.monotonic()
                assert left > 0, f"{what} did not come about; calls: {[call[:2] for call in self.calls][-20:]}"
                self.changed.wait(min(left, 0.02))
