"""``oomwatchd explain``: which rule decides about a process, and why the others do not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from commands import FORKS, WAITS, run


def test_explain_a_match(config: Path, match: subprocess.Popen[bytes]) -> None:
    result = run("explain", match.pid, "-c", config)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"process {match.pid}")
    assert "marker-of-this-test" in result.stdout
    assert re.search("waiting +300 +matches", result.stdout)
    assert "not asked: the first that matches decides" in result.stdout
    assert "Rule waiting wants 300; its value is " in result.stdout


def test_explain_one_that_no_rule_matches(config: Path) -> None:
    result = run("explain", os.getpid(), "-c", config)

    assert result.returncode == 1
    assert "no: cmdline does not match" in result.stdout
    assert "no: name does not match" in result.stdout
    assert "No rule matches; its value is " in result.stdout


def test_explain_as_json(config: Path, match: subprocess.Popen[bytes]) -> None:
    result = run("explain", match.pid, "-c", config, "--json")
    document = json.loads(result.stdout)

    assert result.returncode == 0
    assert list(document) == [
        "pid", "name", "rule", "oom_score_adj", "wanted", "left_alone", "rules", "read",
        "not_known",
    ]  # fmt: skip
    assert (document["pid"], document["rule"], document["wanted"]) == (
        match.pid,
        "waiting",
        300,
    )
    assert document["left_alone"] is None
    assert document["rules"] == [
        {"name": "waiting", "oom_score_adj": 300, "matches": True, "failed_key": None},
        {"name": "other", "oom_score_adj": -5, "matches": False, "failed_key": "name"},
    ]
    assert document["read"]["cmdline"].endswith(" marker-of-this-test")
    assert document["read"]["uid"] == os.getuid()
    assert document["read"]["exe"].startswith("/")


def test_explain_a_worker(config: Path) -> None:
    command = [sys.executable, "-c", FORKS, "marker-of-this-test"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        document = json.loads(run("explain", worker, "-c", config, "--json").stdout)
        parent.communicate()

    assert (document["rule"], document["wanted"]) == ("waiting", 200)


def test_explain_pid_1_is_left_alone(config: Path) -> None:
    result = run("explain", 1, "-c", config)

    assert result.returncode == 1
    assert "Left alone: pid 1 is never touched." in result.stdout


def test_explain_one_that_is_not_there(config: Path) -> None:
    result = run("explain", 4194304 + 1, "-c", config)

    assert (result.returncode, result.stdout) == (1, "")
    assert "there is no process 4194305" in result.stderr


def test_explain_with_a_bad_configuration_is_status_78(broken: Path) -> None:
    result = run("explain", os.getpid(), "-c", broken)

    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.count("oomwatchd explain: ") == 3


def test_hostile_text_is_shown_on_one_line_and_without_escapes(config: Path) -> None:
    command = [sys.executable, "-c", WAITS, "marker-of-this-test\n\x1b[2J\u202e"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        shown = [
            run("explain", child.pid, "-c", config).stdout,
            run("check", config).stdout,
        ]
        document = json.loads(run("explain", child.pid, "-c", config, "--json").stdout)
        child.communicate()

    assert all(text.replace("\n", "").isprintable() for text in shown)
    assert "marker-of-this-test\\n\\x1b[2J\\u202e" in shown[0]
    assert document["read"]["cmdline"].endswith("marker-of-this-test\n\x1b[2J\u202e")
