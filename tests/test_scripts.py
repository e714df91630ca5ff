"""The scripts that people start: what can be seen of them without installing anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
