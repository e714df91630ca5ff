"""What systemd hears, over a real socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.systemd.notify import Notifier, watchdog_seconds


class Manager:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(5.0)

    def heard(self) -> str:
        return self._socket.recv(4096).decode()

    def heard_nothing(self) -> bool:
        self._socket.settimeout(0)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@oomwatchd-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager("\0" + address[1:] if address[0] == "@" else address)
    yield manager
    manager.close()


@pytest.fixture
def notifier(address: str) -> Iterator[Notifier]:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    yield notifier
    assert notifier._socket is not None
    notifier._socket.close()  # the daemon's own lives as long as the daemon


def test_what_is_told_at_once_arrives_as_one_message(manager: Manager, notifier: Notifier) -> None:
    delivered = notifier.send("READY=1", "STATUS=2 processes")

    assert delivered
    assert manager.heard() == "READY=1\nSTATUS=2 processes"


def test_a_status_that_has_not_changed_is_not_told_again(
    manager: Manager, notifier: Notifier
) -> None:
    for status in ("STATUS=1", "STATUS=1", "STATUS=2", "STATUS=1"):
        notifier.send("WATCHDOG=1", status)

    assert [manager.heard() for _ in range(4)] == [
        "WATCHDOG=1\nSTATUS=1",
        "WATCHDOG=1",
        "WATCHDOG=1\nSTATUS=2",
        "WATCHDOG=1\nSTATUS=1",
    ]


def test_nothing_is_sent_where_there_is_nothing_new(manager: Manager, notifier: Notifier) -> None:
    notifier.send("STATUS=1")
    manager.heard()
    notifier.send("STATUS=1")

    assert manager.heard_nothing()


def test_a_status_that_could_not_be_delivered_is_told_again(
    address: str, notifier: Notifier
) -> None:
    delivered = notifier.send("STATUS=1")  # nobody listens yet
    manager = Manager("\0" + address[1:] if address[0] == "@" else address)
    notifier.send("STATUS=1")

    assert not delivered
    assert manager.heard() == "STATUS=1"
    manager.close()


def test_a_manager_that_does_not_read_does_not_hang_us(
    manager: Manager, notifier: Notifier
) -> None:
    delivered = [notifier.send(f"STATUS={number}", "x" * 1000) for number in range(2000)]

    assert delivered[0]
    assert not delivered[-1]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:3"}])
def test_without_a_manager_nothing_is_sent_and_all_is_well(environment: dict[str, str]) -> None:
    assert Notifier(environment).send("READY=1", "STATUS=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "7"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdog_s_time_is_that_of_our_own_process(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environment, 7) == seconds
