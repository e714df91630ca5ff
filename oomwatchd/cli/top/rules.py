"""Which rule each process falls under, kept from one frame to the next.

To read and match a process takes several times as long as to weigh it.  So that is done when it is
new or runs another program, and now and then, as a title or a user may change unseen.
"""

import os
import time
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.cli.failure import Failure
from oomwatchd.cli.rank import Program
from oomwatchd.cli.verdict import Judge, loaded
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import Config, Rule
from oomwatchd.policy.rules import needs
from oomwatchd.users import local_name

READ_SECONDS: Final = 0.05  # for one command line, whose owner may make us wait
FIRST_WAIT_SECONDS: Final = 2.0  # until one is asked about again; then twice as long, and so on
LAST_WAIT_SECONDS: Final = 60.0


class Known(NamedTuple):
    rule: Rule | None
    wanted: int | None
    command: str
    user: str
    wait_seconds: float
    due_seconds: float  # monotonic, when to ask again
    unread: bool = False


NOTHING: Final = Known(None, None, "", "", 0.0, 0.0)
Stamp = tuple[tuple[str, int, int], ...]


class Rules:
    """The rules as the files have them, read again when these change."""

    def __init__(self, path: Path, proc: ProcFs) -> None:
        self.config = Config()
        self.fault = ""  # why there are none, or older ones
        self.unasked = 0  # processes that there was no time for
        self._path = path
        self._proc = proc
        self._known: dict[Program, Known] = {}
        self._stamp: Stamp | None = None
        self._use(Config())

    def load(self) -> None:
        """Raises Failure; then the rules in use stay in use."""
        stamp = tuple(stamps(self._path))
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self.fault = ""
        self._use(loaded(self._path, root_only=False).config)

    def reload(self) -> None:
        """As the daemon would at a reload: what has a fault does not come into use."""
        try:
            self.load()
        except Failure as failure:
            self.fault = f"rules: {failure.in_one_line}"

    @property
    def unread(self) -> int:
        """Processes whose owners do not let their command lines be read."""
        return sum(known.unread for known in self._known.values())

    def ask(self, programs: Collection[Program], now_seconds: float, within_seconds: float) -> None:
        """Find out about those that are new, first, and those that are due."""
        self._known = {one: known for one in programs if (known := self._known.get(one))}
        due = sorted(
            (self._known.get(one, NOTHING).due_seconds, one)
            for one in programs
            if self._known.get(one, NOTHING).due_seconds <= now_seconds
        )
        until = time.monotonic() + within_seconds
        for done, (_, program) in enumerate(due):
            if time.monotonic() >= until:
                self.unasked = sum(one not in self._known for _, one in due[done:])
                return
            self._known[program] = self._asked(program, now_seconds)
        self.unasked = 0

    def of(self, program: Program) -> Known:
        return self._known.get(program, NOTHING)

    def _use(self, config: Config) -> None:
        self.config = config
        asked = needs(config.rules)._replace(cmdline=True, uid=True)
        self._judge = Judge(config, self._proc, asked, patience_seconds=READ_SECONDS)
        self._known = {}

    def _asked(self, program: Program, now_seconds: float) -> Known:
        last = self._known.get(program, NOTHING).wait_seconds
        wait = min(max(2 * last, FIRST_WAIT_SECONDS), LAST_WAIT_SECONDS + program.id.pid % 20)
        try:
            verdict = self._judge.verdict(program.id.pid)
        except PermissionError:  # hidepid=1
            verdict = None
        known = NOTHING._replace(wait_seconds=wait, due_seconds=now_seconds + wait)
        if verdict is None:
            return known
        known = known._replace(rule=verdict.rule, wanted=verdict.wanted)
        process = verdict.process
        if process is None:
            return known._replace(unread=True)
        return known._replace(command=process.cmdline or "", user=user_name(process.uid))


@lru_cache(maxsize=1024)
def user_name(uid: int | None) -> str:
    """Not by a directory service: it could hold up the view."""
    return "" if uid is None else local_name(str(uid))


def stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Another whenever the configuration may be another."""
    directory = Path(f"{path}.d")
    files = [path, directory, *(directory.iterdir() if may_list(directory) else ())]
    for file in sorted(files):
        try:
            stat = file.stat()
        except OSError:  # it is not there, or not for us
            yield str(file), 0, 0
        else:
            yield str(file), stat.st_mtime_ns, stat.st_ino


def may_list(directory: Path) -> bool:
    return directory.is_dir() and os.access(directory, os.R_OK | os.X_OK)
