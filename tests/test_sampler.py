"""Who is followed and when samples are taken, in a /proc of our own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc

from oomwatchd.history import History
from oomwatchd.identify import SlowReader
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.largest import KEPT, Largest
from oomwatchd.model import ProcessId, Tracked
from oomwatchd.sampler import MATCHED_MAX, Sampler

JOB = "/system.slice/job.service"
MEMINFO = """\
MemTotal:       1048576 kB
MemFree:         100000 kB
MemAvailable:   {available:8} kB
SwapTotal:            0 kB
SwapFree:             0 kB
"""

Turn = Callable[..., None]


@pytest.fixture
def history() -> History:
    return History(600.0)


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    directory = tmp_path / "cgroup" / JOB.strip("/")
    directory.mkdir(parents=True)
    (directory / "memory.current").write_text("1000000\n")
    (directory / "memory.max").write_text("536870912\n")
    return tmp_path / "cgroup"


@pytest.fixture
def sampler(fake: FakeProc, proc: ProcFs, history: History, cgroups: Path) -> Iterator[Sampler]:
    fake.root.joinpath("meminfo").write_text(MEMINFO.format(available=800_000))
    made = Sampler(proc, history, SlowReader(), cgroup_root=cgroups, our_pid=1)
    yield made
    made.close()


def tracked(pid: int, *, start: int = 100, rule: str = "training", comm: str = "cat") -> Tracked:
    return Tracked(ProcessId(pid, start), comm, rule, -900, -900, pid * 4096, 0)


def job(pid: int, kib: int = 1000) -> Fake:
    return Fake(pid, anon_kib=kib, arguments=(b"cat", b"/x"), cgroup=f"0::{JOB}\n")


def sizes(history: History, pid: int, start: int = 100) -> list[int | None]:
    past = history.past(ProcessId(pid, start), JOB, unix_offset=0.0)
    return [one.victim_bytes for one in past.samples]


def test_a_process_under_a_rule_is_sampled_every_interval_with_its_portrait(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7, 3000), oom_score_adj=-900)

    for second in range(0, 11):
        sampler.turn(float(second), "ok", None, [tracked(7)])

    assert sizes(history, 7) == [3000 * 1024] * 3
    portrait = history.latest(7)
    assert portrait is not None
    assert portrait.bounding == JOB
    victim = portrait.victim
    assert (victim.cmdline, victim.rule, victim.unit) == ("cat /x", "training", "job.service")
    assert (victim.user, victim.oom_score_adj, victim.cgroup) == ("1000", -900, JOB)


def test_a_glance_twice_a_second_takes_no_sample_while_memory_stands_still(
    sampler: Sampler, history: History
) -> None:
    now = 0.0
    while now < 4.9:
        sampler.turn(now, "ok", None, [])
        assert sampler.next_seconds == pytest.approx(now + 0.5)
        now = sampler.next_seconds

    assert len(history) == 1


def test_under_pressure_there_are_four_samples_a_second(sampler: Sampler, history: History) -> None:
    now = 0.0
    while now <= 2.0:
        sampler.turn(now, "warning", None, [])
        now = sampler.next_seconds

    assert len(history) == 9


def test_a_copy_within_two_seconds_has_eight_samples_of_the_process(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7, 300_000))
    now = 0.0
    while now < 12.0:
        part = min(max((now - 9.3) / 2.0, 0.0), 1.0)
        fake.change(job(7, int(300_000 * (1 + part))))
        fake.root.joinpath("meminfo").write_text(
            MEMINFO.format(available=int(700_000 - 300_000 * part))
        )
        sampler.turn(now, "ok", None, [tracked(7)])
        now = sampler.next_seconds

    rising = [one for one in sizes(history, 7) if one and 300_000 < one / 1024 < 600_000]
    assert len(rising) >= 8


def test_a_job_that_fills_its_cgroup_on_a_large_machine_is_seen_as_well(
    fake: FakeProc, sampler: Sampler, history: History, cgroups: Path
) -> None:
    fake.add(job(7))
    now = 0.0
    while now < 4.0:
        used = 1_000_000 + int(200_000_000 * min(max((now - 1.0) / 2.0, 0.0), 1.0))
        (cgroups / JOB.strip("/") / "memory.current").write_text(f"{used}\n")
        sampler.turn(now, "ok", None, [tracked(7)])
        now = sampler.next_seconds

    past = history.past(ProcessId(7, 100), JOB, unix_offset=0.0)
    assert len([one for one in past.samples if 1.0 < one.time_unix_seconds < 3.0]) >= 8
    assert past.samples[-1].cgroup_limit_bytes == 536870912


def test_the_ten_largest_others_are_followed_and_told_by_name(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    for pid in range(100, 130):
        fake.add(Fake(pid, comm=b"n%d" % pid, anon_kib=4 * pid))
    fake.add(job(7))

    for second in range(3):
        sampler.turn(5.0 * second, "ok", None, [tracked(7)])

    others = history.past(ProcessId(7, 100), JOB, unix_offset=0.0).others
    assert [one.name for one in others] == [f"n{pid}" for pid in range(129, 119, -1)]
    assert others[0].bytes[-1] == 4 * 129 * 1024


def test_one_that_grows_large_later_is_found_when_memory_goes_fast(
    fake: FakeProc, proc: ProcFs
) -> None:
    for pid in range(100, 1100):
        fake.add(Fake(pid, anon_kib=1000))
    largest = Largest(proc, our_pid=1)
    for _ in range(4):
        largest.look(but=())
    fake.change(Fake(1050, anon_kib=900_000))
    largest.search()

    looks = [largest.look(but=()) for _ in range(4)]

    assert looks[-1][0] == 1050
    assert len(looks[-1]) == KEPT


def test_who_has_ended_is_not_in_the_next_sample_and_his_past_stays(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7))
    sampler.turn(0.0, "ok", None, [tracked(7)])
    fake.exit(7)
    sampler.turn(5.0, "ok", None, [])

    assert sizes(history, 7) == [1000 * 1024, None]


def test_a_pid_used_again_is_not_taken_for_the_process_under_the_rule(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(Fake(7, start_ticks=900, anon_kib=5))
    sampler.turn(0.0, "ok", None, [tracked(7, start=100)])

    assert sizes(history, 7) == [None]


def test_who_comes_under_a_rule_gets_a_new_portrait(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(job(7))
    sampler.turn(0.0, "ok", None, [])
    before = history.latest(7)
    sampler.turn(5.0, "ok", None, [tracked(7)])
    after = history.latest(7)

    assert before is not None
    assert after is not None
    assert (before.victim.rule, after.victim.rule) == (None, "training")


def test_a_new_cgroup_is_noticed_within_a_minute(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    fake.add(Fake(7))
    sampler.turn(0.0, "ok", None, [tracked(7)])
    fake.change(job(7))
    for second in range(5, 70, 5):
        sampler.turn(float(second), "ok", None, [tracked(7)])

    portrait = history.latest(7)
    assert portrait is not None
    assert portrait.victim.cgroup == JOB


def test_of_very_many_under_rules_the_largest_are_followed(
    fake: FakeProc, sampler: Sampler, history: History
) -> None:
    ours = [tracked(pid) for pid in range(100, 300)]
    for one in ours:
        fake.add(job(one.id.pid))
    for quarter in range(8):
        sampler.turn(quarter / 4, "critical", None, list(ours))

    followed = [one for one in history.all_portraits() if one.victim.rule is not None]
    assert len(followed) == MATCHED_MAX
    assert {one.id.pid for one in followed} == set(range(300 - MATCHED_MAX, 300))
