"""`oomwatchd top`: what a frame shows of given facts, at given sizes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.cli.table import cells
from oomwatchd.cli.top.facts import Facts, Kill, Kills, Row, RuleTotal
from oomwatchd.cli.top.frame import Size, frame, layout, page
from oomwatchd.cli.top.line import text_of
from oomwatchd.cli.top.view import Page, View, keys, pressed
from oomwatchd.kernel.status import Memory
from oomwatchd.model import Pressure
from oomwatchd.text import GIB, MIB

TRAINER = Row(3, 4711, "python3", -900, 12 * GIB, -16 * GIB, "training", command="python3 train.py")
BROWSER = Row(1, 812, "chrome", 300, GIB, 10 * GIB, "browser", command="/opt/chrome --type=x")
SHELL = Row(2, 99, "bash", 0, 5 * MIB, 5 * MIB, command="-bash")
GUARD = Row(None, 7, "guard", -1000, 2 * GIB, None, command="guard")
RULES = (
    RuleTotal(
        "training",
        -900,
        protects=True,
        processes=1,
        memory_bytes=12 * GIB,
        exposed={"systemd_oomd": 1, "cgroup": 0},
    ),
    RuleTotal("browser", 300, protects=False, processes=1, memory_bytes=GIB, exposed={}),
)
KILL = Kill(1_700_000_000.0, "kernel", 4700, "python3", 62 * GIB, "training", "sudden_copy")
FACTS = Facts(
    unix_seconds=1_700_000_100.0,
    host="node1",
    memory=Memory(32 * GIB, 8 * GIB, 8 * GIB, 6 * GIB),
    pressure=Pressure(12.5, 0, 0, 0, 3.25, 0, 0, 0),
    level="warning",
    daemon="daemon up 3 h 2 min",
    daemon_runs=True,
    rows=(BROWSER, SHELL, TRAINER, GUARD),
    rules=RULES,
    kills=Kills((KILL,)),
    notes=(),
)
USUAL = Size(80, 24)
WIDE = Size(120, 40)
SMALL = Size(40, 10)
ANY_TEXT = st.text(max_size=40)
VIEWS = (View(), View(help=True), View(order="memory", first=3, paused=True))


def shown(facts: Facts = FACTS, size: Size = USUAL, **chosen: Any) -> list[str]:
    return [text_of(line) for line in frame(facts, View(**chosen), size)]


def line_with(words: str, lines: list[str]) -> str:
    [found] = [line for line in lines if words in line]
    return found


def many(count: int) -> Facts:
    rows = [SHELL._replace(rank=rank, pid=1000 + rank, name=f"p{rank}") for rank in range(1, count)]
    return FACTS._replace(rows=tuple(rows))


# -- what is told ----------------------------------------------------------------------------------


def test_processes_stand_in_order_of_death_with_value_memory_points_and_rule() -> None:
    lines = shown()
    start = next(place for place, line in enumerate(lines) if "POINTS" in line)

    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ["1", "812", "300", "1.0", "GiB", "10.0", "GiB", "browser", "chrome", "--type=x"],
        ["2", "99", "0", "5", "MiB", "5", "MiB", "bash", "-bash"],
        ["3", "4711", "-900", "12.0", "GiB", "-16.0", "GiB", "training", "python3", "train.py"],
        ["never", "7", "-1000", "2.0", "GiB", "guard"],
    ]


def test_by_memory_the_largest_is_first_and_keeps_its_place_in_the_order_of_death() -> None:
    lines = shown(order="memory")
    start = next(place for place, line in enumerate(lines) if "POINTS" in line)

    assert [line.split()[:2] for line in lines[start + 1 : start + 5]] == [
        ["3", "4711"],
        ["never", "7"],
        ["1", "812"],
        ["2", "99"],
    ]
    assert "by memory, 1-4 of 4" in lines[-1]


def test_a_rule_has_its_processes_their_memory_and_the_killers_that_are_left() -> None:
    lines = shown()

    assert "training  -900      1 12.0 GiB        0 systemd_oomd (1)" in lines
    assert "browser    300      1  1.0 GiB        0 -" in lines


def test_without_an_audit_nobody_is_called_safe() -> None:
    rules = (RULES[0]._replace(exposed=None),)

    assert line_with("training  -900", shown(FACTS._replace(rules=rules))).endswith(" unknown")


def test_a_value_that_is_not_the_rules_is_marked_and_counted() -> None:
    late = TRAINER._replace(oom_score_adj=0, as_wanted=False)
    rules = (RULES[0]._replace(not_set=1, exposed={}),)
    lines = shown(FACTS._replace(rows=(late,), rules=rules))

    assert "!training" in line_with("4711", lines)
    assert "training  -900      1 12.0 GiB        1 nothing" in lines


def test_gauges_tell_memory_swap_and_pressure_in_numbers() -> None:
    lines = shown()

    assert lines[1].split("]")[0] == "memory   [||||||||   "
    assert "24.0 of 32.0 GiB  swap" in lines[1]
    assert "2.0 of 8.0 GiB" in lines[1]
    assert "12.5 % of 10 s" in lines[2]
    assert "3.2 % of 10 s" in lines[2]
    assert "pressure WARNING" in lines[0]


def test_a_kernel_without_pressure_is_said_to_be_one() -> None:
    lines = shown(FACTS._replace(pressure=None))

    assert "psi some not measured; try" in lines[2]
    assert "pressure not known" in lines[0]


def test_the_last_kills_tell_when_by_whom_and_how_large() -> None:
    line = line_with("kernel", shown())

    assert line.split()[2:] == ["kernel", "4700", "62.0", "GiB", "training", "python3"]
    assert "sudden copy" in line_with("kernel", shown(size=WIDE))


def test_no_kills_and_kills_that_may_not_be_read_are_told_apart() -> None:
    assert "none on record" in shown(FACTS._replace(kills=Kills(())))
    assert "not for you" in shown(FACTS._replace(kills=Kills((), "not for you")))


def test_what_could_not_be_seen_is_said_and_all_of_it_in_the_help() -> None:
    facts = FACTS._replace(notes=("first", "second"))

    assert "! first (and 1 more: ?)" in shown(facts)
    assert {"! first", "! second"} <= set(shown(facts, help=True))


def test_a_pause_is_said_in_words() -> None:
    assert shown(paused=True)[0].startswith("PAUSED")
    assert shown()[0].startswith("oomwatchd")


def test_a_small_screen_keeps_what_tells_who_dies_next() -> None:
    lines = shown(size=SMALL)

    assert lines[3].split() == ["#", "PID", "ADJ", "MEMORY", "NAME"]
    assert lines[4].split() == ["1", "812", "300", "1.0", "GiB", "chrome"]
    assert [line for line in lines if "LAST KILLS" in line or "PROCS" in line] == []


def test_of_more_rules_than_fit_those_with_the_most_memory_are_shown() -> None:
    rules = tuple(
        RuleTotal(f"rule{number}", 5, protects=False, memory_bytes=number) for number in range(50)
    )
    lines = shown(FACTS._replace(rules=rules))

    assert [line for line in lines if line.startswith("rule49 ")]
    assert not [line for line in lines if line.startswith("rule0 ")]


def test_keys_are_named_where_there_is_a_keyboard_alone() -> None:
    printed = frame(FACTS, View(), USUAL, interactive=False)

    assert shown()[-1].startswith("q quit  ? help")
    assert text_of(printed[-1]).strip() == "order of death, 1-4 of 4"


# -- what nobody may change ------------------------------------------------------------------------


@given(ANY_TEXT, ANY_TEXT, st.integers(1, 130), st.integers(1, 50), st.sampled_from(VIEWS))
def test_a_frame_fills_the_screen_and_no_more_whatever_a_process_calls_itself(
    name: str, command: str, width: int, height: int, view: View
) -> None:
    facts = FACTS._replace(
        rows=(TRAINER._replace(name=name, command=command, user=name),),
        kills=Kills((KILL._replace(name=name, killer=name),), name),
        notes=(command,),
        host=name,
    )
    lines = frame(facts, view, Size(width, height))

    assert len(lines) == height
    assert all(sum(cells(span.text) for span in line) <= width for line in lines)
    assert all(span.text.isprintable() for line in lines for span in line)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("[red]x[/]", "[red]x[/]"),
        ("a\nb", "a\\nb"),
        ("\u202egnp", "\\u202egnp"),
        ("\u200b", "\\u200b"),
    ],
)
def test_a_name_is_shown_and_not_obeyed(raw: str, told: str) -> None:
    lines = shown(FACTS._replace(rows=(SHELL._replace(name=raw, command=f"x {raw}"),)))

    assert line_with("   99 ", lines).endswith(f"{told:15} x {told}")


@given(st.lists(ANY_TEXT, min_size=3, max_size=3))
def test_no_name_moves_a_column(texts: list[str]) -> None:
    """Up to the name, rows with any names have the same cells at the same places."""
    rows = tuple(one._replace(name=text) for one, text in zip(FACTS.rows, texts, strict=False))
    columns = shown(FACTS._replace(rows=rows))
    usual = shown(FACTS._replace(rows=FACTS.rows[:3]))
    start = next(place for place, line in enumerate(usual) if "POINTS" in line)
    before_name = usual[start].index("NAME")

    for line, expected in zip(columns[start:], usual[start : start + 4], strict=False):
        assert line[:before_name].rstrip() == expected[:before_name].rstrip()


def test_wide_characters_take_two_cells_and_are_cut_at_the_edge() -> None:
    wide = "\u4e2d"
    lines = shown(FACTS._replace(rows=(SHELL._replace(name=wide * 15, command="x"),)))

    assert line_with("   99 ", lines).endswith(f" {wide * 6}... x")


def test_sections_stay_where_they_are_as_processes_come_and_go() -> None:
    empty = FACTS._replace(rows=(), kills=Kills(()))

    assert layout(empty, USUAL) == layout(FACTS, USUAL) == layout(many(5000), USUAL)


@pytest.mark.parametrize("size", [USUAL, WIDE, SMALL, Size(200, 60), Size(60, 16)])
def test_there_is_always_room_for_processes(size: Size) -> None:
    rules = tuple(RuleTotal(f"rule{number}", 5, protects=False) for number in range(100))

    assert layout(FACTS._replace(rules=rules, notes=("n",) * 9), size).processes >= 5


@pytest.mark.parametrize(
    "other",
    [
        FACTS._replace(level="critical"),
        FACTS._replace(daemon="daemon not running", daemon_runs=False),
        FACTS._replace(rows=(BROWSER._replace(as_wanted=False), *FACTS.rows[1:])),
        FACTS._replace(rows=(BROWSER._replace(rank=2), *FACTS.rows[1:])),
        FACTS._replace(rows=(BROWSER._replace(rank=None), *FACTS.rows[1:])),
        FACTS._replace(rows=(BROWSER._replace(oom_score_adj=-300), *FACTS.rows[1:])),
        FACTS._replace(rules=(RULES[0]._replace(exposed={}), RULES[1])),
        FACTS._replace(rules=(RULES[0]._replace(not_set=1), RULES[1])),
        FACTS._replace(kills=Kills((KILL._replace(rule=None),))),
    ],
)
def test_nothing_is_said_by_colour_alone(other: Facts) -> None:
    def styles(facts: Facts) -> list[str]:
        return [span.style for line in frame(facts, View(), USUAL) for span in line]

    assert styles(other) != styles(FACTS)
    assert shown(other) != shown(FACTS)


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"q", ["quit"]),
        (b"ms ?", ["memory", "death", "pause", "help"]),
        (b"\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~", ["home", "end", "home", "end"]),
        (b"\x1bq", ["quit"]),
        (b"\x1b[15~x\xff\x00", []),
    ],
)
def test_keys_are_known_by_what_terminals_send(raw: bytes, names: list[str]) -> None:
    assert keys(raw) == names


@given(st.binary(max_size=50))
def test_no_bytes_are_too_much_for_the_keys(raw: bytes) -> None:
    assert set(keys(raw)) <= {
        *("up", "down", "page up", "page down", "home", "end"),
        *("quit", "death", "memory", "pause", "help"),
    }


def test_scrolling_ends_where_the_rows_end() -> None:
    shown_page = Page(rows=10, total=25)
    firsts = []
    view = View()
    for key in ("up", "down", "page down", "page down", "down", "page up", "home", "end"):
        view = pressed(view, key, shown_page)
        firsts.append(view.first)

    assert firsts == [0, 1, 11, 15, 15, 5, 0, 15]


def test_rows_that_are_gone_leave_no_empty_screen() -> None:
    lines = shown(many(12), first=5000)

    assert "p11" in "".join(lines)
    assert lines[-1].endswith(f"-11 of {page(many(12), USUAL).total}")


def test_any_key_closes_the_help_and_does_nothing_else() -> None:
    helped = pressed(View(), "help", Page(10, 25))

    assert helped.help
    assert pressed(helped, "memory", Page(10, 25)) == View()


def test_sorting_begins_at_the_top_and_a_pause_ends_as_it_began() -> None:
    shown_page = Page(rows=10, total=25)

    assert pressed(View(first=7), "memory", shown_page) == View(order="memory")
    assert pressed(View(first=7, order="memory"), "death", shown_page) == View()
    assert pressed(pressed(View(), "pause", shown_page), "pause", shown_page) == View()
