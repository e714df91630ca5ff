"""Told stories, and what is made of them: the kind, the numbers, and the words."""

import pytest
from stories import (
    GIB,
    LIMITED,
    MACHINE,
    MIB,
    SMALL,
    TRAINER,
    Curve,
    by_kernel,
    by_limit,
    copy,
    facts,
    flat,
    instants,
    leak,
    noisy,
    past,
    sawtooth,
    steps,
)

from oomwatchd.incident import Case, Machine, Past, Task, Victim
from oomwatchd.policy.diagnosis import diagnose

SWAPPED = Machine(ram_bytes=32 * GIB, swap_bytes=GIB, page_bytes=4096)


def test_a_data_frame_that_is_copied_is_a_sudden_copy_with_its_numbers() -> None:
    story = past(copy(31 * GIB, begins=-2.0, takes=1.9))

    found = diagnose(facts(by_kernel(), story))

    assert found.kind == "sudden_copy"
    assert "doubled in 1.9 s: from 31.0 GiB to 62.0 GiB" in found.text
    assert found.growth_bytes_per_second == pytest.approx(31 * GIB / 1.9, rel=0.1)


def test_300_mib_copied_below_a_limit_is_a_sudden_copy_though_it_never_got_whole() -> None:
    story = past(copy(300 * MIB, begins=-1.5, takes=2.0), cgroup=flat(400 * MIB), limit=512 * MIB)

    found = diagnose(facts(by_limit(512 * MIB), story, SMALL))

    assert found.kind == "sudden_copy"
    assert "the limit of 512 MiB" in found.text


@pytest.mark.parametrize("noise", [0, 3 * MIB])
def test_a_leak_of_5_mib_a_second_is_named_with_its_rate(noise: int) -> None:
    story = past(noisy(leak(40 * MIB, 5 * MIB, since=100.0), noise), seconds=instants(100.0))

    found = diagnose(facts(by_limit(600 * MIB), story, SMALL))

    assert found.kind == "steady_leak"
    assert found.growth_bytes_per_second == pytest.approx(5 * MIB, rel=0.1)
    assert "MiB/s" in found.text


def test_a_leak_in_steps_is_a_leak() -> None:
    story = past(steps(500 * MIB, 100 * MIB, 30))

    assert diagnose(facts(by_kernel(), story, SMALL)).kind == "steady_leak"


def test_a_job_that_comes_near_the_limit_again_and_again_needs_a_higher_one() -> None:
    story = past(sawtooth(100 * MIB, 500 * MIB, 60.0), cgroup=flat(0), limit=512 * MIB)

    found = diagnose(facts(by_limit(512 * MIB), story, SMALL))

    assert found.kind == "limit_below_peak"
    assert "10 times" in found.text


def test_a_job_that_takes_all_at_its_start_needs_more_than_there_is() -> None:
    seconds = [-2.0 + at / 10 for at in range(20)]
    story = past(lambda at: 10 * MIB + (at + 2) * 290 * MIB, seconds=seconds)

    found = diagnose(facts(by_limit(600 * MIB), story, SMALL))

    assert found.kind == "limit_below_peak"
    assert "within 1.9 s of when it was first seen" in found.text


def test_many_workers_are_told_by_their_number_and_their_sum() -> None:
    others = [("python3", 5000 + at, flat(2.6 * GIB)) for at in range(9)]
    tasks = [Task(5000 + at, "python3", 0, 0, int(2.6 * GIB)) for at in range(23)]
    workers = by_kernel(Task(4711, "python3", 0, 0, int(2.7 * GIB)), *tasks)

    found = diagnose(facts(workers, past(flat(2.7 * GIB), others)))

    assert found.kind == "many_processes"
    assert "24 processes named python3 had 62.5 GiB together" in found.text


def test_those_that_had_ended_before_took_nothing_and_were_not_many() -> None:
    """Runs of one program, one after the other; and the killer has told of nobody."""
    grown = [("python3", 5000 + at, leak(GIB, 90 * MIB, since=60.0)) for at in range(9)]
    story = past(flat(2.7 * GIB), grown)
    since = len(story.samples) - 5
    ended = [one._replace(bytes=(*one.bytes[:since], *[None] * 5)) for one in story.others]
    named = facts(by_kernel(Task(4711, "python3", 0, 0, 3 * GIB)), story)
    there = facts(by_kernel(), story)
    gone = facts(by_kernel(), story._replace(others=tuple(ended)))

    assert diagnose(there).kind == "many_processes"
    assert diagnose(named).kind == "other_process"
    assert diagnose(gone).kind == "unknown"


def test_one_large_process_among_small_ones_of_its_name_is_not_many() -> None:
    tasks = [Task(5000 + at, "python3", 0, 0, 300 * MIB) for at in range(8)]
    large = by_kernel(Task(4711, "python3", 0, 0, 62 * GIB), *tasks)

    found = diagnose(facts(large, past(copy(31 * GIB, begins=-2.0, takes=1.9))))

    assert found.kind == "sudden_copy"


def test_when_another_takes_the_memory_it_is_named_and_not_the_victim() -> None:
    browser = ("chrome", 900, leak(2 * GIB, 600 * MIB, since=60.0))

    found = diagnose(facts(by_kernel(), past(flat(20 * GIB), [browser])))

    assert found.kind == "other_process"
    assert "chrome (pid 900) took" in found.text
    assert "python3 (pid 4711) took 0 and" in found.text


def test_at_a_cgroup_s_limit_those_outside_have_no_part_in_it() -> None:
    outside = ("chrome", 900, leak(0, 600 * MIB, since=60.0))
    story = past(
        leak(40 * MIB, MIB), [outside], cgroup=flat(0), limit=GIB, others_cgroup="/user.slice"
    )

    assert diagnose(facts(by_limit(GIB), story)).kind == "steady_leak"


def test_a_limit_filled_by_files_is_the_page_cache() -> None:
    story = past(flat(100 * MIB), cgroup=leak(100 * MIB, MIB), limit=GIB)

    found = diagnose(facts(by_limit(GIB, cache=800 * MIB), story))

    assert found.kind == "page_cache"
    assert "800 MiB were pages of files" in found.text


def test_a_little_page_cache_is_no_cause() -> None:
    story = past(leak(100 * MIB, MIB), cgroup=leak(100 * MIB, MIB), limit=GIB)

    assert diagnose(facts(by_limit(GIB, cache=50 * MIB), story)).kind == "steady_leak"


def test_swap_that_is_used_up_while_nobody_grows_is_the_cause() -> None:
    story = past(flat(8 * GIB), swap_free=lambda at: max(-at / 600 * GIB - 60 * MIB, 0))

    found = diagnose(facts(by_kernel(), story, SWAPPED))

    assert found.kind == "swap_exhausted"
    assert "The swap of 1.0 GiB was used up, 0 of it left" in found.text


def test_a_kill_by_systemd_oomd_for_swap_is_for_swap() -> None:
    case = Case("o", 1000.0, "systemd_oomd", LIMITED, (TRAINER,), reason="memory-used")

    found = diagnose(facts(case, past(flat(8 * GIB), swap_free=flat(90 * MIB)), SWAPPED))

    assert found.kind == "swap_exhausted"


def test_a_leak_into_swap_is_a_leak() -> None:
    story = past(leak(2 * GIB, 5 * MIB), swap_free=flat(0))

    assert diagnose(facts(by_kernel(), story, SWAPPED)).kind == "steady_leak"


@pytest.mark.parametrize("story", [Past(), past(flat(GIB), seconds=[-1.0])])
def test_without_samples_nothing_is_guessed(story: Past) -> None:
    found = diagnose(facts(by_kernel(), story))

    assert (found.kind, found.growth_bytes_per_second) == ("unknown", None)
    assert "not watched before" in found.text


def test_a_cgroup_of_which_no_process_is_known_has_no_pid_either() -> None:
    scope = Victim(pid=None, name="term.scope", cgroup="/user.slice/term.scope")
    case = Case("o", 1000.0, "systemd_oomd", "/user.slice/term.scope", (scope,))

    assert diagnose(facts(case, Past())).text.startswith("term.scope was not watched before")


def test_a_sender_nobody_knows_is_not_made_into_a_lack_of_memory() -> None:
    case = Case("e", 1000.0, "unknown", "unknown", (TRAINER,))

    found = diagnose(facts(case, past(noisy(flat(GIB), 5 * MIB))))

    assert found.kind == "unknown"
    assert "somebody else sent it" in found.text


@pytest.mark.parametrize("curve", [flat(GIB), noisy(flat(GIB), 30 * MIB)])
def test_who_stands_still_has_no_growth_to_speak_of(curve: Curve) -> None:
    found = diagnose(facts(by_kernel(), past(curve)))

    assert found.kind == "unknown"
    assert abs(found.growth_bytes_per_second or 0) < 2 * MIB


def test_the_machine_s_own_memory_is_the_limit_where_there_is_no_other() -> None:
    found = diagnose(facts(by_kernel(), past(sawtooth(GIB, 50 * GIB, 60.0)), MACHINE))

    assert found.kind == "limit_below_peak"
    assert "the machine's 64.0 GiB" in found.text


def test_at_a_limit_too_nothing_is_guessed_of_who_was_not_watched() -> None:
    hog = TRAINER._replace(memory_bytes=490 * MIB)

    found = diagnose(facts(by_limit(512 * MIB, victim=hog), Past()))

    assert found.kind == "unknown"
    assert "had 490 MiB of the limit of 512 MiB. It was not watched before" in found.text


def test_what_grows_many_times_over_is_not_called_a_copy() -> None:
    found = diagnose(facts(by_kernel(), past(copy(3 * GIB, begins=-4.0, takes=0.2, killed_at=19))))

    assert found.kind == "sudden_copy"
    assert "grew 20.0-fold" in found.text
    assert "far larger than what it was made from" in found.text


def test_a_copy_that_was_cut_short_is_not_called_whole() -> None:
    story = past(copy(31 * GIB, begins=-2.0, takes=2.0, killed_at=0.45))

    assert "a copy of its data, of a part of it or not yet whole" in (
        diagnose(facts(by_limit(48 * GIB), story)).text
    )


@pytest.mark.parametrize(
    "curve",
    [leak(40 * MIB, MIB / 10), copy(40 * MIB, begins=-2.0, takes=1.9)],
    ids=["leak", "copy"],
)
def test_who_holds_next_to_nothing_has_not_used_memory_up_however_it_grew(curve: Curve) -> None:
    assert diagnose(facts(by_kernel(), past(curve))).kind == "unknown"


def test_a_kill_by_systemd_oomd_tells_how_long_everybody_waited() -> None:
    story = past(noisy(flat(21 * GIB), 50 * MIB))
    waiting = story.samples[-1]._replace(pressure_full_avg10=57.97)
    story = story._replace(samples=(*story.samples[:-1], waiting))
    case = Case("o", 1000.0, "systemd_oomd", LIMITED, (TRAINER,), reason="memory-pressure")

    assert "waited for memory, 58 % of the time" in diagnose(facts(case, story)).text
