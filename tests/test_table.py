"""Columns and sizes for people."""

import io
import os
from collections.abc import Iterator
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.cli.table import Column, bold, cells, show, table, terminal_width, wrapped
from oomwatchd.text import size

COLUMNS = [Column("PID", right=True), Column("NAME", cut=True), Column("ADJ", right=True)]


@pytest.fixture
def terminal(pseudo_terminal: tuple[int, int]) -> Iterator[TextIO]:
    leader, follower = pseudo_terminal
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as stream:
        yield stream


def test_numbers_stand_to_the_right_and_names_to_the_left() -> None:
    lines = list(table(COLUMNS, [["1", "systemd", "0"], ["31337", "cat", "-900"]], None))

    assert lines == [
        "  PID  NAME      ADJ",
        "    1  systemd     0",
        "31337  cat      -900",
    ]


def test_without_rows_the_heading_stands_alone() -> None:
    assert list(table(COLUMNS, [], 80)) == ["PID  NAME  ADJ"]


def test_wide_characters_and_accents_keep_the_columns_aligned() -> None:
    lines = list(table(COLUMNS, [["1", "訓練", "0"], ["2", "e\u0301te\u0301", "0"]], None))

    assert {cells(line) for line in lines} == {len("PID  NAME  ADJ")}


def test_only_a_column_that_may_be_cut_is_cut_to_fit_the_terminal() -> None:
    rows = [["1", "a-name-of-twenty-six-letters", "-900"]]

    assert list(table(COLUMNS, rows, 24))[1] == "  1  a-name-of-...  -900"
    assert list(table(COLUMNS, rows, None))[1] == "  1  a-name-of-twenty-six-letters  -900"


def test_a_cell_cannot_break_the_line_or_write_to_the_terminal() -> None:
    lines = list(table(COLUMNS, [["1", "x\n2  forged\x1b[2J\u202e", "0"]], None))

    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


numbers = st.integers(0, 999).map(str)


@given(st.lists(st.tuples(numbers, st.text(), numbers)), st.integers(30, 200))
def test_every_line_fits_where_the_uncut_columns_leave_room(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    lines = list(table(COLUMNS, rows, width))

    assert len(lines) == len(rows) + 1
    assert all(cells(line) <= width for line in lines)


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0.0 MiB"),
        (13_107 * 4096, "51.2 MiB"),
        (1 << 30, "1.0 GiB"),
        (-5_452_048 * 4096, "-20.8 GiB"),
        (3 << 40, "3072.0 GiB"),
    ],
)
def test_sizes_are_in_mib_and_from_one_gib_on_in_gib(size_bytes: int, shown: str) -> None:
    assert size(size_bytes) == shown


def test_a_name_that_is_longer_than_the_line_stays_whole() -> None:
    name = "vte-spawn-6a1f0c52-8d9e-4f3b-9c77-d2f1b0a3e845.scope"

    assert list(wrapped("  ", f"of {name} too", 30)) == ["  of", f"  {name}", "  too"]


def test_a_size_that_is_added_shows_its_sign() -> None:
    assert size(300 * 8388 * 4096, sign=True) == "+9.6 GiB"


def test_bold_is_for_terminals_whose_user_did_not_ask_for_none(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert bold("RANK", terminal) == "\x1b[1mRANK\x1b[0m"
    assert bold("RANK", io.StringIO()) == "RANK"

    monkeypatch.setenv("NO_COLOR", "")  # as if it were not there; no-color.org
    assert bold("RANK", terminal) == "\x1b[1mRANK\x1b[0m"

    monkeypatch.setenv("NO_COLOR", "1")
    assert bold("RANK", terminal) == "RANK"


def test_the_width_is_that_of_a_terminal_and_of_nothing_else(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")

    assert terminal_width(terminal) == 72
    assert terminal_width(io.StringIO()) is None


def test_what_the_encoding_does_not_have_is_shown_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    show(["naïve 訓"], stream)
    stream.flush()

    assert raw.getvalue() == b"na\\xefve \\u8a13\n"


def test_what_fails_in_making_a_line_is_no_fault_of_the_stream() -> None:
    def lines() -> Iterator[str]:
        yield "one"
        raise FileNotFoundError("/proc/7/status")

    with pytest.raises(FileNotFoundError):
        show(lines(), io.StringIO())
