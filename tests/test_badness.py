"""The kernel's arithmetic, by hand, by law, and as the kernel writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.policy.badness import Candidate, oom_score, order, points, step_pages

TOTAL_PAGES = 8_388_608  # 32 GiB without swap, in pages of 4 KiB


@pytest.mark.parametrize(
    ("resident_pages", "adj", "expected", "score"),
    [
        pytest.param(6_291_456, 0, 6_291_456, 1166, id="trainer 24 GiB"),
        pytest.param(6_291_456, -500, 2_097_456, 833, id="trainer 24 GiB, protected"),
        pytest.param(2_097_152, -900, -5_452_048, 234, id="db 8 GiB"),
        pytest.param(2_097_152, -999, -6_282_460, 168, id="db 8 GiB, last in line"),
        pytest.param(524_288, 200, 2_201_888, 841, id="browser 2 GiB"),
        pytest.param(13_107, 300, 2_529_507, 867, id="agent 0.05 GiB, expendable"),
        pytest.param(13_107, 0, 13_107, 667, id="agent 0.05 GiB"),
    ],
)
def test_points_and_score_are_those_the_kernel_gives(
    resident_pages: int, adj: int, expected: int, score: int
) -> None:
    assert points(resident_pages, 0, 0, adj, TOTAL_PAGES) == expected
    assert oom_score(expected, TOTAL_PAGES) == score


def test_swap_and_page_tables_count_like_resident_memory() -> None:
    assert points(100, 20, 3, 0, TOTAL_PAGES) == 123


def test_swap_of_the_machine_makes_one_adj_worth_more() -> None:
    with_swap = TOTAL_PAGES + 2_097_152  # 8 GiB

    assert step_pages(TOTAL_PAGES) == 8_388
    assert step_pages(with_swap) == 10_485
    assert points(2_097_152, 0, 0, -500, with_swap) == -3_145_348


@pytest.mark.parametrize(
    ("adj", "score"), [(-1000, 0), (-999, 2), (-500, 334), (0, 666), (500, 1000), (1000, 1333)]
)
def test_an_idle_process_has_the_score_seen_on_a_machine_of_1_gib(adj: int, score: int) -> None:
    total_pages = 249_086  # MemTotal there
    idle = points(180, 0, 20, adj, total_pages)

    assert oom_score(idle, total_pages) == score


def test_at_minus_1000_a_process_is_never_picked_however_large() -> None:
    assert points(TOTAL_PAGES, 0, 0, -1000, TOTAL_PAGES) is None
    assert oom_score(None, TOTAL_PAGES) == 0


def test_division_goes_towards_zero_as_in_c() -> None:
    # -1 page is nothing of the total; Python's // would make it -1 of 1000 and the score 665
    assert oom_score(-1, TOTAL_PAGES) == 666


def test_a_domain_of_fewer_than_a_thousand_pages_makes_adj_worthless() -> None:
    assert points(5, 0, 0, 1000, 999) == points(5, 0, 0, -999, 999) == 5


def candidate(pid: int, score: int | None) -> Candidate:
    return Candidate(pid, "cat", 0, 0, score)


def test_points_below_zero_still_make_a_candidate() -> None:
    alone = candidate(7, -6_282_460)

    assert order([alone, candidate(8, None)]) == [alone]


def test_of_two_with_equal_points_the_younger_dies_first() -> None:
    older, younger = candidate(9, 100), candidate(3, 100)

    assert order([older, younger, candidate(4, 101)]) == [candidate(4, 101), younger, older]


pages = st.integers(0, 2**40)
adjs = st.integers(-999, 1000)
totals = st.integers(1, 2**40)
scores = st.none() | st.integers(-(2**40), 2**40)


@given(pages, pages, pages, adjs, totals, st.integers(1, 2**30))
def test_more_memory_of_any_kind_never_saves(
    resident: int, swap: int, tables: int, adj: int, total: int, more: int
) -> None:
    before = points(resident, swap, tables, adj, total)

    assert before is not None
    assert points(resident + more, swap, tables, adj, total) == before + more
    assert points(resident, swap + more, tables, adj, total) == before + more
    assert points(resident, swap, tables + more, adj, total) == before + more


@given(pages, adjs, adjs, totals)
def test_a_higher_adj_never_saves(resident: int, one: int, other: int, total: int) -> None:
    low, high = sorted([one, other])
    fewer, more = points(resident, 0, 0, low, total), points(resident, 0, 0, high, total)

    assert fewer is not None
    assert more is not None
    assert fewer <= more
    assert oom_score(fewer, total) <= oom_score(more, total)


@given(
    st.lists(scores, unique=True).flatmap(
        lambda some: st.tuples(st.just(some), st.permutations(some))
    )
)
def test_without_ties_the_order_does_not_depend_on_who_is_met_first(
    lists: tuple[list[int | None], list[int | None]],
) -> None:
    one, other = ([candidate(pid=0, score=score) for score in scores] for scores in lists)

    assert order(one) == order(other)


@given(st.lists(scores))
def test_the_order_is_what_the_kernel_finds_by_killing_one_after_another(
    given_scores: list[int | None],
) -> None:
    left = [candidate(pid, score) for pid, score in enumerate(given_scores)]
    expected = []
    while (victim := picked(left)) is not None:
        expected.append(victim)
        left.remove(victim)

    assert order(candidate(pid, score) for pid, score in enumerate(given_scores)) == expected


def picked(tasks: list[Candidate]) -> Candidate | None:
    """Written as select_bad_process() and oom_evaluate_task() are: one walk over all tasks."""
    chosen: Candidate | None = None
    chosen_points = float("-inf")
    for task in tasks:
        if task.points is None or task.points < chosen_points:
            continue
        chosen, chosen_points = task, task.points
    return chosen
