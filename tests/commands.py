"""The commands, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent
NOBODY = 65534
PATIENCE_SECONDS = 20.0
GOOD = """\
rules:
  - name: waiting
    match: {cmdline: 'marker-of-this-test'}
    oom_score_adj: 300
    workers: 200
  - name: other
    match: {name: no-such-program}
    oom_score_adj: -5
"""
WAITS = "import sys; print(flush=True); sys.stdin.read()"
FORKS = """
import os, sys
pid = os.fork()
if pid:
    print(pid, flush=True)
    sys.stdin.read()
    os.waitpid(pid, 0)
else:
    sys.stdin.read()
"""
BAD = """\
intervall: 5s
rules:
  - name: x
    match: {}
    oom_score_adj: 2000
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oomwatchd", *map(str, arguments)]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False,
        timeout=PATIENCE_SECONDS, **options,
    )  # fmt: skip


def run_as_nobody(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run(*arguments, user=NOBODY, group=NOBODY, extra_groups=[])
