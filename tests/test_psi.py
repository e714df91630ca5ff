"""Pressure as the kernel tells it."""

import contextlib
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from fakeproc import FakeProc
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.psi import PressureFile, PressureTrigger, parse_pressure
from oomwatchd.model import Pressure, PressureKind, PressureWindow, Threshold

TEXT = b"""\
some avg10=1.50 avg60=0.25 avg300=100.00 total=1500000
full avg10=0.75 avg60=0.10 avg300=99.99 total=250
"""
READ = Pressure(1.5, 0.25, 100.0, 1.5, 0.75, 0.1, 99.99, 0.00025)


@pytest.mark.parametrize(
    "raw",
    [
        TEXT,
        TEXT.rstrip(b"\n"),
        b"\n".join(reversed(TEXT.strip().split(b"\n"))),
        TEXT + b"most avg10=7.00 avg60=0.00 avg300=0.00 total=9\n",  # a later kernel's
        TEXT.replace(b"=1500000", b"=1500000 more=1"),
    ],
)
def test_both_lines_are_read_whatever_else_there_is(raw: bytes) -> None:
    assert parse_pressure(raw) == READ


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        TEXT.split(b"\n")[0],
        TEXT.replace(b"avg60=0.10", b"avg60="),
        TEXT.replace(b"avg60=0.10", b"avg60=0.1.0"),
        TEXT.replace(b"total=250", b"total=-1"),
    ],
)
def test_a_missing_or_broken_line_is_a_value_error_and_nothing_half_filled(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"pressure|float"):
        parse_pressure(raw)


@given(st.binary() | st.integers(0, len(TEXT)).map(lambda size: TEXT[:size]))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    try:
        pressure = parse_pressure(raw)
    except ValueError:
        return

    assert pressure[:7] == READ[:7]  # the last digits of the last total may be cut


@pytest.mark.parametrize(
    ("kind", "window", "percent"),
    [("some", "avg10", 1.5), ("some", "avg300", 100.0), ("full", "avg60", 0.1)],
)
def test_a_threshold_finds_its_average(
    kind: PressureKind, window: PressureWindow, percent: float
) -> None:
    assert READ.percent(Threshold(kind, window, 0.0)) == percent


def test_the_open_file_always_reads_what_is_there_now(fake: FakeProc) -> None:
    fake.pressure(some=1.5)
    file = PressureFile(fake.root)
    first = file.read()
    fake.pressure(some=20.25, full=3.0)
    second = file.read()
    file.close()

    assert (first.some_avg10, second.some_avg10, second.full_avg10) == (1.5, 20.25, 3.0)


def test_a_kernel_without_pressure_is_an_os_error(fake: FakeProc) -> None:
    with pytest.raises(FileNotFoundError):
        PressureFile(fake.root)


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="no PSI here")
def test_the_file_of_this_kernel_is_understood() -> None:
    file = PressureFile()
    try:
        pressure = file.read()
    except OSError:
        pytest.skip("PSI is switched off")
    finally:
        file.close()

    assert 0.0 <= pressure.full_avg10 <= pressure.some_avg10 <= 100.0
    assert pressure.some_total_seconds >= pressure.full_total_seconds


# -- the trigger -----------------------------------------------------------------------------------

TRIGGER_SECONDS: Final = 20.0  # far more than it takes
LIMIT_BYTES: Final = 8 << 20
# Reads a file over and over that does not fit into the memory it may use.
THRASHES: Final = """
import os, sys
with open(sys.argv[1], "w") as group:
    group.write(str(os.getpid()))
fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
for _ in range(32):
    os.write(fd, bytes(1 << 20))
os.fsync(fd)
print("thrashes", flush=True)
while True:
    for block in range(32):
        os.pread(fd, 1 << 20, block << 20)
"""


def limited_group() -> Path:
    """A new cgroup with little memory; skips the test where there can be none."""
    groups = Path("/sys/fs/cgroup")
    one, limit = groups / "memory", "memory.limit_in_bytes"
    if not one.is_dir():
        one, limit = groups, "memory.max"
    group = one / f"oomwatchd-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroups may be made here: {error}")
    try:
        (group / limit).write_text(str(LIMIT_BYTES), encoding="ascii")
    except OSError as error:
        group.rmdir()
        pytest.skip(f"no cgroup has a limit here: {error}")
    return group


@contextlib.contextmanager
def thrashing() -> Iterator[None]:
    """One process that mostly waits for its memory."""
    group = limited_group()
    with (
        # Not /tmp, which may lie in memory itself.
        tempfile.TemporaryDirectory(dir="/var/tmp") as directory,
        subprocess.Popen(
            [sys.executable, "-c", THRASHES, group / "cgroup.procs", f"{directory}/file"],
            stdout=subprocess.PIPE,
        ) as child,
    ):
        try:
            assert child.stdout is not None
            if not child.stdout.readline():
                pytest.skip("the file cannot be taken out of memory here")
            yield
        finally:
            child.kill()
            child.wait()
            group.rmdir()


@pytest.fixture
def trigger() -> Iterator[PressureTrigger]:
    try:
        trigger = PressureTrigger()
    except OSError as error:
        pytest.skip(f"no pressure triggers here: {error}")
    yield trigger
    trigger.close()


def test_the_kernel_is_told_the_threshold_with_a_line_break_behind_it(fake: FakeProc) -> None:
    fake.pressure()
    PressureTrigger(fake.root).close()

    written, _, rest = (fake.root / "pressure/memory").read_text().partition("\n")
    assert written == "some 100000 2000000"
    assert rest != ""  # not cut off, as the kernel's file cannot be


def test_a_trigger_that_is_refused_is_an_os_error_and_leaves_nothing_open(fake: FakeProc) -> None:
    (fake.root / "pressure").mkdir()
    (fake.root / "pressure/memory").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        PressureTrigger(fake.root)


def test_without_pressure_there_is_no_trigger(fake: FakeProc) -> None:
    with pytest.raises(FileNotFoundError):
        PressureTrigger(fake.root)


def test_under_pressure_the_trigger_is_ready_once_in_a_window(trigger: PressureTrigger) -> None:
    poll = select.poll()
    poll.register(trigger, select.POLLPRI)

    with thrashing():
        told = [poll.poll(TRIGGER_SECONDS * 1000) for _ in range(2)]
        at_once_again = poll.poll(0)

    assert told == [[(trigger.fileno(), select.POLLPRI)]] * 2
    assert at_once_again == []
