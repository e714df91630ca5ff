"""The man pages, and all else that script/make-docs makes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from manual.__main__ import PAGES, README, ROOT, SOURCES, changes, made, section
from manual.roff import Title, page
from manual.tables import settings
from oomwatchd.cli import exits
from oomwatchd.cli.main import COMMANDS
from oomwatchd.config import parse
from oomwatchd.config.keys import MATCH_TABLE, RULE_TABLE
from oomwatchd.series import DECLARED

MAN = ROOT / "packaging" / "man"
SECTIONS = {
    "oomwatchd.8": [
        "NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "METRICS", "EXIT STATUS", "SIGNALS",
        "ENVIRONMENT", "FILES", "SECURITY", "EXAMPLES", "SEE ALSO",
    ],
    "oomwatchd.yaml.5": [
        "NAME", "SYNOPSIS", "DESCRIPTION", "SETTINGS", "RULES", "MATCH KEYS", "SHIELD", "HOOKS",
        "EXAMPLES", "FILES", "SECURITY", "SEE ALSO",
    ],
}  # fmt: skip
TITLE = Title("example", 7, "2026-01-01")


def shown(path: Path) -> str:
    """As a reader has it: without bold, one space between words."""
    if not shutil.which("man"):
        pytest.skip("no man (Debian: man-db)")
    done = subprocess.run(
        ["man", "--warnings", "--local-file", path],
        env={**os.environ, "MANWIDTH": "200", "LC_ALL": "C.UTF-8", "MANROFFOPT": "-c"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return re.sub(r"\s+", " ", re.sub(".\b", "", done.stdout))


def rendered(markdown: str, tmp_path: Path) -> str:
    path = tmp_path / "example.7"
    path.write_text(page(markdown, TITLE))
    return shown(path)


def test_what_is_committed_is_what_the_script_makes() -> None:
    assert [path.name for path, _ in changes(made())] == []


def test_the_script_says_so() -> None:
    done = subprocess.run([ROOT / "script/make-docs", "--check"], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "checker",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-ww", "-man", "-Tutf8", "-Z"]],
    ids=["mandoc", "groff"],
)
def test_the_pages_are_faultless(checker: list[str], name: str) -> None:
    if not shutil.which(checker[0]):
        pytest.skip(f"no {checker[0]}")

    done = subprocess.run([*checker, MAN / name], capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stderr == ""
    assert checker[0] == "groff" or done.stdout == ""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_sections_that_readers_look_for(name: str) -> None:
    headings = re.findall(r'^\.SH "(.*)"$', (MAN / name).read_text(), re.MULTILINE)

    assert [heading for heading in SECTIONS[name] if heading not in headings] == []


def test_every_command_and_exit_status_and_metric_is_in_the_page() -> None:
    text = shown(MAN / "oomwatchd.8")

    assert [name for name in COMMANDS if f"oomwatchd {name}" not in text] == []
    assert [one for one in exits.MEANING.values() if one.replace("`", "") not in text] == []
    assert [one.name for one in DECLARED if f"{one.name} {one.help.split()[0]}" not in text] == []


def test_every_key_is_in_the_page() -> None:
    text = shown(MAN / "oomwatchd.yaml.5")
    names = [row.split("`")[1] for row in list(settings())[2:]]
    keys = [key for table in (RULE_TABLE, MATCH_TABLE) for key in table.keys]

    assert [name for name in names if f" {name} " not in text] == []
    assert [key.name for key in keys if f" {key.name} {plain(key.about)}" not in text] == []
    assert [key.name for key in keys if f"llowed: {key.kind.allowed}." not in text] == [
        "match", "on_critical",
    ]  # fmt: skip


def plain(markdown: str) -> str:
    return markdown.replace("`", "")


@pytest.mark.parametrize("name", PAGES)
def test_the_configurations_in_a_page_load_without_a_warning(name: str) -> None:
    source = (SOURCES / f"{name}.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", source, re.MULTILINE | re.DOTALL)

    assert len(blocks) == (4 if name == "oomwatchd.yaml.5" else 0)
    for block in blocks:
        warnings = [warning.text for warning in parse(block.encode(), name).warnings]
        assert warnings == ([] if "rules:" in block else ["no rules: nothing will be changed"])


def test_the_readme_is_followed_to_the_end_of_a_section() -> None:
    readme = README.read_text()

    assert "oomwatchd why --cgroup" in section(readme, "Why it was killed")  # after a # in a block
    assert "### Hooks" in section(readme, "Why it was killed")
    assert "## Commands" not in section(readme, "Why it was killed")
    with pytest.raises(ValueError, match="no section 'No such'"):
        section(readme, "No such")


# -- from Markdown ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ".SH is no request here",
        "'nor is this",
        r"a \fBbackslash\e in text",
        "-900 and --json and well-known",
        'a "quoted" word, ~ and ^',
        "100 % of [brackets] * stars",
    ],
)
def test_text_is_shown_as_it_stands(text: str, tmp_path: Path) -> None:
    assert text in rendered(f"## Name\n\nexample - shows\n\n## Text\n\n{text}\n", tmp_path)


def test_code_is_shown_as_it_stands(tmp_path: Path) -> None:
    code = ".hidden 'x' \\n\n  - {a: -1} # not a heading\n"
    text = rendered(f"## Name\n\nexample - shows\n\n```\n{code}```\n\n`--rule='a|b' ~`\n", tmp_path)

    assert re.sub(r"\s+", " ", code) + "--rule='a|b' ~" in text


def test_a_table_is_a_list_of_definitions(tmp_path: Path) -> None:
    table = (
        "| key | default | what |\n|---|---|---|\n| `a` | `1 \\| 2` | First. |\n| b c | | Last. |\n"
    )

    text = rendered(f"## Name\n\nexample - shows\n\n## Keys\n\n{table}", tmp_path)

    assert "KEYS a First. Default: 1 | 2. b c Last." in text


def test_links_and_comments_leave_only_their_text(tmp_path: Path) -> None:
    source = "## Name\n\nexample - shows\n\n<!-- made: x -->\nSee **[the page](x.md#y)**.\n"

    assert "shows See the page." in rendered(source, tmp_path)


@pytest.mark.parametrize(
    "line", ["1. one", "> said", "* star", "- a\n  - b", "![x](y.png)", "text\n---", "<br>"]
)
def test_what_it_has_no_words_for_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no words for this kind of Markdown"):
        page(f"## Text\n\n{line}\n", TITLE)
