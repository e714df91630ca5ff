"""Evidence waits for what belongs to it; a case is given once, whatever comes later."""

import time

from test_attribution import JOB, RULED, SCOPE, ended, killed

from oomwatchd.docket import ROOM, WAITING_MAX, Docket
from oomwatchd.incident import CounterRise, OomdKill, UnitKilled

TURN_SECONDS = 0.1


def test_a_kill_in_the_log_is_a_case_two_seconds_later_with_the_end_of_its_process() -> None:
    docket = Docket("boot")
    docket.add(killed())
    assert docket.ripe(101.0) == []
    docket.add(ended())

    [case] = docket.ripe(102.0)

    assert case.victims[0].rule == "training"
    assert docket.ripe(110.0) == []


def test_an_end_without_a_cause_waits_longer_and_is_then_of_an_unknown_sender() -> None:
    docket = Docket("boot")
    docket.add(ended(100.0))

    assert docket.ripe(103.0) == []
    assert docket.next_boot_seconds == 105.0
    assert [case.killer for case in docket.ripe(105.0)] == ["unknown"]


def test_a_kill_waits_for_word_of_another_that_has_ended_in_its_unit() -> None:
    """PID 1 has stopped it, perhaps; that is read in the journal, which takes its time."""
    docket = Docket("boot")
    docket.add(killed(pid=8, boot_seconds=100.0))
    docket.add(ended(100.1, pid=9, start_ticks=2, name="another"))
    early = docket.ripe(103.0)
    docket.add(UnitKilled(100.2, "job.service", by_oomd=False))
    [case] = docket.ripe(103.5)

    assert early == []
    assert [one.pid for one in case.victims] == [8, 9]
    assert docket.ripe(120.0) == []


def test_a_kill_does_not_wait_for_word_of_those_of_other_units() -> None:
    docket = Docket("boot")
    docket.add(killed(pid=8, boot_seconds=100.0))
    docket.add(ended(100.1, pid=9, cgroup="/other.service", unit="other.service"))

    assert [case.killer for case in docket.ripe(102.0)] == ["kernel"]
    assert [case.killer for case in docket.ripe(105.1)] == ["unknown"]


def test_what_comes_late_is_not_a_second_case() -> None:
    docket = Docket("boot")
    docket.add(killed())
    assert len(docket.ripe(102.0)) == 1
    docket.add(ended(103.0))
    docket.add(UnitKilled(104.0, "job.service", by_oomd=False))

    assert docket.ripe(120.0) == []


def test_a_victim_told_of_as_unknown_is_not_told_of_again() -> None:
    docket = Docket("boot")
    docket.add(ended(100.0))
    assert len(docket.ripe(105.0)) == 1
    docket.add(OomdKill(100.0, JOB, "memory-pressure"))

    assert docket.ripe(110.0) == []


def test_a_cgroup_killed_by_systemd_oomd_is_a_case_also_if_nobody_in_it_is_known() -> None:
    docket = Docket("boot")
    docket.add(OomdKill(100.0, SCOPE, "memory-pressure"))

    [case] = docket.ripe(102.0)

    assert case.victims == ()


def test_a_kill_by_systemd_oomd_that_is_read_after_it_was_heard_is_no_second_case() -> None:
    docket = Docket("boot")
    docket.add(OomdKill(100.4, SCOPE, "memory-pressure"))
    assert len(docket.ripe(103.0)) == 1
    docket.add(OomdKill(99.1, SCOPE, "memory-pressure", ("Killed ...",)))
    assert docket.ripe(106.0) == []
    docket.ripe(200.0)  # all evidence is gone by then
    docket.add(OomdKill(99.1, SCOPE, "memory-pressure", ("Killed ...",)))
    docket.add(UnitKilled(101.0, SCOPE.rpartition("/")[2], by_oomd=True))
    assert docket.ripe(201.0) == []
    docket.add(OomdKill(200.0, SCOPE, "memory-pressure"))

    assert len(docket.ripe(202.0)) == 1


def test_it_is_known_which_cases_nobody_has_owned_up_to_yet() -> None:
    docket = Docket("boot")
    docket.add(ended(100.0))
    docket.add(killed(boot_seconds=100.0, pid=8, name="other"))
    docket.ripe(102.0)
    [doubted] = docket.doubted
    docket.add(OomdKill(100.0, JOB, "memory-pressure"))
    docket.ripe(104.0)

    assert doubted.startswith("ended:boot:7:")
    assert docket.doubted == frozenset()


def test_two_kills_of_one_pid_far_apart_are_two_cases() -> None:
    docket = Docket("boot")
    docket.add(killed())
    first = docket.ripe(102.0)
    docket.add(killed(sequence=9, boot_seconds=500.0))

    assert len(first) == len(docket.ripe(502.0)) == 1


# -- a flood ---------------------------------------------------------------------------------------


def flood(docket: Docket, count: int, at: float, first: int = 1000) -> None:
    for number in range(first, first + count):
        docket.add(killed(sequence=number, pid=number, boot_seconds=at, name="x"))


def test_a_flood_has_a_bound_and_each_kill_of_it_is_told_or_counted() -> None:
    docket = Docket("boot")
    flood(docket, WAITING_MAX + 5, 100.0)
    told = docket.ripe(102.0)

    assert len(told) <= WAITING_MAX
    assert docket.untold == {"kernel": WAITING_MAX + 5 - len(told)}
    assert docket.untold["kernel"] <= ROOM
    docket.add(killed(sequence=99999, boot_seconds=300.0, pid=1))
    assert len(docket.ripe(302.0)) == 1  # there is room again


def test_what_has_been_told_gives_its_place_to_what_comes() -> None:
    docket = Docket("boot")
    told = 0
    for second in range(100):
        flood(docket, WAITING_MAX // 4, 100.0 + second, first=1000 * second)
        docket.add(CounterRise(100.0 + second, None, WAITING_MAX // 4))
        told += len(docket.ripe(100.0 + second))
    told += len(docket.ripe(300.0))

    assert told == 100 * (WAITING_MAX // 4)
    assert not docket.untold


def test_those_under_rules_are_told_in_a_flood_whenever_they_die() -> None:
    docket = Docket("boot", lambda: {7})
    docket.add(ended(100.0, pid=8, start_ticks=3))
    docket.add(killed(sequence=3, pid=8, boot_seconds=100.0))
    flood(docket, WAITING_MAX, 100.0)
    docket.add(killed(sequence=5000, pid=7, boot_seconds=100.0))
    docket.add(ended(100.0, pid=9, start_ticks=4, cgroup="/other", unit="other.service"))
    flood(docket, WAITING_MAX, 100.0, first=6000)
    found = [*docket.ripe(102.0), *docket.ripe(106.0)]

    killers = {
        one.pid: case.killer for case in found for one in case.victims if one.pid in (7, 8, 9)
    }
    assert killers == {7: "kernel", 8: "kernel", 9: "unknown"}


def test_processes_under_rules_that_just_end_by_the_hundred_hide_no_kill() -> None:
    docket = Docket("boot")
    at = 100.0
    for number in range(4 * WAITING_MAX):
        at += 0.01
        docket.ripe(at)
        docket.add(ended(at, by_sigkill=None, pid=number, start_ticks=number))
        docket.add(ended(at - 1, by_sigkill=False, pid=number, start_ticks=number))
    flood(docket, 1, at, first=10**6)

    assert [case.killer for case in docket.ripe(at + 2)] == ["kernel"]
    assert not docket.untold


def test_what_counters_have_counted_of_untold_kills_is_not_laid_to_who_just_ended() -> None:
    docket = Docket("boot")
    flood(docket, 2 * WAITING_MAX + 5, 100.0)
    docket.add(CounterRise(100.1, None, 2 * WAITING_MAX + 5))
    docket.add(ended(101.0, by_sigkill=None))
    told = docket.ripe(110.0)

    assert RULED.rule not in {one.rule for case in told for one in case.victims}


def test_of_a_group_too_large_to_be_told_in_full_only_the_group_is_counted() -> None:
    docket = Docket("boot")
    for number in range(2 * WAITING_MAX):
        raw = () if number else ("Killed process",)
        docket.add(killed(sequence=number, pid=number, group_cgroup=JOB, raw=raw))

    [case] = docket.ripe(102.0)
    assert case.killer == "oom_group"
    assert not docket.untold


def test_making_room_takes_little_time() -> None:
    docket = Docket("boot")
    began = time.thread_time()
    flood(docket, 2000, 100.0)  # as many as are read of the log in one turn
    docket.ripe(110.0)
    flood(docket, 2000, 111.0, first=5000)
    took = time.thread_time() - began

    assert took < 2 * TURN_SECONDS
