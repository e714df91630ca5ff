"""The first steps of a hook's process: it sheds what it has inherited, and becomes the hook.

It runs in a process of its own.  ``python3 -I -c ... PACKAGE_PARENT PROGRAM ARGUMENT...``
"""

import os
import signal
import sys
from contextlib import suppress
from typing import Final, NoReturn

from oomwatchd.kernel.adjust import write
from oomwatchd.kernel.proc import PROC, READ_DIRECTORY

NOT_FOUND: Final = 127  # as shells have it
NOT_RUN: Final = 126
ORDINARY: Final = 0  # oom_score_adj, and niceness


def main() -> NoReturn:
    program, *_ = command = sys.argv[2:]
    shed()
    try:
        os.execv(program, command)  # noqa: S606 - that is what it is for
    except OSError as error:
        sys.stderr.write(f"{program}: {error.strerror}\n")
        sys.exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN)


def shed() -> None:
    """A hook is not to outlive what we protect, nor to be served before it."""
    directory = os.open(PROC / "self", READ_DIRECTORY)
    write(directory, ORDINARY)
    os.close(directory)
    with suppress(PermissionError):  # the unit's filter of system calls lets nobody change it
        os.setpriority(os.PRIO_PROCESS, 0, ORDINARY)
    os.chdir("/")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and exec hands on
        signal.signal(number, signal.SIG_DFL)
