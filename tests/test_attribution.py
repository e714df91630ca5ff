"""Whose kill it was, by the table of evidence; each kill in one case, however often it is told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.incident import (
    Case,
    CounterRise,
    Ended,
    Evidence,
    KernelKill,
    OomdKill,
    Task,
    UnitKilled,
    Victim,
)
from oomwatchd.policy.attribution import cases

JOB = "/system.slice/job.service"
SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope"
RULED = Victim(
    pid=7, name="a-long-name-of-ours", start_ticks=42, cmdline="x --y", unit="job.service",
    cgroup=JOB, rule="training", oom_score_adj=-900, memory_bytes=5,
)  # fmt: skip


def killed(**fields: Any) -> KernelKill:
    told = KernelKill(
        boot_seconds=100.0, sequence=1, of_cgroup=False, pid=7, name="a-long-name-of-",
        uid=1000, oom_score_adj=-900, memory_bytes=9, constraint="none", victim_cgroup=JOB,
        raw=("Out of memory: Killed process 7",),
    )  # fmt: skip
    return told._replace(**fields)


def ended(at: float = 100.5, *, by_sigkill: bool | None = True, **fields: Any) -> Ended:
    return Ended(at, RULED._replace(**fields), by_sigkill)


def only(*evidence: Evidence) -> Case:
    [case] = cases(evidence, "boot")
    return case


# -- the table -------------------------------------------------------------------------------------


def test_out_of_memory_is_the_kernel_on_the_whole_machine() -> None:
    case = only(killed())

    assert (case.killer, case.scope) == ("kernel", "machine")


def test_a_cgroup_s_own_limit_is_named() -> None:
    case = only(
        killed(of_cgroup=True, constraint="memcg", limit_cgroup=JOB, limit_bytes=64, usage_bytes=64)
    )

    assert (case.killer, case.scope, case.limit_bytes) == ("cgroup", JOB, 64)


def test_the_limit_of_a_cgroup_above_is_named_and_not_the_victim_s_own() -> None:
    case = only(killed(of_cgroup=True, limit_cgroup="/system.slice"))

    assert (case.killer, case.scope) == ("cgroup", "/system.slice")
    assert case.victims[0].cgroup == JOB


def test_without_the_details_that_the_kernel_may_leave_out_it_is_still_a_cgroup_s_limit() -> None:
    case = only(killed(of_cgroup=True, constraint=None, victim_cgroup=None), ended())

    assert (case.killer, case.scope) == ("cgroup", "unknown")


@pytest.mark.parametrize("constraint", ["cpuset", "memory_policy"])
def test_memory_that_was_short_on_some_nodes_only_is_told_so(constraint: str) -> None:
    case = only(killed(constraint=constraint))

    assert (case.killer, case.scope) == ("kernel", constraint)


def test_a_group_kill_is_one_case_with_the_chosen_one_first() -> None:
    group = [
        killed(
            sequence=5 + at, pid=pid, of_cgroup=True, limit_cgroup=JOB, group_cgroup=JOB,
            boot_seconds=100.0 + at / 100,
        )
        for at, pid in enumerate((7, 8, 7, 9))
    ]  # fmt: skip

    case = only(*group, CounterRise(100.1, None, 3))

    assert case.killer == "oom_group"
    assert [victim.pid for victim in case.victims] == [7, 8, 9]


def test_two_group_kills_of_the_same_cgroup_one_after_the_other_are_two() -> None:
    first = killed(group_cgroup=JOB)
    second = killed(group_cgroup=JOB, sequence=90, boot_seconds=130.0, pid=8)

    assert len(cases([first, second], "boot")) == 2


def test_systemd_oomd_is_believed_and_has_killed_whoever_lay_in_the_cgroup() -> None:
    case = only(
        OomdKill(100.0, SCOPE, "memory-pressure"),
        ended(cgroup=f"{SCOPE}/deeper", unit="vte-spawn-1.scope"),
    )

    assert (case.killer, case.scope) == ("systemd_oomd", SCOPE)
    assert [victim.pid for victim in case.victims] == [7]


def test_its_signal_its_log_and_the_manager_s_message_are_one_kill() -> None:
    line = "Killed /x due to memory pressure for /y being 57.97% > 50.00% for > 20s"
    case = only(
        OomdKill(100.0, SCOPE, "memory-pressure"),
        OomdKill(100.2, SCOPE, line, (line,)),
        UnitKilled(100.9, "vte-spawn-1.scope", by_oomd=True, processes=1),
    )

    assert case.reason == line
    assert case.raw == (line,)


def test_the_manager_s_message_alone_is_enough_for_systemd_oomd() -> None:
    case = only(
        UnitKilled(100.9, "job.service", by_oomd=True), ended(), ended(pid=8, start_ticks=43)
    )

    assert (case.killer, case.scope) == ("systemd_oomd", JOB)
    assert [victim.pid for victim in case.victims] == [7, 8]


def test_sigkill_with_no_other_evidence_has_an_unknown_sender() -> None:
    case = only(ended())

    assert (case.killer, case.scope, case.sources) == ("unknown", "unknown", ())


def test_who_has_not_been_killed_or_may_not_have_been_is_no_case() -> None:
    assert cases([ended(by_sigkill=False)], "boot") == []
    assert cases([ended(by_sigkill=None)], "boot") == []


# -- what the log has lost -------------------------------------------------------------------------


def test_counters_that_rose_speak_for_the_kernel_when_its_log_was_lost() -> None:
    case = only(ended(by_sigkill=None), CounterRise(100.2, None, 1), CounterRise(100.2, JOB, 1))

    assert (case.killer, case.scope, case.sources) == ("kernel", "machine", ("counters",))


def test_a_cgroup_that_hit_its_own_limit_is_told_by_its_counters() -> None:
    case = only(ended(), CounterRise(100.2, JOB, 1, own_limit=True))

    assert (case.killer, case.scope) == ("cgroup", JOB)


def test_a_counter_that_the_log_explains_does_not_excuse_a_second_sigkill() -> None:
    made = cases(
        [killed(), ended(), CounterRise(100.2, None, 1), ended(pid=8, start_ticks=50)], "boot"
    )

    assert sorted(case.killer for case in made) == ["kernel", "unknown"]


def test_a_sigkill_after_a_group_died_is_not_excused_by_those_that_were_counted_twice() -> None:
    group = [
        killed(
            sequence=5 + at, pid=pid, of_cgroup=True, limit_cgroup=JOB, group_cgroup=JOB,
            boot_seconds=100.0 + at / 100,
        )
        for at, pid in enumerate((8, 8, 9))
    ]  # fmt: skip

    made = cases([*group, CounterRise(100.1, None, 3), ended(104.0, cgroup="/other")], "boot")

    assert [case.killer for case in made] == ["oom_group", "unknown"]


def test_a_kill_that_was_lost_excuses_no_sigkill_long_after_it() -> None:
    lost, later = CounterRise(80.0, None, 1), CounterRise(100.1, None, 1)

    made = cases([lost, killed(pid=8, name="other"), later, ended(104.0, unit=None)], "boot")

    assert [case.killer for case in made] == ["kernel", "unknown"]


def test_a_counter_of_another_cgroup_says_nothing() -> None:
    case = only(ended(), CounterRise(100.2, "/system.slice/other.service", 1))

    assert case.killer == "unknown"


def test_evidence_of_another_time_is_of_another_kill() -> None:
    case = only(ended(at=200.0), CounterRise(100.0, None, 1))

    assert case.killer == "unknown"


# -- no double counting ----------------------------------------------------------------------------


def test_the_log_and_the_end_of_the_process_are_one_case_that_knows_what_both_know() -> None:
    case = only(ended(), killed(), UnitKilled(101.0, "job.service", by_oomd=False))

    [victim] = case.victims
    assert (victim.name, victim.cmdline, victim.rule) == (
        "a-long-name-of-ours",
        "x --y",
        "training",
    )
    assert victim.memory_bytes == 9  # as the kernel has it
    assert case.sources == ("kernel_log", "systemd")


def test_what_was_swapped_out_is_known_from_before_if_the_kernel_did_not_tell() -> None:
    seen = ended(memory_bytes=15 << 30)

    assert only(killed(memory_bytes=512 << 20), seen).victims[0].memory_bytes == 15 << 30
    assert only(killed(memory_bytes=16 << 30), seen).victims[0].memory_bytes == 16 << 30
    assert only(killed(memory_bytes=None), seen).victims[0].memory_bytes == 15 << 30


def test_a_thread_named_by_the_kernel_is_the_process_that_has_ended() -> None:
    case = only(killed(pid=12), ended())

    assert [victim.pid for victim in case.victims] == [7]


def test_a_group_s_processes_of_one_name_are_told_apart_in_whatever_order_they_end() -> None:
    group = [
        killed(sequence=5 + at, pid=pid, of_cgroup=True, group_cgroup=JOB)
        for at, pid in enumerate((8, 7))
    ]

    case = only(*group, ended(), ended(100.6, pid=8, start_ticks=43, cmdline="x --worker"))

    known = [(one.pid, one.start_ticks, one.cmdline) for one in case.victims]
    assert known == [(8, 43, "x --worker"), (7, 42, "x --y")]


def test_a_process_of_the_kernel_s_table_is_not_taken_for_a_thread_of_one_that_ended_with_it() -> (
    None
):
    """Two workers of one name: one is killed, and systemd stops the other."""
    rows = tuple(Task(pid, "a-long-name-of-", 1000, -900, 9) for pid in (7, 8))
    stopped = UnitKilled(100.8, "job.service", by_oomd=False)

    case = only(killed(pid=8, tasks=rows), ended(), stopped)

    assert [(one.pid, one.start_ticks) for one in case.victims] == [(8, None), (7, 42)]


def test_one_of_the_same_name_that_ends_a_while_after_a_kill_beside_it_is_nobody_s_victim() -> None:
    beside = ended(105.0, by_sigkill=None, pid=4000, start_ticks=1)

    assert [one.pid for one in only(killed(), beside).victims] == [killed().pid]


def test_what_systemd_stops_since_one_of_its_unit_was_killed_belongs_to_that_kill() -> None:
    stopped = ended(101.0, pid=8, start_ticks=43, name="another")

    with_word = only(killed(), ended(), stopped, UnitKilled(100.8, "job.service", by_oomd=False))
    without = cases([killed(), ended(), stopped], "boot")

    assert [victim.pid for victim in with_word.victims] == [7, 8]
    assert [case.killer for case in without] == ["kernel", "unknown"]


def test_a_sigkill_by_hand_beside_an_oom_kill_stays_unknown() -> None:
    made = cases([killed(), ended(), ended(pid=8, start_ticks=1, cgroup="/other", unit=None)], "b")

    assert [case.killer for case in made] == ["kernel", "unknown"]


def test_records_read_twice_are_one_case_with_one_key() -> None:
    first, again = only(killed()), only(killed(), killed())

    assert first == again
    assert first.key != only(killed(sequence=2)).key


ends = st.builds(
    ended,
    st.floats(90, 130),
    pid=st.integers(1, 4),
    start_ticks=st.integers(1, 2),
    cgroup=st.sampled_from([JOB, SCOPE, "/x", None]),
    unit=st.sampled_from(["job.service", None]),
    by_sigkill=st.sampled_from([True, False, None]),
)
kernel = st.builds(
    killed,
    sequence=st.integers(1, 9),
    boot_seconds=st.floats(90, 130),
    pid=st.integers(1, 4),
    of_cgroup=st.booleans(),
    victim_cgroup=st.sampled_from([JOB, SCOPE, None]),
    group_cgroup=st.sampled_from([JOB, None]),
)
others = st.one_of(
    st.builds(OomdKill, st.floats(90, 130), st.sampled_from([JOB, SCOPE]), st.just("memory-used")),
    st.builds(UnitKilled, st.floats(90, 130), st.just("job.service"), st.booleans()),
    st.builds(
        CounterRise,
        st.floats(90, 130),
        st.sampled_from([None, JOB]),
        st.integers(1, 3),
        st.booleans(),
    ),
)


@given(st.lists(ends, max_size=6), st.lists(kernel, max_size=4), st.lists(others, max_size=4))
def test_whatever_is_told_each_end_is_in_one_case_at_most_and_sigkill_in_one(
    told_ends: list[Ended], told_kernel: list[KernelKill], told_others: list[Evidence]
) -> None:
    evidence: list[Evidence] = [*told_ends, *told_kernel, *told_others]

    made = cases(evidence, "boot")

    assert len({case.key for case in made}) == len(made)
    for case in made:
        assert len({(one.pid, one.start_ticks) for one in case.victims}) == len(case.victims)
    killed_ones = {end.victim.pid for end in told_ends if end.by_sigkill} - {
        end.victim.pid for end in told_ends if not end.by_sigkill
    }
    assert killed_ones <= {victim.pid for case in made for victim in case.victims}
