"""The terminal while it is ours: keys as they are pressed, and signals; all undone at the end."""

import errno
import os
import select
import signal
import termios
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
STOPPING: Final = signal.SIGTSTP  # ctrl-Z
GOING_ON: Final = signal.SIGCONT  # after a stop that we did not hear of: who knows what was drawn
RESIZED: Final = signal.SIGWINCH
HEARD: Final = (*ENDING, STOPPING, GOING_ON, RESIZED)
LOCAL: Final = 3  # the place of c_lflag in the modes; termios(3)
KEYS_BYTES: Final = 1024
Modes = list[Any]  # as termios gives them
SIGNALS_BYTES: Final = 256


class Woken(NamedTuple):
    keys: bytes = b""
    signals: frozenset[int] = frozenset()
    hung_up: bool = False  # nobody is at the keyboard any more


class Terminal:
    """Within `with`, keys come at once and are not echoed, and signals are only noted."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard if os.isatty(keyboard) else None

    def __enter__(self) -> "Terminal":
        self._pipe, self._writing_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writing_end, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, noted) for number in HEARD}
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        if self._keyboard is not None:
            self._modes = termios.tcgetattr(self._keyboard)
            set_modes(self._keyboard, without_lines(self._modes))
            self._poll.register(self._keyboard, select.POLLIN)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            if self._keyboard is not None:
                set_modes(self._keyboard, self._modes)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._pipe)
            os.close(self._writing_end)

    def wait(self, seconds: float | None) -> Woken:
        """For a key or a signal, or until *seconds* have passed; None: for ever."""
        ready = self._poll.poll(None if seconds is None else max(seconds, 0.0) * 1000)
        woken = Woken()
        for fd, _ in ready:
            if fd == self._pipe:
                woken = woken._replace(signals=frozenset(os.read(fd, SIGNALS_BYTES)))
            else:
                typed = read_keys(fd)
                woken = woken._replace(keys=typed, hung_up=not typed)
        return woken


def without_lines(modes: Modes) -> Modes:
    """*modes* with keys coming at once, and not echoed; ctrl-C and ctrl-Z stay what they are."""
    changed = list(modes)
    changed[LOCAL] &= ~(termios.ECHO | termios.ICANON)
    return changed


def set_modes(keyboard: int, modes: Modes) -> None:
    """In the background, the kernel stops us here until the terminal is given to us."""
    while True:
        try:
            termios.tcsetattr(keyboard, termios.TCSANOW, modes)
        except termios.error as error:
            if error.args[0] == errno.EIO:  # the terminal has gone, and its modes with it
                return
            if error.args[0] != errno.EINTR:  # we have been stopped, and go on
                raise
        else:
            return


def read_keys(fd: int) -> bytes:
    """Empty, if there will be no more."""
    try:
        return os.read(fd, KEYS_BYTES)
    except OSError:  # EIO: the terminal has gone
        return b""


def noted(_number: int, _frame: FrameType | None) -> None:
    """The number is in the pipe by now; without a handler it would not be."""


def obeyed(number: int) -> None:
    """Let the signal do what it does to a program that does not handle it."""
    handler = signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    signal.signal(number, handler)  # we were stopped, and go on
