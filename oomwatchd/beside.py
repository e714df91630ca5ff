"""Work beside the loop, in a thread: for what asks others, who may take long to answer.

A directory of users or of hosts that hangs must not keep the loop from its turns; and a thread that
waits for one cannot be ended.  So there is one at most, and who asks again waits for it to end.
"""

import errno
import os
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

NEVER: Final = float("inf")


class Run(Generic[T]):
    """The job, done once, and what has come of it."""

    def __init__(self, job: Callable[[], T], told_fd: int) -> None:
        self._job = job
        self._told_fd = os.dup(told_fd)  # of its own, as it may outlive the loop
        self._failure: BaseException | None = None
        self._answers: list[T] = []

    def work(self) -> None:
        try:
            self._answers.append(self._job())
        except BaseException as error:  # noqa: BLE001 - raised again by `answer`
            self._failure = error
        os.eventfd_write(self._told_fd, 1)
        self.close()

    def close(self) -> None:
        os.close(self._told_fd)

    def answer(self) -> T:
        if self._failure is not None:
            raise self._failure
        return self._answers[0]


class Beside(Generic[T]):
    """Has *job* done when it is asked to, and gives what it returns.

    Who asks while it is being done has it done once more, as it may have read what was there
    before.  What comes later than *limit_seconds* after the asking is dropped.
    """

    def __init__(self, job: Callable[[], T], limit_seconds: float = NEVER) -> None:
        self._job = job
        self._limit_seconds = limit_seconds
        self._due_seconds = NEVER
        self._asked = self._again = False
        self._run: Run[T] | None = None
        self._told_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable when `take` is to be called."""
        return self._told_fd

    @property
    def idle(self) -> bool:
        return self._run is None

    def ask(self, now_seconds: float) -> None:
        if not self._asked:
            self._due_seconds = now_seconds + self._limit_seconds
        self._asked, self._again = True, self._run is not None

    def take(self, now_seconds: float) -> T | None:
        """The answer, once; None while there is none, or nobody has asked.

        Raises:  what the job raises; TimeoutError, if it takes too long; OSError, if there can be
                 no thread.
        """
        if self._run is not None and self._has_ended():
            run, self._run = self._run, None
            if self._asked and not self._again:
                self._asked = False
                return run.answer()
        if self._asked and self._run is None:
            self._begin()
        elif self._asked and now_seconds >= self._due_seconds:
            self._asked = False
            limit = f"not done within {self._limit_seconds:g} s"
            raise TimeoutError(f"{limit}; a directory of users or hosts may not answer")
        return None

    def close(self) -> None:
        """Nobody asks any more; a thread that hangs is not waited for."""
        os.close(self._told_fd)

    def _has_ended(self) -> bool:
        try:
            os.eventfd_read(self._told_fd)
        except BlockingIOError:
            return False
        return True

    def _begin(self) -> None:
        run = Run(self._job, self._told_fd)
        try:
            threading.Thread(target=run.work, name="beside", daemon=True).start()
        except RuntimeError as error:  # TasksMax= is reached, or there is no memory for its stack
            run.close()
            self._asked = False
            raise OSError(errno.EAGAIN, str(error)) from error
        self._run, self._again = run, False
