"""The HTTP server: /metrics and /healthz for everyone who can connect, /status for root alone.

It is made for clients that are silent, slow, hostile or many: each connection has one thread, one
request and a deadline; there are never more than CONNECTIONS_MAX of them, as the one that has
said nothing for longest makes room for the next.  It reads nothing but what was last published.
"""

import contextlib
import errno
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from oomwatchd.listeners import listen_tcp, listen_unix, resolved
from oomwatchd.metrics import Exposition
from oomwatchd.model import Address, Snapshot
from oomwatchd.pages import (
    INDEX_PAGE,
    NOT_FOUND,
    NOT_YET,
    REFUSED,
    Answer,
    Header,
    Page,
    health_page,
    metrics_page,
    status_page,
    text,
)
from oomwatchd.spared import spared

with spared("ssl"):  # OpenSSL takes 4 MiB, and is there for clients that speak HTTPS
    from http.server import BaseHTTPRequestHandler

CONNECTIONS_MAX: Final = 16  # for each of the two sockets
HEAD_BYTES_MAX: Final = 16384  # a browser sends its cookies for localhost, whoever set them
HEAD_SECONDS: Final = 5.0  # for the whole request to arrive
SEND_SECONDS: Final = 5.0  # for the whole answer to leave
RETRY_SECONDS: Final = 0.1
NEVER_SECONDS: Final = 86400.0  # socketserver wants to wake up; nothing of ours needs it
OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


# -- one connection --------------------------------------------------------------------------------


def read_head(connection: socket.socket) -> bytes:
    """The request up to its empty line; cut at HEAD_BYTES_MAX; empty if the client hangs up first.

    Raises: TimeoutError when it is not whole after HEAD_SECONDS, however many bytes have come.
    """
    deadline = time.monotonic() + HEAD_SECONDS
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < HEAD_BYTES_MAX:
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError
        connection.settimeout(left_seconds)
        received = connection.recv(HEAD_BYTES_MAX - len(head))
        if not received:
            return b""
        head += received
    return head


class _Handler(BaseHTTPRequestHandler):
    """One request and its answer; http.server takes the request apart, in memory."""

    server: "_Server"

    def setup(self) -> None:
        self.connection = self.request
        self._head = read_head(self.connection)
        self._answered = BytesIO()
        self.rfile, self.wfile = BytesIO(self._head), self._answered
        self.command = ""  # for an answer to what is no request
        self.server.heard(self.connection)

    def handle(self) -> None:
        if len(self._head) == HEAD_BYTES_MAX:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self.raw_requestline = self.rfile.readline()
        if self.raw_requestline and self.parse_request():  # it answers a bad one itself
            self._send(self._answer())

    def finish(self) -> None:
        self.connection.settimeout(SEND_SECONDS)  # for sendall this is the time for all of it
        self.connection.sendall(self._answered.getvalue())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with the status alone: what http.server says quotes the request."""
        status = HTTPStatus(code)
        self._send(text(status, f"{code} {status.phrase}"))

    def _answer(self) -> Answer:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            return NOT_FOUND
        if self.command not in ("GET", "HEAD"):
            return REFUSED
        return page(lambda name: ",".join(self.headers.get_all(name, ())))

    def _send(self, answer: Answer) -> None:
        # http.server takes garbage for HTTP/0.9, and would send neither status nor headers.
        self.request_version = ""
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Date", self.date_time_string())
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


# -- one listening socket --------------------------------------------------------------------------


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Accepts in one thread and answers each connection in another."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, pages: Mapping[str, Page]) -> None:
        socketserver.BaseServer.__init__(self, listener.getsockname(), _Handler)
        self.socket = listener
        self.pages: Final = pages
        self._changed: Final = threading.Condition()
        self._open: Final[dict[socket.socket, bool]] = {}  # oldest first; True: request is whole
        thread = threading.Thread(
            target=self.serve_forever, args=(NEVER_SECONDS,), name="oomwatchd-http", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # TasksMax= is reached, or there is no memory for its stack
            self.server_close()
            raise OSError(errno.EAGAIN, str(error)) from error

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                time.sleep(RETRY_SECONDS)  # it still waits in the queue and would wake us at once
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            while len(self._open) >= CONNECTIONS_MAX:
                silent = (one for one, heard in self._open.items() if not heard)
                _hang_up(next(silent, None) or next(iter(self._open)))
                self._changed.wait()
            self._open[request] = False
        super().process_request(request, client_address)

    def heard(self, request: socket.socket) -> None:
        with self._changed:
            self._open[request] = True

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            del self._open[request]
            self._changed.notify()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a client that went away or was too slow; a fault of ours gets its traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Accept nothing more; what is being answered goes on to its end."""
        self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.shutdown()
        self.server_close()

    def hang_up(self) -> None:
        with self._changed:
            for connection in self._open:
                _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    """Wake the connection's thread, wherever it waits; it closes the socket itself."""
    with contextlib.suppress(OSError):  # the client was quicker
        connection.shutdown(socket.SHUT_RDWR)


# -- what the daemon calls -------------------------------------------------------------------------


class Reporter:
    """Serves the last published snapshot, from threads of its own, until it is closed.

    *stale_seconds* is the age of the last turn above which /healthz says no; it may be set anew
    at any time.  *status_socket* is the path of the unix socket, None for none.

    Raises: OSError, with a strerror for the log, if either cannot be listened on.
    """

    def __init__(
        self, listen: Address | None, status_socket: Path | None, *, stale_seconds: float
    ) -> None:
        self.stale_seconds = stale_seconds
        self._published: Exposition | None = None
        self._listen: Address | None = None
        self._tcp: _Server | None = None
        self._unix: _Server | None = None
        self._status_socket: Final = status_socket
        try:
            if status_socket is not None:
                pages = {**self._pages(), "/status": self._status}
                self._unix = _Server(listen_unix(status_socket), pages)
            self.rebind(listen)
        except OSError:
            self.close()
            raise

    @property
    def address(self) -> Address | None:
        """Where /metrics is served: the port is the real one if 0 was asked for."""
        return None if self._tcp is None else Address(*self._tcp.socket.getsockname()[:2])

    def publish(self, snapshot: Snapshot) -> None:
        """Show *snapshot* from now on.  Takes no lock and renders nothing."""
        self._published = Exposition(snapshot)

    def rebind(self, listen: Address | None) -> None:
        """Serve on another address, None for none.

        Raises: OSError, with a strerror for the log; then the old address is still served.
        """
        listen = None if listen is None else resolved(listen)
        if listen == self._listen:
            return
        old, new = self._tcp, None
        if listen is not None:
            same_port = self.address is not None and self.address.port == listen.port
            shared = old.socket if old is not None and same_port else None
            new = _Server(listen_tcp(listen, share_port_with=shared), self._pages())
        self._tcp, self._listen = new, listen
        if old is not None:
            old.stop()

    def close(self) -> None:
        """Stop serving, at once."""
        for server in (self._tcp, self._unix):
            if server is not None:
                server.stop()
                server.hang_up()
        if self._unix is not None and self._status_socket is not None:
            self._status_socket.unlink(missing_ok=True)
        self._tcp = self._unix = self._listen = None

    def _pages(self) -> dict[str, Page]:
        return {"/": self._index, "/metrics": self._metrics, "/healthz": self._health}

    def _index(self, header: Header) -> Answer:
        return INDEX_PAGE

    def _metrics(self, header: Header) -> Answer:
        published = self._published
        return NOT_YET if published is None else metrics_page(published, header)

    def _health(self, header: Header) -> Answer:
        published = self._published
        if published is None:
            return NOT_YET
        age_seconds = time.monotonic() - published.snapshot.turn_seconds
        return health_page(age_seconds, self.stale_seconds)

    def _status(self, header: Header) -> Answer:
        published = self._published
        return NOT_YET if published is None else status_page(published.snapshot, time.time())
