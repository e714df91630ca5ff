"""The commands as users meet them: arguments, exit status, and what is said where."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import (
    GOOD,
    NOBODY,
    PATIENCE_SECONDS,
    REPOSITORY,
    needs_root,
    run,
    run_as_nobody,
    written,
)

from oomwatchd import __version__
from oomwatchd.cli import exits
from oomwatchd.cli.main import main

# -- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "oomwatchd: the following arguments are required: COMMAND (see oomwatchd --help)"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["check", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["check", "a", "b"], "unrecognized arguments: b"),
        (["explain"], "oomwatchd explain: the following arguments are required: PID"),
        (["explain", "abc"], "argument PID: 'abc' is no pid such as 4711"),
        (["run", "-c"], "argument -c/--config: expected one argument"),
        (["--nonsense", "check"], "unrecognized arguments: --nonsense"),
    ],
)
def test_a_wrong_command_line_is_named_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    stdout, stderr = capsys.readouterr()

    assert (ended.value.code, stdout) == (64, "")
    assert said in stderr
    assert stderr.count("\n") == 1


def test_the_version_is_told() -> None:
    result = run("--version")

    assert (result.returncode, result.stdout) == (0, f"oomwatchd {__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["run", "-h"]])
def test_help_is_no_fault(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: oomwatchd")


@pytest.mark.parametrize("arguments", [["check"], ["explain", "1", "-c"]])
@pytest.mark.parametrize("name", ["missing.yaml", "good.yaml/below-a-file"])
def test_a_file_that_is_not_there_is_status_66(
    arguments: list[str],
    name: str,
    config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = str(config.parent / name)
    status = main([*arguments, missing])
    stdout, stderr = capsys.readouterr()

    assert (status, stdout) == (66, "")
    assert missing in stderr
    assert stderr.count("\n") == 1


@needs_root
def test_run_without_its_file_is_status_66(public_directory: Path) -> None:
    result = run("run", "-c", public_directory / "missing.yaml")

    assert (result.returncode, result.stdout) == (66, "")
    assert result.stderr == f"<3>{public_directory}/missing.yaml: no such file\n"


@needs_root
@pytest.mark.parametrize("arguments", [["check"], ["explain", os.getpid(), "-c"]])
def test_a_file_that_may_not_be_read_is_status_77(arguments: list[object], config: Path) -> None:
    config.chmod(0o600)
    result = run_as_nobody(*arguments, config)

    assert (result.returncode, result.stdout) == (77, "")
    assert f"{config}: Permission denied" in result.stderr


# -- check -----------------------------------------------------------------------------------------


def test_check_of_a_good_file(config: Path, match: subprocess.Popen[bytes]) -> None:
    result = run("check", config)

    assert (result.returncode, result.stderr) == (0, "")
    assert f"{config}: no faults, 2 rules\n" in result.stdout
    assert "  other (-5): nothing that runs now\n" in result.stdout
    assert f"({match.pid})" in result.stdout
    assert f"{config}:7:12: warning: " in result.stdout  # any user can call a program so


def test_check_names_the_rules_alone(config: Path, broken: Path) -> None:
    good, bad = run("check", "--rules", config), run("check", "--rules", broken)

    assert (good.returncode, good.stdout) == (0, "waiting\nother\n")
    assert bad.returncode == 1


def test_check_names_every_fault(broken: Path) -> None:
    result = run("check", broken)
    lines = result.stdout.splitlines()

    assert result.returncode == 1
    assert [line.partition(": ")[0] for line in lines[:3]] == [
        f"{broken}:1:1", f"{broken}:4:12", f"{broken}:5:20",
    ]  # fmt: skip
    assert lines[-1] == "3 faults; such a configuration is not used"


def test_check_as_json(config: Path, match: subprocess.Popen[bytes]) -> None:
    result = run("check", config, "--json")
    document = json.loads(result.stdout)

    assert result.returncode == 0
    assert list(document) == [
        "faults",
        "warnings",
        "not_carried_out",
        "promises_broken",
        "rules",
        "not_known",
    ]
    assert [list(rule) for rule in document["rules"]] == [
        ["name", "oom_score_adj", "processes"]
    ] * 2
    assert {"pid": match.pid, "name": "python3"} in [
        {**one, "name": one["name"][:7]} for one in document["rules"][0]["processes"]
    ]
    assert [list(warning) for warning in document["warnings"]] == [
        ["file", "line", "column", "text"]
    ]


def test_faults_as_json(broken: Path) -> None:
    result = run("check", broken, "--json")
    document = json.loads(result.stdout)

    assert result.returncode == 1
    assert list(document) == [
        "faults",
        "warnings",
        "not_carried_out",
        "promises_broken",
        "rules",
        "not_known",
    ]
    places = [(fault["line"], fault["column"]) for fault in document["faults"]]

    assert places == [(1, 1), (4, 12), (5, 20)]
    assert document["rules"] == []


@needs_root
def test_root_s_check_asks_whose_file_it_is(config: Path) -> None:
    config.chmod(0o666)
    as_root, as_nobody = run("check", config), run_as_nobody("check", config)

    assert (as_root.returncode, as_nobody.returncode) == (1, 0)
    assert "must not be writable by group or others" in as_root.stdout


# -- run -------------------------------------------------------------------------------------------


@needs_root
def test_run_with_a_bad_configuration_is_status_78_and_touches_nothing(broken: Path) -> None:
    result = run("run", "-c", broken)

    assert (result.returncode, result.stdout) == (78, "")
    assert all(line.startswith(f"<3>{broken}:") for line in result.stderr.splitlines())
    assert result.stderr.count("\n") == 3


@needs_root
def test_run_is_for_root(config: Path) -> None:
    result = run_as_nobody("run", "-c", config)

    assert (result.returncode, result.stdout) == (77, "")
    assert result.stderr.startswith("<3>only root may")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_dry_run_works_for_anyone_and_ends_when_told(
    public_directory: Path, match: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    file = written(public_directory / "dry.yaml", f"metrics: {{listen: 'off'}}\n{GOOD}")
    as_whom = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [sys.executable, "-m", "oomwatchd", "run", "--dry-run", "-c", str(file)]
    before = Path(f"/proc/{match.pid}/oom_score_adj").read_text()
    with subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, **as_whom
    ) as daemon:  # type: ignore[call-overload]  # the same keywords, from a dict
        lines = lines_until(daemon, f"process {match.pid} ")
        daemon.send_signal(number)
        daemon.communicate(timeout=PATIENCE_SECONDS)

    assert daemon.returncode == 0
    assert f"would set {before.strip()} -> 300" in lines[-1]
    assert Path(f"/proc/{match.pid}/oom_score_adj").read_text() == before


def lines_until(process: subprocess.Popen[str], expected: str) -> list[str]:
    assert process.stderr is not None
    lines: list[str] = []
    until = time.monotonic() + PATIENCE_SECONDS
    while expected not in "".join(lines[-1:]):
        assert time.monotonic() < until, lines
        line = process.stderr.readline()
        assert line, lines
        lines.append(line)
    return lines


# -- ordinary users --------------------------------------------------------------------------------


@needs_root
def test_an_ordinary_user_sees_what_the_kernel_shows_him(
    config: Path, match: subprocess.Popen[bytes]
) -> None:
    check = run_as_nobody("check", config, "--json")
    explain = run_as_nobody("explain", match.pid, "-c", config, "--json")
    read = json.loads(explain.stdout)["read"]

    assert (check.returncode, explain.returncode) == (0, 0)
    assert match.pid in [one["pid"] for one in json.loads(check.stdout)["rules"][0]["processes"]]
    assert read["uid"] == 0
    assert read["exe"] is None  # another's program may not be seen


# -- where the answer goes -------------------------------------------------------------------------

COMMANDS = (["check"], ["explain", os.getpid(), "-c"], ["rank", "-c"], ["audit", "-c"])


@pytest.mark.parametrize("arguments", [*COMMANDS, ["check", "--json"], ["rank", "--help"]])
def test_a_reader_that_has_seen_enough_changes_nothing(
    arguments: list[object], config: Path
) -> None:
    """Not even the answer that the exit status is."""
    usual = run(*arguments, config).returncode
    reading, writing = os.pipe()
    os.close(reading)
    result = writing_to(writing, *arguments, config)
    os.close(writing)

    assert (result.returncode, result.stderr) == (usual, "")


@pytest.mark.parametrize("arguments", [*COMMANDS, ["check", "--json"], ["rank", "--help"]])
def test_an_answer_that_cannot_be_written_is_status_74(
    arguments: list[object], config: Path
) -> None:
    with open("/dev/full", "w") as full:
        result = writing_to(full.fileno(), *arguments, config)

    assert result.returncode == exits.UNWRITTEN
    assert result.stderr == (
        "oomwatchd: the answer could not be written: No space left on device\n"
    )


def writing_to(fd: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oomwatchd", *map(str, arguments)]
    return subprocess.run(
        command, cwd=REPOSITORY, stdout=fd, stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", COMMANDS)
def test_with_standard_streams_closed_the_status_is_the_same(
    arguments: list[object], closed: str, config: Path
) -> None:
    usual = run(*arguments, config).returncode
    command = [sys.executable, "-m", "oomwatchd", *map(str, arguments), str(config)]
    result = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *command],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (result.returncode, result.stderr) == (usual, "")


# -- what an ordinary user may not read ------------------------------------------------------------


@pytest.fixture
def by_program(public_directory: Path) -> Iterator[tuple[Path, int]]:
    """Rules of which one asks for the program's file; and a process of root's, at whose end is
    that one alone."""
    config = written(
        public_directory / "by-program.yaml",
        "rules:\n"
        "  - {name: others, match: {name: no-such-program}, oom_score_adj: 5}\n"
        "  - {name: sleepers, match: {name: sleep, exe: '*/sleep'}, oom_score_adj: 300}\n",
    )
    with subprocess.Popen(["sleep", "600"]) as process:
        yield config, process.pid
        process.kill()


@needs_root
def test_what_may_not_be_read_is_said_to_be_unknown_and_not_a_no(
    by_program: tuple[Path, int],
) -> None:
    config, pid = by_program
    explained = run_as_nobody("explain", pid, "-c", config)
    one = run_as_nobody("audit", "-c", config, "--pid", pid)
    audited = run_as_nobody("audit", "-c", config)
    checked = run_as_nobody("check", config)
    document = json.loads(run_as_nobody("check", config, "--json").stdout)

    assert explained.returncode == exits.NOT_PERMITTED
    assert "not known: exe may not be read by you" in explained.stdout
    assert explained.stdout.endswith(
        "Whether rule sleepers matches hangs on its exe: try as root.\n"
    )
    assert (one.returncode, "try as root" in one.stderr) == (exits.NOT_PERMITTED, True)
    assert audited.returncode == exits.NOT_PERMITTED
    assert "No process that runs now is under a rule, as far as may be seen" in audited.stdout
    assert "a rule that asks for exe (sleepers), which may not be read" in checked.stdout
    assert {"pid": pid, "rule": "sleepers", "key": "exe"} in document["not_known"]


@needs_root
def test_to_root_all_of_that_is_known(by_program: tuple[Path, int]) -> None:
    config, pid = by_program
    explained = run("explain", pid, "-c", config, "--json")
    document = json.loads(run("check", config, "--json").stdout)

    assert explained.returncode == 0
    assert json.loads(explained.stdout)["not_known"] is None
    assert document["not_known"] == []
