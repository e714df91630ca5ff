"""The benchmark: that it counts what it says, and that what it could miss is told."""

import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import chart, contenders, execs, gates, meters, programs, report, soak
from bench.programs import OURS, OURS_VALUE, Launched
from bench.report import Bar
from oomwatchd.config import parse

DOCUMENT = report.DOCUMENT.read_text(encoding="utf-8")
LAUNCHED = Launched(
    started=600, missed=3, seconds=10.0, cpu_microseconds=240_000.0, starts=(), delays=(700, 800)
)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cc"):
        pytest.skip("no cc")
    directory = tmp_path_factory.mktemp("bench")
    programs.build(directory)
    return directory


# -- the programs


def test_programs_whose_value_nobody_sets_are_missed(built: Path) -> None:
    launcher = programs.launching(built, OURS, rate=100, seconds=0.2, lives_milliseconds=30)

    found = programs.launched(launcher)

    assert found.started > 0
    assert found.missed == found.started


def test_programs_that_look_all_the_time_are_missed_as_well(built: Path) -> None:
    launcher = programs.launching(
        built, OURS, rate=20, seconds=0.2, lives_milliseconds=30, every_microseconds=0
    )

    found = programs.launched(launcher)

    assert found.missed == found.started > 0
    assert found.delays == ()


def test_programs_that_await_nothing_are_never_missed(built: Path) -> None:
    launcher = programs.launching(built, programs.NOBODYS, rate=100, seconds=0.2)

    found = programs.launched(launcher)

    assert found.started > 0
    assert found.missed == 0
    assert found.cpu_microseconds > 0


def test_forks_are_started_one_after_the_other(built: Path) -> None:
    found = programs.launched(programs.launching(built, programs.FORK, rate=0, seconds=0.2))

    assert found.started > 10
    assert found.missed == 0


@pytest.mark.parametrize("every_microseconds", [0, 50])
def test_a_program_tells_how_long_its_value_took(built: Path, every_microseconds: int) -> None:
    began = time.monotonic_ns()
    command = [str(built / OURS), str(began), str(OURS_VALUE), "30000", str(every_microseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as target:
        before = time.monotonic_ns()
        Path(f"/proc/{target.pid}/oom_score_adj").write_text(str(OURS_VALUE))
        printed, _ = target.communicate()

    to_main, to_value = map(int, printed.split())
    assert target.returncode == 0
    assert 0 < to_main <= to_value
    assert to_value >= (before - began) // 1000


def test_a_program_that_looks_once_sees_a_value_that_has_come(built: Path) -> None:
    command = [str(built / OURS), str(time.monotonic_ns()), str(OURS_VALUE), "300", "-1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as target:
        Path(f"/proc/{target.pid}/oom_score_adj").write_text(str(OURS_VALUE))
        printed, _ = target.communicate()

    assert (target.returncode, printed) == (0, b"")


def test_sleepers_are_as_many_as_asked_for_and_end_with_us(built: Path) -> None:
    with programs.sleepers(built, 20, 7):
        during = [process.cmdline() for process in psutil.Process().children(recursive=True)]

    sleeping = [command for command in during if command[1:2] == ["sleep"]]
    assert len(sleeping) == 20
    assert sum("--pool=none" not in command for command in sleeping) == 7
    assert psutil.Process().children(recursive=True) == []


def test_what_the_launcher_prints_is_understood() -> None:
    found = programs.parse_launched(["500 700", "510 800", "all 3 1 10.001 900"])

    assert found == Launched(3, 1, 10.001, 900.0, starts=(500, 510), delays=(700, 800))
    assert found.cpu_of_one == 300.0


# -- the rules


def test_there_are_a_hundred_rules_and_nothing_is_wrong_with_them() -> None:
    loaded = parse(contenders.configuration({"events": "off"}, 9999).encode(), "bench")

    assert len(loaded.config.rules) == 100
    assert loaded.warnings == ()


def test_a_rule_matches_the_programs_started_but_not_their_launcher() -> None:
    """Else they would inherit their value, and nobody could be missed."""
    target = f"/x/{OURS} 123456789 345 300 -1"
    launcher = f"/x/launch 500.0 60 /x/{OURS} 345 300 -1"

    def matching(cmdline: str) -> list[str]:
        return [name for name, text in contenders.rules().items() if re.search(text, cmdline)]

    assert matching(target) == ["launched"]
    assert matching(launcher) == []


# -- what is made of it

STRACE = """\
411   1795348000.100000 read(5, ""..., 4096) = 12
411   1795348002.000000 close(5) = 0
412   1795348002.000100 futex(0x7f0384000b70, FUTEX_WAIT_PRIVATE, 2, NULL <unfinished ...>
411   1795348002.000200 futex(0x7f0384000b70, FUTEX_WAKE_PRIVATE, 1) = 1
412   1795348002.000300 <... futex resumed>) = 0
411   1795348002.000400 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=9, si_uid=0} ---
412   1795348002.000500 +++ exited with 0 +++
"""


def test_system_calls_are_counted_once_and_from_when_it_is_asked_for() -> None:
    assert meters.calls_counted(STRACE, 1795348000.0) == 4
    assert meters.calls_counted(STRACE, 1795348002.0) == 3


def test_no_trace_is_no_call() -> None:
    assert meters.calls_counted("", 0.0) == 0


def test_a_trace_that_is_not_understood_is_not_no_call() -> None:
    with pytest.raises(SystemExit, match="strace wrote: strace: something"):
        meters.calls_counted("strace: something else\n", 0.0)


def test_the_calls_before_it_has_settled_are_not_counted(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("no strace")
    busy_then_idle = "import os,time\nfor _ in range(9999): os.getppid()\nwhile 1: time.sleep(.1)"
    with subprocess.Popen([sys.executable, "-c", busy_then_idle]) as process:
        found = meters.calls_beside({"it": process.pid}, tmp_path, 1.0, settle_seconds=3.0)
        process.kill()

    assert 5 <= found["it"] <= 30


def test_a_process_that_cannot_be_traced_is_not_one_without_calls(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("no strace")
    with subprocess.Popen(["true"]) as ended:
        pass

    with pytest.raises(SystemExit, match="strace"):
        meters.calls_beside({"ended": ended.pid}, tmp_path, 0.1)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=500))
def test_99_of_a_hundred_do_not_exceed_the_99th_percentile(delays: list[int]) -> None:
    found = meters.spread(delays)

    assert found.percentile_99 in delays
    assert sum(delay <= found.percentile_99 for delay in delays) >= 0.99 * len(delays)
    assert sum(delay < found.percentile_99 for delay in delays) < 0.99 * len(delays)
    assert found.median <= found.percentile_99 <= found.longest == max(delays)


def test_no_delay_at_all_meets_no_bar() -> None:
    assert not Bar("median", meters.spread([]).median, 2.0).met


def test_missed_are_those_of_the_storm_and_the_measured() -> None:
    run = storm_run(execs.MATCHED, contenders.EVENTS)

    assert run.missed == 6
    assert execs.matching(run) == 1200


def test_in_a_storm_that_no_rule_matches_only_the_measured_can_be_missed() -> None:
    run = storm_run(execs.UNMATCHED, contenders.EVENTS)

    assert run.missed == 3
    assert execs.matching(run) == 600


def test_the_cost_of_an_exec_is_spread_over_all_that_were_started() -> None:
    run = storm_run(execs.UNMATCHED, contenders.EVENTS)

    assert run.cpu_of_one(contenders.EVENTS) == pytest.approx(0.09 * 10e6 / 1800)
    assert run.share_of_exec(contenders.EVENTS) == pytest.approx(500 / 400)


def storm_run(storm: execs.Storm, daemon: str) -> execs.Run:
    return execs.Run(
        storm=storm,
        daemon=daemon,
        background=LAUNCHED,
        ours=LAUNCHED,
        theirs=LAUNCHED,
        cpu_percent={daemon: 9.0, contenders.LISTENER: 1.0},
        lost=0.0,
    )


def test_memory_that_grows_all_the_time_is_not_flat() -> None:
    growing = [soak.Sample(turn, 28_000 + 10 * turn, 20, 2) for turn in range(200)]

    resident, descriptors = soak.bars(growing)

    assert resident.value == pytest.approx(1000)
    assert not resident.met
    assert descriptors.met


def test_one_descriptor_more_is_not_flat() -> None:
    leaking = [soak.Sample(turn, 28_000, 20 + turn // 100, 2) for turn in range(200)]

    resident, descriptors = soak.bars(leaking)

    assert resident.met
    assert not descriptors.met


def test_descriptors_of_processes_that_came_meanwhile_are_no_leak() -> None:
    busier = [soak.Sample(turn, 28_000, 20 + 3 * (turn // 100), turn // 100) for turn in range(200)]

    _, descriptors = soak.bars(busier)

    assert descriptors.met


# -- how it is shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (3, "3"),
        (0.1234, "0.123"),
        (0.00123, "0.00123"),
        (1.234, "1.23"),
        (1234.4, "1,234"),
        (float("inf"), "none"),
        (float("nan"), "none"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_a_bar_says_whether_it_is_met() -> None:
    assert str(Bar("calls", 0.15, 0.2)) == "calls: 0.150, at most 0.200: met"
    assert str(Bar("missed", 1, 0)) == "missed: 1, at most 0: missed"


def test_only_what_is_between_the_markers_changes() -> None:
    before = "a\n<!-- bench: x -->\nold\n<!-- /bench -->\nb\n<!-- bench: y -->\n<!-- /bench -->\n"

    after = report.put(before, "x", "new\n")

    assert after == before.replace("old\n", "\nnew\n\n")
    assert report.put(after, "x", "new\n") == after


def test_without_markers_nothing_is_written() -> None:
    with pytest.raises(ValueError, match="no markers for z"):
        report.put("a\n", "z", "new\n")


@pytest.mark.parametrize("name", ["quiet", "execs", "scrape", "soak"])
def test_the_document_has_a_place_for_each_part(name: str) -> None:
    assert "new\n" in report.put(DOCUMENT, name, "new\n")


def test_the_document_shows_plots_that_are_there() -> None:
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", DOCUMENT)

    assert sorted(shown) == ["cpu.svg", "latency.svg"]
    for name in shown:
        ElementTree.parse(report.DOCUMENT.parent / name)  # noqa: S314 - our own file


def test_a_chart_names_each_line_and_keeps_them_on_the_page() -> None:
    drawn = {"a < b": [(200.0, 0.0), (2000.0, 5.0)], "flat": [(200.0, 4.9), (10_000.0, 5.0)]}

    root = ElementTree.fromstring(chart.lines("t", "x", "y", drawn))  # noqa: S314 - our own

    name = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{name}text")]
    corners = [
        tuple(map(float, pair.split(",")))
        for line in root.iter(f"{name}polyline")
        for pair in line.attrib["points"].split()
    ]
    assert {"a < b", "flat"} <= set(texts)
    assert len(corners) == 3  # what is 0 has no place on a logarithmic axis
    assert all(chart.LEFT <= x <= chart.RIGHT for x, _ in corners)
    assert all(chart.TOP <= y <= chart.BOTTOM for _, y in corners)


@given(st.lists(st.floats(chart.TOP, chart.BOTTOM), max_size=12))
def test_names_do_not_cover_each_other(heights: list[float]) -> None:
    placed = chart.spaced(sorted(heights))

    gaps = [second - first for first, second in pairwise(placed)]
    assert all(gap >= chart.LABEL_HEIGHT - 1e-6 for gap in gaps)
    assert all(height <= chart.BOTTOM + 20 for height in placed)


# -- the gates


def test_a_bar_missed_once_is_tried_again() -> None:
    values = iter([2.0, 1.0, 3.0])

    [bar] = gates.best(lambda: [Bar("a", next(values), 1.0)])

    assert bar.met
    assert next(values) == 3.0  # what is met is not tried again


def test_a_bar_missed_every_time_is_missed() -> None:
    values = iter(range(10, 20))

    [bar] = gates.best(lambda: [Bar("a", next(values), 1.0)])

    assert not bar.met
    assert next(values) == 10 + gates.TRIES
