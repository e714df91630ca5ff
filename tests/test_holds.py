"""Processes under rules, held by descriptors: what is read by them, and how many there may be."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import named

from oomwatchd.holds import (
    GUARD_RELEASE_RATIO,
    NOT_HELD,
    REASSERT_LIMIT,
    REASSERT_SECONDS,
    Hold,
    Holds,
    guarded,
    unkillable_bytes,
)
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.status import read_status
from oomwatchd.model import Rule

RULE = named("postgres", -900)
YIELDING = named("postgres", -900, drift="yield")
MakeHold = Callable[..., Hold]


@pytest.fixture
def hold_on(fake: FakeProc, proc: ProcFs) -> Iterator[MakeHold]:
    """Holds a new fake process under a rule; closed when the test ends."""
    made: list[Hold] = []

    def make(process: Fake, rule: Rule = RULE, oom_score_adj: int = 0) -> Hold:
        fake.add(process, oom_score_adj=oom_score_adj)
        look = proc.look(process.pid)
        assert look is not None
        hold = Hold(look, "postgres", rule)
        hold.weigh(read_status(look.directory))
        hold.wanted = hold.now = rule.oom_score_adj
        made.append(hold)
        look.close()
        return hold

    yield make
    for hold in made:
        hold.close()


def test_what_is_held_is_read_as_it_is_now(fake: FakeProc, hold_on: MakeHold) -> None:
    hold = hold_on(Fake(7), oom_score_adj=3)
    first = hold.value()
    fake.set_oom_score_adj(7, -55)
    fake.rename(7, b"sh")
    stat = hold.stat()

    assert (first, hold.value()) == (3, -55)
    assert stat is not None
    assert stat.comm == b"sh"


def test_a_process_that_has_ended_says_so() -> None:
    proc = ProcFs()
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    look = proc.look(child.pid)
    assert look is not None
    hold = Hold(look, "python3", RULE)
    look.close()
    child.communicate()

    with pytest.raises(ProcessLookupError):
        hold.value()
    with pytest.raises(ProcessLookupError):
        hold.stat()
    hold.close()
    proc.close()


def test_what_could_not_be_held_is_taken_as_last_seen(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(Fake(7))
    look = proc.look(7)
    assert look is not None
    fake.exit(7)
    hold = Hold(look, "postgres", RULE)
    hold.now = -900
    look.close()

    assert (hold.value(), hold.stat()) == (-900, None)
    hold.close()


def test_closing_twice_closes_nobody_else_s_descriptor(fake: FakeProc, hold_on: MakeHold) -> None:
    hold = hold_on(Fake(7))
    hold.close()
    with (fake.root / "meminfo").open() as other:  # has one of the numbers now
        hold.close()

        assert other.readline() != ""


# -- drift -----------------------------------------------------------------------------------------


def test_what_we_have_written_is_no_drift(hold_on: MakeHold) -> None:
    hold = hold_on(Fake(7))

    assert not hold.has_drifted(-900, 0.0)
    assert list(hold.drifts) == []


def test_a_drift_is_told_once_and_yields_after_three(hold_on: MakeHold) -> None:
    hold = hold_on(Fake(7))
    told = [
        (hold.has_drifted(value, 10.0), hold.tracked().oom_score_adj, hold.let_be)
        for value in (1, 2, 3, 4, 5)
    ]

    assert told == [
        (True, 1, False), (True, 2, False), (True, 3, False), (True, 4, True), (True, 5, True),
    ]  # fmt: skip
    assert not hold.has_drifted(5, 11.0)


def test_a_rule_that_yields_is_never_asserted_again(hold_on: MakeHold) -> None:
    hold = hold_on(Fake(7), YIELDING)

    assert hold.has_drifted(1, 0.0)
    assert hold.let_be


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.0, 40.0), min_size=1, max_size=30))
def test_never_more_than_three_times_in_any_minute(hold_on: MakeHold, waits: list[float]) -> None:
    hold = hold_on(Fake(7))
    now_seconds, allowed = 0.0, list[float]()
    for wait_seconds in waits:
        now_seconds += wait_seconds
        if hold.may_reassert(now_seconds):
            allowed.append(now_seconds)
        recent = [one for one in allowed if now_seconds - one < REASSERT_SECONDS]

        assert len(recent) <= REASSERT_LIMIT
        assert len(allowed) >= min(len(waits), 1)


# -- all of them -----------------------------------------------------------------------------------


def test_a_hold_put_in_place_of_another_closes_it(hold_on: MakeHold, fake: FakeProc) -> None:
    holds = Holds()
    first = hold_on(Fake(7))
    holds.put(first)
    fake.exit(7)
    second = hold_on(Fake(7, start_ticks=200))
    holds.put(second)

    assert (len(holds), holds.get(7)) == (1, second)
    assert first.adj_fd == NOT_HELD
    holds.drop(7)
    holds.drop(7)
    assert (len(holds), second.adj_fd) == (0, NOT_HELD)


def test_the_hand_goes_round_and_leaves_nobody_out(hold_on: MakeHold) -> None:
    holds = Holds()
    for pid in range(10, 21):
        holds.put(hold_on(Fake(pid)))
    taken = [hold.id.pid for _ in range(4) for hold in holds.some("check", 3)]
    of_another_hand = [hold.id.pid for hold in holds.some("weigh", 3)]

    assert taken == list(range(10, 21))  # 3, 3, 3, and what is left of the round
    assert of_another_hand == [10, 11, 12]
    assert len(holds.some("check", 11)) == 11


def test_who_has_gone_is_passed_over_and_who_comes_has_the_next_round(hold_on: MakeHold) -> None:
    holds = Holds()
    for pid in range(10, 16):
        holds.put(hold_on(Fake(pid)))
    holds.some("check", 2)
    holds.drop(12)
    holds.put(hold_on(Fake(16)))
    rounds = [[hold.id.pid for hold in holds.some("check", 2)] for _ in range(5)]

    assert rounds == [[13], [14, 15], [10, 11], [13, 14], [15, 16]]


@pytest.mark.parametrize("share", [1, 3, 7])
def test_every_one_has_its_turn_however_many_come_and_go(hold_on: MakeHold, share: int) -> None:
    holds = Holds()
    seen: Counter[int] = Counter()
    for pid in range(100, 120):
        holds.put(hold_on(Fake(pid)))
    for step in range(200):
        holds.drop(200 + step - 5)
        holds.put(hold_on(Fake(200 + step)))
        seen.update(hold.id.pid for hold in holds.some("check", share))

    assert min(seen[pid] for pid in range(100, 120)) >= 200 * share // 27 - 1


# -- the guard -------------------------------------------------------------------------------------


def test_only_those_at_minus_1000_count_and_shared_memory_once(hold_on: MakeHold) -> None:
    vital = [hold_on(Fake(pid, anon_kib=10, shmem_kib=pid, swap_kib=1)) for pid in (7, 8)]
    hold_on(Fake(9, anon_kib=1000))
    for hold in vital:
        hold.unkillable = True

    assert unkillable_bytes(vital) == (11 + 11 + 8) * 1024
    assert unkillable_bytes([]) == 0


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.booleans())
def test_the_guard_does_not_flap(held: int, limit: int, tripped: bool) -> None:  # noqa: FBT001 - drawn
    """With the same memory it comes to rest after one step."""
    once = guarded(held, limit, tripped=tripped)

    assert guarded(held, limit, tripped=once) == once
    assert once or held <= limit
    assert not once or held > limit * GUARD_RELEASE_RATIO


# -- descriptors -----------------------------------------------------------------------------------


def test_whose_hold_has_changed_is_told_once_from_the_first_question_on(hold_on: MakeHold) -> None:
    holds = Holds()
    for pid in (7, 8):
        holds.put(hold_on(Fake(pid)))
    first, second = holds.take_changed(), holds.take_changed()
    holds.drop(7)
    holds.drop(9)
    holds.put(hold_on(Fake(10)))

    assert (first, second) == ({7, 8}, set())
    assert holds.take_changed() == {7, 10}


def test_what_nobody_asks_for_is_not_kept(hold_on: MakeHold) -> None:
    holds = Holds()
    for pid in range(100, 110):
        holds.put(hold_on(Fake(pid)))
        holds.drop(pid)

    assert holds.take_changed() == set()


FEW = """
import resource, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
from fakeproc import Fake, FakeProc
from world import World, named
with tempfile.TemporaryDirectory() as directory:
    world = World(FakeProc(Path(directory, "proc")), Path(directory, "ledger.json"))
    for pid in range(5_000_000, 5_000_500):  # no pid is as high, so none is our own
        world.fake.add(Fake(pid, comm=b"chrome"))
    world.configure(named("chrome*", 500))
    world.scans(40)
    print(sum(value == 500 for value in world.values()), len(world.holds))
    world.fake.everybody_exits()
    world.scan()
    print(len(world.holds))
"""


def test_more_processes_than_descriptors_do_not_end_the_daemon() -> None:
    """Any user can start a thousand processes that a rule matches."""
    command = [sys.executable, "-c", FEW, str(Path(__file__).parent)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)

    assert said.stdout == "500 500\n0\n"
