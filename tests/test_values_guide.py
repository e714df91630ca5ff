"""docs/values.md: every figure in it is the kernel's."""

import re

import pytest
from guides import guide, rows

from oomwatchd.policy.badness import Candidate, oom_score, order, points

PAGES_OF_A_GIB = (1 << 30) // 4096
GUIDE = guide("values")
MACHINES = re.findall(
    r"^On (\d+) GiB of RAM and (\d+) GiB of swap:\n\n((?:\|.*\n)+)", GUIDE, re.MULTILINE
)
LIMITS = re.findall(r"^At a limit of (\d+) GiB:\n\n((?:\|.*\n)+)", GUIDE, re.MULTILINE)


def pages(gib: str) -> int:
    return round(float(gib.removesuffix(" GiB")) * PAGES_OF_A_GIB)


def gib(count: int) -> str:
    return f"{count / PAGES_OF_A_GIB:.1f} GiB"


def candidates(table: str, total_pages: int) -> list[Candidate]:
    """In the order of the table, the pid being the place in it."""
    found = []
    for place, (name, memory, adj, *_) in enumerate(rows(table)):
        score = points(pages(memory), 0, 0, int(adj), total_pages)
        found.append(Candidate(place, name, int(adj), pages(memory), score))
    return found


def test_every_example_is_read() -> None:
    assert len(MACHINES) == 6
    assert len(LIMITS) == 1
    assert len(re.findall(r"^\| process \|", GUIDE, re.MULTILINE)) == 7


@pytest.mark.parametrize(("ram", "swap", "table"), MACHINES, ids=range(len(MACHINES)))
def test_the_points_are_the_kernel_s(ram: str, swap: str, table: str) -> None:
    total = (int(ram) + int(swap)) * PAGES_OF_A_GIB
    found = candidates(table, total)

    assert [(gib(one.points or 0), str(oom_score(one.points, total))) for one in found] == [
        (shown, score) for *_, shown, score in rows(table)
    ]
    assert [one.pid for one in order(found)] == list(range(len(found)))  # first to last


@pytest.mark.parametrize(("limit", "table"), LIMITS, ids=range(len(LIMITS)))
def test_at_a_limit_the_limit_is_what_counts(limit: str, table: str) -> None:
    found = candidates(table, int(limit) * PAGES_OF_A_GIB)

    assert [gib(one.points or 0) for one in found] == [row[-1] for row in rows(table)]
    assert [one.pid for one in order(found)] == list(range(len(found)))


def comes_after(memory: float, adj: int, other: float, other_adj: int, machine: int) -> bool:
    """Whether a process dies after the *other*; sizes in GiB."""
    total_pages = machine * PAGES_OF_A_GIB
    mine = points(int(memory * PAGES_OF_A_GIB), 0, 0, adj, total_pages)
    others = points(int(other * PAGES_OF_A_GIB), 0, 0, other_adj, total_pages)
    assert mine is not None
    assert others is not None
    return mine < others


@pytest.mark.parametrize(("other", "bound"), [(4.0, -625), (1.0, -719)])
def test_below_the_value_that_is_named_the_other_goes_first(other: float, bound: int) -> None:
    """Two units on either side, as the kernel cuts a thousandth down to whole pages."""
    assert f"{bound} " in GUIDE
    assert comes_after(24.0, bound - 2, other, 0, 32)
    assert not comes_after(24.0, bound + 2, other, 0, 32)


def test_workers_go_first_at_the_value_that_is_named() -> None:
    assert "`workers: -300`" in GUIDE
    assert not comes_after(3.0, -300, 40.0, -900, 64)
    assert comes_after(3.0, -800, 40.0, -900, 64)


def test_the_worth_of_a_unit_and_the_room_to_grow_are_so() -> None:
    total = 32 * PAGES_OF_A_GIB
    grown = points(int(28.8 * PAGES_OF_A_GIB), 0, 0, -900, total)

    assert f"{32 * 1024 / 1000:.1f} MiB with 32 GiB" in GUIDE
    assert "by another 4.8 GiB" in GUIDE
    assert grown is not None
    assert abs(grown) < PAGES_OF_A_GIB // 100
    assert oom_score(0, total) == 666
    assert f"{(40 - 3) * 1000 // 64} units" in GUIDE
