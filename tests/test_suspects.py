"""Told stories in which it was not the victim that used memory up."""

import pytest
from stories import (
    GIB,
    LIMITED,
    MIB,
    TRAINER,
    by_kernel,
    by_limit,
    facts,
    flat,
    leak,
    noisy,
    past,
    sawtooth,
)

from oomwatchd.incident import Past, Task
from oomwatchd.policy.diagnosis import diagnose
from oomwatchd.policy.suspects import family

CRON = TRAINER._replace(name="cron", pid=300, rule=None, memory_bytes=5 * MIB)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ray::train", "ray"),
        ("ray::IDLE", "ray"),
        ("worker-3", "worker"),
        ("worker/12", "worker"),
        ("python3.11", "python3.11"),
        ("python3", "python3"),
        ("::", "::"),
        ("a-very-long-name-7", "a-very-long-nam"),
    ],
)
def test_workers_are_of_one_kind_whatever_their_work_and_number(name: str, kind: str) -> None:
    assert family(name) == kind


def test_workers_that_are_named_by_their_work_are_counted_together() -> None:
    names = ("ray::load", "ray::train", "ray::IDLE", "ray::eval")
    tasks = [Task(5000 + at, names[at % 4], 1000, 0, int(2.4 * GIB)) for at in range(25)]
    worker = TRAINER._replace(name="ray::train", pid=5001)

    found = diagnose(facts(by_kernel(*tasks, victim=worker), past(flat(2.4 * GIB))))

    assert found.kind == "many_processes"
    assert "25 processes such as ray::train had 60.0 GiB together" in found.text
    assert "holds 26 of that size" in found.text


def test_gunicorn_workers_in_a_container_that_grow_together_are_many() -> None:
    worker = TRAINER._replace(name="gunicorn", pid=61, memory_bytes=230 * MIB)
    case = by_limit(2 * GIB, victim=worker)._replace(
        tasks=tuple(Task(60 + at, "gunicorn", 33, 0, 230 * MIB) for at in range(9))
    )
    others = [("gunicorn", 62 + at, leak(190 * MIB, MIB / 14)) for at in range(7)]
    story = past(leak(190 * MIB, MIB / 14), others, cgroup=flat(2 * GIB), limit=2 * GIB)

    found = diagnose(facts(case, story))

    assert found.kind == "many_processes"
    assert "the limit of 2.0 GiB holds 8 of that size and nothing else" in found.text


def test_one_that_grew_slowly_over_all_the_time_is_named_not_only_who_was_fast() -> None:
    story = past(noisy(flat(21 * GIB), 50 * MIB), [("firefox", 2201, leak(3 * GIB, 9 * MIB))])

    found = diagnose(facts(by_kernel(), story))

    assert found.kind == "other_process"
    assert "firefox (pid 2201) took" in found.text
    assert "steadily" in found.text
    assert found.growth_bytes_per_second == pytest.approx(9 * MIB, rel=0.1)


def test_one_that_comes_and_goes_has_not_grown() -> None:
    story = past(flat(21 * GIB), [("builds", 9, sawtooth(0, 9 * GIB, 200.0))])

    assert diagnose(facts(by_kernel(), story)).kind != "other_process"


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(past(flat(5 * MIB), [("python3", 4711, leak(9 * GIB, 90 * MIB))]), id="fast"),
        pytest.param(past(flat(5 * MIB), [("python3", 4711, leak(54 * GIB, MIB))]), id="slow"),
        pytest.param(Past(), id="nothing sampled"),
    ],
)
def test_the_small_one_that_dies_for_the_leak_of_an_unkillable_one_is_told_so(story: Past) -> None:
    case = by_kernel(
        Task(4711, "python3", 1000, -1000, 62 * GIB), Task(300, "cron", 0, 0, 5 * MIB), victim=CRON
    )

    found = diagnose(facts(case, story))

    assert found.kind == "other_process"
    assert "python3 (pid 4711)" in found.text
    assert "5 MiB, but was the one with the most points" in found.text
    assert "an oom_score_adj of -1000: the kernel never kills it" in found.text


def test_who_was_spared_by_a_lower_value_is_told_with_the_value() -> None:
    tasks = (Task(4711, "python3", 1000, -900, 62 * GIB), Task(300, "cron", 0, 0, 5 * MIB))

    found = diagnose(facts(by_kernel(*tasks, victim=CRON), Past()))

    assert "python3 has an oom_score_adj of -900, which put it behind" in found.text


def test_a_large_one_that_died_as_well_was_not_spared() -> None:
    tasks = (Task(4711, "python3", 1000, 0, 62 * GIB), Task(300, "cron", 0, 0, 5 * MIB))
    case = by_kernel(*tasks, victim=CRON)._replace(victims=(CRON, TRAINER))

    assert diagnose(facts(case, Past())).kind == "unknown"


# -- files -----------------------------------------------------------------------------------------


def test_files_in_a_tmpfs_are_told_from_those_on_a_disk() -> None:
    case = by_limit(512 * MIB, cache=480 * MIB)
    story = past(flat(4 * MIB), cgroup=leak(20 * MIB, MIB), limit=512 * MIB)

    tmpfs = diagnose(facts(case._replace(shmem_bytes=470 * MIB), story))
    disk = diagnose(facts(case._replace(shmem_bytes=10 * MIB), story))

    assert (tmpfs.kind, disk.kind) == ("page_cache", "page_cache")
    assert "470 MiB were files in a tmpfs" in tmpfs.text
    assert "470 MiB were pages of files on disks" in disk.text
    assert LIMITED in tmpfs.text


def test_a_machine_that_is_full_of_a_tmpfs_is_told_so() -> None:
    case = by_kernel(Task(4711, "python3", 1000, 0, 3 * GIB))._replace(shmem_bytes=55 * GIB)

    found = diagnose(facts(case, past(flat(3 * GIB))))

    assert found.kind == "page_cache"
    assert "Of the machine's 64.0 GiB, 55.0 GiB were in a tmpfs" in found.text


def test_a_leak_beside_a_database_with_much_shared_memory_is_still_a_leak() -> None:
    case = by_kernel()._replace(shmem_bytes=33 * GIB)

    assert diagnose(facts(case, past(leak(2 * GIB, 40 * MIB)))).kind == "steady_leak"
