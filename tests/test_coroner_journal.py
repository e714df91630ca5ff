"""What the journal knows of kills that were not heard of, or that nobody owns up to."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from busclient import Bus, killed, needs_dbus_daemon, running
from fakejournal import FakeJournal, ended_children, oomd_entry, unit_entry, wait_for_children
from fakeproc import Fake, FakeProc
from mortuary import Mortuary, bare_kill

from oomwatchd.model import Tracked
from oomwatchd.record import JournalUnread, Kept
from oomwatchd.systemd.journalctl import DEADLINE_SECONDS, POLL_SECONDS

PATIENCE_SECONDS = 20.0
UNIT = "job.service"
JOB = f"/system.slice/{UNIT}"
HOG = Fake(278, comm=b"hog", cgroup=f"0::{JOB}\n", anon_kib=28_000)
OTHER = Fake(279, comm=b"other", cgroup=f"0::{JOB}\n", anon_kib=9_000)
STEP_SECONDS = 0.3  # more than POLL_SECONDS


@pytest.fixture
def journal(tmp_path: Path) -> FakeJournal:
    return FakeJournal(tmp_path)


@pytest.fixture
def mortuary(fake: FakeProc, tmp_path: Path, journal: FakeJournal) -> Iterator[Mortuary]:
    """It has tried the bus, on which there is nobody, and read the journal, which was empty."""
    mortuary = Mortuary(fake, tmp_path / "state", bus=tmp_path / "bus", journalctl=journal.path)
    read(mortuary)
    yield mortuary
    mortuary.end()


def read(mortuary: Mortuary) -> list[Kept]:
    """Turn until what it has asked the journal is answered; what is told meanwhile."""
    entries = mortuary.journal
    assert entries is not None
    told = mortuary.turn()
    while entries.due_seconds < float("inf"):
        wait_for_children()
        told += mortuary.turn(after_seconds=STEP_SECONDS)
    return told


def restart(mortuary: Mortuary) -> list[Kept]:
    """The daemon stops, and another one starts; what that one tells of."""
    mortuary.end()
    mortuary.start()
    return read(mortuary) + mortuary.settle()


def ago(mortuary: Mortuary, seconds: float) -> float:
    return mortuary.unix_seconds() - seconds


def killers(mortuary: Mortuary) -> list[str]:
    return sorted(one.case.killer for one in mortuary.written())


# -- while the daemon was down ---------------------------------------------------------------------


def test_a_kill_while_the_daemon_was_down_is_told_once_however_often_it_starts(
    mortuary: Mortuary, journal: FakeJournal
) -> None:
    killed_boot_seconds = mortuary.now().boot_seconds - 300.0
    journal.says(
        oomd_entry(ago(mortuary, 300.0), JOB), unit_entry(ago(mortuary, 299.5), UNIT, by_oomd=True)
    )
    first, second, third = restart(mortuary), restart(mortuary), restart(mortuary)
    [made] = mortuary.written()

    assert [one.id for one in first] == [made.id]
    assert (second, third) == ([], [])
    assert (made.case.killer, made.case.scope, made.while_down) == ("systemd_oomd", JOB, True)
    assert made.case.boot_seconds == pytest.approx(killed_boot_seconds)
    assert made.case.sources == ("systemd_oomd", "systemd")
    assert len(made.case.raw) == 2
    assert journal.asked[-1].count("--since") == 0


def test_it_is_one_also_if_the_clock_is_read_a_little_differently(
    mortuary: Mortuary, journal: FakeJournal
) -> None:
    at = ago(mortuary, 300.0)
    for error_seconds in (0.0, 0.7, -0.7, 1.5, -3.0):
        journal.says(oomd_entry(at + error_seconds, JOB))
        restart(mortuary)

    assert len(mortuary.written()) == 1


def test_it_is_one_also_if_only_pid_1_s_word_is_left_of_it(
    mortuary: Mortuary, journal: FakeJournal
) -> None:
    at = ago(mortuary, 300.0)
    journal.says(oomd_entry(at, JOB))
    restart(mortuary)
    journal.says(unit_entry(at + 1.0, UNIT, by_oomd=True))
    told = restart(mortuary)

    assert told == []
    assert len(mortuary.written()) == 1


def test_kills_of_other_cgroups_or_at_other_times_are_others(
    mortuary: Mortuary, journal: FakeJournal
) -> None:
    first = oomd_entry(ago(mortuary, 300.0), JOB)
    journal.says(first)
    restart(mortuary)
    journal.says(
        first,
        oomd_entry(ago(mortuary, 300.0), "/system.slice/other.service"),
        oomd_entry(ago(mortuary, 200.0), JOB),
    )
    restart(mortuary)

    assert len(mortuary.written()) == 3


def test_what_the_kernel_has_killed_before_our_start_is_not_told_by_pid_1_s_word_alone(
    mortuary: Mortuary, journal: FakeJournal
) -> None:
    journal.says(unit_entry(ago(mortuary, 300.0), UNIT))
    restart(mortuary)

    assert mortuary.written() == []


# -- heard and read --------------------------------------------------------------------------------


def turn_until(mortuary: Mortuary, done: Callable[[], object]) -> None:
    """As if woken by the bus; seconds pass, so that it is tried again."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < until
        mortuary.turn(after_seconds=0.1, told=True)


def hear(mortuary: Mortuary, bus: Bus) -> None:
    """systemd-oomd kills, and the daemon hears of it."""
    oomd = mortuary.oomd
    assert oomd is not None
    with closing(bus.client()) as client:
        client.own()
        turn_until(mortuary, lambda: oomd.listening)
        client.describe()
        turn_until(mortuary, lambda: oomd.tells)
        read(mortuary)
        client.send(killed(JOB, "memory-pressure"))
        client.settle()
        turn_until(mortuary, lambda: mortuary.record.kills)


@needs_dbus_daemon
def test_what_was_heard_on_the_bus_and_is_read_after_a_restart_is_one_kill(
    mortuary: Mortuary, journal: FakeJournal, tmp_path: Path
) -> None:
    with running(tmp_path) as bus:
        hear(mortuary, bus)
    [heard] = mortuary.written()
    ago_seconds = mortuary.now().boot_seconds - heard.case.boot_seconds
    journal.says(oomd_entry(ago(mortuary, ago_seconds + 1.4), JOB))
    told = restart(mortuary)

    assert told == []
    assert [one.while_down for one in mortuary.written()] == [False]


@needs_dbus_daemon
@pytest.mark.parametrize("wait_seconds", [5.0, 60.0])  # until all that was heard is forgotten
def test_when_the_bus_is_back_the_journal_tells_what_was_missed_and_nothing_twice(
    mortuary: Mortuary, journal: FakeJournal, tmp_path: Path, wait_seconds: float
) -> None:
    oomd = mortuary.oomd
    assert oomd is not None
    with running(tmp_path) as bus:
        hear(mortuary, bus)
        bus.stop()
        turn_until(mortuary, lambda: not oomd.listening)
        mortuary.turn(after_seconds=wait_seconds)
        [heard] = mortuary.written()
        ago_seconds = mortuary.now().boot_seconds - heard.case.boot_seconds
        journal.says(
            oomd_entry(ago(mortuary, ago_seconds + 1.4), JOB),
            oomd_entry(ago(mortuary, 2.0), "/system.slice/missed.service"),
        )
        asked = len(journal.asked)
        bus.start()
        turn_until(mortuary, lambda: oomd.listening)
        read(mortuary)
        mortuary.settle()

    scopes = sorted(one.case.scope for one in mortuary.written())
    assert scopes == [JOB, "/system.slice/missed.service"]
    assert not any(one.while_down for one in mortuary.written())
    assert [line.count("--since") for line in journal.asked[asked:]] == [1]


@needs_dbus_daemon
def test_as_long_as_the_bus_is_there_the_journal_is_left_alone(
    mortuary: Mortuary, journal: FakeJournal, tmp_path: Path
) -> None:
    with running(tmp_path) as bus:
        hear(mortuary, bus)
        asked = len(journal.asked)
        for _ in range(100):
            mortuary.turn(after_seconds=10.0, killed=(4711,), level="critical")

    assert len(journal.asked) == asked


# -- by whom, nobody says --------------------------------------------------------------------------


@pytest.fixture
def hog(mortuary: Mortuary) -> Tracked:
    mortuary.fake.add(HOG)
    return mortuary.follow(278, "training")


def read_in_doubt(mortuary: Mortuary) -> None:
    """Time passes until it has asked, and then until it is answered."""
    mortuary.turn(after_seconds=2.0)
    read(mortuary)


@pytest.mark.parametrize(("said", "expected"), [(True, ["kernel"]), (False, ["kernel", "unknown"])])
def test_who_was_stopped_with_its_unit_is_no_kill_of_an_unknown_sender(
    mortuary: Mortuary,
    journal: FakeJournal,
    hog: Tracked,
    said: bool,  # noqa: FBT001 -- a case
    expected: list[str],
) -> None:
    mortuary.fake.add(OTHER)
    other = mortuary.follow(279, "training")
    mortuary.turn(bare_kill(1, 278))
    mortuary.bury(hog, killed=(278,))
    mortuary.turn(after_seconds=3.0)
    if said:
        journal.says(unit_entry(ago(mortuary, 3.0), UNIT))
    mortuary.bury(other, killed=(279,))
    mortuary.turn()
    read_in_doubt(mortuary)
    mortuary.settle()

    assert killers(mortuary) == expected


@pytest.mark.parametrize(
    "entry",
    [
        lambda at: unit_entry(at, UNIT, by_oomd=True),  # systemd 250
        lambda at: oomd_entry(at, JOB),
    ],
)
def test_a_kill_by_systemd_oomd_that_was_not_heard_is_its_own(
    mortuary: Mortuary,
    journal: FakeJournal,
    hog: Tracked,
    entry: Callable[[float], dict[str, object]],
) -> None:
    mortuary.bury(hog, killed=(278,))
    mortuary.turn()
    journal.says(entry(ago(mortuary, 2.0)))
    read_in_doubt(mortuary)
    mortuary.settle()
    [made] = mortuary.written()

    assert (made.case.killer, made.victim.pid, made.case.scope) == ("systemd_oomd", 278, JOB)
    assert made.case.raw
    assert not made.while_down


def test_the_loop_is_woken_in_time_to_hear_the_answer(
    mortuary: Mortuary, journal: FakeJournal, hog: Tracked
) -> None:
    """As the daemon does it: nothing but what is due ends its wait."""
    mortuary.bury(hog, killed=(278,))
    mortuary.turn()
    journal.says(oomd_entry(ago(mortuary, 1.0), JOB))
    told: list[Kept] = []
    for _ in range(200):
        wait_for_children()
        wait_seconds = mortuary.coroner.due_seconds(mortuary.now()) - mortuary.seconds
        told += mortuary.turn(after_seconds=max(wait_seconds, 0.0))
        if mortuary.seconds > 40.0:
            break
    told += mortuary.settle()

    assert [one.killer for one in told] == ["systemd_oomd"]


def test_what_the_journal_does_not_know_stays_of_an_unknown_sender(
    mortuary: Mortuary, journal: FakeJournal, hog: Tracked
) -> None:
    asked = len(journal.asked)
    mortuary.bury(hog, killed=(278,))
    mortuary.turn()
    read_in_doubt(mortuary)
    mortuary.settle()

    assert killers(mortuary) == ["unknown"]
    assert len(journal.asked) == asked + 1


@needs_dbus_daemon
def test_an_end_that_is_explained_is_not_asked_about(
    mortuary: Mortuary, journal: FakeJournal, hog: Tracked, tmp_path: Path
) -> None:
    oomd = mortuary.oomd
    assert oomd is not None
    with running(tmp_path):
        turn_until(mortuary, lambda: oomd.tells)
        read(mortuary)
        asked = len(journal.asked)
        mortuary.turn(bare_kill(1, 278))
        mortuary.bury(hog, killed=(278,))
        mortuary.settle()

    assert killers(mortuary) == ["kernel"]
    assert len(journal.asked) == asked


def test_an_answer_that_never_comes_delays_nothing_and_that_is_said_once(
    mortuary: Mortuary, journal: FakeJournal, hog: Tracked
) -> None:
    journal.does("exec sleep 600")
    mortuary.record.take_news()
    mortuary.bury(hog, killed=(278,))
    ended_boot_seconds = mortuary.now().boot_seconds
    told: list[Kept] = []
    longest_seconds = 0.0
    until = time.monotonic() + PATIENCE_SECONDS
    while not told and time.monotonic() < until:
        began = time.monotonic()
        told += mortuary.turn(after_seconds=POLL_SECONDS)
        longest_seconds = max(longest_seconds, time.monotonic() - began)
        time.sleep(0.001)
        assert mortuary.now().boot_seconds - ended_boot_seconds < DEADLINE_SECONDS / 2

    assert [one.killer for one in told] == ["unknown"]
    assert longest_seconds < 2.0
    assert not ended_children()
    mortuary.turn(after_seconds=DEADLINE_SECONDS)
    read(mortuary)
    read(restarted_in_vain(mortuary))
    reasons = [one.reason for one in mortuary.record.take_news() if isinstance(one, JournalUnread)]
    assert reasons == [f"{journal.path}: it took longer than 20 s"]


def restarted_in_vain(mortuary: Mortuary) -> Mortuary:
    """It is asked again, with no better luck."""
    mortuary.fake.add(OTHER)
    other = mortuary.follow(279, "training")
    mortuary.bury(other, killed=(279,))
    for _ in range(20):
        mortuary.turn(after_seconds=2.0)
    return mortuary


def test_the_loop_is_to_look_for_an_answer_four_times_a_second(
    fake: FakeProc, tmp_path: Path, journal: FakeJournal
) -> None:
    journal.does("exec sleep 600")
    at_rest = Mortuary(fake, tmp_path / "state")
    mortuary = Mortuary(fake, tmp_path / "other", journalctl=journal.path)
    due_seconds = [one.coroner.due_seconds(one.now()) for one in (at_rest, mortuary)]
    for one in (at_rest, mortuary):
        one.end()

    assert due_seconds[0] > POLL_SECONDS
    assert due_seconds[1] == POLL_SECONDS


def test_that_there_is_no_journalctl_is_said_once(fake: FakeProc, tmp_path: Path) -> None:
    mortuary = Mortuary(fake, tmp_path / "state", journalctl=tmp_path / "nothing")
    for pid in range(300, 305):
        fake.add(Fake(pid, comm=b"hog", cgroup=f"0::{JOB}\n"))
        mortuary.bury(mortuary.follow(pid, "training"), killed=(pid,))
        for _ in range(10):
            mortuary.turn(after_seconds=2.0)
    news = [one for one in mortuary.record.take_news() if isinstance(one, JournalUnread)]
    mortuary.end()

    assert news == [JournalUnread(f"{tmp_path}/nothing: No such file or directory")]
