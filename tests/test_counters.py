"""The kernel's counts of its kills."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.counters import (
    MemoryEvents,
    OomKills,
    parse_memory_events,
    parse_oom_kills,
)

VMSTAT = b"nr_free_pages 12\npgfault 4\noom_kill 7\nunevictable_pgs_culled 0\noom_kill_more 9\n"
EVENTS_6_12 = b"low 1\nhigh 2\nmax 30\noom 4\noom_kill 5\noom_group_kill 6\n"
EVENTS_5_10 = b"low 1\nhigh 2\nmax 30\noom 4\noom_kill 5\n"
EVENTS_7_1 = EVENTS_6_12 + b"sock_throttled 8\n"


def test_kills_since_boot_are_read_from_vmstat() -> None:
    assert parse_oom_kills(VMSTAT) == 7


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


def test_this_kernel_counts() -> None:
    counter = OomKills()
    kills = counter.read()
    counter.close()

    assert kills >= 0
