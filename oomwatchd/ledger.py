"""The values that processes had before us, and the cgroups that we have marked, kept where they
survive the daemon.

The rule of the ledger: what we are about to write stands in the file *before* it is written.  So a
daemon that is killed at any instant leaves, for each process that may hold a value of ours, the
value to put back, and the name of each cgroup that may bear a mark of ours.  The file is written
whole and then renamed: a reader sees the old or the new.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, get_args

from oomwatchd.model import OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN, ProcessId
from oomwatchd.policy.plan import Claim, Standing

FORMAT: Final = 1
STANDINGS: Final[Mapping[str, Standing]] = {name: name for name in get_args(Standing)}


class LedgerError(ValueError):
    """The file is not one that this program has written."""


class Ledger:
    """Claims by process; *read_only* in a dry run."""

    def __init__(self, path: Path, boot_id: str, *, read_only: bool = False) -> None:
        self._path = path
        self._boot_id = boot_id
        self._read_only = read_only
        self._lines: dict[ProcessId, str] = {}
        self._claims: dict[ProcessId, Claim] = {}
        self._given: Counter[int] = Counter()  # values of ours, by how many claims have them
        self._marks: dict[str, int] = {}  # by cgroup: its inode
        self._changed = True

    def load(self) -> None:
        """Take over what an earlier daemon has left; of another boot, nothing.

        Raises:  LedgerError, if the file cannot be understood; OSError, if it cannot be read.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        claims, marks = parsed(raw, self._boot_id), parsed_marks(raw, self._boot_id)
        for id, claim in claims:
            self.remember(id, claim)
        self._marks.update(marks)

    def claims(self) -> list[tuple[ProcessId, Claim]]:
        return list(self._claims.items())

    def get(self, id: ProcessId) -> Claim | None:
        return self._claims.get(id)

    @property
    def is_empty(self) -> bool:
        return not self._claims

    def givers(self, value: int) -> list[tuple[ProcessId, Claim]]:
        """The processes from which a child may have inherited *value*, which is ours."""
        if value not in self._given:
            return []
        return [
            (id, claim)
            for id, claim in self._claims.items()
            if value in claim.ours and value != claim.before
        ]

    def remember(self, id: ProcessId, claim: Claim) -> None:
        """Note *claim*; one of a process that never had a value of ours is forgotten.

        Who has been released stays, for as long as it lives: its old value may not be back yet when
        this daemon is killed, and its children may have inherited ours.
        """
        if not claim.ours:
            self.forget(id)
        elif self._claims.get(id) != claim:
            self.forget(id)
            self._claims[id] = claim
            self._lines[id] = line(id, claim)
            self._given.update(claim.ours)
            self._changed = True

    def forget(self, id: ProcessId) -> None:
        claim = self._claims.pop(id, None)
        if claim is not None:
            del self._lines[id]
            self._given -= Counter(claim.ours)
            self._changed = True

    def marks(self) -> dict[str, int]:
        """The cgroups that may bear a mark of ours, each with its directory's inode."""
        return dict(self._marks)

    def mark_of(self, cgroup: str) -> int | None:
        """The inode of the directory that we have marked, or were about to, under that path."""
        return self._marks.get(cgroup)

    def remember_mark(self, cgroup: str, inode: int) -> None:
        if self._marks.get(cgroup) != inode:
            self._marks[cgroup] = inode
            self._changed = True

    def forget_mark(self, cgroup: str) -> None:
        if self._marks.pop(cgroup, None) is not None:
            self._changed = True

    def save(self) -> None:
        """Bring the file up to date, if it is not.  Raises OSError; then the old file stands."""
        if self._read_only or not self._changed:
            return
        head = f'{{"format": {FORMAT}, "boot_id": {json.dumps(self._boot_id)}, "processes": [\n'
        processes = ",\n".join(self._lines.values())
        marks = ",\n".join(mark_line(cgroup, inode) for cgroup, inode in self._marks.items())
        text = f'{head}{processes}\n], "marks": [\n{marks}\n]}}\n'
        fresh = self._path.with_suffix(".json.new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(self._path)
        self._changed = False


def line(id: ProcessId, claim: Claim) -> str:
    return json.dumps(
        {
            "pid": id.pid,
            "start_ticks": id.start_ticks,
            "rule": claim.rule,
            "standing": claim.standing,
            "oom_score_adj_before": claim.before,
            "oom_score_adj_ours": sorted(claim.ours),
        }
    )


def mark_line(cgroup: str, inode: int) -> str:
    return json.dumps({"cgroup": cgroup, "inode": inode})  # surrogates in a path survive this


def parsed(raw: bytes, boot_id: str) -> list[tuple[ProcessId, Claim]]:
    """The claims in a ledger's text; none, if it is of another boot."""
    with _understood():
        return [claim_of(entry) for entry in section(raw, boot_id, "processes")]


def parsed_marks(raw: bytes, boot_id: str) -> dict[str, int]:
    """The marks in a ledger's text; none, if it is of another boot, or of a version without."""
    with _understood():
        return dict(map(mark_of, section(raw, boot_id, "marks")))


def section(raw: bytes, boot_id: str, name: str) -> list[Mapping[str, Any]]:
    document = json.loads(raw)
    if document["format"] != FORMAT:
        raise LedgerError(f"its format is {document['format']!r}, not {FORMAT}")
    if document["boot_id"] != boot_id:
        return []
    entries: list[Mapping[str, Any]] = document.get(name, [])
    return entries


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise LedgerError(f"{type(error).__name__}: {error}") from error


def mark_of(entry: Mapping[str, Any]) -> tuple[str, int]:
    cgroup = str(entry["cgroup"])
    if not cgroup.startswith("/") or {"..", "."} & set(cgroup.split("/")) or "\0" in cgroup:
        raise ValueError(f"{cgroup!r} is no cgroup")
    return cgroup, int(entry["inode"])


def claim_of(entry: Mapping[str, Any]) -> tuple[ProcessId, Claim]:
    return (
        ProcessId(int(entry["pid"]), int(entry["start_ticks"])),
        Claim(
            rule=str(entry["rule"]),
            standing=STANDINGS[entry["standing"]],
            before=score(entry["oom_score_adj_before"]),
            ours=frozenset(map(score, entry["oom_score_adj_ours"])),
        ),
    )


def score(value: Any) -> int:
    if not OOM_SCORE_ADJ_MIN <= int(value) <= OOM_SCORE_ADJ_MAX:
        raise ValueError(f"{value} is no oom_score_adj")
    return int(value)
