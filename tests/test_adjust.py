"""The only writer to other processes: what it writes, to whom, and what it takes back."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc, at_open_number

from oomwatchd.kernel.adjust import Outcome, adjust, parse_adj, read_adj
from oomwatchd.kernel.proc import Look, ProcFs

OPENS = 6  # stat, write, stat, read: fewer than this many files are opened by one `adjust`


@pytest.fixture
def look(fake: FakeProc, proc: ProcFs) -> Iterator[Look]:
    fake.add(Fake(7, comm=b"postgres"), oom_score_adj=5)
    look = proc.look(7)
    assert look is not None
    yield look
    look.close()


@pytest.mark.parametrize("value", [-1000, -999, -1, 0, 1, 1000])
def test_a_value_is_written_and_zero_is_one(fake: FakeProc, look: Look, value: int) -> None:
    outcome = adjust(look, 5, value)

    assert outcome == Outcome("applied")
    assert fake.oom_score_adj(7) == value == read_adj(look.directory)


@pytest.mark.parametrize("raw", [b"-1000\n", b"0\n", b"17"])
def test_a_value_is_one_decimal_number(raw: bytes) -> None:
    assert parse_adj(raw) == int(raw)


@pytest.mark.parametrize("raw", [b"", b"\n", b"x", b"1 2", b"\xff"])
def test_what_is_no_number_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_adj(raw)


def test_a_pid_in_use_again_is_left_alone(fake: FakeProc, look: Look) -> None:
    fake.reuse(Fake(7, comm=b"sshd", start_ticks=2), oom_score_adj=-17)

    assert adjust(look, 5, -900) == Outcome("gone")
    assert fake.oom_score_adj(7) == -17


BECOMES: dict[str, Callable[[FakeProc], None]] = {
    "exec": lambda fake: fake.exec(7, b"sh"),
    "exec of the same program": lambda fake: fake.exec(7, b"postgres"),
    "rename": lambda fake: fake.rename(7, b"sh"),
    "zombie": lambda fake: fake.change(Fake(7, comm=b"postgres", state=b"Z")),
}


@pytest.mark.parametrize("becomes", BECOMES)
@pytest.mark.parametrize("at", range(1, OPENS))
def test_what_hits_the_wrong_program_is_taken_back(
    fake: FakeProc, look: Look, becomes: str, at: int
) -> None:
    """It becomes something else between any two of our steps."""
    with at_open_number(at, lambda: BECOMES[becomes](fake)) as has_become:
        outcome = adjust(look, 5, -900)

    expected = [("gone", 5)] if has_become() else [("applied", -900)]
    if at == 4:  # we had looked again, and read the value back: the next look's affair
        expected = [("applied", -900)]
    assert [(outcome.result, fake.oom_score_adj(7))] == expected


@pytest.mark.parametrize("at", range(1, OPENS))
def test_a_process_that_ends_at_any_step_is_gone(fake: FakeProc, look: Look, at: int) -> None:
    with at_open_number(at, lambda: fake.exit(7)) as has_ended:
        outcome = adjust(look, 5, -900)

    assert outcome.result == ("gone" if has_ended() else "applied")


@pytest.mark.parametrize("at", range(1, OPENS))
def test_a_pid_given_out_again_at_any_step_is_never_written_to(
    fake: FakeProc, look: Look, at: int
) -> None:
    other = Fake(7, comm=b"postgres", start_ticks=999)
    with at_open_number(at, lambda: fake.reuse(other, oom_score_adj=77)) as has_ended:
        outcome = adjust(look, 5, -900)

    assert fake.oom_score_adj(7) == (77 if has_ended() else -900)
    assert outcome.result == ("gone" if has_ended() else "applied")


def test_a_write_by_somebody_else_at_the_same_moment_is_drift(fake: FakeProc, look: Look) -> None:
    with at_open_number(3, lambda: fake.set_oom_score_adj(7, 300)):
        outcome = adjust(look, 5, -900)

    assert outcome == Outcome("drifted")
    assert fake.oom_score_adj(7) == 300


def test_a_fault_that_nobody_expects_is_raised(fake: FakeProc, look: Look) -> None:
    (fake.root / "7/oom_score_adj").unlink()
    (fake.root / "7/oom_score_adj").mkdir()

    with pytest.raises(IsADirectoryError):
        adjust(look, 5, -900)


# -- real processes --------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs its program
        yield process
        process.communicate()


@pytest.fixture
def look_at_child(child: subprocess.Popen[bytes]) -> Iterator[Look]:
    proc = ProcFs()
    look = proc.look(child.pid)
    assert look is not None
    yield look
    look.close()
    proc.close()


def test_the_kernel_takes_the_value(child: subprocess.Popen[bytes], look_at_child: Look) -> None:
    before = read_adj(look_at_child.directory)
    outcome = adjust(look_at_child, before, 321)
    now = int(Path(f"/proc/{child.pid}/oom_score_adj").read_bytes())

    assert (outcome, now) == (Outcome("applied"), 321)


def test_a_value_out_of_range_is_the_kernel_s_to_refuse(look_at_child: Look) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        adjust(look_at_child, 0, 1001)

    assert caught.value.errno == errno.EINVAL


TRY_TO_LOWER = """
import os, sys
from oomwatchd.kernel.adjust import adjust
from oomwatchd.kernel.proc import ProcFs
print(*adjust(ProcFs().look(os.getpid()), 0, -1000))
"""


def test_who_may_not_lower_a_value_is_refused_with_the_reason() -> None:
    """One's own value may be raised by anybody, and lowered with CAP_SYS_RESOURCE alone."""
    command = [sys.executable, "-c", TRY_TO_LOWER]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-all", *command]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert said == "refused EACCES\n"
