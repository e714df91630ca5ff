"""Reads what a frame shows: /proc, the configuration, the daemon if it runs, the incidents."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from oomwatchd.barometer import Barometer
from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure
from oomwatchd.cli.rank import PAGE_BYTES, Ranking, read_ranking
from oomwatchd.cli.status import Fields, ask, duration
from oomwatchd.cli.top.facts import Facts, Kill, Kills, Row, RuleTotal
from oomwatchd.cli.top.rules import Rules
from oomwatchd.incident import Incident
from oomwatchd.incidents import Entry, entry, ours
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.paths import incidents_directory, runtime_directory, status_socket
from oomwatchd.policy.badness import Candidate

DAEMON_SECONDS: Final = 10.0  # between two questions, as the answer names all its processes
ANSWER_SECONDS: Final = 0.5
ASK_SECONDS: Final = 0.5  # those that are left come with the next frame
KILLS_SHOWN: Final = 8
NOT_RUNNING: Final = "daemon not running"
NOT_ASKED: Final = "daemon: ask as root"


class Reader:
    """Reads one frame after the other, and keeps what need not be read again."""

    def __init__(self, proc: ProcFs, rules: Rules) -> None:
        self._proc = proc
        self._rules = rules
        self._gauge = Barometer(proc.root, unsaid)
        self._daemon = Daemon(status_socket(runtime_directory(os.environ)))
        self._kills = KillsOnDisk(incidents_directory(os.environ))

    def read(self, ask_seconds: float = ASK_SECONDS) -> Facts:
        """*ask_seconds*: how long to ask for the rules of processes not asked about yet.

        Raises:  FileNotFoundError, where /proc shows processes alone (subset=pid).
        """
        now_seconds = time.monotonic()
        self._rules.reload()
        ranking = read_ranking(self._proc)
        self._rules.ask(ranking.programs.values(), now_seconds, ask_seconds)
        self._gauge.read(self._rules.config.pressure, now_seconds)
        self._daemon.ask(now_seconds)
        rows = tuple(self._rows(ranking))
        return Facts(
            unix_seconds=time.time(),
            host=os.uname().nodename,
            memory=ranking.memory,
            pressure=self._gauge.pressure,
            level=self._gauge.level,
            daemon=self._daemon.words,
            daemon_runs=self._daemon.runs,
            rows=rows,
            rules=tuple(self._totals(rows)),
            kills=self._kills.read(),
            notes=(*ranking.remarks, *self._notes()),
        )

    def close(self) -> None:
        self._gauge.close()

    def _rows(self, ranking: Ranking) -> Iterator[Row]:
        for rank, one in enumerate(ranking.killable, 1):
            yield self._row(rank, one, ranking)
        for one in ranking.exempt:
            yield self._row(None, one, ranking)

    def _row(self, rank: int | None, one: Candidate, ranking: Ranking) -> Row:
        known = self._rules.of(ranking.programs[one.pid])
        return Row(
            rank,
            one.pid,
            one.comm,
            one.oom_score_adj,
            one.memory_pages * PAGE_BYTES,
            None if one.points is None else one.points * PAGE_BYTES,
            known.rule.name if known.rule is not None else None,
            known.wanted in (None, one.oom_score_adj),
            known.command,
            known.user,
        )

    def _totals(self, rows: Sequence[Row]) -> Iterator[RuleTotal]:
        found: dict[str | None, list[Row]] = {}
        for row in rows:
            found.setdefault(row.rule, []).append(row)
        for rule in self._rules.config.rules:
            matched = found.get(rule.name, [])
            yield RuleTotal(
                rule.name,
                rule.oom_score_adj,
                rule.protects,
                len(matched),
                sum(row.memory_bytes for row in matched),
                sum(not row.as_wanted for row in matched),
                self._daemon.exposed(rule.name),
            )

    def _notes(self) -> Iterator[str]:
        if self._rules.fault:
            yield self._rules.fault
        if self._rules.unasked:
            yield f"rules: {self._rules.unasked} processes are not looked at yet"
        if self._rules.unread:
            yield f"rules: not known of {self._rules.unread}, whose command lines do not come"
        if os.geteuid() != 0:
            unknown = "whether the daemon runs, STILL EXPOSED TO"
            if any(rule.match.exe for rule in self._rules.config.rules):
                unknown += ", rules with `exe` for others' processes"
            yield f"not known without root: {unknown}"


class Daemon:
    """What the daemon alone knows."""

    def __init__(self, socket: Path) -> None:
        self.words = NOT_RUNNING
        self.runs: bool | None = False  # None: not known
        self._socket = socket
        self._rules: dict[str, Fields] = {}
        self._next_seconds = 0.0

    def ask(self, now_seconds: float) -> None:
        if now_seconds < self._next_seconds:
            return
        self._next_seconds = now_seconds + DAEMON_SECONDS
        try:
            status = ask(self._socket, within_seconds=ANSWER_SECONDS)
        except Failure as failure:
            refused = failure.status == exits.NOT_PERMITTED
            self.words, self.runs = (NOT_ASKED, None) if refused else (NOT_RUNNING, False)
            self._rules = {}
            return
        self.words, self.runs = f"daemon up {duration(status['uptime_seconds'])}", True
        self._rules = {rule["name"]: rule for rule in status["rules"]}

    def exposed(self, rule: str) -> dict[str, int] | None:
        """By killer; None: not known."""
        exposed: dict[str, int] | None = self._rules.get(rule, {}).get("exposed")
        return exposed


class KillsOnDisk:
    """The newest incidents; a file does not change, so each is read once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, Entry] = {}

    def read(self) -> Kills:
        try:
            newest = ours(self._directory)[-KILLS_SHOWN:]
        except FileNotFoundError:
            return Kills(())
        except OSError as error:
            return Kills((), f"{self._directory}: {error.strerror}: try as root, or in group adm")
        self._read = {path: self._read.get(path) or entry(path) for path in reversed(newest)}
        found = [one.incident for one in self._read.values() if one.incident is not None]
        unread = len(self._read) - len(found)
        return Kills(tuple(map(told, found)), f"{unread} files not readable" if unread else "")


def told(incident: Incident) -> Kill:
    victim = incident.victim
    return Kill(
        incident.time_unix_seconds,
        incident.case.killer,
        victim.pid,
        victim.name,
        victim.memory_bytes,
        victim.rule,
        incident.diagnosis.kind,
    )


def unsaid(_format: str, *_values: object) -> None:
    """The level is on the screen; a line of a log would go through it."""
