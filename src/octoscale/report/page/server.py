"""The page of a run that goes on, served to this machine's browser; it updates by itself.

    with serving(Path("runs/mine")) as url:       http://127.0.0.1:8008/
        ...

    /             the page, with what there is
    /state.json   a few bytes: whether the run goes on, and the number of the data; the page asks each second
    /data.json    what is new, asked for when that number is another

The standard library's server is enough: one reader, three addresses, no upload; and it starts a thread for each
request, so that a slow browser keeps nobody. Nothing is read before somebody asks, and not more than once a second: a
run that nobody looks at is not slowed. Who serves as long as a run goes on serves a moment longer, so that an open page
shows its end. It can be read only, and nothing but the three is there. The Host header has to name this machine: else
any page in the browser could have its own name point here, and read what this answers.
"""

import ipaddress
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from octoscale.report.page.folder import RunReader
from octoscale.report.page.write import data_of, page_of, policy
from octoscale.system.errors import UserError

HOST, PORT = "127.0.0.1", 8008

#: Seconds between two looks at the run's folder, at least, and its share of the time if a look takes long; at most so
#: many, for a look that other processes kept waiting says nothing of what it cost.
_PERIOD, _SHARE, _LONGEST = 0.8, 0.5, 2.0

#: Seconds in which an open page may fetch the end of a run: it asks each second.
_FAREWELL = 3.0


class LiveRun:
    """What the server knows of a run; any thread may ask."""

    def __init__(self, folder: Path | str) -> None:
        self._reader, self._lock = RunReader(folder), threading.Lock()
        self._token, self._number = secrets.token_hex(4), 0
        self._next_look = 0.0
        self._state: dict[str, str] = {}
        self._data: str | None = None
        self._was_asked, self._fetched = False, ""

    def state(self) -> dict[str, Any]:
        """The number of the data, and whether the run goes on."""
        with self._lock:
            self._was_asked = True
            self._look()
            return {"version": self._version, "state": self._state}

    def data(self, *, at_once: bool = False) -> tuple[str, str]:
        """All that the page shows, as JSON; and its version. at_once: look at the run first, whenever that was done."""
        with self._lock:
            self._was_asked = True
            self._next_look *= not at_once
            self._look()
            if self._data is None:
                began = time.monotonic()
                self._data = json.dumps(self._content(), allow_nan=False)
                self._rest_after(began)
            return self._data, self._version

    def page(self) -> tuple[str, str]:
        """The page itself, and the version of its data."""
        with self._lock:
            self._was_asked = True
            self._look()
            began = time.monotonic()
            page = page_of(self._content())
            self._rest_after(began)
            return page, self._version

    def was_fetched(self, version: str) -> None:
        """A page has got the data of that version."""
        self._fetched = version

    def wait_for_pages(self) -> None:
        """Look at the run once more, now; return when a page has got what there is, or a moment later. At once if
        nobody ever asked.
        """
        if not self._was_asked:
            return
        _, last = self.data(at_once=True)
        until = time.monotonic() + _FAREWELL
        while self._fetched != last and time.monotonic() < until:
            time.sleep(0.05)

    @property
    def _version(self) -> str:
        return f"{self._token}-{self._number}"

    def _content(self) -> dict[str, Any]:
        return data_of([self._reader], live=True, version=self._version)

    def _look(self) -> None:
        """Read what is new, unless it was looked at a moment ago."""
        began = time.monotonic()
        if began < self._next_look:
            return
        if self._reader.refresh():
            self._is_new()
        state = self._reader.state()
        if state != self._state:
            self._state = state
            self._is_new()
        self._rest_after(began)

    def _rest_after(self, began: float) -> None:
        """Leave the time until the next look to the run: the work since `began` is a share of it."""
        ended = time.monotonic()
        self._next_look = ended + min(_LONGEST, max(_PERIOD, (ended - began) / _SHARE))

    def _is_new(self) -> None:
        self._number += 1
        self._data = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], run: LiveRun) -> None:
        self.run, self.given_host = run, address[0]
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; what else fails was answered with 500."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    server_version, sys_version = "octoscale", ""
    timeout = 20

    def do_GET(self) -> None:
        """Answer with one of the three."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """The same without its body."""
        self._answer(with_body=False)

    def _refuse_method(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"read only\n", with_body=True)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a run's own progress stands on the terminal."""

    def _answer(self, *, with_body: bool) -> None:
        if not is_this_machine(self.headers.get("Host"), self.server.given_host):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"the Host header names another machine\n", with_body)
            return
        path = self.path.split("?", 1)[0]
        run = self.server.run
        try:
            if path == "/state.json":
                self._send_state(run, with_body)
            elif path == "/data.json":
                self._send_version(run, *run.data(), "application/json", with_body)
            elif path == "/":
                self._send_version(run, *run.page(), "text/html; charset=utf-8", with_body)
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is only the page\n", with_body)
        except (BrokenPipeError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001  whatever a damaged folder raises, the page says it and asks again
            text = f"{type(error).__name__}: the run could not be read\n"
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", text.encode(), with_body)

    def _send_version(self, run: LiveRun, text: str, version: str, kind: str, with_body: bool) -> None:
        self._send(HTTPStatus.OK, kind, text.encode(), with_body)
        if with_body:
            run.was_fetched(version)

    def _send_state(self, run: LiveRun, with_body: bool) -> None:
        """Nothing but 304 if the browser knows it already."""
        state = run.state()
        tag = f'"{state["version"]}-{state["state"]["name"]}"'
        if self.headers.get("If-None-Match") == tag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", tag)
            self.end_headers()
        else:
            self._send(HTTPStatus.OK, "application/json", json.dumps(state).encode(), with_body, tag)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, with_body: bool, tag: str | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{policy(live=True)}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache" if tag else "no-store",
        } | ({"ETag": tag} if tag else {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def serving(
    folder: Path | str, host: str = HOST, port: int | None = None, *, to_the_end: bool = False
) -> Iterator[str]:
    """Serve the page of a run while the block runs; gives its address. The folder need not be there yet.

    port: None for 8008, or any free one if that is taken. to_the_end: the run ends with the block; a page that is open
    gets to show that, for which it has a moment. UserError for a port that cannot be had, or a host that is none of
    this machine's.
    """
    server = _bound(LiveRun(folder), host, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="octoscale-watch", daemon=True)
    thread.start()
    try:
        yield _address(server, host)
    finally:
        if to_the_end:
            _say_farewell(server.run)
        server.shutdown()
        server.server_close()
        thread.join()


def _say_farewell(run: LiveRun) -> None:
    """Let an open page show the end. Ctrl-C ends the waiting; a folder that cannot be read is no error of its run."""
    with suppress(Exception, KeyboardInterrupt):
        run.wait_for_pages()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_this_machine(header: str | None, given: str) -> bool:
    """Whether a Host header names the server by an address, or by a name that is surely this machine's.

    given: the host that it was told to serve on.
    """
    if header is None:
        return False
    host = header.rsplit(":", 1)[0] if not header.endswith("]") and ":" in header else header
    host = host.strip("[]").lower().rstrip(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host in ("localhost", given.lower(), socket.gethostname().lower())
    return True


def _bound(run: LiveRun, host: str, port: int | None) -> _Server:
    if port is not None and not 0 <= port < 2**16:
        raise UserError(f"port {port}: a number from 1 to 65535, or 0 for any that is free")
    try:
        return _Server((host, PORT if port is None else port), run)
    except OSError as error:
        if port is None and not isinstance(error, socket.gaierror):
            return _bound(run, host, 0)
        where = f"{host}, port {PORT if port is None else port}"
        raise UserError(f"cannot serve on {where}: {error.strerror or error}; try --port 0") from error


def _address(server: _Server, host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  it is compared, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{server.server_address[1]}/"
