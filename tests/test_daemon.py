"""Stories of the loop: a scripted host tells what happens, and hears what is told."""

import gc
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakeproc import BOOT_ID, Fake, FakeProc, at_each_open
from stage import MACHINE, ScriptedHost, Stage, Story, at
from world import LONG_UP_SECONDS, TICKS_PER_SECOND, named

from oomwatchd.barometer import pressure_file
from oomwatchd.config import ConfigError, Fault, Loaded
from oomwatchd.daemon import Daemon, next_scan, serve
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.ledger import Ledger
from oomwatchd.model import (
    Address,
    Config,
    Heard,
    Match,
    PressureSettings,
    Rule,
    Threshold,
    User,
)
from oomwatchd.text import printable

DB = named("postgres", -900)
WEB = named("nginx", 300)
POSTGRES = Fake(7, comm=b"postgres")


@pytest.fixture
def stage(fake: FakeProc, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(fake, tmp_path / "ledger.json")
    yield stage
    stage.close()


def test_turn_after_turn_our_memory_stays_as_it_is(fake: FakeProc, tmp_path: Path) -> None:
    for pid in range(300, 314):
        fake.add(Fake(pid, comm=b"postgres", uid=26))
    rules = (Rule("theirs", Match(user=(User("postgres", 26),)), 300),)
    ledger = Ledger(tmp_path / "ledger.json", BOOT_ID)
    loaded = Loaded(Config(rules), (), {})
    proc = ProcFs(fake.root)
    daemon = Daemon(
        loaded, lambda: loaded, lambda _address: None, proc, ledger, {}, MACHINE, dry_run=False
    )
    clock = itertools.count(1)

    def blocks_after(turns: int) -> int:
        for seconds in itertools.islice(clock, turns):
            daemon.turn(at(float(seconds), heard=Heard({300: 0}, ((1, 301),))))
            assert len(daemon.snapshot().processes) == 14
        return sys.getallocatedblocks()

    gc.disable()  # as a collection empties CPython's free lists
    before = blocks_after(100)
    grown = blocks_after(400) - before
    gc.enable()
    daemon.stop(at(1000.0).now)
    proc.close()

    assert grown < 100


# -- start, turns, stop ----------------------------------------------------------------------------


def test_ready_is_told_after_the_first_scan_and_the_watchdog_fed_after_each_turn(
    stage: Stage,
) -> None:
    stage.fake.add(POSTGRES)
    values = []

    def story() -> Story:
        values.append(stage.fake.oom_score_adj(7))  # before the first wait
        yield at(1.0)
        yield at(5.0)
        yield at(6.0, stop=True)

    host = stage.play(story(), DB)

    assert values == [-900]
    assert host.told == [
        "(published)",
        "READY=1",
        "STATUS=1 processes under 1 rules, memory pressure ok",
        *["(published)", "WATCHDOG=1", "STATUS=1 processes under 1 rules, memory pressure ok"] * 2,
        "STOPPING=1",
    ]


def test_a_turn_that_fails_does_not_look_alive(stage: Stage) -> None:
    def story() -> Story:
        stage.fake.add(Fake(8))
        (stage.fake.root / "8/stat").write_bytes(b"broken")
        yield at(5.0)

    host = ScriptedHost(story())
    stage.file = Config((DB,))
    ledger = Ledger(stage.path, BOOT_ID)
    proc = ProcFs(stage.fake.root)
    daemon = Daemon(
        stage.load(), stage.load, stage.rebind, proc, ledger, {}, MACHINE, dry_run=False
    )
    with pytest.raises(ValueError, match="not a stat line"):
        serve(daemon, host)
    daemon.stop(at(5.0).now)

    assert "WATCHDOG=1" not in host.told


def test_processes_are_looked_at_when_their_time_has_come(stage: Stage) -> None:
    seen = []

    def story() -> Story:
        stage.fake.add(POSTGRES)
        yield at(3.0)  # a heartbeat
        seen.append(stage.fake.oom_score_adj(7))
        yield at(5.0)
        seen.append(stage.fake.oom_score_adj(7))
        yield at(6.0, stop=True)

    host = stage.play(story(), DB, interval_seconds=5.0)

    assert seen == [0, -900]
    assert host.waits == [5.0, 5.0, 10.0]
    assert [snapshot.scans for snapshot in host.snapshots] == [1, 1, 2]


@pytest.mark.parametrize(
    ("planned", "now", "expected"),
    [
        (float("-inf"), 100.0, 105.0),  # the first
        (100.0, 100.0, 105.0),
        (100.0, 100.3, 105.0),  # on the grid
        (100.0, 104.9, 105.0),
        (100.0, 105.0, 110.0),
        (100.0, 170.0, 175.0),  # a turn that took too long: no rush to catch up
        (100.0, 97.0, 102.0),  # out of turn, by a reload
        (3600.0, 97.0, 102.0),  # by one that makes the interval shorter
    ],
)
def test_the_next_scan_keeps_to_the_grid(planned: float, now: float, expected: float) -> None:
    assert next_scan(planned, now, 5.0) == expected


@pytest.mark.parametrize(("on_stop", "value"), [("keep", -900), ("restore", 3)])
def test_on_stop_values_stay_or_go_back(stage: Stage, on_stop: str, value: int) -> None:
    stage.fake.add(POSTGRES, oom_score_adj=3)
    stage.play(iter([at(1.0, stop=True)]), DB, on_stop=on_stop)

    assert stage.fake.oom_score_adj(7) == value


def test_on_stop_children_forked_a_moment_ago_get_their_value_back_too(stage: Stage) -> None:
    stage.fake.add(POSTGRES, oom_score_adj=3)

    def story() -> Story:
        child = Fake(8, comm=b"sh", parent=7, start_ticks=200)
        stage.fake.add(child, oom_score_adj=-900)
        yield at(1.0, stop=True)

    stage.play(story(), named("postgres", -900, descendants="reset"), on_stop="restore")

    assert (stage.fake.oom_score_adj(7), stage.fake.oom_score_adj(8)) == (3, 3)


def test_on_stop_children_forked_while_values_go_back_get_theirs_back_too(stage: Stage) -> None:
    stage.fake.add(POSTGRES, oom_score_adj=3)
    stopping = False

    def fork(_name: str) -> None:
        if stopping and len(stage.fake.pids()) < 100:
            child = Fake(200 + len(stage.fake.pids()), parent=7, start_ticks=200)
            stage.fake.add(child, oom_score_adj=stage.fake.oom_score_adj(7))

    def story() -> Story:
        nonlocal stopping
        stopping = True
        yield at(1.0, stop=True)

    with at_each_open(fork):
        stage.play(story(), named("postgres", -900, descendants="reset"), on_stop="restore")

    assert len(stage.fake.pids()) == 100
    assert {stage.fake.oom_score_adj(pid) for pid in stage.fake.pids()} == {3}


def test_a_dry_run_says_what_it_would_do(stage: Stage, logged: list[str]) -> None:
    stage.fake.add(POSTGRES, oom_score_adj=3)
    host = stage.play(iter([at(1.0, stop=True)]), DB, dry_run=True, on_stop="restore")

    assert stage.fake.oom_score_adj(7) == 3
    assert "process 7 'postgres', rule rule-postgres: would set 3 -> -900" in logged
    assert host.snapshots[-1].adjustments == {}
    assert not stage.path.exists()


# -- reload ----------------------------------------------------------------------------------------


def test_a_good_reload_is_in_force_at_once(stage: Stage, logged: list[str]) -> None:
    stage.fake.add(POSTGRES, oom_score_adj=3)
    stage.fake.add(Fake(8, comm=b"nginx"), oom_score_adj=4)
    seen = []

    def story() -> Story:
        stage.file = Config((WEB,), metrics_listen=Address("127.0.0.1", 1))
        yield at(1.0, reload=True)
        seen.append((stage.fake.oom_score_adj(7), stage.fake.oom_score_adj(8)))
        yield at(2.0, stop=True)

    host = stage.play(story(), DB)

    assert seen == [(3, 300)]
    assert stage.served == [Address("127.0.0.1", 1)]
    assert "reloaded: 1 rules" in logged
    assert [line for line in host.told[3:] if not line.startswith("STATUS=")] == [
        "RELOADING=1",
        "(published)",
        "WATCHDOG=1",
        "(published)",
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1",
    ]
    assert [snapshot.reload_successful for snapshot in host.snapshots] == [True, True, True]
    assert [rule.name for rule in host.snapshots[-1].rules] == ["rule-nginx"]


FAULTS: dict[str, Exception] = {
    "faults": ConfigError(
        [Fault("x.yaml", 4, 7, "a\nb is wrong"), Fault("x.yaml", 5, 1, "so is c")]
    ),
    "unreadable": FileNotFoundError(2, "No such file or directory", "x.yaml"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_reload_leaves_all_as_it_is(stage: Stage, logged: list[str], fault: str) -> None:
    stage.fake.add(POSTGRES)

    def story() -> Story:
        good = stage.file
        stage.file = FAULTS[fault]
        yield at(1.0, reload=True)
        stage.fake.set_oom_score_adj(7, 5)
        yield at(6.5)
        stage.file = good
        yield at(7.0, reload=True)
        yield at(8.0, stop=True)

    host = stage.play(story(), DB)

    assert stage.fake.oom_score_adj(7) == -900
    seen = [snapshot.reload_successful for snapshot in host.snapshots]
    assert seen == [True, True, False, False, False, True]
    assert [rule.name for rule in host.snapshots[1].rules] == ["rule-postgres"]
    assert host.told.count("READY=1") == 3  # systemd waits for it after every reload
    assert any("stay in force" in line for line in logged)
    assert all(line == printable(line) for line in logged)


def test_the_time_of_the_last_good_reload_stands_after_a_bad_one(stage: Stage) -> None:
    def story() -> Story:
        stage.file = FAULTS["faults"]
        yield at(1.0, reload=True)
        yield at(2.0, stop=True)

    host = stage.play(story(), DB)
    times = [snapshot.reload_success_unix_seconds for snapshot in host.snapshots]

    assert times[0] == times[-1] > 1_600_000_000


def test_a_reload_whose_address_is_taken_is_a_bad_one(stage: Stage, logged: list[str]) -> None:
    def story() -> Story:
        stage.file = Config((WEB,))
        stage.refuse_address = True
        yield at(1.0, reload=True)
        yield at(2.0, stop=True)

    host = stage.play(story(), DB)

    assert [rule.name for rule in host.snapshots[-1].rules] == ["rule-postgres"]
    assert not host.snapshots[-1].reload_successful
    assert any("Address already in use" in line for line in logged)


def test_a_shorter_interval_counts_from_the_reload(stage: Stage) -> None:
    def story() -> Story:
        stage.file = Config((DB,), interval_seconds=1.0)
        yield at(10.0, reload=True)
        yield at(10.5, stop=True)

    host = stage.play(story(), DB, interval_seconds=3600.0)

    assert host.waits == [3600.0, 11.0]


# -- pressure --------------------------------------------------------------------------------------

PRESSURE = PressureSettings(
    warning=(Threshold("some", "avg10", 20.0),),
    critical=(Threshold("full", "avg10", 10.0),),
    clear_after_seconds=30.0,
)


def test_a_change_of_level_is_news_once(stage: Stage, logged: list[str]) -> None:
    stage.fake.pressure()

    def story() -> Story:
        stage.fake.pressure(some=25.0)
        yield at(1.0)
        yield at(2.0)
        stage.fake.pressure(some=60.0, full=12.5)
        yield at(3.0)
        stage.fake.pressure()
        yield at(20.0)
        yield at(33.5)
        yield at(34.0, stop=True)

    host = stage.play(story(), DB, pressure=PRESSURE)
    told = [line for line in logged if "memory pressure" in line]

    assert [snapshot.level for snapshot in host.snapshots] == [
        "ok", "warning", "warning", "critical", "critical", "ok",
    ]  # fmt: skip
    assert [line.partition(" (")[0] for line in told] == [
        "memory pressure: ok -> warning",
        "memory pressure: warning -> critical",
        "memory pressure: critical -> ok",
    ]
    assert "STATUS=0 processes under 1 rules, memory pressure critical" in host.told
    assert host.snapshots[3].pressure is not None
    assert host.snapshots[3].pressure.full_avg10 == 12.5


def test_a_machine_without_pressure_has_everything_else(stage: Stage) -> None:
    stage.fake.add(POSTGRES)
    host = stage.play(iter([at(5.0), at(6.0, stop=True)]), DB)

    assert pressure_file(stage.fake.root) is None
    assert host.snapshots[-1].pressure is None
    assert stage.fake.oom_score_adj(7) == -900


def test_pressure_that_cannot_be_read_is_said_once(stage: Stage, logged: list[str]) -> None:
    (stage.fake.root / "pressure").mkdir()
    (stage.fake.root / "pressure/memory").symlink_to(
        "/proc/self/mem"
    )  # EIO, as it would EOPNOTSUPP
    host = stage.play(iter([at(1.0), at(2.0), at(3.0, stop=True)]), DB)

    assert sum("pressure cannot be read" in line for line in logged) == 1
    assert host.snapshots[-1].pressure is None


# -- the snapshot ----------------------------------------------------------------------------------


def test_the_snapshot_adds_up_what_each_rule_holds(stage: Stage) -> None:
    for pid in (7, 8):
        stage.fake.add(Fake(pid, comm=b"postgres", anon_kib=100, swap_kib=10))
    stage.fake.add(Fake(9, comm=b"nginx", anon_kib=1))
    host = stage.play(iter([at(1.0, stop=True)]), DB, WEB, named("absent", 1))
    snapshot = host.snapshots[0]

    assert {rule: totals[:] for rule, totals in snapshot.totals.items()} == {
        "rule-postgres": (2, 200 * 1024, 20 * 1024),
        "rule-nginx": (1, 1024, 0),
    }
    assert sorted(process.id.pid for process in snapshot.processes) == [7, 8, 9]
    assert snapshot.adjustments == {("rule-postgres", "applied"): 2, ("rule-nginx", "applied"): 1}
    assert snapshot.features == {"psi": True, "kernel_log": False, "process_events": False}
    assert snapshot.scan_buckets[-1][1] == 1


def test_a_snapshot_does_not_change_any_more(stage: Stage) -> None:
    def story() -> Story:
        stage.fake.add(POSTGRES)
        yield at(5.0)
        yield at(6.0, stop=True)

    first, second = stage.play(story(), DB).snapshots

    assert (first.processes, first.adjustments) == ((), {})
    assert len(second.processes) == 1


def test_what_is_not_carried_out_is_said_at_the_start(stage: Stage, logged: list[str]) -> None:
    stage.missing["systemd"] = "pystemd is not installed"
    stage.play(iter([at(1.0, stop=True)]), named("x", -1, shield="scope"))

    assert (
        f"shield: scope is not carried out, for rules {named('x', -1).name} "
        "(pystemd is not installed)" in logged
    )


# -- the kernel's news -----------------------------------------------------------------------------


def heard(*pids: int, **others: Any) -> dict[str, Any]:
    return {"heard": Heard(dict.fromkeys(pids, 0), events=len(pids), **others)}


def test_between_two_scans_the_loop_does_what_it_hears_of(stage: Stage) -> None:
    values = []

    def story() -> Story:
        stage.fake.add(POSTGRES)
        yield at(1.0, **heard(7))
        values.append(stage.fake.oom_score_adj(7))
        yield at(2.0, stop=True)

    host = stage.play(story(), DB, tells=True, interval_seconds=60.0)

    assert values == [-900]
    assert [snapshot.scans for snapshot in host.snapshots] == [1, 1]
    assert host.snapshots[-1].process_events == 1


@pytest.mark.parametrize(
    ("rules", "settings", "wanted"),
    [
        ((DB,), {}, (True, False)),
        ((DB, named("nginx", 300, workers=200)), {}, (True, True)),
        ((named("db", -1000, unkillable=True),), {}, (True, True)),
        ((DB,), {"events": "off"}, (False, False)),
        ((), {}, (False, False)),  # nobody to look for
    ],
)
def test_the_kernel_is_asked_for_what_the_rules_need(
    stage: Stage, rules: tuple[Rule, ...], settings: dict[str, Any], wanted: tuple[bool, bool]
) -> None:
    def story() -> Story:
        yield at(1.0, stop=True)

    host = stage.play(story(), *rules, **settings)

    assert [(wants.events, wants.forks) for wants in host.wants] == [wanted]


def test_a_reload_asks_anew(stage: Stage) -> None:
    def story() -> Story:
        stage.file = Config((DB,), events="off")
        yield at(1.0, reload=True)
        yield at(2.0, stop=True)

    host = stage.play(story(), DB, tells=True)

    assert [wants.events for wants in host.wants] == [True, False]


def test_lost_events_bring_the_next_look_forward(stage: Stage) -> None:
    def story() -> Story:
        stage.fake.add(POSTGRES)
        yield at(1.0, **heard(lost=True))
        yield at(1.5)
        yield at(3.5, stop=True)

    host = stage.play(story(), DB, tells=True, interval_seconds=3600.0)

    assert stage.fake.oom_score_adj(7) == -900
    assert host.snapshots[-1].process_events_lost == 1


def test_in_a_storm_it_reports_once_a_second_and_not_at_each_event(stage: Stage) -> None:
    def story() -> Story:
        stage.fake.add(POSTGRES)
        for step in range(1, 300):
            yield at(step / 100, **heard(7))
        yield at(3.0, stop=True)

    host = stage.play(story(), DB, tells=True, interval_seconds=60.0)

    assert host.told.count("(published)") == 3
    assert host.told.count("WATCHDOG=1") == 2


def test_in_a_storm_pressure_is_felt_all_the_same(stage: Stage) -> None:
    """Also where no trigger calls, and the next scan is far off."""
    stage.fake.pressure()

    def story() -> Story:
        stage.fake.add(POSTGRES)
        stage.fake.pressure(some=30.0)
        for step in range(1, 150):
            yield at(step / 100, **heard(7))
        yield at(1.5, stop=True)

    host = stage.play(story(), DB, tells=True, interval_seconds=3600.0)

    assert host.snapshots[-1].level == "warning"


def test_what_one_event_has_changed_is_reported_within_a_second(stage: Stage) -> None:
    def story() -> Story:
        yield at(0.5)
        stage.fake.add(POSTGRES)
        yield at(0.6, **heard(7))
        yield at(1.5)
        yield at(2.0, stop=True)

    host = stage.play(story(), DB, tells=True, interval_seconds=60.0)

    assert host.waits[2] <= 1.5
    assert len(host.snapshots[-1].processes) == 1


def test_a_young_process_is_seen_again_on_time(stage: Stage) -> None:
    def story() -> Story:
        stage.fake.add(Fake(7, start_ticks=int((LONG_UP_SECONDS + 0.9) * TICKS_PER_SECOND)))
        yield at(1.0, **heard(7))
        stage.fake.change(replace(stage.fake.get(7), arguments=(b"postgres: writer",)))
        yield at(1.5)
        yield at(2.0, stop=True)

    title = Rule("title", Match(cmdline=("^postgres: ",)), 200)
    host = stage.play(story(), title, tells=True, interval_seconds=60.0)

    assert 1.35 <= host.waits[1] <= 1.45
    assert stage.fake.oom_score_adj(7) == 200


# -- memory gets short -----------------------------------------------------------------------------


def test_when_tasks_wait_for_memory_the_level_is_known_at_once(stage: Stage) -> None:
    stage.fake.pressure()

    def story() -> Story:
        stage.fake.pressure(some=30.0)
        yield at(1.0, pressed=True)
        yield at(2.0, stop=True)

    host = stage.play(story(), DB, interval_seconds=3600.0)

    assert [snapshot.level for snapshot in host.snapshots] == ["ok", "warning"]


def test_while_memory_is_short_there_is_a_scan_every_second(stage: Stage) -> None:
    stage.fake.pressure()

    def story() -> Story:
        stage.fake.pressure(some=30.0)
        yield at(10.0, pressed=True)
        for step in range(11, 100):
            yield at(float(step))
        stage.fake.pressure()
        for step in range(100, 140):
            yield at(float(step))
        yield at(140.0, stop=True)

    host = stage.play(story(), DB, interval_seconds=3600.0)
    scans = [snapshot.scans for snapshot in host.snapshots]

    assert host.waits[1:90] == [float(step) for step in range(11, 100)]
    assert scans[90] >= 89
    assert scans[-1] < scans[-5] + 1  # over: an hour until the next
    assert host.waits[-1] > 1000.0


def test_a_call_that_comes_to_nothing_is_watched_for_ten_seconds(stage: Stage) -> None:
    stage.fake.pressure()

    def story() -> Story:
        yield at(10.0, pressed=True)
        for step in range(11, 30):
            yield at(float(step))
        yield at(30.0, stop=True)

    host = stage.play(story(), DB, interval_seconds=3600.0)

    assert host.waits[1] == 11.0
    assert host.waits[-1] > 1000.0
    assert 8 <= host.snapshots[-1].scans <= 12
