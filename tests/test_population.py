"""Whom to look at again, and when."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fakeproc import BOOT_ID, Fake, FakeProc
from world import TICKS_PER_SECOND, named

from oomwatchd.holds import Hold, Holds
from oomwatchd.kernel.proc import Look, ProcFs
from oomwatchd.ledger import Ledger
from oomwatchd.model import ProcessId
from oomwatchd.policy.plan import Claim
from oomwatchd.population import (
    REVISIT_SECONDS,
    STALE_MAX,
    YOUNG_SECONDS,
    Known,
    Moment,
    Population,
)
from oomwatchd.watch import FULL_VISITS

UP_SECONDS = 10_000.0
CLAIM = Claim("db", "matched", 3, frozenset({-900}))


def at(seconds: float) -> Moment:
    return Moment(seconds, UP_SECONDS + seconds)


def started(seconds: float) -> int:
    """In ticks, so many seconds after time 0 of these stories."""
    return int((UP_SECONDS + seconds) * TICKS_PER_SECOND)


class People:
    """A population, with looks at made-up processes to put into it."""

    def __init__(self, fake: FakeProc, proc: ProcFs, path: Path) -> None:
        self.fake = fake
        self.proc = proc
        self.holds = Holds()
        self.ledger = Ledger(path, BOOT_ID)
        self.population = Population(self.holds, self.ledger, TICKS_PER_SECOND)

    def look(self, pid: int, start_seconds: float = -5000.0, comm: bytes = b"cat") -> Look:
        self.fake.add(Fake(pid, comm=comm, start_ticks=started(start_seconds)))
        look = self.proc.look(pid)
        assert look is not None
        look.close()
        return look

    def meet(self, pid: int, start_seconds: float = -5000.0, claim: Claim | None = None) -> Known:
        return self.population.meet(self.look(pid, start_seconds), claim)

    def due(self, seconds: float) -> list[int]:
        return [known.id.pid for known in self.population.due(at(seconds))]


@pytest.fixture
def people(fake: FakeProc, proc: ProcFs, tmp_path: Path) -> Iterator[People]:
    people = People(fake, proc, tmp_path / "ledger.json")
    yield people
    people.holds.close()


def test_who_has_been_met_is_known_by_pid_and_start(people: People) -> None:
    known = people.meet(7)

    assert people.population.get(known.id) is known
    assert people.population.get(ProcessId(7, known.id.start_ticks + 1)) is None
    assert people.population.get(ProcessId(8, known.id.start_ticks)) is None
    assert len(people.population) == 1


def test_who_takes_over_a_pid_ends_what_was_there(people: People) -> None:
    first = people.meet(7, claim=CLAIM)
    people.ledger.remember(first.id, CLAIM)
    look = people.proc.look(7)
    assert look is not None
    people.holds.put(Hold(look, "cat", named("cat", 1)))
    look.close()
    second = people.meet(7, start_seconds=5.0)

    assert people.population.get(first.id) is None
    assert people.population.get(second.id) is second
    assert people.ledger.get(first.id) is None
    assert (len(people.holds), len(people.population)) == (0, 1)


def test_who_is_forgotten_is_forgotten_everywhere(people: People) -> None:
    known = people.meet(7, claim=CLAIM)
    people.ledger.remember(known.id, CLAIM)
    people.population.appoint(known, at(0.0), 1.0)
    people.population.forget(7)
    people.population.forget(7)

    assert people.population.get(known.id) is None
    assert people.ledger.claims() == []
    assert people.due(100.0) == []


def test_a_parent_is_never_younger_than_its_child(people: People) -> None:
    parent = people.meet(7, start_seconds=0.0, claim=CLAIM)
    child = ProcessId(8, parent.id.start_ticks)
    older = ProcessId(9, parent.id.start_ticks - 1)

    assert people.population.parent_claim(7, child) == CLAIM  # in the same tick
    assert people.population.parent_claim(7, older) is None
    assert people.population.parent_claim(6, child) is None


# -- dates -----------------------------------------------------------------------------------------


def test_a_date_of_this_turn_comes_in_the_next(people: People) -> None:
    known = people.meet(7)
    people.population.appoint(known, at(5.0), 0.0)

    assert people.due(5.0) == []
    assert people.due(5.001) == [7]
    assert people.due(6.0) == []  # taken out


def test_only_the_latest_date_counts(people: People) -> None:
    known = people.meet(7)
    people.population.appoint(known, at(0.0), 1.0)
    people.population.appoint(known, at(0.0), 20.0)

    assert people.due(10.0) == []
    assert people.due(21.0) == [7]


def test_dates_that_count_no_more_are_kept_up_to_a_bound(people: People) -> None:
    often, once = people.meet(7), people.meet(8)
    people.population.appoint(once, at(0.0), 50.0)
    for number in range(5 * STALE_MAX):
        people.population.appoint(often, at(number / 1000), 60.0)
    for _ in range(5 * STALE_MAX):
        people.population.appoint(often, at(10.0), 60.0)  # the same date each time

    assert people.population.dates <= STALE_MAX + 4
    assert people.due(60.0) == [8]
    assert set(people.due(71.0)) == {7}


def test_a_date_with_one_who_has_ended_is_dropped(people: People) -> None:
    known = people.meet(7)
    people.population.appoint(known, at(0.0), 1.0)
    people.meet(7, start_seconds=5.0)

    assert people.due(10.0) == []


def test_a_young_process_is_looked_at_whenever_its_age_has_doubled(people: People) -> None:
    known = people.meet(7, start_seconds=0.0)
    seconds, looks = 1.0, []
    people.population.appoint_by_age(known, at(seconds))
    while seconds < 200.0:
        seconds += 0.5
        if people.due(seconds):
            looks.append(seconds)
            people.population.appoint_by_age(known, at(seconds))

    assert looks[:5] == [2.5, 5.5, 11.5, 23.5, 47.5]
    assert {later - sooner for sooner, later in pairwise(looks[5:])} == {REVISIT_SECONDS + 0.5}


def test_youth_ends(people: People) -> None:
    known = people.meet(7, start_seconds=0.0)

    assert people.population.is_young(known, at(YOUNG_SECONDS - 1))
    assert not people.population.is_young(known, at(YOUNG_SECONDS))


def test_a_clock_behind_the_start_is_no_reason_to_look_all_the_time(people: People) -> None:
    """start_ticks are rounded, and clocks may differ by a tick."""
    known = people.meet(7, start_seconds=10.0)
    people.population.appoint_by_age(known, at(9.99))

    assert people.due(9.99) == []
    assert people.due(10.1) == [7]


def test_after_the_first_look_the_dates_are_spread_over_a_round(people: People) -> None:
    for pid in range(100, 400):
        people.population.appoint_by_age(people.meet(pid), at(0.0))
    people.population.settle(at(0.0))
    per_second = Counter(
        int(second) for second in range(50) for _ in people.due(float(second) + 0.5)
    )

    assert sum(per_second.values()) == 300
    assert max(per_second) <= REVISIT_SECONDS
    assert max(per_second.values()) <= 11


def test_spreading_makes_no_date_for_whom_there_is_no_more_to_see(people: People) -> None:
    people.meet(7)
    people.population.appoint_by_age(people.meet(8), at(0.0))
    people.population.settle(at(0.0))

    assert people.due(1000.0) == [8]


def test_a_newborn_keeps_its_date_when_the_others_are_spread(people: People) -> None:
    for pid in range(100, 200):
        people.population.appoint_by_age(people.meet(pid), at(0.0))
    newborn = people.meet(7, start_seconds=-0.5)
    people.population.appoint_by_age(newborn, at(0.0))
    people.population.settle(at(0.0))

    assert 7 in people.due(0.6)
    assert people.population.is_young(newborn, at(0.6))


def test_whom_we_have_to_ask_again_is_asked_at_once(people: People) -> None:
    for pid in range(100, 200):
        people.population.appoint_by_age(people.meet(pid), at(1.0))
    put_off = people.meet(7)
    put_off.program = None
    people.population.appoint(put_off, at(1.0), 0.0)
    people.population.settle(at(1.0))

    assert people.due(1.1) == [7]


def test_it_is_the_same_program_as_long_as_the_stat_line_says_so(people: People) -> None:
    look = people.look(7)
    known = people.population.meet(look, None)
    other = people.look(8, comm=b"dog")

    assert known.runs_on(look.stat)
    assert not known.runs_on(other.stat)
    assert not known.runs_on(look.stat._replace(start_ticks=1))
    known.program = None
    assert not known.runs_on(look.stat)


def test_not_all_have_their_full_visit_in_the_same_turn(people: People) -> None:
    turns = Counter(people.meet(pid).visits % FULL_VISITS for pid in range(100, 200))

    assert len(turns) == FULL_VISITS
    assert max(turns.values()) <= 16
