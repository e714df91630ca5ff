"""The kernel's counts of its kills."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.counters import (
    MemoryEvents,
    OomKills,
    parse_memory_events,
    parse_oom_control,
    parse_oom_kills,
    read_memory_events,
)

VMSTAT = b"nr_free_pages 12\npgfault 4\noom_kill 7\nunevictable_pgs_culled 0\noom_kill_more 9\n"
EVENTS_6_12 = b"low 1\nhigh 2\nmax 30\noom 4\noom_kill 5\noom_group_kill 6\n"
EVENTS_5_10 = b"low 1\nhigh 2\nmax 30\noom 4\noom_kill 5\n"
EVENTS_7_1 = EVENTS_6_12 + b"sock_throttled 8\n"
OOM_CONTROL = b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"


def test_kills_since_boot_are_read_from_vmstat() -> None:
    assert parse_oom_kills(VMSTAT) == 7


def test_cgroup_v1_counts_in_oom_control() -> None:
    assert parse_oom_control(OOM_CONTROL) == 3


@pytest.mark.parametrize("raw", [b"", b"nr_free_pages 1\n", b"xoom_kill 7\n", b"oom_kill x\n"])
def test_a_kernel_that_does_not_count_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="oom_kill"):
        parse_oom_kills(raw)


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (EVENTS_5_10, MemoryEvents(1, 2, 30, 4, 5, 0)),
        (EVENTS_6_12, MemoryEvents(1, 2, 30, 4, 5, 6)),
        (EVENTS_7_1, MemoryEvents(1, 2, 30, 4, 5, 6)),
    ],
)
def test_events_of_each_kernel_are_read(raw: bytes, events: MemoryEvents) -> None:
    assert parse_memory_events(raw) == events


@given(st.binary() | st.integers(0, len(EVENTS_6_12)).map(lambda size: EVENTS_6_12[:size]))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    try:
        events = parse_memory_events(raw)
    except ValueError:
        return

    assert events[:5] == (1, 2, 30, 4, 5)


def test_the_open_file_always_reads_what_is_there_now(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_bytes(VMSTAT)
    counter = OomKills(tmp_path)
    first = counter.read()
    (tmp_path / "vmstat").write_bytes(VMSTAT.replace(b"oom_kill 7", b"oom_kill 9"))
    second = counter.read()
    counter.close()

    assert (first, second) == (7, 9)


def test_a_cgroup_that_has_gone_or_does_not_count_is_none(tmp_path: Path) -> None:
    cgroup = tmp_path / "job"
    cgroup.mkdir()
    without = read_memory_events(cgroup)
    (cgroup / "memory.events").write_bytes(EVENTS_6_12)
    (cgroup / "memory.events.local").write_bytes(EVENTS_5_10.replace(b"oom 4", b"oom 0"))

    assert without is None
    assert read_memory_events(tmp_path / "gone") is None
    assert read_memory_events(cgroup) == MemoryEvents(1, 2, 30, 4, 5, 6)
    assert read_memory_events(cgroup, "memory.events.local") == MemoryEvents(1, 2, 30, 0, 5, 0)


def test_this_kernel_counts() -> None:
    counter = OomKills()
    kills = counter.read()
    counter.close()

    assert kills >= 0
