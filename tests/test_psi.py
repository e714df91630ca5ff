"""Pressure as the kernel tells it."""

from pathlib import Path

import pytest
from fakeproc import FakeProc
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.psi import PressureFile, parse_pressure
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
