"""The scripts that people start: what can be seen of them without installing anything."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from oomwatchd import __version__

CHECKOUT = Path(__file__).parent.parent


def test_nothing_is_installed_that_is_there() -> None:
    done = subprocess.run(
        [CHECKOUT / "script/need", "dpkg", "libc6"], cwd="/", capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user")
def test_an_ordinary_user_is_told_which_packages_are_missing() -> None:
    done = subprocess.run(
        ["sh", "-s", "dpkg", "no-such-package"],
        input=(CHECKOUT / "script/need").read_text(),
        cwd="/",
        user=65534,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 77
    assert done.stderr.endswith("can install: no-such-package\n")


def installed(checkout: Path) -> str:
    """What script/install calls, in order; others play their parts."""
    environment = {**os.environ, "PATH": f"{checkout / '.bin'}:/usr/bin:/bin"}
    subprocess.run(
        [checkout / "script/install"], cwd="/", env=environment, capture_output=True, check=True
    )
    log = checkout / ".log"
    called = log.read_text()
    log.unlink()
    return called


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With script/install, all of whose work is done by others."""
    for name in ("script", "oomwatchd", "dist", ".bin", "oomwatchd/__pycache__"):
        (tmp_path / name).mkdir()
    shutil.copy(CHECKOUT / "script/install", tmp_path / "script")
    shutil.copy(CHECKOUT / "oomwatchd/__init__.py", tmp_path / "oomwatchd")
    log, deb = tmp_path / ".log", tmp_path / f"dist/oomwatchd_{__version__}_all.deb"
    parts = {
        "script/build-deb": f"echo build >>{log}; touch {deb}",
        "script/apt": f'echo "$*" >>{log}',
        ".bin/id": "echo 0",
        ".bin/systemctl": "",
    }
    for name, part in parts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{part}\n")
        (tmp_path / name).chmod(0o755)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    return tmp_path


INSTALLS = f"install --reinstall ./dist/oomwatchd_{__version__}_all.deb\n"


def test_install_builds_the_package_once(checkout: Path) -> None:
    first, second = installed(checkout), installed(checkout)

    assert (first, second) == (f"build\n{INSTALLS}", INSTALLS)


@pytest.mark.parametrize("name", ["oomwatchd/new.py", "oomwatchd/__init__.py", "README.md"])
def test_install_builds_it_anew_after_a_pull(checkout: Path, name: str) -> None:
    """The version stays the same between releases."""
    installed(checkout)
    pulled = time.time() + 1
    with (checkout / name).open("a"):
        os.utime(checkout / name, (pulled, pulled))

    assert installed(checkout) == f"build\n{INSTALLS}"


@pytest.mark.parametrize("name", ["oomwatchd/__pycache__/cli.pyc", ".git", "dist/other.deb"])
def test_install_builds_nothing_for_what_is_not_in_the_package(checkout: Path, name: str) -> None:
    installed(checkout)
    later = time.time() + 1
    (checkout / name).touch()
    os.utime(checkout / name, (later, later))

    assert installed(checkout) == INSTALLS


@pytest.mark.skipif(os.getuid() != 0, reason="only root's files are checked")
@pytest.mark.parametrize(("mode", "copied"), [(0o644, False), (0o664, True), (0o646, True)])
def test_run_takes_a_copy_of_the_example_if_others_could_write_it(
    tmp_path: Path, mode: int, *, copied: bool
) -> None:
    for name in ("script", "config", "oomwatchd"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    (tmp_path / "config/example.yaml").chmod(mode)

    done = subprocess.run(
        [tmp_path / "script/run", "--help"], cwd="/", capture_output=True, text=True
    )

    assert done.returncode == 0
    assert done.stderr.startswith("using a copy") is copied
