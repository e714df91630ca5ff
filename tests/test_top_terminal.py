"""`oomwatchd top` in a real terminal: what is seen, and what is left behind."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from commands import REPOSITORY
from test_incidents import incident
from tmux import PROMPT, Pane, pane

from oomwatchd.incidents import Incidents

if not os.environ.get("CI"):  # where it has to be there
    pytest.importorskip("rich", reason="no rich (Debian: python3-rich)")

TOP = shlex.join([sys.executable, "-m", "oomwatchd", "top"])
RULES = """\
rules:
  - name: hostile
    match: {cmdline: 'mark-of-the-hostile'}
    oom_score_adj: 900
"""
# A name with an escape sequence, and arguments that would set the title and turn the text around.
HOSTILE = r"""
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"\x1b[2J[red]\nx", 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""
ARGUMENT = "mark-of-the-hostile \x1b]2;forged\x07\x1b[31m\n\u202e[bold]\u4e2d"
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*[34][0-7][;m]")
Opened = Callable[..., Pane]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    kept = Incidents(tmp_path / "incidents", keep=2)
    kept.prepare()
    kept.write(incident(time.time()))
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[int]:
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    process = subprocess.Popen(
        [sys.executable, script, ARGUMENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("900\n")  # the first to die
        yield process.pid
        process.kill()


@pytest.fixture
def opened(state: Path) -> Iterator[Opened]:
    """A terminal of that size; with `oomwatchd top` in it, unless another line is given."""
    with ExitStack() as stack:

        def open_one(width: int = 80, height: int = 24, line: str = "", **env: str) -> Pane:
            base = {
                "PYTHONPATH": str(REPOSITORY),
                "STATE_DIRECTORY": str(state),
                "RUNTIME_DIRECTORY": str(state),
            }
            context: AbstractContextManager[Pane] = pane(width, height, {**base, **env})
            one = stack.enter_context(context)
            one.type(line or f"{TOP} -c {state / 'rules.yaml'} --interval 200ms")
            return one

        yield open_one


def started(one: Pane) -> Pane:
    one.until(lambda: one.lines()[-1:] != [] and " of " in one.lines()[-1])
    return one


# -- what is seen ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10)])
def test_a_frame_fills_the_screen(opened: Opened, hostile: int, width: int, height: int) -> None:
    one = started(opened(width, height))
    lines = one.lines()
    [heading] = [place for place, line in enumerate(lines) if "#     PID" in line]

    assert len(lines) == height
    assert lines[0].startswith("oomwatchd  ")
    assert lines[1].startswith("memory   [")
    assert lines[heading + 1].split()[:3] == ["1", str(hostile), "900"]
    assert lines[-1].startswith("q quit")
    assert one.told("alternate_on") == "1"
    assert one.told("cursor_flag") == "0"


def test_rules_and_the_last_kill_are_seen(opened: Opened, hostile: int) -> None:
    lines = started(opened()).lines()
    [rule] = [line for line in lines if line.startswith("hostile")]
    [kill] = [line for line in lines if " kernel " in line]

    assert hostile
    assert rule.split()[:3] == ["hostile", "900", "1"]
    assert kill.split()[2:] == ["kernel", "4711", "training", "python3"]


def test_a_name_and_arguments_full_of_escapes_change_nothing(opened: Opened, hostile: int) -> None:
    one = opened(240, 24)
    title = one.told("pane_title")
    started(one)
    [row] = [line for line in one.lines() if f" {hostile} " in line]
    usual = next(line for line in one.lines() if "ARGUMENTS" in line)

    assert row.index("\\x1b[2J[red]\\nx"[:12]) == usual.index("NAME")
    assert row.index("\\x1b]2;forged\\x07\\x1b[31m\\n\\u202e[bold]\u4e2d") > usual.index(
        "ARGUMENTS"
    )
    assert one.told("pane_title") == title
    assert len(one.lines()) == 24


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {}])
def test_colour_is_there_unless_it_is_asked_for_none(
    opened: Opened, hostile: int, env: dict[str, str]
) -> None:
    drawn = started(opened(**env)).drawn()

    assert hostile
    assert (COLOUR.search(drawn) is None) == ("NO_COLOR" in env)
    assert "\x1b[7m" in drawn or ";7m" in drawn  # headings stand out all the same


def test_a_dumb_terminal_is_sent_no_sequences(opened: Opened, tmp_path: Path) -> None:
    one = opened(80, 24, "true")
    sent = tmp_path / "sent"
    one.type("export TERM=dumb; clear; bind 'set enable-bracketed-paste off'")
    one.tmux("pipe-pane", f"cat > {sent}")
    one.type(f"{TOP} --interval 200ms")
    one.until(lambda: sent.exists() and sent.read_text(errors="replace").count("psi full") > 2)
    one.press("q")
    one.until(lambda: one.lines()[-1:] != [] and one.text().rstrip().endswith(PROMPT.strip()))

    assert "\x1b" not in sent.read_text(errors="replace")
    assert one.told("alternate_on") == "0"


# -- keys ------------------------------------------------------------------------------------------


def test_keys_sort_scroll_pause_and_help(opened: Opened) -> None:
    one = started(opened(80, 16))
    one.press("m")
    one.until_shown("by memory, 1-")
    one.press("Down")
    one.until_shown("by memory, 2-")
    one.press("PageDown")
    one.until(lambda: "by memory, 2-" not in one.text())
    one.press("s")
    one.until_shown("order of death, 1-")
    one.press("?")
    one.until_shown("in order of death: whom the kernel")
    one.press("x", "q")
    one.until_shown(PROMPT)


def test_a_pause_keeps_what_is_seen(opened: Opened) -> None:
    one = started(opened())
    one.press("Space")
    one.until_shown("PAUSED")
    clock = one.lines()[0]
    one.press("m")
    one.until_shown("by memory")
    paused = one.lines()[0]
    one.press("Space")
    one.until(lambda: not one.lines()[0].startswith("PAUSED") and one.lines()[0][:20] != clock[:20])

    assert paused == clock


def test_it_is_drawn_anew_at_another_size(opened: Opened) -> None:
    one = started(opened(80, 24))
    one.press("Space")  # so that it is not the next reading
    one.until_shown("PAUSED")
    one.resize(120, 40)
    one.until(lambda: len(one.lines()) == 40 and one.lines()[-1].startswith("q quit"))
    wide = one.lines()
    one.resize(40, 10)
    one.until(lambda: len(one.lines()) == 10 and one.lines()[-1].startswith("q quit"))

    assert "DIAGNOSIS" in "\n".join(wide)
    assert [line for line in one.lines() if len(line) > 40] == []


# -- what is left behind ---------------------------------------------------------------------------


class Left(NamedTuple):
    """What `oomwatchd top` leaves behind, and how it found it."""

    status: int
    modes_before: str  # of the terminal, as stty tells them
    modes_during: str
    modes_after: str


def in_between(opened: Opened, directory: Path, end: Callable[[Pane], None]) -> Left:
    before, after = directory / "before", directory / "after"
    script = directory / "watched"
    script.write_text(
        f"trap : INT; stty -g > {before}; {TOP} --interval 200ms; s=$?\n"
        f"stty -g > {after}; echo status $s .\n"
    )
    one = started(opened(80, 24, f"sh {script}"))
    during = one.modes()
    end(one)
    one.until(lambda: re.search(r"^status [0-9]+ \.", one.text(), re.MULTILINE) is not None)

    assert (one.told("alternate_on"), one.told("cursor_flag")) == ("0", "1")
    assert f"{PROMPT}sh " in one.text()  # what had been on the screen
    [status] = re.findall(r"^status ([0-9]+) \.", one.text(), re.MULTILINE)
    return Left(int(status), before.read_text(), during, after.read_text())


def test_after_q_the_terminal_is_as_before(opened: Opened, tmp_path: Path) -> None:
    left = in_between(opened, tmp_path, lambda one: one.press("q"))

    assert left.status == 0
    assert left.modes_after == left.modes_before != left.modes_during


def test_after_ctrl_c_the_terminal_is_as_before(opened: Opened, tmp_path: Path) -> None:
    left = in_between(opened, tmp_path, lambda one: one.press("C-c"))

    assert left.status == 130
    assert left.modes_after == left.modes_before != left.modes_during


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_after_a_signal_the_terminal_is_as_before(
    opened: Opened, tmp_path: Path, number: signal.Signals
) -> None:
    left = in_between(opened, tmp_path, lambda one: os.kill(one.pid(), number))

    assert left.status == 128 + number
    assert left.modes_after == left.modes_before != left.modes_during


def test_after_an_exception_the_terminal_is_as_before_and_shows_it(
    opened: Opened, tmp_path: Path
) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        "from oomwatchd.cli.top.screen import Screen\n"
        "from oomwatchd.cli.top.terminal import Terminal\n"
        "with Terminal(0) as terminal, (screen := Screen()).taken():\n"
        "    screen.draw([])\n"
        "    terminal.wait(None)\n"
        "    raise RuntimeError('a fault of ours')\n"
    )
    one = opened(80, 24, f"{sys.executable} {script}")
    one.until(lambda: one.told("alternate_on") == "1")
    one.press("x")
    one.until_shown("RuntimeError: a fault of ours")

    assert one.told("alternate_on") == "0"
    assert one.told("cursor_flag") == "1"


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(opened: Opened) -> None:
    one = started(opened())
    during = one.modes()
    one.press("C-z")
    one.until_shown("Stopped")
    stopped = (one.told("alternate_on"), one.told("cursor_flag"))
    one.type("fg")
    started(one)

    assert stopped == ("0", "1")
    assert (one.told("alternate_on"), one.modes()) == ("1", during)
    one.press("q")
    one.until_shown(PROMPT)


def test_in_the_background_it_stops_before_it_draws_until_it_is_given_the_terminal(
    opened: Opened, tmp_path: Path
) -> None:
    before, go, after = (tmp_path / name for name in ("before", "go", "after"))
    job = f"(until test -e {go}; do sleep 0.1; done; exec {TOP} --interval 200ms) &"
    one = opened(80, 24, f"stty -g > {before}; {job}")
    one.until(lambda: before.exists() and before.read_text() != one.modes())  # it reads a line
    go.touch()
    one.until(lambda: psutil.Process(one.pid()).status() == "stopped")
    drawn = one.told("alternate_on")
    one.type("fg")
    started(one)
    one.press("q")
    one.until(lambda: one.told("alternate_on") == "0")
    one.type(f"stty -g > {after}.new; mv {after}.new {after}")
    one.until(after.exists)

    assert drawn == "0"
    assert after.read_text() == before.read_text()


def test_a_stop_that_cannot_be_heard_of_is_got_over(opened: Opened) -> None:
    one = started(opened())
    during = one.modes()
    pid = one.pid()
    os.kill(pid, signal.SIGSTOP)
    one.until_shown("Stopped")
    one.type("fg")
    one.until(lambda: one.told("alternate_on") == "1" and one.lines()[-1].startswith("q quit"))

    assert one.modes() == during


def test_it_ends_with_its_terminal_without_a_word(opened: Opened, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    one = started(opened(80, 24, f"{TOP} --interval 200ms 2>{errors}"))
    pid = one.pid()
    one.tmux("new-window", "-d", "cat")  # so that there is a server still
    one.tmux("kill-pane")

    one.until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")

    assert errors.read_text() == ""
