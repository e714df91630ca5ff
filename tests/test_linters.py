"""The linters, as tests.  Versions matter to them, so they are those that script/test installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from demand import demanded

CHECKOUT = Path(__file__).parent.parent
PROGRAMS = CHECKOUT / ".venv" / "bin"
PACKAGES = ("oomwatchd", "tests", "bench", "script/manual")
CODE = [name for name in PACKAGES if any((CHECKOUT / name).rglob("*.py"))]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "--diff", "."],
        ["ruff", "check", "."],
        ["mypy", "--strict", *CODE],
        # Grafana's library is for no older Python.
        ["mypy", "--strict", "--python-version=3.11", "script/board"],
    ],
    ids=["ruff-format", "ruff-check", "mypy", "mypy-board"],
)
def test_the_linter_has_nothing_to_say(command: list[str]) -> None:
    program = PROGRAMS / command[0]
    demanded(program)

    done = subprocess.run([program, *command[1:]], cwd=CHECKOUT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["yamllint", "--strict", "."],
        ["ansible-lint", "--offline", "--strict", "--profile=production", "."],
    ],
    ids=["yamllint", "ansible-lint"],
)
def test_the_role_for_ansible_has_no_faults(command: list[str], tmp_path: Path) -> None:
    program = PROGRAMS / command[0]
    demanded(program)
    directory = tmp_path / "ansible"  # a copy, as Ansible writes a cache beside what it reads
    shutil.copytree(CHECKOUT / "packaging/ansible", directory)
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    done = subprocess.run(
        [program, *command[1:]], cwd=directory, env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_scripts_pass_shellcheck() -> None:
    demanded("shellcheck")
    scripts = [path for path in CHECKOUT.rglob("*") if is_shell_script(path)]

    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)

    assert len(scripts) > 5
    assert done.returncode == 0, done.stdout


def is_shell_script(path: Path) -> bool:
    generated = {".git", ".venv", "build", "dist"}
    if generated & set(path.relative_to(CHECKOUT).parts) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16).startswith((b"#!/bin/sh", b"#!/bin/bash"))
