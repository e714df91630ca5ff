"""Kernel logs for the tests: captures of /dev/kmsg, dmesg's text, and records made up."""

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from oomwatchd.kernel.kmsg import KernelLog, Record
from oomwatchd.kernel.oom import OomReport
from oomwatchd.kernel.oomreport import OomReports

DATA = Path(__file__).parent / "data/kmsg"
NOWHERE = Path("/dev/null")


def record(number: int, text: str, **fields: Any) -> Record:
    usual = Record(number, number, facility=0, fragment=False, caller=None, text=text)
    return usual._replace(**fields)


def raw(number: int, text: bytes, *, priority: int = 4, flags: bytes = b"-") -> bytes:
    """A record as /dev/kmsg gives it; *text* is taken as it is."""
    return b"%d,%d,%d,%s;%s\n" % (priority, number, number, flags, text)


def read_from(answers: Iterable[bytes | int]) -> Callable[[int, int], bytes]:
    """A read(2) that gives one answer after the other, errors by their number, and then no more."""
    left = iter(answers)

    def read(_fd: int, size: int) -> bytes:
        answer = next(left, errno.EAGAIN)
        if isinstance(answer, int):
            raise OSError(answer, "as told")
        assert len(answer) <= size
        return answer

    return read


def log_of(answers: Iterable[bytes | int], after: int | None = None) -> KernelLog:
    return KernelLog(NOWHERE, after=after, read=read_from(answers))


def records_of(path: Path) -> list[Record]:
    """Of a capture (.kmsg) what KernelLog makes of it; of dmesg's text (.log) a record a line."""
    if path.suffix == ".log":
        return [record(number, line) for number, line in enumerate(path.read_text().splitlines())]
    log = log_of(line for line in path.read_bytes().splitlines(keepends=True))
    records: list[Record] = []
    while (batch := log.drain()).records:
        records += batch.records
    log.close()
    return records


def reports_of(
    records: Iterable[Record], page_bytes: int = 4096, swap_bytes: int = 0
) -> tuple[list[OomReport], int]:
    """The reports, and how often there was nobody to kill."""
    reports = OomReports(page_bytes, swap_bytes)
    found = [report for one in records for report in reports.feed(one)]
    return found + reports.flush(), reports.fruitless
