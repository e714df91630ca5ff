"""Reading /proc: hostile names, races, and files that pose as others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakeproc import BOOT_ID, Fake, FakeProc
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.proc import (
    ARGUMENTS_LIMIT_BYTES,
    PROC,
    READ_DIRECTORY,
    Look,
    ProcFs,
    parse_arguments,
    parse_stat,
    read,
    read_arguments,
    read_working_directory,
)
from oomwatchd.model import ProcessId

HOSTILE_NAMES = [
    b"",
    b" ",
    b"Web Content",
    b"((sd-pam))",
    b")",
    b"foo) Z ",
    b"()()()())))(((",
    b"x) R 1 (",
    b"a)\nS 2\n(",
    b"\x1b[2J",
    b"\xff\xfe\x00x",
    "müller".encode(),
]
STAT = Fake(7, comm=b"cat", parent=3, start_ticks=4242).stat()


@pytest.mark.parametrize("comm", HOSTILE_NAMES)
def test_a_name_cannot_pose_as_other_fields(comm: bytes) -> None:
    stat = parse_stat(Fake(7, comm=comm, parent=3, session=5, start_ticks=4242).stat())

    assert (stat.comm, stat.state, stat.parent_pid, stat.session) == (comm, "S", 3, 5)
    assert stat.start_ticks == 4242
    assert stat.alive


@given(st.binary(max_size=15), st.integers(1, 1 << 22), st.integers(0, 1 << 40))
def test_no_name_changes_what_is_read_of_the_rest(comm: bytes, parent: int, start: int) -> None:
    stat = parse_stat(Fake(7, comm=comm, parent=parent, start_ticks=start).stat())

    assert (stat.comm, stat.parent_pid, stat.start_ticks) == (comm, parent, start)


@given(st.binary() | st.integers(0, len(STAT)).map(lambda size: STAT[:size]))
def test_what_is_no_whole_stat_line_is_a_value_error_and_nothing_else(raw: bytes) -> None:
    try:
        stat = parse_stat(raw)
    except ValueError:
        return

    assert stat.start_ticks == 4242
    assert raw.strip() == STAT.strip() or len(raw.rpartition(b")")[2].split()) >= 50


def test_a_stat_line_of_this_kernel_is_understood() -> None:
    stat = parse_stat((PROC / "self/stat").read_bytes())

    assert stat.parent_pid == os.getppid()
    assert stat.comm == (PROC / "self/comm").read_bytes().strip()
    assert stat.alive
    assert stat.traceable


def test_another_program_and_another_name_have_another_mark() -> None:
    first = Fake(7, comm=b"python3")
    marks = {
        parse_stat(process.stat()).program
        for process in (
            first,
            Fake(7, comm=b"python3", program=2),  # exec of the same program
            Fake(7, comm=b"python"),
        )
    }
    moved = parse_stat(Fake(7, comm=b"python3", parent=99, state=b"R").stat())

    assert len(marks) == 3
    assert moved.program in marks


@pytest.mark.parametrize(
    ("process", "alive"),
    [
        (Fake(7), True),
        (Fake(7, state=b"D"), True),
        (Fake(7, state=b"T"), True),
        (Fake(7, state=b"Z"), False),
        (Fake(7, state=b"X"), False),
        (Fake(7, state=b"Z", threads=2), True),  # its first thread has ended, and another has not
        (Fake(7, kernel_thread=True), False),
    ],
)
def test_the_dead_and_kernel_threads_are_told_apart(process: Fake, alive: bool) -> None:  # noqa: FBT001 - a table
    assert parse_stat(process.stat()).alive is alive


def test_addresses_that_may_not_be_seen_are_said_to_be_so() -> None:
    line = Fake(7, kernel_thread=True).stat()  # has none at all

    assert not parse_stat(line).traceable
    assert parse_stat(Fake(7).stat()).traceable


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        (b"", []),
        (b"\0", []),
        (b"cat\0", [b"cat"]),
        (b"cat", [b"cat"]),
        (b"a\0\0b\0", [b"a", b"", b"b"]),
        (b"sshd: alice@pts/0\0\0\0\0", [b"sshd: alice@pts/0"]),
        (b"x\0\xff\xfe\0", [b"x", b"\xff\xfe"]),
    ],
)
def test_arguments_are_split_at_their_nuls(raw: bytes, arguments: list[bytes]) -> None:
    assert parse_arguments(raw) == arguments


def test_a_long_command_line_is_read_in_full_up_to_the_limit(fake: FakeProc, proc: ProcFs) -> None:
    for pid, length in ((1, 4095), (2, 4096), (3, 4097), (4, 200_000)):
        fake.add(Fake(pid, arguments=(b"x" * (length - 1),)))
        look = proc.look(pid)
        assert look is not None
        raw = read_arguments(look.directory)
        look.close()

        assert len(raw) == min(length, ARGUMENTS_LIMIT_BYTES)


# -- looking ---------------------------------------------------------------------------------------


def test_the_listing_has_every_process_and_nothing_else(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(Fake(7))
    fake.add(Fake(4194304))

    assert set(proc.listing()) == {"7", "4194304"}
    assert set(proc.listing()) == {"7", "4194304"}  # from its start, every time


def test_a_pid_used_again_shows_by_its_inode(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(Fake(7))
    before = proc.listing()
    fake.exec(7, b"dog")
    after_exec = proc.listing()
    fake.reuse(Fake(7))

    assert after_exec == before
    assert proc.listing() != before


def test_a_process_that_is_not_there_is_an_answer(fake: FakeProc, proc: ProcFs) -> None:
    (fake.root / "8").mkdir()  # it ended between two opens of ours

    assert proc.look(7) is None
    assert proc.stat(7) is None
    assert proc.look(8) is None
    assert proc.stat(8) is None


def test_a_broken_stat_line_is_raised_and_leaves_nothing_open(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(Fake(7))
    (fake.root / "7/stat").write_bytes(b"7 (cat")

    with pytest.raises(ValueError, match="not a stat line"):
        proc.look(7)


def look_at(proc: ProcFs, pid: int) -> Look:
    look = proc.look(pid)
    assert look is not None
    return look


def test_a_look_never_comes_to_point_to_another_process(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(Fake(7, comm=b"postgres", start_ticks=1))
    look = look_at(proc, 7)
    fake.reuse(Fake(7, comm=b"sshd", start_ticks=2))

    assert look.id == ProcessId(7, 1)
    assert not look.still_runs()
    with pytest.raises(FileNotFoundError):
        read(look.directory, "status")
    look.close()


def test_a_look_notices_exec_rename_and_death(fake: FakeProc, proc: ProcFs) -> None:
    for pid in (1, 2, 3, 4, 5):
        fake.add(Fake(pid))
    looks = [look_at(proc, pid) for pid in (1, 2, 3, 4, 5)]
    fake.exec(2, b"cat")
    fake.rename(3, b"dog")
    fake.change(Fake(4, state=b"Z"))
    fake.exit(5)

    assert [look.still_runs() for look in looks] == [True, False, False, False, False]
    for look in looks:
        look.close()


def test_a_real_process_that_has_ended_reads_as_gone() -> None:
    proc = ProcFs()
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # it runs its program
    look = look_at(proc, child.pid)
    before = look.still_runs()
    child.communicate()

    assert before
    assert not look.still_runs()
    assert proc.look(child.pid) is None
    look.close()
    proc.close()


def test_the_boot_is_known_by_its_id(proc: ProcFs) -> None:
    assert proc.boot_id() == BOOT_ID


def test_bytes_in_a_path_that_are_no_text_can_be_told_apart(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))
    odd.touch()
    process = tmp_path / "7"
    process.mkdir()
    (process / "cwd").symlink_to(odd)
    directory = os.open(process, READ_DIRECTORY)

    assert read_working_directory(directory) == f"{tmp_path}/\\xff\n"
    os.close(directory)
