"""Memory of a process and of the machine, as /proc tells it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.proc import PROC
from oomwatchd.kernel.status import Memory, Status, parse_meminfo, parse_status, read_status

HEAD = b"""\
Name:\tpostgres
Umask:\t0077
State:\tS (sleeping)
Tgid:\t712
Ngid:\t0
Pid:\t712
PPid:\t1
TracerPid:\t0
Uid:\t107\t0\t0\t0
Gid:\t115\t115\t115\t115
FDSize:\t64
Groups:\t115 116\x20
NStgid:\t712
NSpid:\t712
NSpgid:\t712
NSsid:\t712
"""
MEMORY = b"""\
VmPeak:\t  219052 kB
VmSize:\t  218520 kB
VmLck:\t       0 kB
VmPin:\t       0 kB
VmHWM:\t   29844 kB
VmRSS:\t   27000 kB
RssAnon:\t    4000 kB
RssFile:\t   20000 kB
RssShmem:\t    3000 kB
VmData:\t    1228 kB
VmStk:\t     132 kB
VmExe:\t    5580 kB
VmLib:\t   25588 kB
VmPTE:\t     180 kB
VmSwap:\t    1500 kB
HugetlbPages:\t    2048 kB
"""
TAIL = b"""\
CoreDumping:\t0
Threads:\t3
SigQ:\t0/63453
"""
LINUX_4_19 = HEAD + MEMORY + TAIL
LINUX_6_18 = (
    HEAD + b"Kthread:\t0\n" + MEMORY + TAIL.replace(b"Threads", b"THP_enabled:\t1\nThreads")
)
POSTGRES = Status(
    uid=107,
    state="S",
    threads=3,
    rss_anon_bytes=4000 * 1024,
    rss_file_bytes=20000 * 1024,
    rss_shmem_bytes=3000 * 1024,
    swap_bytes=1500 * 1024,
    page_tables_bytes=180 * 1024,
    has_memory=True,
)


@pytest.mark.parametrize("raw", [LINUX_4_19, LINUX_6_18], ids=["4.19", "6.18"])
def test_every_size_comes_in_bytes_and_the_user_is_the_real_one(raw: bytes) -> None:
    status = parse_status(raw)

    assert status == POSTGRES
    assert status.resident_bytes == 27000 * 1024


def test_before_linux_4_5_resident_memory_is_the_one_sum_there_is() -> None:
    lines = [line for line in LINUX_4_19.splitlines(keepends=True) if not line.startswith(b"Rss")]

    status = parse_status(b"".join(lines))

    assert status.resident_bytes == 27000 * 1024
    assert (status.swap_bytes, status.page_tables_bytes) == (1500 * 1024, 180 * 1024)


def test_page_tables_of_before_linux_4_15_do_not_hide_the_swap_behind_them() -> None:
    status = parse_status(LINUX_4_19.replace(b"VmSwap:", b"VmPMD:\t      12 kB\nVmSwap:"))

    assert status == POSTGRES


def test_a_process_without_memory_says_so() -> None:
    status = parse_status(HEAD.replace(b"S (sleeping)", b"Z (zombie)") + TAIL)

    assert (status.has_memory, status.state, status.threads) == (False, "Z", 3)
    assert status.resident_bytes == 0


@pytest.mark.parametrize(
    "name", [b"", b"State:\tZ", b"VmRSS:\t9 kB", b"x\\nThreads:\\t9", b"Name:", b"\xff) Z 1 ("]
)
def test_a_name_cannot_pose_as_another_line(name: bytes) -> None:
    assert parse_status(LINUX_6_18.replace(b"postgres", name)) == POSTGRES


def test_a_terabyte_is_wider_than_its_column() -> None:
    status = parse_status(LINUX_6_18.replace(b"    4000 kB", b"1073741824 kB"))

    assert status.rss_anon_bytes == 1 << 40


def test_cut_at_any_place_it_is_refused_or_whole() -> None:
    needed = LINUX_6_18.index(b"SigQ")
    for length in range(len(LINUX_6_18)):
        if length < needed:
            with pytest.raises(ValueError, match="not a status file"):
                parse_status(LINUX_6_18[:length])
        else:
            assert parse_status(LINUX_6_18[:length]) == POSTGRES


@given(st.binary() | st.lists(st.sampled_from(LINUX_6_18.splitlines(keepends=True))).map(b"".join))
def test_nothing_but_a_value_error_is_raised(raw: bytes) -> None:
    try:
        status = parse_status(raw)
    except ValueError:
        return
    assert raw.startswith(b"Name:")
    assert status.has_memory == (b"VmSwap:" in raw)


def test_our_own_status_is_that_of_a_program_that_runs() -> None:
    with directory_of(os.getpid()) as directory:
        status = read_status(directory)

    assert status.has_memory
    assert (status.uid, status.state) == (os.getuid(), "R")
    assert 1 << 20 < status.rss_file_bytes < status.resident_bytes < 1 << 34
    assert status.page_tables_bytes > 0


def test_all_groups_a_process_may_have_do_not_hide_its_memory(tmp_path: Path) -> None:
    groups = b"4294967294 " * 65536
    (tmp_path / "status").write_bytes(LINUX_6_18.replace(b"115 116 ", groups))

    with directory_of("", root=tmp_path) as directory:
        assert read_status(directory) == POSTGRES


def test_the_kernel_hands_out_such_a_long_status_whole() -> None:
    code = """
import os, sys
try:
    os.setgroups(range(4_000_000_000, 4_000_065_536))
except PermissionError:
    print("refused", flush=True)
print("ready", flush=True)
sys.stdin.read()
"""
    program = [sys.executable, "-c", code]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        answer = child.stdout.readline()
        with directory_of(child.pid) as directory:
            status = read_status(directory)
        child.kill()
    if answer == b"refused\n":
        pytest.skip("needs CAP_SETGID")

    assert status.has_memory
    assert status.resident_bytes > 1 << 20


MEMINFO = b"""\
MemTotal:       24684092 kB
MemFree:        24302084 kB
MemAvailable:   24327520 kB
Buffers:            4872 kB
Cached:           206024 kB
SwapCached:            7 kB
Active:           123456 kB
Active(anon):       1234 kB
SwapTotal:       2097148 kB
SwapFree:        2096000 kB
Zswap:                 0 kB
"""


def test_totals_of_the_machine_come_in_bytes() -> None:
    assert parse_meminfo(MEMINFO) == Memory(
        total_bytes=24684092 * 1024,
        available_bytes=24327520 * 1024,
        swap_total_bytes=2097148 * 1024,
        swap_free_bytes=2096000 * 1024,
    )


@pytest.mark.parametrize("raw", [b"", MEMINFO[:200], b"MemTotal: 1 kB\n", LINUX_6_18])
def test_what_is_not_meminfo_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a meminfo file"):
        parse_meminfo(raw)


def test_the_meminfo_of_this_machine_agrees_with_sysconf() -> None:
    memory = parse_meminfo(Path("/proc/meminfo").read_bytes())

    assert memory.total_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.available_bytes <= memory.total_bytes


@contextmanager
def directory_of(pid: int | str, root: Path = PROC) -> Iterator[int]:
    directory = os.open(root / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)
