"""Kills as the daemon hears of them: each becomes one incident on disk, and nothing else does."""

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakebounds import cgroup
from fakeproc import Fake, FakeProc
from kernellog import raw
from mortuary import LONG_ENOUGH_SECONDS, HungDisk, Mortuary, bare_kill, capture
from stage import at
from world import LONG_UP_SECONDS

from oomwatchd.backlog import CASES_MAX, PAST_EVERY_SECONDS
from oomwatchd.coroner import QUIET_SECONDS, Coroner, Sources
from oomwatchd.history import History
from oomwatchd.identify import SlowReader
from oomwatchd.incident import Incident
from oomwatchd.incidents import Incidents
from oomwatchd.kernel.kmsg import DRAIN_RECORDS_MAX
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import ProcessId
from oomwatchd.policy.plan import Claim
from oomwatchd.record import Kept, Record
from oomwatchd.sampler import Sampler
from oomwatchd.scribe import WAITING_MAX

JOB = "/oomcases/job"
HOG = Fake(278, comm=b"hog", cgroup=f"0::{JOB}\n", anon_kib=28_000)
OWN_LIMIT = "6.12.117_own-limit"  # of process 278
DISK_SECONDS = 30.0
FROM_USERS = 8 << 3 | 4  # what user space writes to /dev/kmsg has a facility, 1 at least


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def mortuary(fake: FakeProc, state: Path) -> Iterator[Mortuary]:
    yield (mortuary := Mortuary(fake, state))
    mortuary.end()


def only(mortuary: Mortuary) -> Incident:
    [incident] = mortuary.written()
    return incident


def renumbered(lines: list[bytes], number: int) -> list[bytes]:
    """The same records, from that number on."""
    parts = (line.split(b",", 2) for line in lines)
    return [b"%s,%d,%s" % (head, at, rest) for at, (head, _, rest) in enumerate(parts, number)]


def spam(number: int, count: int) -> list[bytes]:
    return [raw(number + at, b"x" * 900, priority=FROM_USERS) for at in range(count)]


# -- one kill, one incident ------------------------------------------------------------------------


def test_log_counter_and_end_of_a_process_under_a_rule_are_one_incident(
    mortuary: Mortuary,
) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.set_kills(1)
    mortuary.turn(*capture(OWN_LIMIT))
    mortuary.bury(hog)
    mortuary.settle()

    made = only(mortuary)
    assert (made.case.killer, made.case.scope) == ("cgroup", JOB)
    assert (made.case.limit_bytes, made.case.usage_bytes) == (24576 << 10, 24568 << 10)
    assert made.case.sources == ("kernel_log", "counters")
    victim = made.victim
    assert (victim.pid, victim.name, victim.start_ticks) == (278, "hog", HOG.start_ticks)
    assert (victim.rule, victim.cgroup, victim.oom_score_adj) == ("training", JOB, 300)
    assert [one.pid for one in made.candidates] == [278]
    assert made.past.samples[-1].victim_bytes == 28_000 << 10
    assert made.case.raw[0].startswith("hog invoked oom-killer")
    assert not made.while_down
    assert mortuary.record.kills == {("training", "cgroup"): 1}


@pytest.mark.parametrize(
    ("name", "killer", "scope", "victim"),
    [
        ("6.1.192_own-limit", "cgroup", JOB, "hog"),
        ("6.12.117_ancestor-limit", "cgroup", "/oomcases/parent", "hog"),
        ("6.12.117_whole-machine", "kernel", "machine", "hog"),
        ("6.12.117_group", "oom_group", JOB, "leader"),
        ("6.12.117_cpuset", "kernel", "cpuset", "hog"),
        ("6.12.117_no-task-table", "cgroup", JOB, "hog"),
        ("6.1.192_name-with-total-vm", "cgroup", JOB, ") total-vm:1kB,"),
        ("6.12.117_name-with-task-and-pid", "cgroup", JOB, "x,task=y,pid=1"),
        ("7.2.13_whole-machine-with-swap", "kernel", "machine", "hog"),
        ("5.10.262_own-limit", "cgroup", JOB, "hog"),
    ],
)
def test_each_kind_of_report_is_one_incident_also_of_what_no_rule_matches(
    mortuary: Mortuary, name: str, killer: str, scope: str, victim: str
) -> None:
    mortuary.turn(*capture(name))
    mortuary.settle()

    made = only(mortuary)
    assert (made.case.killer, made.case.scope, made.victim.name) == (killer, scope, victim)
    assert made.victim.rule is None
    assert mortuary.record.kills == {("none", killer): 1}


@pytest.mark.parametrize(
    ("name", "allocating_task", "by_sysrq", "asked_by"),
    [
        ("5.10.262_whoever-asks", True, False, "hog"),
        ("6.1.192_by-sysrq", False, True, None),
        ("6.12.117_whole-machine", False, False, "hog"),
    ],
)
def test_who_was_killed_for_asking_or_by_hand_is_written_down_as_such(
    mortuary: Mortuary,
    name: str,
    allocating_task: bool,  # noqa: FBT001 -- a case
    by_sysrq: bool,  # noqa: FBT001 -- a case
    asked_by: str | None,
) -> None:
    mortuary.turn(*capture(name))
    [told] = mortuary.settle()
    [made] = mortuary.written()

    assert (made.case.allocating_task, made.case.by_sysrq) == (allocating_task, by_sysrq)
    assert made.case.asked_by == asked_by
    assert ("by hand (SysRq f)" in told.headline) is by_sysrq
    assert ("the machine was out of memory" in told.headline) is not by_sysrq
    assert ("with an oom_score_adj of" in made.advice) is not (allocating_task or by_sysrq)


def test_a_second_report_is_a_second_incident(mortuary: Mortuary) -> None:
    mortuary.turn(*capture(OWN_LIMIT))
    mortuary.turn(*capture("6.12.117_ancestor-limit"), after_seconds=3.0)
    mortuary.settle()

    assert [one.victim.pid for one in mortuary.written()] == [278, 280]


def test_kills_within_one_second_are_all_told(mortuary: Mortuary) -> None:
    count = 8 * WAITING_MAX
    mortuary.turn(*(bare_kill(number, 1000 + number) for number in range(count)))
    until = time.monotonic() + DISK_SECONDS
    while len(mortuary.written()) < count and time.monotonic() < until:
        mortuary.turn(after_seconds=0.5)
    mortuary.end()

    pids = {one.victim.pid for one in mortuary.written()}
    assert pids == set(range(1000, 1000 + count))
    assert mortuary.record.kills == {("none", "kernel"): count}
    assert not any(one.while_down for one in mortuary.written())


def test_a_report_that_comes_line_by_line_over_many_turns_is_one(mortuary: Mortuary) -> None:
    for line in capture(OWN_LIMIT):
        mortuary.turn(line, after_seconds=0.02)
    mortuary.settle()

    assert only(mortuary).case.limit_bytes == 24576 << 10


def test_a_report_is_at_its_end_when_the_log_has_been_quiet(mortuary: Mortuary) -> None:
    mortuary.turn(*capture(OWN_LIMIT))
    due = mortuary.coroner.due_seconds(mortuary.now())
    mortuary.turns(4)  # a second, and two for the case to settle
    mortuary.end()

    assert due <= mortuary.seconds - 4 + QUIET_SECONDS
    assert only(mortuary).victim.pid == 278


def test_what_users_write_in_between_does_not_end_a_report(mortuary: Mortuary) -> None:
    lines = capture(OWN_LIMIT)
    middle = len(lines) // 2
    mortuary.turn(*renumbered(lines[:middle], 0))
    mortuary.turn(*spam(middle, 1), after_seconds=0.1)
    mortuary.turn(*renumbered(lines[middle:], middle + 1), after_seconds=0.1)
    mortuary.settle()

    made = only(mortuary)
    assert made.case.asked_by == "hog"
    assert made.case.limit_bytes == 24576 << 10


def test_a_flood_of_what_users_write_hides_no_kill(mortuary: Mortuary) -> None:
    lines = capture(OWN_LIMIT)
    after = 2500 + len(lines)
    mortuary.turn(*spam(0, 2500), *renumbered(lines, 2500), *spam(after, 2500))
    mortuary.settle()

    assert only(mortuary).case.limit_bytes == 24576 << 10
    assert mortuary.record.kernel_log_lost == 0


# -- what is no kill -------------------------------------------------------------------------------


def test_an_end_of_which_nobody_tells_is_no_incident(mortuary: Mortuary) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.bury(hog)

    assert mortuary.settle() == []
    assert mortuary.written() == []
    assert mortuary.record.kills == {}


def test_who_ends_while_the_kernel_kills_another_has_not_been_killed(mortuary: Mortuary) -> None:
    other = Fake(999, comm=b"short", cgroup="0::/elsewhere\n")
    mortuary.fake.add(HOG)
    mortuary.fake.add(other)
    bystander = mortuary.follow(999, "training")
    mortuary.set_kills(1)
    mortuary.turn(*capture(OWN_LIMIT))
    mortuary.bury(bystander)
    mortuary.settle()

    assert [victim.pid for victim in only(mortuary).case.victims] == [278]


@pytest.mark.parametrize("name", [OWN_LIMIT, "6.12.117_group", "6.12.117_whole-machine"])
def test_a_report_forged_by_user_space_is_no_incident(mortuary: Mortuary, name: str) -> None:
    forged = [
        b"%d,%s" % (FROM_USERS, line.split(b",", 1)[1]) for line in capture(name)
    ]  # the kernel gives what is written to /dev/kmsg another facility than its own
    mortuary.turn(*forged, bare_kill(10**6, 1, priority=FROM_USERS))

    assert mortuary.settle() == []
    assert mortuary.written() == []


def test_a_kernel_that_finds_nobody_to_kill_makes_no_incident(mortuary: Mortuary) -> None:
    mortuary.turn(*capture("6.12.117_nobody-killable"))

    assert mortuary.settle() == []


# -- what is lost ----------------------------------------------------------------------------------


def test_what_was_overwritten_is_counted_and_the_next_report_is_read(mortuary: Mortuary) -> None:
    mortuary.turn(raw(3, b"hello"))
    mortuary.turn(errno.EPIPE, *capture(OWN_LIMIT))  # which begins with 448
    mortuary.settle()

    assert mortuary.record.kernel_log_lost == 444
    assert only(mortuary).victim.pid == 278


def test_a_kill_whose_report_was_overwritten_is_told_by_the_counter(mortuary: Mortuary) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.turn(raw(3, b"hello"))
    mortuary.set_kills(1)
    mortuary.turn(errno.EPIPE, raw(9000, b"something else"))
    mortuary.bury(hog)
    mortuary.settle()

    made = only(mortuary)
    assert (made.case.killer, made.case.sources) == ("kernel", ("counters",))
    assert (made.victim.pid, made.victim.rule) == (278, "training")


@pytest.mark.parametrize(("own", "killer", "scope"), [(1, "cgroup", JOB), (0, "kernel", "machine")])
def test_a_kill_whose_report_was_overwritten_has_the_scope_that_its_cgroup_tells(
    mortuary: Mortuary, own: int, killer: str, scope: str
) -> None:
    cgroup(mortuary.cgroup_root, JOB, limit="25165824")
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.set_kills(1)
    cgroup(mortuary.cgroup_root, JOB, limit="25165824", oom=own, oom_kill=1)
    mortuary.turn(errno.EPIPE, raw(9000, b"something else"))
    mortuary.bury(hog)
    mortuary.settle()

    made = only(mortuary)
    assert (made.case.killer, made.case.scope) == (killer, scope)
    assert made.case.sources == ("counters",)


def test_who_was_not_killed_is_no_victim_of_one_whose_report_was_overwritten(
    mortuary: Mortuary,
) -> None:
    mortuary.fake.add(HOG)
    hog = mortuary.follow(278, "training")
    mortuary.deaf = False
    mortuary.turn(raw(3, b"hello"), after_seconds=10.0)
    mortuary.set_kills(1)
    mortuary.turn(errno.EPIPE, raw(9000, b"something else"))
    mortuary.bury(hog)

    assert mortuary.settle() == []


def test_without_log_and_counters_the_samples_go_on(fake: FakeProc, state: Path) -> None:
    proc = ProcFs(fake.root)
    history = History(600.0)
    coroner = Coroner(
        Sources(None, None), history, Sampler(proc, history, SlowReader(), cgroup_root=state),
        Incidents(state, keep=1), Record(), "boot", page_bytes=4096,
    )  # fmt: skip
    told = [
        coroner.tend(at(10.0 * step).now, "ok", None, [], met=0, logged=False, told=False)
        for step in range(3)
    ]
    told.append(coroner.close(at(30.0).now))
    proc.close()

    assert told == [[]] * 4
    assert coroner.log_fd is None
    assert len(history) > 0


# -- while the daemon was down ---------------------------------------------------------------------


def test_a_kill_from_before_our_start_is_found_and_marked(mortuary: Mortuary) -> None:
    """Its report is the last thing in the log, so nothing says that it is at its end."""
    told = mortuary.restart(capture(OWN_LIMIT))

    made = only(mortuary)
    assert [one.id for one in told] == [made.id]
    assert made.while_down
    assert made.case.boot_seconds == pytest.approx(24.28572)  # by the log's own clock
    assert made.past.samples == ()


def test_of_a_kill_that_nobody_watched_the_rule_is_the_one_that_the_last_daemon_knew(
    mortuary: Mortuary,
) -> None:
    mortuary.claims = [
        (ProcessId(278, 7), Claim("long gone", "matched", before=0, ours=frozenset({300}))),
        (ProcessId(278, 9), Claim("training", "matched", before=0, ours=frozenset({300}))),
    ]
    [told] = mortuary.restart(capture(OWN_LIMIT))

    assert only(mortuary).victim.rule == told.rule == "training"


@pytest.mark.parametrize(
    "claim",
    [
        Claim("training", "matched", before=0, ours=frozenset({-900})),
        Claim("training", "released", before=0, ours=frozenset({300})),
        Claim("training", "heir", before=0, ours=frozenset({300})),
    ],
    ids=["it died with another value", "it was under the rule no more", "it had the value alone"],
)
def test_of_that_pid_somebody_else_may_have_been_killed(mortuary: Mortuary, claim: Claim) -> None:
    mortuary.claims = [(ProcessId(278, 9), claim)]
    mortuary.restart(capture(OWN_LIMIT))

    assert only(mortuary).victim.rule is None


def test_all_that_was_in_the_log_is_of_before_also_if_it_takes_many_turns_to_read(
    mortuary: Mortuary,
) -> None:
    long = [raw(number, b"hello") for number in range(2 * DRAIN_RECORDS_MAX)]
    mortuary.restart([*long, *renumbered(capture(OWN_LIMIT), len(long))])

    assert only(mortuary).while_down


def test_kills_from_before_our_start_are_each_told_once_however_often_we_start(
    mortuary: Mortuary,
) -> None:
    log = capture(OWN_LIMIT) + capture("6.12.117_ancestor-limit")
    first = mortuary.restart(log)
    second = mortuary.restart(log)
    third = mortuary.restart([*log, raw(10**6, b"something else")])

    assert [len(first), second, third] == [2, [], []]
    assert [one.while_down for one in mortuary.written()] == [True, True]


def test_what_was_told_when_it_happened_is_not_told_after_a_restart(mortuary: Mortuary) -> None:
    mortuary.turn(*capture(OWN_LIMIT))
    mortuary.settle()
    told = mortuary.restart(capture(OWN_LIMIT))

    assert told == []
    assert not only(mortuary).while_down


def test_what_comes_after_our_start_is_of_our_time(mortuary: Mortuary) -> None:
    mortuary.end()
    mortuary.start(iter(capture(OWN_LIMIT)))
    mortuary.turn(*capture("6.12.117_ancestor-limit"), after_seconds=0.1)
    mortuary.settle()

    before, after = mortuary.written()
    assert (before.while_down, after.while_down) == (True, False)
    assert after.case.boot_seconds > LONG_UP_SECONDS


def test_more_kills_than_wait_for_the_disk_are_all_found(mortuary: Mortuary) -> None:
    log = [bare_kill(number, 1000 + number) for number in range(8 * WAITING_MAX)]
    mortuary.end()
    mortuary.start(iter(log))
    told: list[Kept] = []
    until = time.monotonic() + DISK_SECONDS
    while len(told) < len(log) and time.monotonic() < until:
        told += mortuary.turn(after_seconds=0.5)

    assert {one.written for one in told} == {True}
    assert len(mortuary.written()) == len(log)


def test_kills_of_before_do_not_take_all_the_lines_that_we_may_log(mortuary: Mortuary) -> None:
    mortuary.end()
    mortuary.start(bare_kill(number, 1000 + number) for number in range(30))
    told: list[Kept] = []
    began = mortuary.seconds
    until = time.monotonic() + DISK_SECONDS
    while len(told) < 30 and time.monotonic() < until:
        due = mortuary.coroner.due_seconds(mortuary.now())
        told += mortuary.turn(after_seconds=max(due - mortuary.seconds, 0.01))

    assert len(told) == 30
    assert mortuary.seconds - began > 30 * PAST_EVERY_SECONDS


def test_kills_that_are_too_old_to_be_kept_are_not_told_at_each_start(
    fake: FakeProc, state: Path
) -> None:
    mortuary = Mortuary(fake, state, keep=2)
    log = [bare_kill(number * 10**6, 1000 + number) for number in range(1, 6)]
    mortuary.restart(log)
    told = mortuary.restart(log)
    mortuary.end()

    assert told == []
    assert [one.victim.pid for one in mortuary.written()] == [1004, 1005]


# -- the disk --------------------------------------------------------------------------------------


def test_a_state_directory_that_cannot_be_written_costs_the_files_and_nothing_else(
    mortuary: Mortuary, state: Path
) -> None:
    state.mkdir()
    (state / "incidents").write_text("in the way")
    mortuary.turn(bare_kill(1, 1001))
    mortuary.turn(bare_kill(2, 1002), after_seconds=3.0)
    mortuary.settle()
    told = [one for one in mortuary.record.take_news() if isinstance(one, Kept)]

    assert [one.written for one in told] == [False, False]
    assert [bool(one.fault) for one in told] == [True, False]
    assert ["1001" in told[0].headline, "1002" in told[1].headline] == [True, True]
    assert mortuary.record.kills == {("none", "kernel"): 2}
    assert mortuary.record.last_incident is not None
    (state / "incidents").unlink()


def test_of_more_kills_than_can_wait_for_a_disk_that_hangs_each_is_told(
    fake: FakeProc, state: Path
) -> None:
    disk = HungDisk(state / "incidents")
    mortuary = Mortuary(fake, state, incidents=disk)
    count = CASES_MAX + 2 * WAITING_MAX
    for number in range(count):
        mortuary.turn(bare_kill(number, 1000 + number), after_seconds=0.5)
    mortuary.turns(LONG_ENOUGH_SECONDS)
    told_before = sum(mortuary.record.kills.values())
    disk.go.set()
    until = time.monotonic() + DISK_SECONDS
    while sum(mortuary.record.kills.values()) < count and time.monotonic() < until:
        mortuary.turn(after_seconds=0.5)
    mortuary.end()
    news = [one for one in mortuary.record.take_news() if isinstance(one, Kept)]

    assert told_before > 0
    assert {one.fault for one in news if one.fault} == {"too many wait to be written"}
    assert mortuary.record.kills == {("none", "kernel"): count}


def test_a_fault_that_comes_again_after_all_was_well_is_said_again(mortuary: Mortuary) -> None:
    kept = Kept("1", "h", "d", None, "kernel", {}, "No space left on device", b"", written=False)
    for one in (kept, kept, kept._replace(fault="", written=True), kept):
        mortuary.record.kept(one)

    news = mortuary.record.take_news()
    faults = [one.fault for one in news if isinstance(one, Kept)]
    assert [bool(fault) for fault in faults] == [True, False, False, True]


def test_what_has_not_settled_when_the_daemon_stops_is_written_all_the_same(
    mortuary: Mortuary,
) -> None:
    mortuary.turn(*capture(OWN_LIMIT), raw(10**6, b"something else"))
    mortuary.turn(after_seconds=QUIET_SECONDS)
    told = mortuary.end()

    assert [one.id for one in told] == [only(mortuary).id]
