"""A time limit on a stretch of our own code."""

import signal
from types import FrameType, TracebackType


class Deadline:
    """``with deadline:`` raises *error* in the main thread if the block computes for *seconds*.

    Time in which we do not run, as others do or as we wait for our own pages, does not count: while
    memory is short, that is no fault of what the block works on.  Regular expressions see the end
    of the time too: Python's engine looks for signals as it works.

    Source:  setitimer(2); CPython, Modules/_sre/sre_lib.h, MAYBE_CHECK_SIGNALS.
    """

    def __init__(self, seconds: float, error: type[Exception]) -> None:
        self.seconds = seconds
        self._error = error
        self._armed = False
        signal.signal(signal.SIGVTALRM, self._expired)

    def _expired(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:  # else it came between the end of the block and the end of the timer
            raise self._error

    def __enter__(self) -> None:
        self._armed = True
        signal.setitimer(signal.ITIMER_VIRTUAL, self.seconds)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
