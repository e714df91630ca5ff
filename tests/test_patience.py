"""Jobs that may never end, and the loop that goes on without them."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from oomwatchd.kernel.patience import (
    BATCH_SECONDS,
    READ_SECONDS,
    STUCK_LIMIT,
    Overdue,
    PatientReader,
)

# What `answers` may take at most, less the time in which this busy machine runs something else.
BOUND_SECONDS = BATCH_SECONDS + READ_SECONDS
SLACK_SECONDS = 0.25
PATIENCE_SECONDS = 10.0
Jobs = list[Callable[[], str]]


class Pipe:
    """A read of it lasts until `release`."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def read(self) -> str:
        return os.read(self._reading, 1).decode()

    def release(self) -> None:
        os.write(self._writing, b"!")

    def close(self) -> None:
        os.close(self._writing)
        os.close(self._reading)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def reader() -> PatientReader[str]:
    return PatientReader()


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reader"]


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)


def at_once(text: str) -> Callable[[], str]:
    return lambda: text


def with_gaps(answers: Iterable[str | Overdue]) -> list[str | None]:
    """None for each that hangs."""
    return [None if isinstance(answer, Overdue) else answer for answer in answers]


def test_answers_come_in_the_order_of_the_jobs(reader: PatientReader[str]) -> None:
    assert reader.answers([at_once(str(number)) for number in range(200)]) == [
        str(number) for number in range(200)
    ]
    assert reader.answers([]) == []
    assert reader.hanging == 0


def test_one_that_hangs_costs_the_others_nothing(reader: PatientReader[str]) -> None:
    """There is time left for them; on a busy machine, in one of a few attempts."""
    answers, hanging, waited_seconds = list[str | None](), 0, 0.0
    for _ in range(10):
        pipe = Pipe()
        jobs: Jobs = [at_once("a"), pipe.read, at_once("b"), at_once("c")]
        started = time.monotonic()
        answers = with_gaps(reader.answers(jobs))
        waited_seconds = time.monotonic() - started
        hanging = reader.hanging
        pipe.release()
        until(lambda: reader.hanging == 0, "the read that has come after all")
        pipe.close()
        if answers == ["a", None, "b", "c"]:
            break

    assert answers == ["a", None, "b", "c"]
    assert hanging == 1
    assert READ_SECONDS <= waited_seconds < BOUND_SECONDS + SLACK_SECONDS


def test_the_thread_that_hung_ends_with_its_read(reader: PatientReader[str], pipe: Pipe) -> None:
    before = len(reader_threads())
    [read] = reader.answers([pipe.read])
    left_behind = len(reader_threads()) - before
    hung = isinstance(read, Overdue) and not read.is_over
    pipe.release()
    until(lambda: len(reader_threads()) == before, "the end of the thread")

    assert (left_behind, hung) == (1, True)
    assert isinstance(read, Overdue)
    assert read.is_over
    assert reader.answers([at_once("later")]) == ["later"]


def test_what_follows_a_read_given_up_is_not_done_twice(
    reader: PatientReader[str], pipe: Pipe
) -> None:
    done: list[int] = []

    def count() -> str:
        done.append(1)
        return "done"

    answers = with_gaps(reader.answers([pipe.read, count]))
    pipe.release()
    until(lambda: reader.hanging == 0, "the end of the thread")

    assert answers == [None, "done"]
    assert len(done) == 1


@pytest.mark.parametrize("hanging", [2, 5, 40])
def test_the_loop_is_held_no_longer_however_many_hang(
    reader: PatientReader[str], hanging: int
) -> None:
    pipes = [Pipe() for _ in range(hanging)]
    started = time.monotonic()
    answers = with_gaps(reader.answers([pipe.read for pipe in pipes] + [at_once("last")]))
    waited_seconds = time.monotonic() - started

    assert set(answers) <= {None, "last"}
    assert waited_seconds < BOUND_SECONDS + SLACK_SECONDS
    for pipe in pipes:
        pipe.release()
    until(lambda: reader.hanging == 0, "the reads that have come after all")
    for pipe in pipes:
        pipe.close()


def test_those_that_were_not_tried_are_told_from_those_that_hang(
    reader: PatientReader[str],
) -> None:
    pipes = [Pipe() for _ in range(8)]
    answers = with_gaps(reader.answers([pipe.read for pipe in pipes]))
    tried = reader.hanging

    assert answers == [None] * tried
    assert 1 <= tried < len(pipes)
    for pipe in pipes:
        pipe.release()
    until(lambda: reader.hanging == 0, "the reads that have come after all")
    for pipe in pipes:
        pipe.close()


def test_jobs_that_are_merely_slow_have_their_time(reader: PatientReader[str]) -> None:
    """Memory that was swapped out takes its while; as long as there is progress, we wait."""

    def slow() -> str:
        time.sleep(READ_SECONDS / 10)
        return "slow"

    assert reader.answers([slow] * 4) == ["slow"] * 4
    assert reader.hanging == 0


def test_many_slow_jobs_hold_the_loop_no_longer_than_a_batch_may(
    reader: PatientReader[str],
) -> None:
    def slow() -> str:
        time.sleep(READ_SECONDS / 2)
        return "slow"

    started = time.monotonic()
    answers = reader.answers([slow] * 100)
    waited_seconds = time.monotonic() - started

    assert answers[0] == "slow"
    assert len(answers) < 100
    assert waited_seconds < BOUND_SECONDS + SLACK_SECONDS
    until(lambda: reader.hanging == 0, "the end of the thread")


def test_no_more_threads_hang_than_the_limit(reader: PatientReader[str], tmp_path: Path) -> None:
    fifo = tmp_path / "silent"
    os.mkfifo(fifo)

    def silent() -> str:
        with fifo.open() as file:  # opens only when somebody writes
            return file.read()

    for _ in range(STUCK_LIMIT * 2):
        reader.answers([silent])

    assert reader.hanging == STUCK_LIMIT
    assert reader.answers([at_once("a")]) == []  # until one of them ends, nothing is tried
    os.close(os.open(fifo, os.O_WRONLY))
    until(lambda: reader.hanging == 0, "the end of all threads")
    assert reader.answers([at_once("a")]) == ["a"]


def test_what_a_job_raises_is_raised_here(reader: PatientReader[str]) -> None:
    def broken() -> str:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        reader.answers([at_once("a"), broken, at_once("b")])

    assert reader.answers([at_once("a")]) == ["a"]
