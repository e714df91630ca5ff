"""The server's clients, for the tests: some polite, some not."""

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from oomwatchd.model import Address
from oomwatchd.server import Reporter

ASK = b"GET /metrics HTTP/1.0\r\n\r\n"


def address_of(reporter: Reporter) -> Address:
    assert reporter.address is not None
    return reporter.address


def connect(reporter: Reporter) -> socket.socket:
    return socket.create_connection(address_of(reporter), timeout=10)


def connect_slow_reader(reporter: Reporter) -> socket.socket:
    """It has asked for the metrics; with so small a buffer the server must wait for it to read."""
    connection = socket.socket()
    connection.settimeout(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address_of(reporter))
    connection.sendall(ASK)
    return connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side hangs up, politely or not."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def say(reporter: Reporter, request: bytes) -> bytes:
    with connect(reporter) as connection:
        with contextlib.suppress(OSError):  # the server may hang up before it has all
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def fetch(
    reporter: Reporter, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    address = address_of(reporter)
    client = http.client.HTTPConnection(address.host, address.port, timeout=10)
    with contextlib.closing(client):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, headers=named)
        response = client.getresponse()
        return response, response.read()


def ask_unix(path: Path, request: bytes = b"GET /status HTTP/1.0\r\n\r\n") -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(request)
        return everything(connection)


def eventually(happened: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.01)
    return True
