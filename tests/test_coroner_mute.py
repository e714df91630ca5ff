"""Kills by a systemd-oomd that has no signal for them, as before systemd 252."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from busclient import needs_dbus_daemon, running
from fakejournal import FakeJournal, oomd_entry, wait_for_children
from fakeproc import FakeProc
from mortuary import Mortuary
from test_coroner_journal import JOB, ago, read, turn_until

from oomwatchd.record import Kept

pytestmark = needs_dbus_daemon


@pytest.fixture
def journal(tmp_path: Path) -> FakeJournal:
    return FakeJournal(tmp_path)


@pytest.fixture
def mute(fake: FakeProc, tmp_path: Path, journal: FakeJournal) -> Iterator[Mortuary]:
    """It has found systemd-oomd without the signal, and read the journal, which was empty."""
    mortuary = Mortuary(fake, tmp_path / "state", bus=tmp_path / "bus", journalctl=journal.path)
    oomd = mortuary.oomd
    assert oomd is not None
    with running(tmp_path) as bus, closing(bus.client()) as client:
        client.own()
        turn_until(mortuary, lambda: oomd.listening)
        client.describe(signal=False)
        turn_until(mortuary, lambda: oomd.tells is False)
        read(mortuary)
        mortuary.turn(after_seconds=60.0)
        yield mortuary
        mortuary.end()


def read_when_due(mortuary: Mortuary, seconds: float) -> list[Kept]:
    """Time passes, and nothing but what is due wakes the daemon; what it tells meanwhile."""
    until_seconds, told = mortuary.seconds + seconds, []
    while mortuary.seconds < until_seconds:
        wait_for_children()
        wait_seconds = mortuary.coroner.due_seconds(mortuary.now()) - mortuary.seconds
        left_seconds = until_seconds - mortuary.seconds
        told += mortuary.turn(after_seconds=max(min(wait_seconds, left_seconds), 0.01))
    return told


def test_its_kill_of_what_no_rule_matches_is_told_soon_after_somebody_was_killed(
    mute: Mortuary, journal: FakeJournal
) -> None:
    asked = len(journal.asked)
    mute.turn(killed=(4711,))
    journal.says(oomd_entry(ago(mute, 0.0), JOB))
    told = read_when_due(mute, 6.0)
    asked_soon = len(journal.asked) - asked
    told += mute.settle()

    assert asked_soon == 1
    assert [(one.killer, one.rule) for one in told] == [("systemd_oomd", None)]
    assert not mute.written()[0].while_down


def test_at_rest_it_is_not_looked_for(mute: Mortuary, journal: FakeJournal) -> None:
    asked = len(journal.asked)
    for _ in range(100):
        mute.turn(after_seconds=10.0)
    mute.deaf = False
    for _ in range(10):
        mute.turn(after_seconds=100.0, level="critical")  # of whom it kills, we would hear

    assert len(journal.asked) == asked


def test_under_pressure_it_is_looked_for_each_minute_if_we_do_not_hear_who_is_killed(
    mute: Mortuary, journal: FakeJournal
) -> None:
    mute.deaf = True
    asked = len(journal.asked)
    for _ in range(30):
        mute.turn(after_seconds=10.0, level="warning")
        wait_for_children()
    journal.says(oomd_entry(ago(mute, 0.0), JOB))
    told = read_when_due(mute, 70.0) + mute.settle()

    assert 4 <= len(journal.asked) - asked <= 6
    assert [one.killer for one in told] == ["systemd_oomd"]


@pytest.mark.parametrize(("works", "at_most"), [(True, 11), (False, 2)])
def test_who_kills_all_day_does_not_make_it_read_all_day(
    mute: Mortuary,
    journal: FakeJournal,
    works: bool,  # noqa: FBT001 -- a case
    at_most: int,
) -> None:
    if not works:
        journal.does("exit 1")
    asked = len(journal.asked)
    for second in range(200):
        mute.turn(after_seconds=1.0, killed=(5000 + second,))
        wait_for_children()

    assert 1 <= len(journal.asked) - asked <= at_most
