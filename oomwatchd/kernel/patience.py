"""Reads that another process can make last, done apart from the loop.

To read a command line, the kernel reads the memory of the process: it waits while that is fetched
from swap, for the lock that the process holds while it changes its mappings, or for whoever serves
its page faults (userfaultfd).  To prove a program's file, a path is followed, perhaps onto a file
system that does not answer.  So such reads are made in a second thread, for many processes at once,
and the loop goes on without those that do not come.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

READ_SECONDS: Final = 0.05  # what one read may take
LOOK_SECONDS: Final = 0.01  # how often we look whether it gets on
BATCH_SECONDS: Final = 0.08  # what the loop waits for one batch at most
STUCK_LIMIT: Final = 16  # threads that may hang at the same time


class Overdue(NamedTuple):
    """A read that was given up; its thread ends when it does."""

    thread: threading.Thread

    @property
    def is_over(self) -> bool:
        return not self.thread.is_alive()


class Batch(Generic[T]):
    """Jobs for one thread, and what has come of them so far."""

    def __init__(self, jobs: Sequence[Callable[[], T]]) -> None:
        self.jobs = jobs
        self.answers: list[T] = []
        self.failure: BaseException | None = None
        self.finished = threading.Event()
        self.given_up = False

    def work(self) -> None:
        try:
            for job in self.jobs:
                self.answers.append(job())
                if self.given_up:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by whoever gave the batch
            self.failure = error
        finally:
            self.finished.set()


class PatientReader(Generic[T]):
    """Has jobs done by a thread of its own, which is left behind when a job hangs."""

    def __init__(
        self, *, read_seconds: float = READ_SECONDS, batch_seconds: float = BATCH_SECONDS
    ) -> None:
        self._read_seconds = read_seconds
        self._batch_seconds = batch_seconds
        self._queue: queue.SimpleQueue[Batch[T] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._left_behind: list[Overdue] = []

    @property
    def hanging(self) -> int:
        """How many reads have been given up and are still under way."""
        self._left_behind = [read for read in self._left_behind if not read.is_over]
        return len(self._left_behind)

    @property
    def is_exhausted(self) -> bool:
        """Whether so many hang that nothing is tried."""
        return self.hanging >= STUCK_LIMIT

    def answers(self, jobs: Sequence[Callable[[], T]]) -> list[T | Overdue]:
        """What each job returns, in their order; of one that was tried and hangs, that read.

        There are fewer answers than jobs when those that hang have used up the time: the rest have
        not been tried, through no fault of theirs.

        Raises:  whatever a job raises.
        """
        until = time.monotonic() + self._batch_seconds
        answers: list[T | Overdue] = []
        while len(answers) < len(jobs):
            if time.monotonic() >= until or self.is_exhausted:
                break
            answers += self._some(jobs[len(answers) :], until)
        return answers

    def _some(self, jobs: Sequence[Callable[[], T]], until: float) -> list[T | Overdue]:
        """The answers up to the first job that hangs, and what hangs."""
        batch = Batch(jobs)
        thread = self._running()
        self._queue.put(batch)
        seen, since = 0, time.monotonic()
        while not batch.finished.wait(LOOK_SECONDS):
            done, now = len(batch.answers), time.monotonic()
            if done > seen:
                seen, since = done, now
            if now >= until or now - since >= self._read_seconds:
                return self._leave_behind(batch, Overdue(thread))
        if batch.failure is not None:
            raise batch.failure
        return list(batch.answers)

    def _leave_behind(self, batch: Batch[T], read: Overdue) -> list[T | Overdue]:
        batch.given_up = True
        self._queue.put(None)  # the thread ends when its read does
        self._left_behind.append(read)
        self._thread = None
        done = len(batch.answers)
        return [*batch.answers[:done], *([read] if done < len(batch.jobs) else [])]

    def _running(self) -> threading.Thread:
        """A thread that is free, and waits at the queue."""
        if self._thread is None:
            self._queue = queue.SimpleQueue()
            self._thread = threading.Thread(
                target=serve, args=(self._queue,), name="reader", daemon=True
            )
            self._thread.start()
        return self._thread


def serve(batches: "queue.SimpleQueue[Batch[T] | None]") -> None:
    while (batch := batches.get()) is not None:
        batch.work()
