"""Kills by systemd-oomd, heard on a real bus, and by whom nobody knows."""

import select
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from busclient import PATIENCE_SECONDS, Client, killed, needs_dbus_daemon, running
from fakeproc import Fake, FakeProc
from mortuary import Mortuary

from oomwatchd.record import DeafToOomd

JOB = "/user.slice/user-1000.slice/user@1000.service/app.slice/job.scope"
HOG = Fake(278, comm=b"hog", cgroup=f"0::{JOB}\n", anon_kib=28_000)


@pytest.fixture
def mortuary(fake: FakeProc, tmp_path: Path) -> Iterator[Mortuary]:
    """It has tried the bus, on which there is nobody yet."""
    yield (mortuary := Mortuary(fake, tmp_path / "state", bus=tmp_path / "bus"))
    mortuary.end()


@pytest.fixture
def oomd(mortuary: Mortuary, tmp_path: Path) -> Iterator[Client]:
    with running(tmp_path) as bus, closing(bus.client()) as client:
        client.own()
        hear(mortuary, lambda: mortuary.oomd is not None and mortuary.oomd.listening)
        yield client


def hear(mortuary: Mortuary, done: object) -> None:
    """Turn, as if woken by the bus, until *done*; seconds pass, so that it is tried again."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (callable(done) and done()):
        assert time.monotonic() < end
        mortuary.turn(after_seconds=0.1, told=True)


@needs_dbus_daemon
def test_a_kill_by_systemd_oomd_is_one_incident_with_whom_it_took(
    mortuary: Mortuary, oomd: Client
) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    oomd.send(killed(JOB, "memory-pressure"))
    assert mortuary.oomd is not None
    assert select.select([mortuary.oomd], [], [], PATIENCE_SECONDS)[0]
    mortuary.turn(told=True)
    mortuary.bury(hog, killed=(278,))
    mortuary.settle()

    [made] = mortuary.written()
    assert (made.case.killer, made.case.scope) == ("systemd_oomd", JOB)
    assert made.case.reason == "memory-pressure"
    assert (made.victim.pid, made.victim.rule) == (278, "training")
    assert mortuary.record.kills == {("training", "systemd_oomd"): 1}


@needs_dbus_daemon
def test_what_another_client_says_is_no_incident(
    mortuary: Mortuary, oomd: Client, tmp_path: Path
) -> None:
    with closing(Client(tmp_path / "bus")) as other:
        other.send(killed(JOB))
        other.settle()
        mortuary.turn(told=True)
    mortuary.settle()

    assert mortuary.written() == []


def test_that_it_is_not_heard_is_said_once(mortuary: Mortuary) -> None:
    for _ in range(20):
        mortuary.turn(after_seconds=10.0)

    assert mortuary.record.take_news() == [DeafToOomd("No such file or directory")]


# -- by whom, nobody says --------------------------------------------------------------------------


def test_killed_by_nobody_we_know_of_is_an_incident_of_an_unknown_sender(
    mortuary: Mortuary,
) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.bury(hog)
    mortuary.bury(killed=(278, 999))
    mortuary.settle()

    [made] = mortuary.written()
    assert (made.case.killer, made.victim.pid) == ("unknown", 278)
    assert mortuary.record.kills == {("training", "unknown"): 1}


def test_one_that_ends_by_itself_is_no_incident(mortuary: Mortuary) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.bury(hog, killed=(279,))
    mortuary.settle()

    assert mortuary.written() == []
