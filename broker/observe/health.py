"""What machines ask over plain HTTP: `/metrics`, `/healthz` (the process answers), `/readyz` (it can do its work).

A server in a thread of its own, so that a busy event loop is seen as what it is instead of making the answer late.
"""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON_TYPE: Final = "application/json"
STOP_WITHIN_S: Final = 0.05

Checks = Mapping[str, str]
"""What readiness rests on: a name and "ok", or words that say what is wrong."""


class Readiness:
    """What the broker needs to do its work. Written by the event loop, read by the server's threads."""

    def __init__(self) -> None:
        self._checks: dict[str, str | Callable[[], str]] = {}

    def expect(self, name: str) -> None:
        """Not ready before `name` is."""
        self._checks[name] = "not yet"

    def set(self, name: str, state: str = "ok") -> None:
        """`name` is "ok", or what is wrong with it."""
        self._checks[name] = state

    def ask(self, name: str, check: Callable[[], str]) -> None:
        """Ask `check` each time; it answers "ok" or what is wrong."""
        self._checks[name] = check

    @property
    def checks(self) -> Checks:
        """Every check with its present answer."""
        return {name: check() if callable(check) else check for name, check in list(self._checks.items())}

    @property
    def is_ready(self) -> bool:
        """Whether all of them are "ok"."""
        return all(answer == "ok" for answer in self.checks.values())


class HealthServer:
    """The HTTP server. `address` is where it listens once it is started; port 0 takes a free one."""

    def __init__(self, host: str, port: int, readiness: Readiness, metrics: Callable[[], bytes]) -> None:
        handler = type("Handler", (_Handler,), {"readiness": readiness, "metrics": staticmethod(metrics)})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_WITHIN_S,), name="health", daemon=True
        )

    @property
    def address(self) -> str:
        """`host:port`."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; the port is free on return."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    readiness: Readiness
    metrics: Callable[[], bytes]
    server_version = "mesh"
    sys_version = ""
    timeout = 5.0

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, METRICS_TYPE, self.metrics())
        elif path == "/healthz":
            self._say(200, {"status": "ok"})
        elif path == "/readyz":
            checks = self.readiness.checks
            is_ready = all(answer == "ok" for answer in checks.values())
            self._say(200 if is_ready else 503, {"status": "ok" if is_ready else "not ready", "checks": dict(checks)})
        else:
            self._say(404, {"status": f"nothing at {path}; there are /metrics, /healthz and /readyz"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Nothing: probes come every second."""

    def _say(self, code: int, words: Mapping[str, object]) -> None:
        self._answer(code, JSON_TYPE, json.dumps(words).encode() + b"\n")

    def _answer(self, code: int, content_type: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
