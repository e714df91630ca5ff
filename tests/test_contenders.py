"""Who would have been killed instead, and what would have made the difference."""

import pytest
from stories import GIB, MACHINE, MIB, TRAINER, by_kernel, by_limit, copy, facts, flat, past

from oomwatchd.incident import Case, Contender, Machine, Past, Task
from oomwatchd.policy.advice import advice
from oomwatchd.policy.badness import points, step_pages
from oomwatchd.policy.contenders import contenders, next_in_line, sparing_adj, total_pages
from oomwatchd.policy.diagnosis import diagnose

LARGE = Task(4711, "python3", 1000, 0, 40 * GIB)
BROWSER = Task(900, "chrome", 1000, 300, 2 * GIB)
SHIELDED = Task(77, "sshd", 0, -1000, 9 * MIB)
SWAPPING = Machine(64 * GIB, 64 * GIB, 4096)
CASE = by_kernel(SHIELDED, BROWSER, LARGE)


def nobody(_pid: int, _name: str) -> str | None:
    return None


def ordered() -> tuple[Contender, ...]:
    return contenders(CASE, MACHINE, lambda pid, _name: {4711: "training"}.get(pid))


def test_the_kernel_s_table_is_put_in_the_order_of_death_with_those_it_never_picks_last() -> None:
    found = ordered()

    assert [one.name for one in found] == ["python3", "chrome", "sshd"]
    assert [one.rule for one in found] == ["training", None, None]
    assert found[2].points_pages is None


def test_the_next_in_line_is_the_first_who_was_not_killed() -> None:
    instead = next_in_line(ordered(), CASE.victims)

    assert instead is not None
    assert instead.name == "chrome"


def test_who_can_never_be_killed_is_not_next_in_line() -> None:
    case = by_kernel(LARGE, SHIELDED)

    assert next_in_line(contenders(case, MACHINE, nobody), case.victims) is None


def test_the_value_that_spares_the_victim_is_the_highest_that_does() -> None:
    found = ordered()
    instead = next_in_line(found, CASE.victims)
    assert instead is not None

    adj = sparing_adj(found, TRAINER, instead, CASE, MACHINE)

    assert adj is not None
    assert instead.points_pages is not None
    total = total_pages(CASE, MACHINE)
    pages = LARGE.memory_bytes // 4096
    assert (points(pages, 0, 0, adj, total) or 0) < instead.points_pages
    assert (points(pages, 0, 0, adj + 1, total) or 0) >= instead.points_pages


def test_at_a_limit_one_adj_is_a_thousandth_of_the_limit() -> None:
    assert step_pages(total_pages(by_limit(GIB), MACHINE)) == GIB // 4096 // 1000


@pytest.mark.parametrize(
    ("swap_limit", "in_all"), [(0, 1), (2 * GIB, 3), (99 * GIB, 65), (None, 65)]
)
def test_at_a_limit_swap_counts_as_far_as_the_cgroup_may_use_it(
    swap_limit: int | None, in_all: int
) -> None:
    case = by_limit(GIB)._replace(swap_limit_bytes=swap_limit)

    assert total_pages(case, SWAPPING) == in_all * GIB // 4096


def test_a_container_without_swap_dies_in_its_own_order_on_a_machine_with_much() -> None:
    tasks = (Task(4711, "python3", 0, 0, 957 * MIB), Task(12, "sidecar", 0, 100, 20 * MIB))
    case = by_limit(GIB)._replace(swap_limit_bytes=0, tasks=tasks)
    found = contenders(case, SWAPPING, nobody)

    assert [(one.name, one.points_pages) for one in found] == [
        ("python3", 957 * 256),
        ("sidecar", 20 * 256 + 100 * 262),
    ]
    assert next_in_line(found, case.victims) == found[1]


def test_a_victim_that_the_table_leaves_out_gets_no_value() -> None:
    case = by_kernel(BROWSER)
    found = contenders(case, MACHINE, nobody)

    assert sparing_adj(found, TRAINER, found[0], case, MACHINE) is None


# -- the words -------------------------------------------------------------------------------------


def advice_for(story: Past, *, limit: int | None = None) -> str:
    case: Case = CASE if limit is None else by_limit(limit)
    given = facts(case, story)
    return advice(given, diagnose(given), contenders(case, MACHINE, nobody))


def test_after_a_copy_pandas_is_named_with_what_helps() -> None:
    said = advice_for(past(copy(31 * GIB, begins=-2.0, takes=1.9)))

    assert all(word in said for word in ("drop()", "astype()", "df = df[cols]", "usecols="))
    assert "What it held, 31.0 GiB, and a whole copy of it are 62.0 GiB" in said
    assert "that takes 75.0 GiB or more, not the machine's 64.0 GiB" in said


def test_a_limit_that_is_too_low_is_told_with_the_one_that_would_do() -> None:
    story = past(flat(62 * GIB), cgroup=flat(64 * GIB), limit=64 * GIB)

    said = advice_for(story, limit=64 * GIB)

    assert "Peak 62.0 GiB, limit 64.0 GiB" in said
    assert "Raise it to 77.0 GiB" in said


def test_the_order_of_death_is_part_of_the_advice() -> None:
    said = advice_for(past(copy(31 * GIB, begins=-2.0, takes=1.9)))

    assert "Next in line was chrome (pid 900, 2.0 GiB)" in said
