"""The command: its arguments, and the loop of reading, drawing and waiting."""

import argparse
import math
import shutil
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oomwatchd.cli import exits
from oomwatchd.cli.arguments import duration
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.top.frame import Size, frame, page
from oomwatchd.cli.top.reading import Reader
from oomwatchd.cli.top.rules import Rules
from oomwatchd.cli.top.terminal import ENDING, GOING_ON, STOPPING, Terminal, Woken, obeyed
from oomwatchd.cli.top.view import View, keys, pressed
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.paths import CONFIG

if TYPE_CHECKING:
    from oomwatchd.cli.top.screen import Screen

DEFAULT_INTERVAL: Final = "2s"
LEAST_SECONDS: Final = 0.1
REST_RATIO: Final = 4.0  # of the time that a reading takes, in between: 10,000 processes take 0.5 s
KEYBOARD: Final = 0  # standard input
MISSING: Final = (
    "the library rich is not installed: `apt install python3-rich`, or in a venv `pip install rich`"
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interval", type=interval, default=DEFAULT_INTERVAL, metavar="2s",
                        help=f"how often all is read; {DEFAULT_INTERVAL} if not given")  # fmt: skip
    parser.add_argument("--once", action="store_true",
                        help="print one frame and end, as where there is no terminal")  # fmt: skip
    parser.add_argument("-c", "--config", metavar="FILE", type=Path,
                        help=f"whose rules are shown; {CONFIG} if not given")  # fmt: skip


def interval(text: str) -> float:
    seconds = duration(text)
    if seconds < LEAST_SECONDS:
        raise argparse.ArgumentTypeError(f"'{text}' is too short; 100ms is the least")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    try:
        with (
            closing(ProcFs()) as proc,
            closing(Reader(proc, rules(arguments.config, proc))) as reader,
        ):
            return shown(arguments, reader, screen())
    except Failure as failure:
        return fail("top", failure)
    except FileNotFoundError as error:  # /proc with subset=pid, or none at all
        return fail("top", Failure(f"{error.filename}: {error.strerror}", exits.NO_INPUT))


def screen() -> "Screen":
    """Raises Failure, without the library."""
    try:
        from oomwatchd.cli.top.screen import Screen
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "rich":
            raise
        raise Failure(MISSING, exits.UNAVAILABLE) from None
    return Screen()


def rules(path: Path | None, proc: ProcFs) -> Rules:
    """Raises Failure, if what was asked for has a fault; of the usual one, that is shown."""
    chosen = Rules(path or CONFIG, proc)
    if path is not None:
        chosen.load()
    return chosen


def shown(arguments: argparse.Namespace, reader: Reader, screen: "Screen") -> int:
    """Until the user, or a signal, ends it."""
    if arguments.once or not sys.stdout.isatty():
        width, height = shutil.get_terminal_size()
        screen.print(frame(reader.read(math.inf), View(), Size(width, height), interactive=False))
        return exits.FINE
    live = Live(reader, screen, arguments.interval)
    while True:
        try:
            with Terminal(KEYBOARD) as terminal, screen.taken():
                number = live.run(terminal)
        except OSError:
            if sys.stdout.isatty():
                raise
            number = signal.SIGHUP  # the terminal has gone, as we drew on it
        if number is None:
            return exits.FINE
        if number != GOING_ON:
            obeyed(number)


class Live:
    """The view and the facts, which stay the same when the terminal is given back for a while."""

    def __init__(self, reader: Reader, screen: "Screen", interval_seconds: float) -> None:
        self._reader = reader
        self._screen = screen
        self._interval_seconds = interval_seconds
        self._view = View()
        self._read()

    def run(self, terminal: Terminal) -> int | None:
        """None: the user quits; or the signal that has come."""
        while True:
            self._draw()
            woken = terminal.wait(self._left_seconds())
            number = next(
                (one for one in (*ENDING, STOPPING, GOING_ON) if one in woken.signals), None
            )
            if number is not None:
                return number
            if woken.hung_up or self._quits(woken):
                return None
            if self._left_seconds() == 0:
                self._read()

    def _read(self) -> None:
        since_seconds = time.monotonic()
        self._facts = self._reader.read()
        now_seconds = time.monotonic()
        rest_seconds = REST_RATIO * (now_seconds - since_seconds)
        self._next_seconds = max(since_seconds + self._interval_seconds, now_seconds + rest_seconds)

    def _left_seconds(self) -> float | None:
        """None: for ever, as the user has it stand still."""
        if self._view.paused:
            return None
        return max(self._next_seconds - time.monotonic(), 0.0)

    def _quits(self, woken: Woken) -> bool:
        """Take the keys in; whether one of them was to quit."""
        for key in keys(woken.keys):
            if key == "quit":
                return True
            self._view = pressed(self._view, key, page(self._facts, self._screen.size()))
        return False

    def _draw(self) -> None:
        self._screen.draw(frame(self._facts, self._view, self._screen.size()))
