"""Work beside the loop: what hangs holds nobody up, and what comes too late is dropped."""

import select
import threading
from collections.abc import Iterator

import pytest

from oomwatchd.beside import Beside

PATIENCE_SECONDS = 20.0


class Slow:
    """A job that takes as long as the test likes."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.goes_on = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.done = 0

    def work(self) -> int:
        self.begun.release()
        assert self.goes_on.acquire(timeout=PATIENCE_SECONDS)
        self.done += 1
        if self.failure is not None:
            raise self.failure
        return self.done


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def beside(slow: Slow) -> Iterator[Beside[int]]:
    one = Beside(slow.work, 30.0)
    yield one
    slow.goes_on.release(9)
    one.close()


def tells(beside: Beside[int], seconds: float = PATIENCE_SECONDS) -> bool:
    return bool(select.select([beside], [], [], seconds)[0])


def test_an_answer_is_told_of_and_given_once(slow: Slow, beside: Beside[int]) -> None:
    beside.ask(0.0)
    early = (beside.take(0.0), tells(beside, 0.0))
    slow.goes_on.release()
    told = tells(beside)

    assert (early, told) == ((None, False), True)
    assert [beside.take(1.0), beside.take(1.0)] == [1, None]
    assert not tells(beside, 0.0)


def test_nothing_is_done_unless_somebody_asks(slow: Slow, beside: Beside[int]) -> None:
    assert beside.take(0.0) is None
    assert beside.idle
    assert not slow.begun.acquire(blocking=False)


def test_what_is_asked_for_while_it_is_done_is_done_once_more(
    slow: Slow, beside: Beside[int]
) -> None:
    beside.ask(0.0)
    beside.take(0.0)
    beside.ask(1.0)
    beside.ask(2.0)
    slow.goes_on.release()
    tells(beside)
    first = beside.take(3.0)
    slow.goes_on.release()
    tells(beside)

    assert first is None
    assert beside.take(3.0) == 2
    assert beside.idle


def test_an_answer_that_comes_too_late_is_dropped(slow: Slow, beside: Beside[int]) -> None:
    beside.ask(0.0)
    beside.take(29.9)
    with pytest.raises(TimeoutError, match="within 30 s"):
        beside.take(30.0)
    slow.goes_on.release()
    tells(beside)

    assert beside.take(31.0) is None
    assert beside.idle


def test_while_one_hangs_there_is_no_second_thread_and_the_next_comes_after_it(
    slow: Slow, beside: Beside[int]
) -> None:
    beside.ask(0.0)
    beside.take(0.0)
    for seconds in (40.0, 80.0):
        with pytest.raises(TimeoutError):
            beside.take(seconds)
        beside.ask(seconds)
        beside.take(seconds)
    begun = [slow.begun.acquire(timeout=PATIENCE_SECONDS), slow.begun.acquire(blocking=False)]
    slow.goes_on.release(2)
    tells(beside)
    late = beside.take(81.0)
    tells(beside)

    assert begun == [True, False]
    assert (late, beside.take(82.0)) == (None, 2)


def test_what_the_job_raises_comes_to_whoever_takes(slow: Slow, beside: Beside[int]) -> None:
    slow.failure = ValueError("nonsense")
    beside.ask(0.0)
    beside.take(0.0)
    slow.goes_on.release()
    tells(beside)

    with pytest.raises(ValueError, match="nonsense"):
        beside.take(1.0)
    assert beside.take(1.0) is None


def test_whoever_closes_does_not_wait_for_what_hangs(slow: Slow) -> None:
    beside = Beside(slow.work)
    beside.ask(0.0)
    beside.take(0.0)
    beside.close()
    slow.goes_on.release()

    assert slow.begun.acquire(timeout=PATIENCE_SECONDS)
