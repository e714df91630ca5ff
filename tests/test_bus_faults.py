"""What becomes of a bus that is not there, silent, or out of its mind; and what it costs us."""

import contextlib
import errno
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from busclient import ANSWERS, OK, OWNER, WELCOME, killed, signal

from oomwatchd.systemd.bus import (
    ANSWER_SECONDS,
    CHUNK_BYTES,
    DRAIN_BYTES_MAX,
    DRAIN_MESSAGES_MAX,
    PAUSE_SECONDS,
    PAUSE_SECONDS_MAX,
    Killed,
    OomdSignals,
)

REPOSITORY = Path(__file__).parent.parent
IMPORT_BYTES_MAX = 300 << 10


class FakeBus:
    """One that says what a test wants it to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self._links: list[socket.socket] = []

    def accept(self) -> socket.socket:
        link, _ = self.listener.accept()
        self._links.append(link)
        return link

    def close(self) -> None:
        for one in (self.listener, *self._links):
            one.close()


@pytest.fixture
def fake_bus(tmp_path: Path) -> Iterator[FakeBus]:
    with closing(FakeBus(tmp_path / "bus")) as bus:
        yield bus


@pytest.fixture
def signals(fake_bus: FakeBus) -> Iterator[OomdSignals]:
    with closing(OomdSignals(fake_bus.path)) as signals:
        yield signals


def is_ready(signals: OomdSignals) -> bool:
    return bool(select.select([signals], [], [], 0)[0])


def welcomed(signals: OomdSignals, bus: FakeBus, now_seconds: float = 0.0) -> socket.socket:
    signals.drain(now_seconds)
    link = bus.accept()
    link.sendall(OK)
    signals.drain(now_seconds)
    link.sendall(b"".join(ANSWERS))
    signals.drain(now_seconds)
    assert link.recv(65536)  # what is left unread makes of an end a reset
    assert signals.listening
    return link


def test_nothing_is_waited_for_of_a_bus_that_is_silent(
    fake_bus: FakeBus, signals: OomdSignals
) -> None:
    started = time.monotonic()
    drained = [signals.drain(float(second)) for second in range(int(ANSWER_SECONDS))]
    took_seconds = time.monotonic() - started

    assert drained == [[]] * 30
    assert took_seconds < ANSWER_SECONDS / 10
    assert (signals.fault, signals.due_seconds) == ("", ANSWER_SECONDS)
    assert not is_ready(signals)

    signals.drain(ANSWER_SECONDS)

    assert signals.fault == "it has not answered within 30 s"
    assert signals.due_seconds == ANSWER_SECONDS + PAUSE_SECONDS


def test_a_bus_that_stops_in_the_middle_of_its_welcome_is_left(
    fake_bus: FakeBus, signals: OomdSignals
) -> None:
    signals.drain(0.0)
    fake_bus.accept().sendall(WELCOME[:-1])
    signals.drain(1.0)
    signals.drain(ANSWER_SECONDS)

    assert signals.fault == "it has not answered within 30 s"


def test_a_bus_that_takes_nobody_in_is_not_waited_for(
    fake_bus: FakeBus, signals: OomdSignals
) -> None:
    waiting = []
    with contextlib.suppress(BlockingIOError):  # the queue is full
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            waiting[-1].connect(str(fake_bus.path))
    signals.drain(0.0)
    for one in waiting:
        one.close()

    assert signals.fault == os.strerror(errno.EAGAIN)


def test_silence_is_no_fault_once_it_listens(fake_bus: FakeBus, signals: OomdSignals) -> None:
    link = welcomed(signals, fake_bus)
    signals.drain(1e6)

    assert (signals.fault, signals.due_seconds) == ("", float("inf"))

    link.sendall(killed("/late", sender=OWNER))

    assert is_ready(signals)
    assert signals.drain(2e6) == [Killed("/late", "memory-used")]


def test_the_pauses_grow_up_to_a_bound_and_are_kept(tmp_path: Path) -> None:
    pauses = []
    with closing(OomdSignals(tmp_path / "none")) as signals:
        now_seconds = 0.0
        for _ in range(9):
            signals.drain(now_seconds)
            pauses.append(signals.due_seconds - now_seconds)
            now_seconds = signals.due_seconds
        signals.drain(now_seconds - 0.001)

        assert signals.due_seconds == now_seconds
        assert signals.fault == os.strerror(errno.ENOENT)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize(("heard_seconds", "pauses"), [(1.0, [1, 2, 4]), (60.0, [1, 1, 1])])
def test_pauses_grow_while_connections_do_not_last(
    fake_bus: FakeBus, signals: OomdSignals, heard_seconds: float, pauses: list[float]
) -> None:
    now_seconds, found = 0.0, []
    for _ in pauses:
        welcomed(signals, fake_bus, now_seconds).close()
        now_seconds += heard_seconds
        signals.drain(now_seconds)
        found.append(signals.due_seconds - now_seconds)
        now_seconds = signals.due_seconds

    assert signals.fault == "it has hung up"
    assert found == pauses
    assert PAUSE_SECONDS_MAX == 60.0


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"garbage of all kinds", "no byte order: 0x67"),
        (b"\0" * 20, "no byte order: 0x00"),
        (b"l\4\0\1" + b"\xff" * 12, "too long: 4294967295 bytes"),
        (killed(sender=OWNER)[:-1] + b"x", "a string that does not end at its end"),
    ],
)
def test_a_bus_that_does_not_make_sense_is_left_and_it_is_said_why(
    fake_bus: FakeBus, signals: OomdSignals, said: bytes, fault: str
) -> None:
    welcomed(signals, fake_bus).sendall(said)
    kills = signals.drain(1.0)

    assert kills == []
    assert signals.fault.startswith(fault)
    assert signals.due_seconds == 1.0 + PAUSE_SECONDS
    assert not signals.listening
    assert not is_ready(signals)


def test_what_a_bus_says_is_told_on_one_short_line(fake_bus: FakeBus, signals: OomdSignals) -> None:
    signals.drain(0.0)
    fake_bus.accept().sendall(b"NO\n\x1b[2J\xff" + b"x" * 5000 + b"\r\n")
    signals.drain(0.0)

    assert signals.fault.startswith("it answers AUTH with NO\\n\\x1b[2J\\xffxxx")
    assert len(signals.fault) == 200


def test_a_welcome_in_any_pieces_will_do(fake_bus: FakeBus, signals: OomdSignals) -> None:
    signals.drain(0.0)
    link = fake_bus.accept()
    kills = []
    for byte in WELCOME + killed("/a", sender=OWNER):
        link.sendall(bytes((byte,)))
        kills += signals.drain(0.0)

    assert kills == [Killed("/a", "memory-used")]


def test_what_was_said_before_the_end_is_heard(fake_bus: FakeBus, signals: OomdSignals) -> None:
    link = welcomed(signals, fake_bus)
    link.sendall(killed("/a", sender=OWNER))
    link.close()

    assert signals.drain(1.0) == [Killed("/a", "memory-used")]
    assert signals.fault == "it has hung up"


def test_a_connection_that_is_reset_is_a_lost_one(fake_bus: FakeBus, signals: OomdSignals) -> None:
    signals.drain(0.0)
    fake_bus.accept().close()  # with AUTH unread
    signals.drain(0.0)

    assert signals.fault == os.strerror(errno.ECONNRESET)


@pytest.mark.parametrize("size", [1, 8000])
def test_a_turn_ends_after_so_many_messages_or_bytes(
    fake_bus: FakeBus, signals: OomdSignals, size: int
) -> None:
    link = welcomed(signals, fake_bus)
    link.settimeout(0)
    one = signal("/", "a.b", "c", ["x" * size], sender=":1.6")
    assert link.send(one * ((1 << 20) // len(one))) > 2 * DRAIN_BYTES_MAX  # as much as goes in
    turns = 0
    while is_ready(signals):
        before = signals._conversation.messages
        signals.drain(0.0)
        taken = signals._conversation.messages - before
        turns += 1

        assert taken <= DRAIN_MESSAGES_MAX + CHUNK_BYTES // len(one)
        assert taken * len(one) <= DRAIN_BYTES_MAX + len(one)
    assert turns > 2


def test_descriptors_that_came_along_are_not_taken(
    fake_bus: FakeBus, signals: OomdSignals, tmp_path: Path
) -> None:
    link = welcomed(signals, fake_bus)
    with (tmp_path / "file").open("wb") as file:
        socket.send_fds(link, [killed("/a", sender=OWNER)], [file.fileno()])
    before = os.listdir("/proc/self/fd")
    kills = signals.drain(0.0)

    assert kills == [Killed("/a", "memory-used")]
    assert os.listdir("/proc/self/fd") == before


# -- the cost --------------------------------------------------------------------------------------


def measured(statement: str, expression: str) -> int:
    """In a new interpreter that has what the daemon has before."""
    code = f"import oomwatchd.cli.run, tracemalloc\n{statement}\nprint(int({expression}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_what_it_takes_to_listen_is_little_memory() -> None:
    listening = "tracemalloc.start(); from oomwatchd.systemd.bus import OomdSignals; OomdSignals()"
    kept_bytes = measured(listening, "tracemalloc.get_traced_memory()[0]")

    assert 0 < kept_bytes < IMPORT_BYTES_MAX


def test_the_daemon_does_without_it_where_there_is_no_bus() -> None:
    assert measured("import sys", "'oomwatchd.systemd.bus' in sys.modules") == 0
