"""The examples of what `systemctl edit oomwatchd` may write: with each the unit is still one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_packaging import (
    BREAKING,
    CHECKOUT,
    DESCRIPTORS_PER_PROCESS,
    HELD_KIB,
    RESIDENT_MIB,
    UNIT,
    needs_systemd_analyze,
)

from oomwatchd.cli import exits

EXAMPLES = sorted((CHECKOUT / "packaging/systemd/examples").glob("*.conf"))
each = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def settings(example: Path) -> list[tuple[str, str]]:
    lines = (line.partition("=") for line in example.read_text().splitlines() if "=" in line)
    return [(name, value) for name, _, value in lines if name[:1].isalpha()]


def told_by_verify(directory: Path, dropin: str) -> str:
    """Of the unit with the drop-in; programs have to exist, so another takes their place."""
    copy = directory / UNIT.name
    copy.write_text(with_another_program(UNIT.read_text()))
    (directory / f"{UNIT.name}.d").mkdir()
    (directory / f"{UNIT.name}.d/50-example.conf").write_text(with_another_program(dropin))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )

    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"{done.returncode}")


def with_another_program(text: str) -> str:
    return re.sub(r"=/\S+/oomwatchd ", "=/bin/true ", text)


@needs_systemd_analyze
@each
def test_systemd_finds_nothing_to_object_to(example: Path, tmp_path: Path) -> None:
    assert told_by_verify(tmp_path, example.read_text()) == ""


@needs_systemd_analyze
@pytest.mark.parametrize(
    ("dropin", "objection"),
    [
        ("MemoryMinimum=64M", "Unknown key"),
        ("IPAddressAllow=my-network", "is invalid"),
        ("ExecStart=/usr/bin/oomwatchd run", "more than one ExecStart="),
    ],
)
def test_what_systemd_does_not_take_would_be_seen(
    dropin: str, objection: str, tmp_path: Path
) -> None:
    assert objection in told_by_verify(tmp_path, f"[Service]\n{dropin}\n")


@each
def test_what_would_break_the_daemon_is_in_none(example: Path) -> None:
    assert BREAKING.isdisjoint(name for name, _ in settings(example))


@each
def test_the_program_takes_the_arguments(example: Path) -> None:
    """Of those that start it; there is no such file here."""
    commands = [value.split()[1:] for name, value in settings(example) if name == "ExecStart"]
    for words in filter(None, commands):
        option = [] if "-c" in words else ["-c", "/no/such/file"]
        done = subprocess.run(
            [sys.executable, "-m", "oomwatchd", *words, *option, "--dry-run"],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            check=False,
        )

        assert done.returncode == exits.NO_INPUT


def test_memory_suffices_for_as_many_processes_as_its_descriptors() -> None:
    [example] = [path for path in EXAMPLES if path.stem == "memory"]
    found = dict(settings(example))
    held = int(found["LimitNOFILE"]) // DESCRIPTORS_PER_PROCESS

    assert RESIDENT_MIB + held * HELD_KIB / 1024 < int(found["MemoryMax"].removesuffix("M"))


def test_the_manual_shows_each() -> None:
    manual = (CHECKOUT / "docs/fleet.md").read_text()
    shown = re.findall(
        r"^\| \[(\S+)\]\(../packaging/systemd/examples/\1\) \|", manual, re.MULTILINE
    )

    assert shown == [path.name for path in EXAMPLES]
