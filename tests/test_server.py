"""The server against real clients: good, silent, slow, hostile and many."""

import contextlib
import errno
import os
import random
import resource
import select
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import (
    ASK,
    address_of,
    ask_unix,
    connect,
    connect_slow_reader,
    eventually,
    everything,
    fetch,
    say,
)
from snapshots import turn

from oomwatchd.metrics import render
from oomwatchd.model import Address, Match, Rule
from oomwatchd.server import CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_SECONDS, Reporter

ANY_PORT = Address("127.0.0.1", 0)
MANY = 3 * CONNECTIONS_MAX
# More text than the kernel buffers for one connection (2 MB to a slow reader, 4 MB at most).
LARGE = turn(rules=tuple(Rule(f"rule-{i}", Match(name=("x",)), 1) for i in range(8000)))


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[Reporter]:
    threads = threading.active_count()
    reporter = Reporter(ANY_PORT, tmp_path / "s", stale_seconds=15.0)
    reporter.publish(turn())
    yield reporter
    reporter.close()
    assert eventually(lambda: threading.active_count() <= threads)


# -- the unix socket -------------------------------------------------------------------------------


def test_the_unix_socket_is_for_its_owner_alone(reporter: Reporter, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_what_a_crash_has_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / "s"))
        crashed.listen()
    with contextlib.closing(Reporter(None, tmp_path / "s", stale_seconds=15.0)) as reporter:
        reporter.publish(turn())

        assert ask_unix(tmp_path / "s").startswith(b"HTTP/1.0 200 ")
    assert not (tmp_path / "s").exists()


def test_a_second_daemon_does_not_take_the_socket_of_the_first(
    reporter: Reporter, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="another oomwatchd runs") as raised:
        Reporter(None, tmp_path / "s", stale_seconds=15.0)

    assert raised.value.errno == errno.EADDRINUSE
    assert ask_unix(tmp_path / "s").startswith(b"HTTP/1.0 200 ")


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")

    with pytest.raises(OSError, match=f"cannot listen on {tmp_path}/s: Address already in use"):
        Reporter(None, tmp_path / "s", stale_seconds=15.0)
    assert (tmp_path / "s").read_text() == "precious"


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "::", "0.0.0.0"])  # noqa: S104
def test_every_way_to_write_an_address_is_served(host: str) -> None:
    try:
        reporter = Reporter(Address(host, 0), None, stale_seconds=15.0)
    except OSError as error:
        if ":" in host and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            pytest.skip(f"no IPv6 here: {error}")
        if host == "localhost" and error.errno == socket.EAI_NONAME:
            pytest.skip(f"no /etc/hosts here, as in a bare chroot: {error}")
        raise
    with contextlib.closing(reporter):
        reporter.publish(turn())

        assert fetch(reporter, "/healthz")[0].status == 200
        if host == "localhost":  # which is ::1 too, and may be listed first
            assert address_of(reporter).host == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (Address("198.51.100.7", 9847), "cannot listen on 198.51.100.7:9847: Cannot assign"),
        (Address("2001:db8::7", 9847), r"cannot listen on \[2001:db8::7\]:9847: "),
        (Address("nowhere.invalid", 9847), "cannot listen on nowhere.invalid:9847: "),
    ],
)
def test_an_address_that_is_not_ours_is_named(
    address: Address, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=message):
        Reporter(address, tmp_path / "s", stale_seconds=15.0)
    assert not (tmp_path / "s").exists()


def test_a_port_in_use_is_named(reporter: Reporter) -> None:
    host, port = address_of(reporter)

    with pytest.raises(OSError, match=f"cannot listen on {host}:{port}: Address already in use"):
        Reporter(Address(host, port), None, stale_seconds=15.0)


def test_without_an_address_nothing_is_served_on_the_network(tmp_path: Path) -> None:
    with contextlib.closing(Reporter(None, tmp_path / "s", stale_seconds=15.0)) as reporter:
        assert reporter.address is None


def test_a_reload_moves_the_metrics_to_another_address(reporter: Reporter) -> None:
    old = address_of(reporter)
    reporter.rebind(Address("127.0.0.2", 0))

    assert address_of(reporter).host == "127.0.0.2"
    assert fetch(reporter, "/metrics")[0].status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(old, timeout=5)


def test_a_reload_widens_the_address_and_keeps_the_port(reporter: Reporter) -> None:
    port = address_of(reporter).port
    for host in ("0.0.0.0", "127.0.0.1"):  # noqa: S104 - that is the point
        reporter.rebind(Address(host, port))

        assert reporter.address == (host, port)
        assert fetch(reporter, "/metrics")[0].status == 200


def test_a_reload_to_an_address_in_use_leaves_the_old_one(reporter: Reporter) -> None:
    old = address_of(reporter)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OSError, match="cannot listen on"),
    ):
        reporter.rebind(Address(*other.getsockname()))

    assert reporter.address == old
    assert fetch(reporter, "/metrics")[0].status == 200


def test_a_reload_can_turn_the_network_off_and_on(reporter: Reporter) -> None:
    old = address_of(reporter)
    reporter.rebind(None)
    off = reporter.address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(old, timeout=5)
    reporter.rebind(old)

    assert off is None
    assert fetch(reporter, "/metrics")[0].status == 200


def test_a_reload_to_the_same_address_changes_nothing(tmp_path: Path) -> None:
    with contextlib.closing(Reporter(ANY_PORT, None, stale_seconds=15.0)) as reporter:
        before = reporter.address
        reporter.rebind(ANY_PORT)

        assert reporter.address == before


def test_an_answer_under_way_survives_a_reload(reporter: Reporter) -> None:
    reporter.publish(LARGE)
    with connect_slow_reader(reporter) as connection:
        start = connection.recv(100)
        reporter.rebind(None)
        body = (start + everything(connection)).partition(b"\r\n\r\n")[2]

    assert body == render(LARGE)


# -- clients that are no friends -------------------------------------------------------------------


def scrape_seconds(reporter: Reporter) -> float:
    began = time.monotonic()
    response, body = fetch(reporter, "/metrics")
    assert (response.status, body[:7]) == (200, b"# HELP ")
    return time.monotonic() - began


def connected(reporter: Reporter, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    return [stack.enter_context(connect(reporter)) for _ in range(count)]


def test_silent_clients_do_not_keep_a_scrape_out(reporter: Reporter) -> None:
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        connected(reporter, 200, stack)

        assert scrape_seconds(reporter) < 2
        assert eventually(lambda: threading.active_count() - threads < CONNECTIONS_MAX)


def test_of_too_many_clients_the_oldest_silent_one_makes_room(reporter: Reporter) -> None:
    with contextlib.ExitStack() as stack:
        first, second, *others = connected(reporter, CONNECTIONS_MAX, stack)
        [last] = connected(reporter, 1, stack)

        assert everything(first) == b""
        for alive in (second, *others, last):
            alive.sendall(ASK)
            assert everything(alive).startswith(b"HTTP/1.0 200 ")


def test_a_scrape_under_way_is_not_what_makes_room(reporter: Reporter) -> None:
    reporter.publish(LARGE)
    with contextlib.ExitStack() as stack:
        scrape = stack.enter_context(connect_slow_reader(reporter))
        start = scrape.recv(100)
        silent = connected(reporter, MANY, stack)
        assert everything(silent[0]) == b""
        body = (start + everything(scrape)).partition(b"\r\n\r\n")[2]

    assert body == render(LARGE)


def test_slow_readers_do_not_keep_a_scrape_out(reporter: Reporter) -> None:
    threads = threading.active_count()
    reporter.publish(LARGE)
    scrape_seconds(reporter)  # renders the text: that is not what is measured here
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(connect_slow_reader(reporter)) for _ in range(MANY)]
        assert readers[-1].recv(100)

        assert eventually(lambda: threading.active_count() - threads == CONNECTIONS_MAX)
        assert scrape_seconds(reporter) < 2


def test_who_is_silent_slow_to_ask_or_slow_to_read_is_hung_up_on(reporter: Reporter) -> None:
    reporter.publish(LARGE)
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent, trickling = connected(reporter, 2, stack)
        assert stack.enter_context(connect_slow_reader(reporter)).recv(100)
        trickling.sendall(b"GET /metrics HTTP/1.0\r\nX: ")
        began = time.monotonic()
        while not select.select([trickling], [], [], 0.2)[0]:
            assert time.monotonic() - began < 2 * HEAD_SECONDS
            trickling.sendall(b"x")

        assert time.monotonic() - began > HEAD_SECONDS / 2
        assert everything(silent) == b""
        assert eventually(lambda: threading.active_count() <= threads)  # the reader's has ended too


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(b"GET /" + b"a" * HEAD_BYTES_MAX, id="line"),
        pytest.param(b"GET / HTTP/1.0\r\nX: " + b"a" * HEAD_BYTES_MAX, id="header"),
        pytest.param(b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * HEAD_BYTES_MAX, id="many headers"),
    ],
)
def test_a_request_without_end_is_cut_short(reporter: Reporter, request_head: bytes) -> None:
    exact = say(reporter, request_head[:HEAD_BYTES_MAX])

    assert exact.startswith(b"HTTP/1.0 431 ")
    assert say(reporter, request_head * 50)[:13] in (b"HTTP/1.0 431 ", b"")  # or reset, unread
    assert scrape_seconds(reporter) < 2


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/x.y\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),  # TLS
    ],
)
def test_what_is_no_request_gets_a_status_and_no_echo(
    reporter: Reporter, request_head: bytes, status: bytes
) -> None:
    head, _, body = say(reporter, request_head).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.0 " + status)
    assert body.startswith(status)
    assert len(body) < 50


def test_a_terse_client_is_understood(reporter: Reporter) -> None:
    for request in (b"GET /healthz HTTP/1.0\n\n", b"GET /healthz\n\n"):  # as typed into nc
        answer = say(reporter, request)

        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok\n")


def test_garbage_breaks_nothing_and_prints_nothing(
    reporter: Reporter, capfd: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(20240229)  # noqa: S311 - the same garbage every time
    pieces = b"GET |HEAD |/metrics| HTTP/1.|1|\r\n|\n|: |Accept|\0".split(b"|")
    for _ in range(500):
        parts = dice.choices([*pieces, dice.randbytes(dice.randrange(40))], k=dice.randrange(12))
        answer = say(reporter, b"".join(parts) + b"\r\n\r\n")

        assert answer[:9] in (b"", b"HTTP/1.0 ")
    assert scrape_seconds(reporter) < 2
    assert capfd.readouterr() == ("", "")


def test_a_client_that_goes_away_is_not_worth_a_word(
    reporter: Reporter, capfd: pytest.CaptureFixture[str]
) -> None:
    reporter.publish(LARGE)
    threads = threading.active_count()
    for _ in range(20):
        connection = connect_slow_reader(reporter)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.recv(100)
        connection.close()  # with a reset, while the answer is on its way

    assert eventually(lambda: threading.active_count() <= threads)
    assert scrape_seconds(reporter) < 2
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_ours_is_shown_and_does_not_end_the_service(
    reporter: Reporter, capfd: pytest.CaptureFixture[str]
) -> None:
    reporter.publish(turn(level="no such level"))
    nothing = say(reporter, ASK)
    reporter.publish(turn())

    assert nothing == b""
    assert "ValueError" in capfd.readouterr().err
    assert scrape_seconds(reporter) < 2


def test_nothing_is_left_open(reporter: Reporter) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    fetch(reporter, "/metrics")
    before = descriptors()
    for _ in range(100):
        fetch(reporter, "/metrics")

    assert eventually(lambda: descriptors() <= before)


def test_without_free_descriptors_a_scrape_waits_and_costs_nothing(reporter: Reporter) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.settimeout(10)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # poll refuses more than that
        try:
            client.connect(address_of(reporter))
            client.sendall(ASK)
            before = time.process_time()
            answered = bool(select.select([client], [], [], 1.0)[0])
            cpu_seconds = time.process_time() - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert not answered
        assert cpu_seconds < 0.2
        assert everything(client).startswith(b"HTTP/1.0 200 ")


# -- the end ---------------------------------------------------------------------------------------


def test_closing_is_prompt_whoever_is_connected(tmp_path: Path) -> None:
    threads = threading.active_count()
    reporter = Reporter(ANY_PORT, tmp_path / "s", stale_seconds=15.0)
    reporter.publish(LARGE)
    with contextlib.ExitStack() as stack:
        silent = connected(reporter, 4, stack)
        readers = [stack.enter_context(connect_slow_reader(reporter)) for _ in range(4)]
        assert all(reader.recv(100) for reader in readers)
        assert threading.active_count() == threads + 2 + len(silent) + len(readers)
        began = time.monotonic()
        reporter.close()

        assert time.monotonic() - began < 0.5
        assert eventually(lambda: threading.active_count() <= threads, seconds=1.0)
        assert everything(silent[0]) == b""
    assert reporter.address is None


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    reporter = Reporter(ANY_PORT, tmp_path / "s", stale_seconds=15.0)
    reporter.close()
    reporter.close()

    assert not (tmp_path / "s").exists()


def test_a_program_that_ends_does_not_wait_for_its_clients(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from oomwatchd.server import Reporter;"
        "Reporter(None, Path(sys.argv[1]), stale_seconds=1.0); print('ready', flush=True);"
        "sys.stdin.read()"
    )
    path = str(tmp_path / "s")
    with (
        subprocess.Popen(
            [sys.executable, "-c", program, path],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
        socket.socket(socket.AF_UNIX) as silent,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        silent.connect(path)
        tasks = Path(f"/proc/{process.pid}/task")
        assert eventually(lambda: len(list(tasks.iterdir())) == 3)  # main, server, connection
        process.stdin.close()

        assert process.wait(timeout=HEAD_SECONDS / 2) == 0
