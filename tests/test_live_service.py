"""The daemon as a service: what it tells systemd, how it ends, and when it refuses to start."""

import contextlib
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from live import (
    PATIENCE_SECONDS,
    REPOSITORY,
    Herd,
    Service,
    adj,
    herd,
    needs_root,
    own_value,
    rule,
    service,
    temporary_directory,
    until,
)

pytestmark = needs_root

VALUE = 311
STOP_SECONDS: Final = 1.0  # promised
NOBODY: Final = 65534
RULE = rule("training", {"script": "live-train.sh"}, VALUE)


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        processes.script("live-train.sh", "echo ready\nread -r line\n")
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


def train(animals: Herd, value: int | None = None) -> subprocess.Popen[bytes]:
    return animals.ready("/bin/sh", "./live-train.sh", value=value)


# -- systemd ---------------------------------------------------------------------------------------


class Message(NamedTuple):
    seconds: float  # monotonic, when it came
    fields: dict[str, str]


class Manager:
    """The end of NOTIFY_SOCKET where systemd listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.messages: list[Message] = []

    def listen(self, seconds: float) -> Message | None:
        """The next message, if there is one within *seconds*."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        lines = self.socket.recv(4096).decode().splitlines()
        fields = dict(line.split("=", 1) for line in lines)
        self.messages.append(Message(time.monotonic(), fields))
        return self.messages[-1]

    def await_field(self, name: str) -> Message:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            message = self.listen(0.1)
            if message is not None and name in message.fields:
                return message
        raise AssertionError(f"no {name} in {self.messages}")


@pytest.fixture
def manager() -> Iterator[Manager]:
    with temporary_directory() as directory:
        one = Manager(directory / "notify")
        yield one
        one.socket.close()


def test_ready_comes_after_the_first_scan_and_says_what_it_found(
    animals: Herd, daemon: Service, manager: Manager
) -> None:
    children = [train(animals) for _ in range(3)]
    daemon.configure(RULE)
    daemon.launch(NOTIFY_SOCKET=str(manager.path))

    first = manager.await_field("READY")

    assert [adj(child.pid) for child in children] == [VALUE] * 3
    assert manager.messages == [first]
    assert first.fields["READY"] == "1"
    assert first.fields["STATUS"].startswith("3 processes under 1 rules, memory pressure ")

    train(animals)
    changed = manager.await_field("STATUS")

    assert changed.fields["STATUS"].startswith("4 processes under 1 rules")


def test_a_reload_is_announced_with_its_time_and_ends_with_ready(
    daemon: Service, manager: Manager
) -> None:
    daemon.configure(RULE)
    process = daemon.launch(NOTIFY_SOCKET=str(manager.path))
    manager.await_field("READY")
    before_us = time.monotonic_ns() // 1000
    process.send_signal(signal.SIGHUP)

    reloading = manager.await_field("RELOADING")
    ready = manager.await_field("READY")

    assert reloading.fields["RELOADING"] == "1"
    after_us = int(reloading.seconds * 1e6)
    assert before_us <= int(reloading.fields["MONOTONIC_USEC"]) <= after_us
    assert "READY" not in reloading.fields
    assert ready.fields["READY"] == "1"

    daemon.config.write_text("broken: [", encoding="utf-8")
    process.send_signal(signal.SIGHUP)

    assert manager.await_field("RELOADING").fields["RELOADING"] == "1"
    assert manager.await_field("READY").fields["READY"] == "1"


def test_the_watchdog_is_fed_at_least_twice_in_its_period_however_long_the_interval(
    daemon: Service, manager: Manager
) -> None:
    period_seconds = 1.5
    daemon.configure(RULE, interval="1h")
    daemon.launch(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=str(int(period_seconds * 1e6)))
    ready = manager.await_field("READY")

    until_seconds = ready.seconds + 4 * period_seconds
    while time.monotonic() < until_seconds:
        manager.listen(0.1)

    fed = [message.seconds for message in manager.messages if "WATCHDOG" in message.fields]
    gaps = [later - earlier for earlier, later in pairwise(fed)]
    assert len(fed) >= 8
    assert max(gaps) < period_seconds  # it is aimed at a third; a busy machine may delay one


def test_a_stop_is_announced(daemon: Service, manager: Manager) -> None:
    daemon.configure(RULE)
    process = daemon.launch(NOTIFY_SOCKET=str(manager.path))
    manager.await_field("READY")
    process.send_signal(signal.SIGTERM)

    assert manager.await_field("STOPPING").fields == {"STOPPING": "1"}
    assert process.wait(PATIENCE_SECONDS) == 0


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("interval", ["100ms", "1h"])
def test_a_signal_ends_it_within_a_second(
    daemon: Service, number: signal.Signals, interval: str
) -> None:
    daemon.configure(RULE, interval=interval)
    daemon.start()
    started = time.monotonic()

    status = daemon.stop(number)

    assert time.monotonic() - started < STOP_SECONDS
    assert status == 0
    assert "<3>" not in daemon.log()
    assert not (daemon.runtime / "status.sock").exists()


def test_it_ends_within_a_second_also_when_hundreds_of_values_have_to_be_put_back(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-many.sh", MANY)
    leader = animals.ready("/bin/sh", "./live-many.sh", value=57)
    daemon.configure(RULE, on_stop="restore")
    daemon.start()
    until(lambda: daemon.metric("oomwatchd_rule_processes", rule="training") == 400, "all of them")
    started = time.monotonic()

    status = daemon.stop()

    assert time.monotonic() - started < STOP_SECONDS
    assert status == 0
    children = Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()
    assert len(children) == 400
    assert {adj(int(pid)) for pid in children} == {57}


MANY = """
exec 3<&0
echo ready
for number in $(seq 400); do
    sh ./live-train.sh <&3 >/dev/null &
done
wait
"""


# -- the start -------------------------------------------------------------------------------------


def test_a_port_in_use_is_said_and_is_no_fault_of_the_configuration(daemon: Service) -> None:
    with socket.create_server(("127.0.0.1", daemon.port)):
        daemon.configure(RULE)
        status, said = daemon.once()

    assert status == 1
    assert said == f"<3>cannot listen on 127.0.0.1:{daemon.port}: Address already in use\n"


def test_a_second_daemon_is_refused_and_does_not_disturb_the_first(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(RULE)
    child = train(animals)
    daemon.start()
    claims = daemon.claims()
    with service() as second:
        second.runtime = daemon.runtime
        second.configure(rule("other", {"script": "live-train.sh"}, 999))
        status, said = second.once()

    assert status == 1
    assert "another oomwatchd runs" in said
    assert adj(child.pid) == VALUE
    assert daemon.claims() == claims
    assert daemon.answers("/healthz")
    assert (daemon.runtime / "status.sock").is_socket()


def test_a_socket_that_a_crash_has_left_behind_is_no_obstacle(daemon: Service) -> None:
    daemon.configure(RULE)
    daemon.start()
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (daemon.runtime / "status.sock").is_socket()

    daemon.start()

    assert daemon.answers("/healthz")


BAD: Final = {
    "yaml": "rules: [",
    "value": "rules: [{name: a, match: {name: live-a}, oom_score_adj: 1001}]",
    "key": "rulez: []",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_broken_file_is_refused_and_nothing_is_touched(
    animals: Herd, daemon: Service, text: str
) -> None:
    child = train(animals)
    daemon.config.write_text(text, encoding="utf-8")
    status, said = daemon.once()

    assert status == 78
    assert re.match(rf"<3>{daemon.config}:\d+:\d+: .+\n", said)
    assert adj(child.pid) == own_value()
    assert not daemon.runtime.exists()


def test_a_file_that_others_may_write_is_refused(daemon: Service) -> None:
    daemon.configure(RULE)
    daemon.config.chmod(0o664)

    status, said = daemon.once()

    assert status == 78
    assert str(daemon.config) in said
    assert not daemon.runtime.exists()


def test_a_missing_file_is_said(daemon: Service) -> None:
    status, said = daemon.once()

    assert status == 66
    assert said.startswith(f"<3>{daemon.config}: ")
    assert "no such file" in said.lower()
    assert said.count("\n") == 1


def launch_as_nobody(daemon: Service, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the daemon as a user without rights, with an interpreter that root may start."""
    program = (
        "import os, sys; import oomwatchd.cli.run, oomwatchd.cli.main as cli;"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY});"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", program, *daemon.command(*arguments)[3:]],
            stderr=log,
            cwd=REPOSITORY,
            env=daemon.environment(),
        )
    return daemon.process


def test_nobody_may_not_run_it(animals: Herd, daemon: Service) -> None:
    child = train(animals)
    daemon.configure(RULE)

    assert launch_as_nobody(daemon).wait(PATIENCE_SECONDS) == 77
    assert daemon.log().startswith("<3>only root may ")
    assert daemon.log().count("\n") == 1
    assert adj(child.pid) == own_value()


# -- a dry run -------------------------------------------------------------------------------------


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in [directory, *directory.rglob("*")]
    }


def test_a_dry_run_says_what_it_would_set_and_writes_nothing_anywhere(
    animals: Herd, daemon: Service
) -> None:
    children = [train(animals), train(animals, value=57)]
    daemon.configure(RULE, on_stop="restore", interval="100ms")
    files = tree(daemon.directory)

    daemon.start("--dry-run")
    daemon.turns(5)
    assert daemon.stop() == 0

    assert [adj(child.pid) for child in children] == [own_value(), 57]
    for child, before in zip(children, (own_value(), 57), strict=True):
        line = f"<6>process {child.pid} 'sh', rule training: would set {before} -> {VALUE}\n"
        assert daemon.log().count(line) == 1
    assert "rule training: set" not in daemon.log()
    changed = tree(daemon.directory).items() ^ files.items()
    assert {path for path, _ in changed} <= {str(daemon.directory), str(daemon.log_file)}
    assert not daemon.runtime.exists()


def test_anybody_may_make_a_dry_run_even_beside_the_real_daemon(
    animals: Herd, daemon: Service
) -> None:
    child = train(animals)
    daemon.configure(RULE)
    daemon.start()
    with service() as dry:
        dry.runtime = daemon.runtime
        dry.configure(rule("training", {"script": "live-train.sh"}, 444))
        launch_as_nobody(dry, "--dry-run")
        dry.logged(f"would set {VALUE} -> 444")

        assert dry.stop() == 0

    assert adj(child.pid) == VALUE


def test_a_dry_run_of_other_rules_beside_the_daemon_says_once_what_would_go_back(
    animals: Herd, daemon: Service
) -> None:
    child = train(animals, value=57)
    daemon.configure(RULE)
    daemon.start()
    with service() as dry:
        dry.runtime = daemon.runtime
        other = rule("other", {"script": "live-other.sh"}, 444)
        dry.configure(other, interval="100ms", on_stop="restore")
        dry.start("--dry-run")
        dry.turns(30)  # it is looked at again when it is twice as old
        assert dry.stop() == 0
        line = f"<6>process {child.pid} 'sh', rule training: would set {VALUE} -> 57\n"

        assert dry.log().count(line) == 1

    assert adj(child.pid) == VALUE


# -- what it leaves open ---------------------------------------------------------------------------


def test_what_it_writes_is_for_root_alone(animals: Herd, daemon: Service) -> None:
    train(animals)
    daemon.configure(RULE)
    daemon.start()

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in daemon.runtime.iterdir()}
    assert modes == {"ledger.json": 0o600, "status.sock": 0o600}
    assert stat.S_IMODE(daemon.runtime.stat().st_mode) == 0o750


def fill(pipe: int) -> None:
    """Write until nobody else can."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"." * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b".")
    os.set_blocking(pipe, True)


def drained(pipe: int) -> bytes:
    return os.read(pipe, 1 << 20)


def test_health_is_bad_while_the_loop_hangs_and_good_again_after_that(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(RULE, interval="100ms")
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0), open(writing, "wb", buffering=0):
        daemon.start(stderr=writing, WATCHDOG_USEC="300000")
        daemon.turns(30)  # the kills that there were before, if any, have been told by then
        fill(writing)
        child = train(animals)  # and there is no room for what the log has to say about it

        until(lambda: not daemon.answers("/healthz"), "bad health")
        assert adj(child.pid) == VALUE
        assert daemon.answers("/metrics")

        drained(reading)
        until(lambda: daemon.answers("/healthz"), "good health")

        assert daemon.stop() == 0
