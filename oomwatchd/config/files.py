"""Opening the files: bounded, without waiting, and only what root alone could have written."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.config.fault import START, Report

LIMIT_BYTES: Final = 256 << 10  # the loader takes some 10 us a byte, while the loop stands still
FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a FIFO must not block
WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
FRAGMENT_SUFFIX: Final = ".yaml"


class Source(NamedTuple):
    """A file as read; *raw* is None if it could not be, which *report* then says."""

    report: Report
    raw: bytes | None


def main_file(path: Path, *, root_only: bool) -> Source:
    """Raises: OSError, if it cannot be opened."""
    report = Report(str(path))
    fd = os.open(path, FLAGS)
    try:
        return Source(report, contents(fd, report, root_only=root_only))
    finally:
        os.close(fd)


def fragments(path: Path, *, root_only: bool) -> Iterator[Source]:
    """The files of ``PATH.d``, in name order; what cannot be read is told in its report."""
    directory = Report(f"{path}.d")
    try:
        directory_fd = os.open(directory.file, FLAGS | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        unreadable(directory, error)
        yield Source(directory, None)
        return
    try:
        if root_only:
            check_owner(os.fstat(directory_fd), directory)
            yield Source(directory, None)
        for name in sorted(os.listdir(directory_fd)):
            if name.endswith(FRAGMENT_SUFFIX) and not name.startswith("."):
                yield fragment(name, directory_fd, directory.file, root_only=root_only)
    finally:
        os.close(directory_fd)


def fragment(name: str, directory_fd: int, directory: str, *, root_only: bool) -> Source:
    report = Report(f"{directory}/{name}")
    try:
        fd = os.open(name, FLAGS, dir_fd=directory_fd)
    except OSError as error:
        unreadable(report, error)
        return Source(report, None)
    try:
        return Source(report, contents(fd, report, root_only=root_only))
    except OSError as error:
        unreadable(report, error)
        return Source(report, None)
    finally:
        os.close(fd)


def unreadable(report: Report, error: OSError) -> None:
    report.fault(START, f"cannot be read: {error.strerror}; make it readable or take it away")


def contents(fd: int, report: Report, *, root_only: bool) -> bytes | None:
    """All of the file; None if it is not one that could be a configuration."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        report.fault(START, "is not a regular file; allowed: regular files, and links to them")
        return None
    if root_only:
        check_owner(status, report)
    parts = []
    left = LIMIT_BYTES + 1
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    if not left:
        report.fault(START, f"is too large; allowed: {LIMIT_BYTES >> 10} KiB")
        return None
    return b"".join(parts)


def check_owner(status: os.stat_result, report: Report) -> None:
    """Whoever can write the configuration decides which programs of root's get killed."""
    if status.st_uid != 0:
        report.fault(
            START,
            f"must belong to root, not to uid {status.st_uid}; chown root {report.file}",
        )
    if status.st_mode & WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        report.fault(
            START,
            f"must not be writable by group or others, mode is {mode:04o}; "
            f"chmod go-w {report.file}",
        )
