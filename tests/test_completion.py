"""The completions, as real shells offer them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shells import COMPLETIONS, environment, offered
from test_incidents import incident

from manual.commands import commands
from manual.completion import scripts, value
from oomwatchd.cli.main import COMMANDS
from oomwatchd.incidents import Incidents

ROOT = Path(__file__).parent.parent
SHELLS = ["bash", "zsh", "fish"]
RULES = """\
rules:
  - {name: training, match: {user: root, name: python3}, oom_score_adj: -900}
  - {name: expendable, match: {name: chrome}, oom_score_adj: 500}
"""
UNITS = """\
#!/bin/sh
echo 'train.service loaded active running A run'
echo 'user@1000.service loaded active running User Manager'
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a user, with the program on PATH, a configuration, an incident, and other files."""
    programs = tmp_path / "bin"
    programs.mkdir()
    runs = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m oomwatchd "$@"\n'
    for name, text in {"oomwatchd": runs, "systemctl": UNITS}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "good.yaml").write_text(RULES)
    (tmp_path / "broken.yml").write_text("rules: 7\n")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "rules.d").mkdir()
    kept = Incidents(tmp_path / "incidents", keep=2)
    kept.prepare()
    kept.write(incident(time.time()))
    return tmp_path


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    return environment(home, {"PATH": path, "STATE_DIRECTORY": str(home)})


def ids(home: Path) -> set[str]:
    return {path.stem for path in (home / "incidents").glob("*.json")}


CASES = [
    ("oomwatchd ", set(COMMANDS), {"good.yaml"}),
    ("oomwatchd in", {"incidents"}, {"check"}),
    ("oomwatchd audit --", {"--rule", "--pid", "--config", "--json"}, {"--html", "--dry-run"}),
    ("oomwatchd run --", {"--config", "--dry-run"}, {"--json"}),
    ("oomwatchd check --", {"--json", "--rules"}, {"--config"}),
    ("oomwatchd audit -c good.yaml --rule ", {"training", "expendable"}, {"notes.txt"}),
    ("oomwatchd audit --config good.yaml --rule tr", {"training"}, {"expendable"}),
    ("oomwatchd audit -c broken.yml --rule ", set[str](), {"training", "rules", "notes.txt"}),
    ("oomwatchd run -c ", {"good.yaml", "broken.yml"}, {"notes.txt"}),
    ("oomwatchd check ", {"good.yaml", "broken.yml"}, {"notes.txt"}),
    ("oomwatchd incidents ", {"list", "show"}, {"good.yaml"}),
    ("oomwatchd incidents --html notes.txt show ", {"last"}, {"list", "good.yaml"}),
    ("oomwatchd incidents --html ", {"notes.txt", "good.yaml"}, {"show"}),
    ("oomwatchd why --pid ", {"4711"}, {"good.yaml"}),
    ("oomwatchd why --unit ", {"train.service", "user@1000.service"}, {"good.yaml"}),
    ("oomwatchd why --since ", set[str](), {"good.yaml", "4711"}),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("typed", "wanted", "unwanted"), CASES, ids=[case[0] for case in CASES])
def test_what_fits_is_offered_and_nothing_else(
    shell: str, typed: str, wanted: set[str], unwanted: set[str], env: dict[str, str], home: Path
) -> None:
    words = {word.rstrip("/") for word in offered(shell, typed, env, home)} - set(typed.split())

    assert wanted <= words
    assert words.isdisjoint(unwanted)


@pytest.mark.parametrize("shell", SHELLS)
def test_incidents_go_by_their_ids(shell: str, env: dict[str, str], home: Path) -> None:
    words = offered(shell, "oomwatchd incidents show ", env, home)

    assert ids(home)
    assert ids(home) <= set(words)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_process_goes_by_its_pid(shell: str, env: dict[str, str], home: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            words = offered(shell, f"oomwatchd explain {str(child.pid)[:-1]}", env, home)
        finally:
            child.kill()

    assert str(child.pid) in words


@pytest.mark.parametrize("shell", SHELLS)
def test_a_value_may_follow_an_equals_sign(shell: str, env: dict[str, str], home: Path) -> None:
    words = offered(shell, "oomwatchd audit --config=good.yaml --rule=tr", env, home)

    assert [word for word in words if word.removeprefix("--rule=") == "training"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_cgroup_is_a_directory_below_their_mount(
    shell: str, env: dict[str, str], home: Path
) -> None:
    there = {path.name for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir()}
    if not there:
        pytest.skip("no cgroups here")
    words = offered(shell, "oomwatchd why --cgroup /", env, home)

    assert there <= {word.strip("/").rpartition("/")[2] for word in words}
    assert "etc" not in words


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_file_the_rules_are_those_of_the_usual_one(
    shell: str, env: dict[str, str], home: Path
) -> None:
    """Which this machine may not have: so a program stands in for ours, and answers to that."""
    program = home / "bin" / "oomwatchd"
    program.write_text('#!/bin/sh\n[ "$*" = "check --rules" ] && printf "one\\ntwo\\n"\n')

    assert {"one", "two"} <= set(offered(shell, "oomwatchd audit --rule ", env, home))


def test_every_argument_says_what_completes_it() -> None:
    valued = [(one, argument) for one in commands() for argument in one.arguments if argument.shown]

    assert len(valued) > 10
    assert all(argument.choices or value(one, argument) for one, argument in valued)


def test_the_one_for_bash_passes_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck")
    done = subprocess.run(
        ["shellcheck", "--shell=bash", COMPLETIONS / "oomwatchd"], capture_output=True, text=True
    )

    assert done.stdout == ""


def test_there_is_one_for_each_shell() -> None:
    assert {path.name for path in COMPLETIONS.iterdir()} == scripts().keys()
    assert len(scripts()) == len(SHELLS)
