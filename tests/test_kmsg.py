"""The kernel's log, record by record."""

import errno
import os

import pytest
from kernellog import log_of, raw

from oomwatchd.kernel.kmsg import (
    DRAIN_BYTES_MAX,
    DRAIN_RECORDS_MAX,
    KMSG,
    RECORD_BYTES,
    Batch,
    KernelLog,
    Record,
    parse_record,
)


def numbers(batch: Batch) -> list[int]:
    return [record.sequence for record in batch.records]


def drained(*answers: bytes | int, after: int | None = None) -> Batch:
    log = log_of(answers, after)
    batch = log.drain()
    log.close()
    return batch


def test_a_record_is_taken_apart() -> None:
    record = parse_record(
        b"6,423,1563532156,c,caller=T5654,new=1;some text; more\n SUBSYSTEM=pci\n"
    )

    assert (record.sequence, record.microseconds, record.facility) == (423, 1563532156, 0)
    assert (record.fragment, record.caller, record.text) == (True, "T5654", "some text; more")


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (b"a\\x0ab", "a\nb"),
        (b"\\x5cx0a", "\\x0a"),  # a backslash that the sender wrote
        (b"\\xc3\\xa4", "ä"),
        (b"\\xff(\\xc3", "\\xff(\\xc3"),
        (b"\\x0", "\\x0"),
    ],
)
def test_what_the_kernel_has_escaped_is_as_it_was(escaped: bytes, text: str) -> None:
    assert parse_record(raw(1, escaped)).text == text


@pytest.mark.parametrize(
    "nonsense", [b"", b";", b"6,1,2;x", b"a,1,2,-;x", b"-6,1,2,-;x", b"6,1,2,-", b"6, 1,2,-;x"]
)
def test_anything_else_is_a_value_error(nonsense: bytes) -> None:
    with pytest.raises(ValueError, match="not a record"):
        parse_record(nonsense)


def test_records_come_in_order_until_there_are_no_more() -> None:
    batch = drained(raw(3, b"a"), raw(4, b"b"), raw(5, b"c"))

    assert numbers(batch) == [3, 4, 5]
    assert (batch.lost, batch.more) == (0, False)


def test_what_users_write_is_passed_over_and_not_missed() -> None:
    batch = drained(raw(3, b"a"), raw(4, b"forged", priority=12), raw(5, b"c"))

    assert numbers(batch) == [3, 5]
    assert batch.lost == 0
    assert batch.records[1].lost_before == 0


def test_what_was_overwritten_is_counted_by_the_numbers() -> None:
    batch = drained(raw(3, b"a"), errno.EPIPE, raw(100, b"b"), raw(101, b"c"))

    assert numbers(batch) == [3, 100, 101]
    assert batch.lost == 96
    assert [record.lost_before for record in batch.records] == [0, 96, 0]


def test_the_gap_is_told_with_the_next_record_of_the_kernel_even_a_turn_later() -> None:
    answers: list[bytes | int] = [
        raw(3, b"a"),
        errno.EPIPE,
        raw(100, b"user", priority=12),
        errno.EAGAIN,
    ]
    log = log_of([*answers, raw(101, b"b")])
    first, second = log.drain(), log.drain()
    log.close()

    assert (first.lost, second.lost) == (96, 0)
    assert second.records[0].lost_before == 96


def test_a_record_too_long_to_be_read_is_counted_as_lost() -> None:
    batch = drained(raw(3, b"a"), errno.EINVAL, raw(5, b"c"))

    assert numbers(batch) == [3, 5]
    assert batch.lost == 1


def test_a_record_that_cannot_be_understood_is_counted_as_lost() -> None:
    batch = drained(raw(3, b"a"), b"nonsense\n", raw(5, b"c"))

    assert numbers(batch) == [3, 5]
    assert batch.lost == 1


def test_other_errors_are_not_hidden() -> None:
    log = log_of([errno.EIO])
    with pytest.raises(OSError, match="as told"):
        log.drain()
    log.close()


def test_records_known_from_before_are_passed_over_and_a_gap_since_then_is_told() -> None:
    assert numbers(drained(raw(3, b"a"), raw(4, b"b"), after=3)) == [4]
    assert drained(raw(9, b"a"), after=3).lost == 5


def test_of_a_flood_one_turn_takes_a_bounded_number() -> None:
    log = log_of(raw(number, b"Out of memory") for number in range(100_000))
    batch = log.drain()
    rest = 0
    while (next_batch := log.drain()).records:
        rest += len(next_batch.records)
    log.close()

    assert len(batch.records) == DRAIN_RECORDS_MAX
    assert batch.more
    assert rest == 100_000 - DRAIN_RECORDS_MAX


def test_of_long_records_one_turn_takes_a_bounded_number_of_bytes() -> None:
    batch = drained(*(raw(number, b"x" * 8000) for number in range(1000)))

    assert batch.more
    assert len(batch.records) == DRAIN_BYTES_MAX // 8000


def test_a_reader_that_is_always_too_late_comes_to_an_end() -> None:
    assert drained(*[errno.EPIPE] * 10_000) == Batch(more=True)


@pytest.mark.skipif(not os.access(KMSG, os.R_OK), reason="no kernel log here")
def test_the_log_of_this_kernel_is_understood() -> None:
    try:
        log = KernelLog()
    except PermissionError:
        pytest.skip("CAP_SYSLOG is needed here")
    batch = log.drain()
    log.close()
    found = numbers(batch)

    assert found == sorted(set(found))
    assert batch.lost == 0
    assert all(record.facility == 0 for record in batch.records)


def read_until(log: KernelLog, text: str) -> Record:
    """The record of that text; past those that were overwritten while we read."""
    while True:
        try:
            record = parse_record(os.read(log.fileno(), RECORD_BYTES))
        except BrokenPipeError:
            continue
        if record.text == text:
            return record


@pytest.mark.skipif(not os.access(KMSG, os.R_OK | os.W_OK), reason="no kernel log here")
def test_the_kernel_marks_what_is_written_to_its_log_as_not_its_own() -> None:
    try:
        log = KernelLog()
    except PermissionError:
        pytest.skip("CAP_SYSLOG is needed here")
    claim = f"a test of oomwatchd ({os.getpid()}) says that this is of the kernel itself"
    with KMSG.open("wb", buffering=0) as file:
        file.write(b"<3>" + claim.encode() + b"\n")  # without, it might go on
    record = read_until(log, claim)
    log.close()
    log = KernelLog()
    texts = []
    while (batch := log.drain()).records:
        texts += [one.text for one in batch.records]
    log.close()

    assert (record.text, record.facility) == (claim, 1)
    assert claim not in texts
