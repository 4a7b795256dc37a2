"""Prometheus's text on loopback, made anew for each call."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from fedapp.common.errors import ConfigError
from fedapp.deploy import terminal

__all__ = ["serve", "server_of"]

KIND = "text/plain; version=0.0.4; charset=utf-8"


def server_of(text: Callable[[], str], port: int) -> HTTPServer:
    """Not yet serving. Raises ConfigError where the port cannot be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a caller to say what it wants

        def do_GET(self) -> None:
            if self.headers.get("Host", "").partition(":")[0] not in ("127.0.0.1", "localhost"):
                self.send_error(400)  # a web site has the browser ask here by a name of its own (DNS rebinding)
                return
            if self.path != "/metrics":
                self.send_error(404)
                return
            try:
                content = text().encode()
            except Exception:  # such as a run directory that was removed meanwhile
                self.send_error(500)
                return
            self.send_response(200)
            self.send_header("Content-Type", KIND)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """What callers send fills no log."""

    try:
        return HTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--prometheus {port}: cannot be served on 127.0.0.1: {error}") from None


def serve(text: Callable[[], str], port: int) -> int:
    """Until a signal ends it."""
    with server_of(text, port) as server:
        terminal.say(f"http://127.0.0.1:{server.server_port}/metrics")
        server.serve_forever()
    return 0
