"""What to do, in words: it fits what happened and who it happened to, and its numbers are right."""

import pytest
from stories import (
    GIB,
    LIMITED,
    MIB,
    SMALL,
    TRAINER,
    Curve,
    by_kernel,
    by_limit,
    copy,
    facts,
    flat,
    leak,
    noisy,
    past,
    sawtooth,
)

from oomwatchd.incident import Case, Machine, Past, Task, Victim
from oomwatchd.policy.advice import advice
from oomwatchd.policy.contenders import contenders
from oomwatchd.policy.diagnosis import diagnose
from oomwatchd.policy.facts import Facts
from oomwatchd.policy.hints import runtime_of


def advised(given: Facts) -> str:
    order = contenders(given.case, given.machine, lambda _pid, _name: None)
    return advice(given, diagnose(given), order)


@pytest.mark.parametrize(
    ("name", "cmdline", "runtime"),
    [
        ("python3.12", None, "python"),
        ("train", "/opt/conda/bin/python3 -m train", "python"),
        ("ray::train", None, "python"),
        ("java", "/usr/bin/java -Xmx8g -jar a.jar", "java"),
        ("MainThread", "node server.js", "node"),
        ("mysqld", "/usr/sbin/mysqld --user=python", None),
    ],
)
def test_hints_are_those_of_the_language_it_is_written_in(
    name: str, cmdline: str | None, runtime: str | None
) -> None:
    assert runtime_of(Victim(1, name, cmdline=cmdline)) == runtime


@pytest.mark.parametrize(
    ("name", "word"), [("python3", "tracemalloc"), ("java", "-Xmx"), ("node", "heap snapshots"),
                       ("mysqld", "heaptrack")],
)  # fmt: skip
def test_after_a_leak_the_tools_of_that_language_are_named(name: str, word: str) -> None:
    victim = TRAINER._replace(name=name, cmdline=None)

    said = advised(facts(by_kernel(victim=victim), past(leak(2 * GIB, 28 * MIB))))

    assert word in said
    assert ("lru_cache" in said) == (name == "python3")


def test_after_a_leak_it_is_said_how_long_memory_would_last() -> None:
    machine = Machine(16 * GIB, 4 * GIB, 4096)

    said = advised(facts(by_kernel(), past(leak(2 * GIB, 28 * MIB)), machine))

    assert "at 28.0 MiB/s, another 20.0 GiB would last 12 min" in said
    assert "from an empty start, after 10 min at the latest" in said


def test_a_copy_is_reckoned_with_all_else_that_counts_against_the_limit() -> None:
    curve = copy(31 * GIB, begins=-2.0, takes=1.9, killed_at=0.9)
    case = by_limit(64 * GIB)._replace(usage_bytes=64 * GIB)

    said = advised(facts(case, past(curve, cgroup=curve, limit=64 * GIB)))

    # 62 GiB for both, 5.1 GiB of others, and a fifth more than that
    assert "What it held, 31.0 GiB, and a whole copy of it are 62.0 GiB" in said
    assert "that takes 81.0 GiB or more, not the limit of 64.0 GiB" in said


@pytest.mark.parametrize(
    "curve", [sawtooth(2 * GIB, 5 * GIB, 60.0), sawtooth(2 * GIB, 7.6 * GIB, 60.0)]
)
def test_a_higher_limit_is_higher_than_the_one_there_is(curve: Curve) -> None:
    said = advised(facts(by_limit(8 * GIB), past(curve, cgroup=flat(8 * GIB), limit=8 * GIB)))

    assert "Raise it to 10.0 GiB or more" in said


def test_a_limit_above_the_machine_s_memory_is_said_to_be() -> None:
    story = past(sawtooth(100 * MIB, 950 * MIB, 60.0), cgroup=flat(GIB), limit=GIB)

    said = advised(facts(by_limit(GIB), story, SMALL))

    assert "Raise it to 1.2 GiB or more" in said
    assert "this machine has 1.0 GiB" in said


def test_of_who_was_not_watched_both_ways_are_told() -> None:
    hog = TRAINER._replace(rule=None, memory_bytes=490 * MIB)

    said = advised(facts(by_limit(512 * MIB, victim=hog), Past()))

    assert "Raise it to 640 MiB or more" in said
    assert "it leaks, and a higher limit only puts it off" in said
    assert "With a rule for it" in said


def test_who_has_a_rule_is_not_told_to_write_one() -> None:
    said = advised(facts(by_limit(512 * MIB), Past()))

    assert "It is under a rule" in said
    assert "With a rule" not in said


def test_for_one_at_minus_1000_the_value_below_it_is_told() -> None:
    cron = TRAINER._replace(name="cron", pid=300)
    tasks = (Task(4711, "python3", 0, -1000, 62 * GIB), Task(300, "cron", 0, 0, 5 * MIB),
             Task(7, "nginx", 0, 0, 4 * MIB))  # fmt: skip

    said = advised(facts(by_kernel(*tasks, victim=cron), Past()))

    assert "At -1000 python3 is never killed" in said
    assert "-999 leaves it the last in line" in said
    assert "Next in line was nginx (pid 7, 4 MiB)." in said


def test_sparing_one_of_many_alike_at_the_cost_of_the_next_is_no_advice() -> None:
    tasks = [Task(4711 + at, "python3", 0, 0, 5 * GIB) for at in range(12)]

    said = advised(facts(by_kernel(*tasks), past(flat(5 * GIB))))

    assert "another of its kind" in said
    assert "would have been spared" not in said


HOG = Task(4711, "hog", 1000, 0, 61 * GIB)
BASH = TRAINER._replace(name="bash", pid=300, cmdline="bash", memory_bytes=4 * MIB)
BESIDE = by_kernel(HOG, Task(300, "bash", 1000, 0, 4 * MIB), victim=BASH)


def test_who_was_killed_for_asking_gets_no_value_but_the_setting_that_did_it() -> None:
    given = facts(BESIDE._replace(allocating_task=True), Past())

    said = advised(given)

    assert diagnose(given).kind == "other_process"
    assert "killed as it asked for memory (vm.oom_kill_allocating_task=1)" in diagnose(given).text
    assert "the most points" not in diagnose(given).text
    assert "a limit of its own" in said
    assert "here hog (pid 4711, 61.0 GiB) would have been killed" in said
    assert not any(word in said for word in ("higher oom_score_adj", "Next in line", "spared"))


def test_who_was_killed_for_asking_and_had_the_most_is_told_that_points_change_nothing() -> None:
    case = by_kernel(HOG._replace(name="python3"))._replace(allocating_task=True)

    assert "here it would have been killed all the same" in advised(facts(case, Past()))


def test_workers_in_turn_are_no_advice_where_who_asks_is_killed() -> None:
    tasks = [Task(4711 + at, "python3", 0, 0, 5 * GIB) for at in range(12)]
    case = by_kernel(*tasks)

    assert "`workers:`" in advised(facts(case, Past()))
    assert "`workers:`" not in advised(facts(case._replace(allocating_task=True), Past()))


def test_who_was_killed_by_hand_is_told_of_no_lack_of_memory_and_no_value() -> None:
    case = by_kernel(HOG._replace(name="python3"), Task(900, "chrome", 1000, 300, 2 * GIB))
    given = facts(case._replace(by_sysrq=True), past(flat(61 * GIB)))

    found, said = diagnose(given), advised(given)

    assert found.kind == "unknown"
    assert "python3 (pid 4711) had 61.0 GiB" in found.text
    assert "SysRq f" in found.text
    assert "Lack of memory is not shown" in found.text
    assert "kernel.sysrq" in said
    assert not any(word in said for word in ("Next in line", "spared", "smaller batches"))


@pytest.mark.parametrize(
    ("shmem", "right", "wrong"), [(470, "tmpfs", "fsync"), (0, "fsync", "tmpfs")]
)
def test_advice_on_files_is_on_those_that_were_too_many(shmem: int, right: str, wrong: str) -> None:
    case = by_limit(512 * MIB, cache=480 * MIB)._replace(shmem_bytes=shmem * MIB)

    said = advised(facts(case, past(flat(4 * MIB))))

    assert right in said
    assert wrong not in said


def test_a_kill_by_systemd_oomd_points_to_what_keeps_it_away() -> None:
    case = Case("o", 1000.0, "systemd_oomd", LIMITED, (TRAINER,), reason="memory-pressure")

    said = advised(facts(case, past(noisy(flat(21 * GIB), 50 * MIB))))

    assert "does not read oom_score_adj" in said
    assert "shield: scope" in said
    assert "oomwatchd audit" in said
