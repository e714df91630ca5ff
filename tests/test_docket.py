"""Evidence waits for what belongs to it; a case is given once, whatever comes later."""

from test_attribution import JOB, SCOPE, ended, killed

from oomwatchd.docket import WAITING_MAX, Docket
from oomwatchd.incident import OomdKill, UnitKilled


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


def test_a_flood_has_a_bound_and_is_counted() -> None:
    docket = Docket("boot")
    for sequence in range(WAITING_MAX + 5):
        docket.add(killed(sequence=sequence, pid=sequence))

    assert docket.dropped == 5
    assert len(docket.ripe(200.0)) == WAITING_MAX
    docket.add(killed(sequence=99999, boot_seconds=300.0, pid=1))
    assert len(docket.ripe(302.0)) == 1  # there is room again
