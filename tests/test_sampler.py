"""Who is followed and when samples are taken, in a /proc of our own; and once in life."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from math import floor
from pathlib import Path

import psutil
import pytest
from fakebounds import cgroup
from fakeproc import Fake, FakeProc, at_each_open

from oomwatchd.history import History, Portrait
from oomwatchd.identify import SlowReader, cgroup_of
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.largest import FOLLOWED, Largest
from oomwatchd.model import Level, ProcessId, Tracked
from oomwatchd.sampler import CMDLINE_KEPT, MATCHED_MAX, Sampler

MIB = 1 << 20
JOB = "/system.slice/job.service"
MEMINFO = """\
MemTotal:       1048576 kB
MemFree:         100000 kB
MemAvailable:   {available:8} kB
SwapTotal:            0 kB
SwapFree:             0 kB
"""
COPIER = """
import sys, time
held = bytearray(b"x") * (64 << 20)
print("ready", flush=True)
sys.stdin.readline()
copy = []
for part in range(64):
    copy.append(held[part << 20 : (part + 1) << 20])
    time.sleep(1 / 32)
print("copied", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def history() -> History:
    return History(600.0)


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    cgroup(tmp_path / "cgroup", JOB, usage=1_000_000, limit=str(512 * MIB))
    return tmp_path / "cgroup"


@pytest.fixture
def sampler(fake: FakeProc, proc: ProcFs, history: History, cgroups: Path) -> Iterator[Sampler]:
    available(fake, 800_000)
    made = Sampler(proc, history, SlowReader(), cgroup_root=cgroups, our_pid=1)
    yield made
    made.close()


def available(fake: FakeProc, kib: float) -> None:
    fake.root.joinpath("meminfo").write_text(MEMINFO.format(available=int(kib)))


def tracked(
    pid: int, *, start: int = 100, rule: str = "training", comm: str = "cat", kib: int = 0
) -> Tracked:
    """With *kib* as last weighed; 0: not yet."""
    return Tracked(ProcessId(pid, start), comm, rule, -900, -900, kib * 1024, 0)


def job(pid: int, kib: int = 1000) -> Fake:
    return Fake(pid, anon_kib=kib, arguments=(b"cat", b"/x"), cgroup=f"0::{JOB}\n")


def sizes_kib(history: History, pid: int, start: int = 100) -> list[int | None]:
    past = history.past(ProcessId(pid, start), JOB, unix_offset=0.0)
    return [None if one.victim_bytes is None else one.victim_bytes // 1024 for one in past.samples]


def portrait_of(history: History, pid: int) -> Portrait | None:
    return next((one for one in history.all_portraits() if one.id.pid == pid), None)


def times(history: History) -> list[float]:
    past = history.past(None, None, unix_offset=0.0)
    return [one.time_unix_seconds for one in past.samples]


def run(
    sampler: Sampler,
    since: float,
    until: float,
    matched: Sequence[Tracked] = (),
    *,
    level: Level = "ok",
    met: int = 0,
    meanwhile: Callable[[float], None] = lambda _now: None,
) -> None:
    """A loop that turns every second, and when asked to."""
    now = since
    while now <= until:
        if sampler.is_due(now):
            meanwhile(now)
            sampler.turn(now, level, None, matched, met=met)
        assert sampler.next_seconds > now
        now = min(sampler.next_seconds, floor(now) + 1.0)


# -- when ------------------------------------------------------------------------------------------


def test_a_start_is_not_held_up_by_a_sample(sampler: Sampler, history: History) -> None:
    sampler.turn(0.0, "ok", None, [])
    at_first = len(history)
    sampler.turn(1.0, "ok", None, [])

    assert (at_first, len(history)) == (0, 1)


def test_at_rest_the_loop_is_woken_about_once_a_second_and_a_sample_is_taken_every_ten(
    sampler: Sampler, history: History
) -> None:
    turns, now = 0, 0.0
    while now <= 41.0:
        sampler.turn(now, "ok", None, [])
        turns, now = turns + 1, sampler.next_seconds

    assert turns == 38
    assert times(history) == pytest.approx([1.1, 11.0, 20.9, 30.8, 40.7])


@pytest.mark.parametrize("tenths", range(10))
def test_a_loop_that_turns_every_second_is_soon_not_woken_in_between(
    sampler: Sampler, history: History, tenths: int
) -> None:
    """However far apart the two were at first."""
    woken, turns = [], [second + tenths / 10 for second in range(1, 61)]
    sampler.turn(0.0, "ok", None, [])
    for at in turns:
        while sampler.next_seconds < at:
            woken.append(sampler.next_seconds)
            sampler.turn(sampler.next_seconds, "ok", None, [])
        if sampler.is_due(at):
            sampler.turn(at, "ok", None, [])

    assert len(woken) <= 10
    assert all(at < 12.0 for at in woken)
    assert times(history)[-1] >= 50.0


def test_a_turn_of_the_loop_somewhat_before_the_time_is_used(
    sampler: Sampler, history: History
) -> None:
    """So that a look at all processes every second and a glance are one wake, not two."""
    sampler.turn(10.1, "ok", None, [])
    due = {at: sampler.is_due(at) for at in (10.5, 10.9, 11.0, 11.1, 11.3)}
    for second in range(11, 42):
        assert sampler.is_due(float(second))
        sampler.turn(float(second), "ok", None, [])

    assert due == {10.5: False, 10.9: False, 11.0: True, 11.1: True, 11.3: True}
    assert times(history) == [11.0, 21.0, 31.0, 41.0]


def test_under_pressure_there_are_four_samples_a_second(sampler: Sampler, history: History) -> None:
    run(sampler, 0.0, 1.0)
    run(sampler, 2.0, 4.0, level="warning")

    assert times(history) == [1.0, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0]


def test_a_copy_within_two_seconds_has_eight_samples_of_the_process(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    def copying(now: float) -> None:
        part = min(max((now - 9.3) / 2.0, 0.0), 1.0)
        fake.change(job(7, int(300_000 * (1 + part))))
        available(fake, 700_000 - 300_000 * part)

    fake.add(job(7, 300_000))
    run(sampler, 0.0, 12.0, [tracked(7, kib=300_000)], meanwhile=copying)

    rising = [one for one in sizes_kib(history, 7) if one and 300_000 < one < 600_000]
    assert len(rising) >= 8


def test_a_job_that_fills_its_cgroup_on_a_large_machine_is_seen_as_well(
    fake: FakeProc, sampler: Sampler, history: History, cgroups: Path
) -> None:
    def filling(now: float) -> None:
        used = 1_000_000 + int(200_000_000 * min(max((now - 2.0) / 2.0, 0.0), 1.0))
        (cgroups / JOB.strip("/") / "memory.current").write_text(f"{used}\n")

    fake.add(job(7))
    run(sampler, 0.0, 5.0, [tracked(7)], meanwhile=filling)

    past = history.past(ProcessId(7, 100), JOB, unix_offset=0.0)
    assert len([one for one in past.samples if 2.0 < one.time_unix_seconds < 4.0]) >= 8
    assert past.samples[-1].cgroup_limit_bytes == 536870912


def test_while_it_goes_on_there_is_no_gap(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    """20 MiB a second are one in a step, which would be nothing if it were all."""

    def growing(now: float) -> None:
        available(fake, 700_000 - 20 * 1024 * min(max(now - 5.0, 0.0), 10.0))

    run(sampler, 0.0, 16.5, meanwhile=growing)

    during = [at for at in times(history) if 6.0 <= at <= 15.5]
    assert max(later - one for one, later in pairwise(during)) == pytest.approx(0.25)


def test_a_slow_leak_is_sampled_more_often_than_at_rest_and_as_it_is_then(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    def leaking(now: float) -> None:
        fake.change(job(7, 100_000 + int(5 * 1024 * now)))
        available(fake, 700_000 - 5 * 1024 * now)

    fake.add(job(7))
    run(sampler, 0.0, 60.0, [tracked(7, kib=100_000)], meanwhile=leaking)

    points = list(zip(times(history), sizes_kib(history, 7), strict=True))
    fresh = [(at, size) for at, size in points if size != 100_000]
    assert 12 <= len(fresh) <= 25
    assert all(size == 100_000 + int(5 * 1024 * at) for at, size in fresh)


def test_a_limit_that_is_set_anew_is_known_within_a_minute(
    fake: FakeProc, sampler: Sampler, history: History, cgroups: Path
) -> None:
    fake.add(job(7))
    run(sampler, 0.0, 20.0, [tracked(7, kib=1000)])
    (cgroups / JOB.strip("/") / "memory.max").write_text("300000000\n")
    run(sampler, 21.0, 85.0, [tracked(7, kib=1000)])

    past = history.past(None, JOB, unix_offset=0.0).samples
    assert (past[0].cgroup_limit_bytes, past[-1].cgroup_limit_bytes) == (536870912, 299999232)


# -- who -------------------------------------------------------------------------------------------


def test_a_process_under_a_rule_has_a_portrait(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7, 3000), oom_score_adj=-900)
    run(sampler, 0.0, 1.0, [tracked(7)])

    portrait = portrait_of(history, 7)
    assert portrait is not None
    assert portrait.bounding == JOB
    victim = portrait.victim
    assert (victim.cmdline, victim.rule, victim.unit) == ("cat /x", "training", "job.service")
    assert (victim.user, victim.oom_score_adj, victim.cgroup) == ("1000", -900, JOB)


def test_at_rest_those_under_rules_have_the_size_they_were_weighed_with_if_they_were(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    """So that nothing is read twice."""
    fake.add(job(7, 3000))
    fake.add(job(8, 4000))
    run(sampler, 0.0, 11.0, [tracked(7, kib=2000), tracked(8)])

    assert (sizes_kib(history, 7), sizes_kib(history, 8)) == ([2000] * 2, [4000] * 2)


def test_who_comes_under_a_rule_is_followed_with_one_of_the_next_glances(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    run(sampler, 0.0, 1.0)
    fake.add(job(7))
    run(sampler, 2.0, 3.0, [tracked(7)], met=1)

    assert sizes_kib(history, 7) == [None, 1000]
    assert times(history) == [1.0, 3.0]


def test_the_ten_largest_others_are_followed_and_told_by_name(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    for pid in range(100, 130):
        fake.add(Fake(pid, comm=b"n%d" % pid, anon_kib=4 * pid))
    fake.add(job(7))
    run(sampler, 0.0, 11.0, [tracked(7)])

    others = history.past(ProcessId(7, 100), JOB, unix_offset=0.0).others
    assert [one.name for one in others] == [f"n{pid}" for pid in range(129, 119, -1)]
    assert others[0].bytes[-1] == 4 * 129 * 1024


def test_when_one_of_the_largest_ends_the_next_takes_its_place(
    fake: FakeProc, proc: ProcFs
) -> None:
    for pid in range(100, 130):
        fake.add(Fake(pid, anon_kib=4 * pid))
    largest = Largest(proc, our_pid=1)
    largest.look()
    largest.weighed(129, None)

    assert largest.pids(but={128}) == list(range(127, 117, -1))


def test_at_rest_few_are_looked_at_however_many_there_are(fake: FakeProc, sampler: Sampler) -> None:
    for pid in range(100, 700):
        fake.add(Fake(pid))
    run(sampler, 0.0, 30.0)
    opened: list[str] = []
    with at_each_open(opened.append):
        run(sampler, 31.0, 60.0)

    looked_at = {name for name in opened if name.endswith("/status")}
    assert 0 < len(looked_at) <= 6


def test_one_that_grows_large_is_found_when_memory_goes(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    for pid in range(100, 1100):
        fake.add(Fake(pid, anon_kib=1000))
    run(sampler, 0.0, 30.0)
    before = {one.id.pid for one in history.all_portraits()}
    fake.change(Fake(150, anon_kib=300_000))
    available(fake, 500_000)
    run(sampler, 31.0, 33.0)

    others = history.past(None, None, unix_offset=0.0).others
    assert len(before) == FOLLOWED
    assert (others[0].pid, others[0].bytes[-1]) == (150, 300_000 * 1024)


def test_one_that_is_large_when_memory_is_short_is_found(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    """What it took, others have given back."""
    for pid in range(100, 400):
        fake.add(Fake(pid, anon_kib=1000))
    run(sampler, 0.0, 30.0)
    fake.change(Fake(150, anon_kib=300_000))
    run(sampler, 31.0, 33.0, level="warning")

    others = history.past(None, None, unix_offset=0.0).others
    assert others[0].pid == 150


def test_those_that_ended_unseen_do_not_stand_in_for_others(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    for pid in range(100, 130):
        fake.add(Fake(pid, anon_kib=4 * (300 - pid)))
    run(sampler, 0.0, 11.0)
    for pid in range(110, 115):  # the next, after the ten
        fake.exit(pid)
    for pid in range(100, 105):
        fake.change(Fake(pid, anon_kib=8))
    run(sampler, 12.0, 41.0)

    followed = {one.id.pid for one in history.all_portraits()}
    assert followed == {*range(100, 110), *range(115, 120)}


def test_one_that_grows_slowly_is_found_as_well(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    def leaking(now: float) -> None:
        taken = 1024 * max(now - 20.0, 0.0)
        fake.change(Fake(150, anon_kib=int(1000 + taken)))
        available(fake, 800_000 - taken)

    for pid in range(100, 400):
        fake.add(Fake(pid, anon_kib=1000 + pid))
    run(sampler, 0.0, 120.0, meanwhile=leaking)

    others = history.past(None, None, unix_offset=0.0).others
    assert others[0].pid == 150


def test_who_has_ended_is_not_in_the_next_sample_and_his_past_stays(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7))
    run(sampler, 0.0, 1.0, [tracked(7)])
    fake.exit(7)
    run(sampler, 2.0, 11.0)

    assert sizes_kib(history, 7) == [1000, None]


def test_one_that_takes_its_time_to_die_keeps_the_portrait_it_had_in_life(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    """Its memory is given back page by page; it has none to read a command line from by then."""
    fake.add(job(7))
    run(sampler, 0.0, 1.0, [tracked(7)])
    fake.change(replace(job(7), exiting=True))
    run(sampler, 2.0, 4.0, [tracked(7)], level="warning")

    portrait = portrait_of(history, 7)
    assert portrait is not None
    assert (portrait.victim.cmdline, portrait.victim.rule) == ("cat /x", "training")


def test_a_pid_used_again_is_not_taken_for_the_process_under_the_rule(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(Fake(7, start_ticks=900, anon_kib=5))
    run(sampler, 0.0, 1.0, [tracked(7, start=100)])

    assert sizes_kib(history, 7) == [None]
    assert portrait_of(history, 7) is None


def test_who_comes_under_a_rule_gets_a_new_portrait(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7))
    run(sampler, 0.0, 1.0)
    before = portrait_of(history, 7)
    run(sampler, 2.0, 11.0, [tracked(7)])
    after = portrait_of(history, 7)

    assert before is not None
    assert after is not None
    assert (before.victim.rule, after.victim.rule) == (None, "training")


def test_a_new_cgroup_is_noticed_after_a_while(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(Fake(7))
    run(sampler, 0.0, 1.0, [tracked(7)])
    fake.change(job(7))
    run(sampler, 2.0, 71.0, [tracked(7)])

    portrait = portrait_of(history, 7)
    assert portrait is not None
    assert portrait.victim.cgroup == JOB


def test_portraits_are_made_anew_one_a_minute(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    for pid in range(100, 108):
        fake.add(Fake(pid))
    run(sampler, 0.0, 2.0)
    for pid in range(100, 108):
        fake.change(job(pid))
    run(sampler, 3.0, 200.0)

    renewed = [one for one in history.all_portraits() if one.victim.cgroup == JOB]
    assert len(renewed) == 3


def test_of_very_many_under_rules_the_largest_are_followed(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    ours = [tracked(pid, kib=pid) for pid in range(100, 300)]
    for one in ours:
        fake.add(job(one.id.pid))
    run(sampler, 0.0, 5.0, ours)

    followed = [one for one in history.all_portraits() if one.victim.rule is not None]
    assert len(followed) == MATCHED_MAX
    assert {one.id.pid for one in followed} == set(range(300 - MATCHED_MAX, 300))


def test_a_command_line_made_to_fill_our_memory_is_cut(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(Fake(7, arguments=("\U0001f600".encode(), b"\xff" * 5000)))
    run(sampler, 0.0, 1.0, [tracked(7)])

    portrait = portrait_of(history, 7)
    assert portrait is not None
    assert portrait.victim.cmdline is not None
    assert portrait.victim.cmdline.startswith("\U0001f600 \\xff")
    assert len(portrait.victim.cmdline) == CMDLINE_KEPT


# -- command lines that do not come in time --------------------------------------------------------


@contextmanager
def no_command_line(fake: FakeProc, pid: int) -> Iterator[None]:
    """Whoever reads it waits until the end of this; then it is there again."""
    path, silent = fake.root / str(pid) / "cmdline", fake.root / "silent"
    told = path.read_bytes()
    path.unlink()
    os.mkfifo(silent)
    path.symlink_to(silent)
    yield
    fresh = path.with_name("fresh")
    fresh.write_bytes(told)
    fresh.replace(path)
    os.close(os.open(silent, os.O_RDWR | os.O_NONBLOCK))  # whoever waits to open it goes on


def cmdline(history: History, pid: int) -> str | None:
    portrait = portrait_of(history, pid)
    assert portrait is not None
    return portrait.victim.cmdline


def test_a_command_line_that_did_not_come_in_time_is_asked_for_again_soon(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7))
    with no_command_line(fake, 7):
        run(sampler, 0.0, 1.0, [tracked(7)])
        before = cmdline(history, 7)
    run(sampler, 2.0, 11.0, [tracked(7)])

    assert (before, cmdline(history, 7)) == (None, "cat /x")


def test_one_that_does_not_come_any_more_is_kept_as_it_was_last_read(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    """A process in want of memory has its command line swapped out."""
    fake.add(Fake(7, arguments=(b"cat", b"/x")))
    run(sampler, 0.0, 1.0, [tracked(7)])
    fake.change(job(7))
    with no_command_line(fake, 7):
        run(sampler, 2.0, 71.0, [tracked(7)])
    portrait = portrait_of(history, 7)

    assert portrait is not None
    assert (portrait.victim.cmdline, portrait.victim.cgroup) == ("cat /x", JOB)


def test_that_of_the_program_before_is_not_taken_for_one_that_does_not_come(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7))
    run(sampler, 0.0, 1.0, [tracked(7)])
    fake.exec(7, b"cat", (b"cat", b"/y"))
    with no_command_line(fake, 7):
        run(sampler, 2.0, 71.0, [tracked(7)])

    assert cmdline(history, 7) is None


def test_one_that_never_comes_is_asked_for_more_and_more_seldom(
    fake: FakeProc, sampler: Sampler
) -> None:
    """Each time, somebody waits for good."""
    fake.add(job(7))
    opened: list[str] = []
    with no_command_line(fake, 7), at_each_open(opened.append):
        run(sampler, 0.0, 200.0, [tracked(7)], level="warning")

    assert 6 <= opened.count("cmdline") <= 9


# -- in life ---------------------------------------------------------------------------------------


def test_a_real_copy_that_begins_right_after_a_glance_has_eight_points(
    history: History, tmp_path: Path
) -> None:
    """64 MiB in two seconds, below a limit of 256 MiB that we only say is there."""
    with running(COPIER) as program, closing(ProcFs()) as proc:
        look = proc.look(program.pid)
        assert look is not None
        bounds = cgroup(tmp_path, cgroup_of(look.directory).path, limit=str(256 * MIB))
        look.close()
        ours = Tracked(look.id, "python3", "job", -900, -900, 0, 0)
        with closing(Sampler(proc, history, SlowReader(), cgroup_root=tmp_path)) as sampler:
            turn_while_it_copies(sampler, program, ours, bounds / "memory.current")

    sizes = sizes_kib(history, look.id.pid, look.id.start_ticks)
    assert sizes[0] is not None
    level_kib = sizes[0]
    assert sizes[-1] is not None
    assert sizes[-1] > level_kib + 48 * 1024
    rising = [one for one in sizes if one and level_kib + 1024 < one < level_kib + 63 * 1024]
    assert len(rising) >= 8


@contextmanager
def running(source: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python program that has said that it is ready."""
    command = [sys.executable, "-c", source]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
        program.kill()


def turn_while_it_copies(
    sampler: Sampler, program: "subprocess.Popen[str]", ours: Tracked, usage: Path
) -> None:
    """A loop as the daemon's; the program begins right after the third turn."""
    assert program.stdout is not None
    process = psutil.Process(program.pid)
    turns, copied = 0, False
    while not copied:
        now = time.monotonic()
        if now >= sampler.next_seconds:
            usage.write_text(f"{process.memory_info().rss}\n")
            sampler.turn(now, "ok", None, [ours])
            turns += 1
            if turns == 3:
                say(program, "copy")
        wait = max(sampler.next_seconds - time.monotonic(), 0.0)
        copied = bool(select.select([program.stdout], [], [], wait)[0])


def say(program: "subprocess.Popen[str]", word: str) -> None:
    assert program.stdin is not None
    program.stdin.write(f"{word}\n")
    program.stdin.flush()
