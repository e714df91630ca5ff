"""The ring: what goes in comes out, within bounds of time and of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.history import (
    KNOWN_MAX,
    PORTRAITS_LIMIT_BYTES,
    UNIT_BYTES,
    History,
    Portrait,
    Reading,
    Usage,
)
from oomwatchd.incident import Victim
from oomwatchd.model import Pressure, ProcessId

MIB = 1 << 20
TRAINER, BROWSER = ProcessId(7, 100), ProcessId(9, 50)
JOB = "/system.slice/job.service"
PRESSED = Pressure(12.5, 0, 0, 0, 3.25, 0, 0, 0)


def portrait(id: ProcessId, name: str = "python3") -> Portrait:
    return Portrait(id, Victim(id.pid, name, id.start_ticks, cgroup=JOB, rule="training"), JOB)


def reading(at: float, *processes: tuple[ProcessId, int], limit: int | None = 512 * MIB) -> Reading:
    return Reading(at, 900 * MIB, 100 * MIB, PRESSED, processes, [Usage(JOB, 40 * MIB, limit)])


def seen(
    history: History, at: float, buried_since: float = 0.0
) -> dict[int, tuple[int | None, int | None]]:
    there = history.seen(at, within_seconds=15.0, buried_since=buried_since)
    return {pid: (one.start_ticks, one.memory_bytes) for pid, one in there.items()}


def test_a_process_s_past_is_told_with_the_machine_s_and_its_cgroup_s() -> None:
    history = History(600.0)
    history.remember(portrait(TRAINER))
    history.add(reading(10.0, (TRAINER, 30 * MIB)))

    [sample] = history.past(TRAINER, JOB, unix_offset=1000.0).samples

    assert sample.time_unix_seconds == 1010.0
    assert (sample.victim_bytes, sample.available_bytes) == (30 * MIB, 900 * MIB)
    assert (sample.swap_free_bytes, sample.cgroup_bytes) == (100 * MIB, 40 * MIB)
    assert sample.cgroup_limit_bytes == 512 * MIB
    assert (sample.pressure_some_avg10, sample.pressure_full_avg10) == (12.5, 3.25)


def test_what_was_not_sampled_is_none_and_not_zero() -> None:
    history = History(600.0)
    history.add(Reading(10.0, 900 * MIB, 0, None, [], [Usage(JOB, MIB, None)]))

    [sample] = history.past(TRAINER, JOB, unix_offset=0.0).samples
    [stranger] = history.past(None, None, unix_offset=0.0).samples

    assert (sample.victim_bytes, sample.cgroup_limit_bytes) == (None, None)
    assert (sample.pressure_some_avg10, sample.cgroup_bytes) == (None, MIB)
    assert stranger.cgroup_bytes is None


def test_a_pid_used_again_is_another_process() -> None:
    history = History(600.0)
    again = ProcessId(TRAINER.pid, 900)
    for id in (TRAINER, again):
        history.remember(portrait(id))
    history.add(reading(10.0, (TRAINER, 30 * MIB)))
    history.add(reading(20.0, (again, MIB)))

    sizes = [one.victim_bytes for one in history.past(again, JOB, unix_offset=0.0).samples]

    assert sizes == [None, MIB]
    assert seen(history, at=20.0) == {again.pid: (again.start_ticks, MIB)}


def test_who_was_there_is_who_was_sampled_not_long_before() -> None:
    history = History(600.0)
    for id in (TRAINER, BROWSER):
        history.remember(portrait(id))
    history.add(reading(10.0, (TRAINER, 30 * MIB), (BROWSER, MIB)))
    history.add(reading(20.0, (BROWSER, 2 * MIB)))
    history.add(reading(30.0))

    there = seen(history, at=25.0)
    assert there == {TRAINER.pid: (100, 30 * MIB), BROWSER.pid: (50, 2 * MIB)}
    assert seen(history, at=35.0) == {BROWSER.pid: (50, 2 * MIB)}
    assert seen(history, at=300.0) == {}


def test_who_was_in_the_last_sample_before_was_there_however_long_nothing_was_sampled() -> None:
    history = History(600.0)
    history.remember(portrait(TRAINER))
    history.add(reading(10.0, (TRAINER, 30 * MIB)))
    history.add(reading(90.0))

    assert seen(history, at=80.0) == {TRAINER.pid: (100, 30 * MIB)}
    assert seen(history, at=91.0) == {}


def test_who_was_buried_before_was_not_there() -> None:
    history = History(600.0)
    history.remember(portrait(TRAINER))
    history.add(reading(10.0, (TRAINER, 30 * MIB)))
    history.bury(TRAINER, 12.0)

    assert seen(history, at=13.0, buried_since=12.5) == {}
    assert seen(history, at=13.0, buried_since=11.5) == {TRAINER.pid: (100, 30 * MIB)}


def test_the_others_are_told_the_largest_first_and_without_the_victim() -> None:
    history = History(600.0)
    small = ProcessId(11, 1)
    for id, name in ((TRAINER, "python3"), (small, "sh"), (BROWSER, "chrome")):
        history.remember(portrait(id, name))
    history.add(reading(10.0, (TRAINER, MIB), (small, MIB), (BROWSER, 5 * MIB)))
    history.add(reading(20.0, (TRAINER, MIB), (BROWSER, MIB)))

    others = history.past(TRAINER, None, unix_offset=0.0).others

    assert [(one.name, one.bytes) for one in others] == [
        ("chrome", (5 * MIB, MIB)),
        ("sh", (MIB, None)),
    ]


def test_what_is_older_than_the_history_goes() -> None:
    history = History(60.0)
    for at in range(200):
        history.add(reading(float(at), (TRAINER, MIB)))

    seconds = [one.time_unix_seconds for one in history.past(None, None, unix_offset=0).samples]

    assert (seconds[0], seconds[-1]) == (139.0, 199.0)


def test_ten_minutes_at_the_fastest_stay_in_bounds_whole_and_with_the_end_in_full() -> None:
    history = History(600.0)
    many = [(ProcessId(pid, 1), pid * MIB) for pid in range(74)]
    for tenth in range(6000):
        history.add(reading(tenth / 10, *many))

    seconds = [one.time_unix_seconds for one in history.past(None, None, unix_offset=0).samples]

    assert history.size_bytes <= 1 << 20
    assert seconds[0] <= 1.0  # nothing at the beginning is missing
    assert [round(at, 1) for at in seconds[-50:]] == [595.0 + at / 10 for at in range(50)]


def test_a_sample_of_ten_others_and_one_of_ours_takes_less_than_250_bytes() -> None:
    history = History(600.0)
    history.add(reading(1.0, *((ProcessId(pid, 1), MIB) for pid in range(11))))

    assert history.size_bytes < 250


def test_processes_that_come_and_go_by_the_thousand_are_not_all_remembered() -> None:
    history = History(600.0)
    for pid in range(3 * KNOWN_MAX):
        history.remember(portrait(ProcessId(pid, 1), name="x" * pid))
        history.add(reading(pid / 100, (ProcessId(pid, 1), MIB)))

    remembered = [one.id.pid for one in history.all_portraits()]
    samples_bytes = 3 * KNOWN_MAX * 120
    assert remembered == list(range(remembered[0], 3 * KNOWN_MAX))
    assert 100 < len(remembered) < KNOWN_MAX
    assert history.size_bytes < PORTRAITS_LIMIT_BYTES + samples_bytes
    assert history.past(ProcessId(0, 1), None, unix_offset=0).samples[0].victim_bytes is None


def test_one_that_is_still_followed_is_not_forgotten_for_those_that_come_and_go() -> None:
    history = History(600.0)
    history.remember(portrait(TRAINER))
    for pid in range(100, 2000):
        history.remember(portrait(ProcessId(pid, 1)))
        history.add(reading(pid / 100, (TRAINER, 30 * MIB), (ProcessId(pid, 1), MIB)))

    assert history.portrait(TRAINER) == portrait(TRAINER)
    assert history.portrait(ProcessId(100, 1)) is None


def test_a_portrait_made_anew_counts_once() -> None:
    history = History(600.0)
    history.remember(portrait(TRAINER))
    once = history.size_bytes
    history.remember(portrait(TRAINER))

    assert history.size_bytes == once > 0


sizes = st.integers(0, 1 << 43)


@given(st.lists(st.tuples(sizes, sizes, sizes, st.one_of(st.none(), sizes)), max_size=8))
def test_every_size_comes_back_to_within_a_page(
    rows: list[tuple[int, int, int, int | None]],
) -> None:
    history = History(600.0)
    for at, (available, own, usage, limit) in enumerate(rows):
        history.add(Reading(at, available, 0, None, [(TRAINER, own)], [Usage(JOB, usage, limit)]))

    samples = history.past(TRAINER, JOB, unix_offset=0.0).samples

    for sample, (available, own, usage, limit) in zip(samples, rows, strict=True):
        assert sample.available_bytes == pytest.approx(available, abs=UNIT_BYTES)
        assert sample.victim_bytes == pytest.approx(own, abs=UNIT_BYTES)
        assert sample.cgroup_bytes == pytest.approx(usage, abs=UNIT_BYTES)
        assert (sample.cgroup_limit_bytes is None) == (limit is None)
