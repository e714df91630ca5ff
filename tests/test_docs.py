"""The README is the manual: what it says has to hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oomwatchd.cli.main import COMMANDS
from oomwatchd.config import ConfigError, parse
from oomwatchd.config.keys import MATCH_TABLE, RULE_TABLE, TOP_TABLE
from oomwatchd.config.table import Table
from oomwatchd.series import DECLARED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, up to the next of its kind or a higher one."""
    found = re.search(rf"^(#+) {re.escape(title)}$", README, re.MULTILINE)
    assert found is not None, f"the README has no section '{title}'"
    level = len(found[1])
    following = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(README, found.end())
    return README[found.end() : following.start() if following else None]


def first_cells(title: str) -> list[str]:
    """What stands in backquotes in the first column of the section's tables."""
    rows = re.findall(r"^\| (`[^|]*) \|", section(title), re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_metrics_table_is_what_is_exported() -> None:
    rows = [
        f"| `{one.name}` | {one.type} | {' '.join(f'`{label}`' for label in one.labels)} "
        f"| {one.help} |".replace("|  |", "| |")
        for one in DECLARED
    ]

    assert "\n".join(rows) in section("Metrics")


def test_every_setting_is_in_the_manual() -> None:
    top = {key.name for key in TOP_TABLE.keys}

    assert {name.partition(".")[0] for name in first_cells("Settings")} == top


@pytest.mark.parametrize(("title", "table"), [("A rule", RULE_TABLE), ("Match keys", MATCH_TABLE)])
def test_every_key_is_in_the_manual(title: str, table: Table) -> None:
    names = [key.name for key in table.keys]

    assert sorted(first_cells(title)) == sorted(names)


def test_every_command_is_in_the_manual() -> None:
    told = [words.split()[1] for words in first_cells("Commands") if " " in words]

    assert sorted(told) == sorted(COMMANDS)


def test_the_first_rule_loads_without_a_warning() -> None:
    [text] = blocks("yaml")

    loaded = parse(text.encode(), "README")

    assert loaded.warnings == ()
    assert [rule.name for rule in loaded.config.rules] == ["training"]


def test_the_faults_shown_are_those_that_are_told() -> None:
    [shown] = blocks("text")
    misspelt = "rules:\n  - name: training\n    match: {user: root}\n    oom_score_ajd: -900\n"

    with pytest.raises(ConfigError) as caught:
        parse(misspelt.encode(), "/etc/oomwatchd.yaml")

    assert shown.strip() == str(caught.value)


def test_the_scripts_named_are_there_and_can_be_run() -> None:
    named = set(re.findall(r"^(script/\S+|\.ci/\S+)", "\n".join(blocks("sh")), re.MULTILINE))

    assert named == {"script/install", "script/run", "script/test", "script/test-vm"}
    assert all(os.access(ROOT / name, os.X_OK) for name in named)


@pytest.mark.parametrize(
    "command",
    [line for block in blocks("sh") for line in block.splitlines() if "oomwatchd " in line],
)
def test_the_commands_shown_run(command: str, tmp_path: Path) -> None:
    """With the README's own first rule; the service's are in tests/vm."""
    program, *words = command.split()
    if program != "oomwatchd":
        assert command == "systemctl reload oomwatchd"
        return
    config = tmp_path / "oomwatchd.yaml"
    config.write_text(blocks("yaml")[0], encoding="utf-8")
    words = [str(os.getpid()) if word == "4711" else word for word in words]
    option = [str(config)] if words[0] == "check" else ["-c", str(config)]

    done = subprocess.run(
        [sys.executable, "-m", "oomwatchd", *words, *option],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.returncode == (1 if words[0] == "explain" else 0)  # no rule is for this process


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
