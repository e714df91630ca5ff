"""The log: what each piece of news reads like, how often, and that nobody can forge a line."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.journal import LINES_PER_SECOND, JournalFormatter, Narrator, log
from oomwatchd.model import Change, ProcessId
from oomwatchd.record import (
    Adjustment,
    AuditFailed,
    Drift,
    GaveUp,
    Guarded,
    JournalUnread,
    LedgerFailed,
    Marking,
    Moving,
    News,
    ReadsHang,
    Untold,
)
from oomwatchd.text import decoded

ID = ProcessId(7, 100)
MIB = 1 << 20


def adjustment(result: str = "applied", comm: str = "postgres", reason: str = "") -> Adjustment:
    change = Change(ID, comm, "db", -900)
    return Adjustment(change, 0, result, reason)  # type: ignore[arg-type]  # one of Result


class Told(logging.Handler):
    """What was logged, as the journal gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JournalFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += self.format(record).split("\n")


@pytest.fixture
def told() -> Iterator[list[str]]:
    handler, level, propagate = Told(), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield handler.lines
    log.removeHandler(handler)
    log.setLevel(level)
    log.propagate = propagate


def lines_of(item: News, *, dry_run: bool = False) -> list[str]:
    return [text for _, text in Narrator(dry_run=dry_run).lines(item)]


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (adjustment(), "<6>process 7 'postgres', rule db: set 0 -> -900"),
        (adjustment("restored"), "<6>process 7 'postgres', rule db: set 0 -> -900"),
        (
            adjustment("refused", reason="EACCES"),
            "<4>process 7 'postgres', rule db: refused (EACCES); said once for rule db",
        ),
        (
            Drift(ID, "postgres", "db", -900, 5, yielded=False),
            "<4>process 7 'postgres': somebody changed -900 of rule db to 5; set again",
        ),
        (
            Drift(ID, "postgres", "db", -900, 5, yielded=True),
            "<4>process 7 'postgres': somebody changed -900 of rule db to 5; left at that",
        ),
        (
            GaveUp(ID, "postgres", "matching its command line took too long"),
            "<4>process 7 'postgres': matching its command line took too long; no rule for it",
        ),
        (
            Guarded(tripped=True, held_bytes=600 * MIB, limit_bytes=512 * MIB),
            "<4>unkillable_memory_max: processes at -1000 hold 600 MiB, more than 512: set to -999",
        ),
        (
            Guarded(tripped=True, held_bytes=600 * MIB, limit_bytes=512 * MIB, left=2),
            "<4>unkillable_memory_max: processes at -1000 hold 600 MiB, more than 512: set to -999,"
            " but for 2 that could not be; tried again at each look",
        ),
        (
            ReadsHang(16),
            "<4>16 reads of command lines hang: until one of them ends, no other is tried",
        ),
        (
            Guarded(tripped=False, held_bytes=100 * MIB, limit_bytes=512 * MIB),
            "<4>unkillable_memory_max: processes at -1000 hold 100 MiB again, of 512: "
            "-1000 is given again",
        ),
        (
            Marking("/a.scope", "db", "applied"),
            "<6>cgroup '/a.scope', rule db: marked, systemd-oomd passes it over",
        ),
        (
            Marking("/a.scope", "db", "repaired"),
            "<6>cgroup '/a.scope': somebody had removed the mark for systemd-oomd (systemd does, "
            "at a daemon-reload); marked again, said once for rule db",
        ),
        (
            Marking("/a.scope", "", "restored"),
            "<6>cgroup '/a.scope': took our mark for systemd-oomd back",
        ),
        (
            Marking("/a.scope", "db", "refused", "EROFS"),
            "<4>cgroup '/a.scope': cannot be marked for systemd-oomd (EROFS); "
            "said once for rule db",
        ),
        (
            Moving(ID, "db", "moved", "/oomwatchd.slice/oomwatchd-db-7.scope", 3),
            "<6>process 7, rule db: moved to oomwatchd-db-7.scope (3 processes)",
        ),
        (
            Moving(ID, "db", "failed", reason="systemd said no"),
            "<4>process 7, rule db: not moved to a scope of its own: systemd said no; "
            "said once for rule db",
        ),
        (
            JournalUnread("/usr/bin/journalctl: exit status 1"),
            "<4>kills that were not heard of are not found in the journal: "
            "/usr/bin/journalctl: exit status 1",
        ),
        (
            Untold(607),
            "<4>more kills than can be told one by one: 607 so far, of processes under no rule, "
            "and those that follow are counted (oomwatchd_oom_kills_total) and no more; said once",
        ),
        (
            AuditFailed("it took longer than 45 s"),
            "<4>audit: what can still kill the processes under rules is not known: it took longer "
            "than 45 s",
        ),
        (
            LedgerFailed("No space left on device"),
            "<3>cannot write the ledger: No space left on device; should this daemon crash now, "
            "what processes had before will not be put back",
        ),
    ],
)
def test_each_piece_of_news_is_one_line_with_its_priority(
    item: News, line: str, told: list[str]
) -> None:
    Narrator(dry_run=False).tell([item], 0.0)

    assert told == [line]


@pytest.mark.parametrize("result", ["gone", "drifted"])
def test_what_is_counted_and_no_news_has_no_line(result: str) -> None:
    assert lines_of(adjustment(result)) == []


@pytest.mark.parametrize("result", ["there", "gone"])
def test_a_move_that_was_not_needed_has_no_line(result: str) -> None:
    assert lines_of(Moving(ID, "db", result)) == []  # type: ignore[arg-type]  # one of MoveResult


@pytest.mark.parametrize(
    "item",
    [
        Marking("/a.scope", "db", "repaired"),
        Marking("/a.scope", "db", "refused", "EROFS"),
        Moving(ID, "db", "failed", reason="systemd said no"),
    ],
)
def test_what_may_happen_again_and_again_is_said_once_for_its_rule(
    item: Marking | Moving, told: list[str]
) -> None:
    narrator = Narrator(dry_run=False)
    narrator.tell([item] * 3, 0.0)
    narrator.tell([item._replace(rule="other")], 0.0)

    assert len(told) == 2


def test_the_name_of_a_cgroup_cannot_forge_a_line(told: list[str]) -> None:
    name = "/a\n<3>process 1 'init': gone\x1b[2J\udcff"
    Narrator(dry_run=False).tell([Marking(name, "db", "applied")], 0.0)

    assert len(told) == 1
    assert told[0].isprintable()


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (adjustment(), "process 7 'postgres', rule db: would set 0 -> -900"),
        (
            Marking("/a.scope", "db", "applied"),
            "cgroup '/a.scope', rule db: would mark it",
        ),
        (
            Moving(ID, "db", "moved"),
            "process 7, rule db: would move it with its descendants to a scope of its own",
        ),
    ],
)
def test_a_dry_run_says_would(item: News, line: str) -> None:
    assert lines_of(item, dry_run=True) == [line]


def test_a_dry_run_says_once_what_it_would_set_until_that_is_something_else(
    told: list[str],
) -> None:
    narrator = Narrator(dry_run=True)
    other = Change(ID, "postgres", "web", 500)
    successor = Change(ID._replace(start_ticks=ID.start_ticks + 1), "postgres", "web", 500)
    for change in (other, other, successor, successor, other):
        narrator.tell([Adjustment(change, 0, "applied")], 0.0)

    assert len(told) == 3


def test_what_is_set_again_is_told_again(told: list[str]) -> None:
    narrator = Narrator(dry_run=False)
    for _ in range(2):
        narrator.tell([adjustment()], 0.0)

    assert len(told) == 2


def test_a_refusal_is_told_once_for_each_rule_and_reason(told: list[str]) -> None:
    narrator = Narrator(dry_run=False)
    other_rule = Adjustment(Change(ID, "x", "web", 5), 0, "refused", "EACCES")
    for _ in range(3):
        narrator.tell(
            [
                adjustment("refused", reason="EACCES"),
                adjustment("refused", reason="EROFS"),
                other_rule,
            ],
            0.0,
        )

    assert [re.findall(r"rule (\w+): refused \((\w+)\)", line) for line in told] == [
        [("db", "EACCES")],
        [("db", "EROFS")],
        [("web", "EACCES")],
    ]


@pytest.mark.parametrize(("news", "lines"), [(0, 0), (1, 1), (20, 20), (21, 21), (5000, 21)])
def test_a_turn_has_twenty_lines_and_the_end_says_how_many_more(
    news: int, lines: int, told: list[str]
) -> None:
    narrator = Narrator(dry_run=False)
    narrator.tell([adjustment()] * news, 0.0)
    narrator.close()

    assert len(told) == lines
    if news > LINES_PER_SECOND:
        assert told[-1] == f"<6>and {news - LINES_PER_SECOND} more within a second"


def test_in_a_storm_a_second_has_twenty_lines_however_many_turns(told: list[str]) -> None:
    narrator = Narrator(dry_run=False)
    for turn in range(100):
        narrator.tell([adjustment()] * 5, turn / 100)
    first = len(told)
    narrator.tell([adjustment()] * 5, 1.0)
    narrator.tell([], 5.0)

    assert first == LINES_PER_SECOND
    assert told[first] == "<6>and 480 more within a second"
    assert len(told) == first + 1 + 5


def test_news_without_words_is_a_fault_of_ours() -> None:
    with pytest.raises(TypeError, match="no words"):
        list(Narrator(dry_run=False).lines("nonsense"))


# -- hostile names ---------------------------------------------------------------------------------

FORGERIES = [
    b"a\n<0>forged",
    b"a\r<0>forged",
    b"a\x0b<0>b",
    b"a\x0c<0>b",
    b"a\x1c\x1d\x1e<0>b",
    "a\u2028<0>b".encode(),
    "a\x85<0>b".encode(),
    b"\x1b[2J\x1b[1;1H",
    "\u202egpj".encode(),
    b"\xff\xfe",
    b"%s%d%n",
    b"\0\0",
]


def about(comm: str) -> list[News]:
    return [
        adjustment(comm=comm),
        adjustment("refused", comm, "EACCES"),
        Drift(ID, comm, "db", -900, 5, yielded=True),
        GaveUp(ID, comm, "its command line could not be read in time"),
    ]


@pytest.mark.parametrize("comm", FORGERIES)
def test_a_name_cannot_forge_a_line(comm: bytes, told: list[str]) -> None:
    news = about(decoded(comm))
    Narrator(dry_run=False).tell(news, 0.0)

    assert len(told) == len(news)
    assert all(re.fullmatch(r"<[46]>process 7 '[ -~]*'.*", line) for line in told)
    assert all(line.isprintable() for line in told)


@given(st.binary(max_size=15))
def test_no_name_at_all_can(comm: bytes) -> None:
    for item in about(decoded(comm)):
        [line] = lines_of(item)

        assert line.isprintable()
        assert len(line.splitlines()) == 1


# -- the form --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)],
)
def test_levels_are_priorities_of_the_journal(level: int, priority: int) -> None:
    record = logging.LogRecord("x", level, __file__, 1, "text", None, None)

    assert JournalFormatter().format(record) == f"<{priority}>text"


def test_a_traceback_has_its_priority_on_each_line() -> None:
    try:
        raise ValueError("broken\n<6>fine")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "x", None, sys.exc_info())
    lines = JournalFormatter().format(record).split("\n")

    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_on_a_terminal_there_is_no_priority(pseudo_terminal: tuple[int, int]) -> None:
    primary, secondary = pseudo_terminal
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "text", None, None)
    with (
        open(secondary, "w", encoding="utf-8") as terminal,
        open(primary, "rb"),
        contextlib.redirect_stderr(terminal),
    ):
        text = JournalFormatter().format(record)

    assert text == "text"
    assert JournalFormatter().format(record) == "<6>text"
