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
from typing import Final, Generic, TypeVar

T = TypeVar("T")

READ_SECONDS: Final = 0.05  # what one read may take
LOOK_SECONDS: Final = 0.01  # how often we look whether it gets on
BATCH_SECONDS: Final = 0.08  # what the loop waits for one batch at most
STUCK_LIMIT: Final = 16  # threads that may hang at the same time


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
        self._left_behind: list[threading.Thread] = []

    @property
    def hanging(self) -> int:
        """How many reads have been given up and are still under way."""
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        return len(self._left_behind)

    def answers(self, jobs: Sequence[Callable[[], T]]) -> list[T | None]:
        """What each job returns, in their order; None for one that was tried and hangs.

        There are fewer answers than jobs when those that hang have used up the time: the rest have
        not been tried, through no fault of theirs.

        Raises:  whatever a job raises.
        """
        until = time.monotonic() + self._batch_seconds
        answers: list[T | None] = []
        while len(answers) < len(jobs):
            if time.monotonic() >= until or self.hanging >= STUCK_LIMIT:
                break
            answers += self._some(jobs[len(answers) :], until)
        return answers

    def _some(self, jobs: Sequence[Callable[[], T]], until: float) -> list[T | None]:
        """The answers up to the first job that hangs, and None for that one."""
        batch = Batch(jobs)
        self._running().put(batch)
        seen, since = 0, time.monotonic()
        while not batch.finished.wait(LOOK_SECONDS):
            done, now = len(batch.answers), time.monotonic()
            if done > seen:
                seen, since = done, now
            if now >= until or now - since >= self._read_seconds:
                return self._leave_behind(batch)
        if batch.failure is not None:
            raise batch.failure
        return list(batch.answers)

    def _leave_behind(self, batch: Batch[T]) -> list[T | None]:
        batch.given_up = True
        self._queue.put(None)  # the thread ends when its read does
        if self._thread is not None:
            self._left_behind.append(self._thread)
        self._thread = None
        done = len(batch.answers)
        return [*batch.answers[:done], *([None] if done < len(batch.jobs) else [])]

    def _running(self) -> "queue.SimpleQueue[Batch[T] | None]":
        """The queue of a thread that is free."""
        if self._thread is None:
            self._queue = queue.SimpleQueue()
            self._thread = threading.Thread(
                target=serve, args=(self._queue,), name="reader", daemon=True
            )
            self._thread.start()
        return self._queue


def serve(batches: "queue.SimpleQueue[Batch[T] | None]") -> None:
    while (batch := batches.get()) is not None:
        batch.work()
