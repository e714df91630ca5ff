"""The incidents that are kept: a file for each, complete or not there at all.

What is not ours in the directory, or cannot be read, is left alone.
"""

import errno
import os
import re
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.document import Unreadable, encoded, parsed
from oomwatchd.incident import Incident

NAME: Final = re.compile(r"\d{8}T\d{6}Z-\d+(?:-\d+)?\.json")
UNFINISHED: Final = re.compile(r"\.\d{8}T\d{6}Z-\d+(?:-\d+)?\.json\.new")
FILE_LIMIT_BYTES: Final = 4 << 20  # what we read of one; we write a quarter of that at most
FILE_MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750
SAME_INSTANT_MAX: Final = 100


class Entry(NamedTuple):
    """A file of the directory that may be an incident."""

    path: Path
    incident: Incident | None
    fault: str = ""  # why it is None


class Incidents:
    """Writes them; *group*, if not None, is that which may read them."""

    def __init__(self, directory: Path, *, keep: int, group: int | None = None) -> None:
        self.keep = keep
        self._directory = directory
        self._group = group

    def prepare(self) -> None:
        """Make the directory, and clear away what a crash has left half written.

        Raises:  OSError.
        """
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._hand_over(fd, DIRECTORY_MODE)
        finally:
            os.close(fd)
        for path in self._directory.iterdir():
            if UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def write(self, incident: Incident) -> Incident:
        """Keep *incident*, for good once this returns; as it was written, as its id may be taken.

        Raises:  OSError; then nothing of it is left, and all others are as they were.
        """
        incident = incident._replace(id=self._free_id(incident.id))
        path = self._directory / f"{incident.id}.json"
        fresh = path.with_name(f".{path.name}.new")
        try:
            self._write_file(fresh, encoded(incident))
            fresh.replace(path)
            self._sync_directory()
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        return incident

    def prune(self) -> None:
        """Remove the oldest of more than we keep; what cannot be read is not ours to remove.

        Raises:  OSError.
        """
        paths = ours(self._directory)
        for path in paths[: max(len(paths) - self.keep, 0)]:
            if entry(path).incident is not None:
                path.unlink(missing_ok=True)

    def case_keys(self) -> list[str]:
        """Of the cases that have been written down, as far as their files can be read."""
        found = (entry(path).incident for path in self._paths())
        return [incident.case.key for incident in found if incident is not None]

    def has_room_for(self, id: str) -> bool:
        """Whether it would not be the oldest of more than we keep."""
        paths = self._paths()
        return len(paths) < self.keep or id > paths[0].stem

    def _paths(self) -> list[Path]:
        try:
            return ours(self._directory)
        except OSError:  # it is made when there is something to write
            return []

    def _free_id(self, id: str) -> str:
        """*id*, or that with a number: two kills within one second may be of the same pid."""
        again = (f"{id}-{number}" for number in range(2, SAME_INSTANT_MAX))
        for one in (id, *again):
            if not (self._directory / f"{one}.json").exists():
                return one
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), id)

    def _write_file(self, path: Path, raw: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        with open(fd, "wb") as file:
            file.write(raw)
            file.flush()
            self._hand_over(fd, FILE_MODE)
            os.fsync(fd)

    def _hand_over(self, fd: int, mode: int) -> None:
        """Let the group read, if there is one; where we may not, they stay with our own."""
        os.fchmod(fd, mode)
        if self._group is None or os.fstat(fd).st_gid == self._group:
            return
        try:
            os.fchown(fd, -1, self._group)
        except PermissionError:  # the unit takes the right to do so away; see its Group=
            return

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def ours(directory: Path) -> list[Path]:
    """The files named as we name them, the oldest first.  Raises OSError."""
    return sorted(path for path in directory.iterdir() if NAME.fullmatch(path.name))


def entries(
    directory: Path, *, since_unix_seconds: float = 0.0, but: Container[str] = ()
) -> Iterator[Entry]:
    """The incidents, the newest first, without those whose files are in *but*.

    Raises:  OSError, if there is no such directory.
    """
    first = identifier(since_unix_seconds, None)
    for path in reversed(ours(directory)):
        if path.name >= first and path.name not in but:
            yield entry(path)


def identifier(unix_seconds: float, pid: int | None) -> str:
    """``20260731T031204Z-4711``: in the order of names as in the order of time."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(unix_seconds, 0.0)))
    return f"{stamp}-{pid or 0}"


def entry(path: Path) -> Entry:
    try:
        raw = read(path)
    except OSError as error:
        return Entry(path, None, error.strerror or str(error))
    try:
        return Entry(path, parsed(raw))
    except Unreadable as error:
        return Entry(path, None, str(error))


def read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, FILE_LIMIT_BYTES)
    finally:
        os.close(fd)
