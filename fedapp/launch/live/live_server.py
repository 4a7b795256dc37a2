"""The live page's server: read-only, on loopback. As a program, `python -m fedapp.launch.live.live_server RUN_DIR`.

It watches the run directory alone, and so neither slows the run down nor ends with it. It ends when its standard input
does, which the system closes together with the program that holds the other side.
"""

import asyncio
import socket
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedapp.launch.live.growing import GrowingRun
from fedapp.launch.live.live_page import HTML, STYLE
from fedapp.launch.live.live_script import SCRIPT
from fedapp.report.palette import COLORS, DARK

__all__ = ["live_app", "main"]

LINGER = 3.0  # seconds: an open page asks every second, and is to see how the run ended
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def live_app(directory: Path) -> Starlette:
    """Serves the page of one run. Any other host name than this machine's is refused, as a web site's would be that
    has the browser ask here (DNS rebinding)."""
    run, lock = GrowingRun(directory), threading.Lock()

    def read(first: int, find: str) -> dict[str, object]:
        with lock:
            app.state.asked = time.monotonic()
            return run.state(first, find)

    async def state(request: Request) -> Response:
        asked = request.query_params
        first = asked.get("first", "0")
        place = int(first) if first.isascii() and first.isdecimal() and len(first) < 10 else 0
        return JSONResponse(await asyncio.to_thread(read, place, asked.get("find", "")[:100]), headers=HEADERS)

    def text(content: str, kind: str) -> Route:
        async def serve(request: Request) -> Response:
            return Response(content, media_type=kind, headers=HEADERS)

        return Route({"text/html": "/", "text/css": "/style.css"}.get(kind, "/script.js"), serve)

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    routes = [text(HTML, "text/html"), text(_style(), "text/css"), text(SCRIPT, "text/javascript")]
    app = Starlette(routes=[*routes, Route("/state.json", state)], middleware=[hosts])
    app.state.asked = float("-inf")
    return app


def _style() -> str:
    from jinja2 import Environment

    return Environment().from_string(STYLE).render(light=COLORS, dark=DARK)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0: a free one [0]")
    given = parser.parse_args(arguments)
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", given.port))
        door.listen()  # whoever reads the address may ask at once
        app = live_app(given.run_dir.absolute())
        config = uvicorn.Config(app, log_level="error", lifespan="off", access_log=False)
        server = uvicorn.Server(config)

        def end_with_input() -> None:
            sys.stdin.buffer.read()
            if time.monotonic() - app.state.asked < LINGER:
                time.sleep(LINGER)
            server.should_exit = True

        threading.Thread(target=end_with_input, daemon=True).start()
        print(f"http://127.0.0.1:{door.getsockname()[1]}/", flush=True)
        server.run(sockets=[door])
    return 0


if __name__ == "__main__":
    sys.exit(main())
