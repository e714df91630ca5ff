"""What tests need of the machine: without it, they are skipped, or fail if all has to be there."""

import os
import pty
import shutil
from pathlib import Path

import pytest

REQUIRED = {"CI", "OOMWATCHD_REQUIRE_LINTERS"}  # any of these, set to something


def demanded(program: Path | str) -> str:
    """The path of what script/test installs or fetches."""
    if path := shutil.which(program):
        return path
    reason = f"no {program}: script/test has not fetched it, or could not"
    if any(os.environ.get(name) for name in REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


def terminal() -> tuple[int, int]:
    """A terminal's two ends, for the test to close."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminals here, as in a bare chroot: {error}")
