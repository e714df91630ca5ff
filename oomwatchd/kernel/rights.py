"""Whether a process may kill others: a program may have the name of one that does."""

import re
from typing import Final

from oomwatchd.kernel.proc import read

CAP_KILL: Final = 5
WHOLE_UID_RANGE: Final = [b"0", b"0", b"4294967295"]  # the initial user namespace
STATUS_LIMIT_BYTES: Final = 1 << 20  # a process may have 65,536 groups, all in one line
_EFFECTIVE: Final = re.compile(rb"^CapEff:\t([0-9a-f]+)$", re.MULTILINE)


def may_kill(directory: int) -> bool:
    """Whether the process that *directory* holds has CAP_KILL, and that not in a user namespace.

    Raises:  OSError; one of `kernel.proc.GONE`, if the process has ended.
    Source:  capabilities(7), user_namespaces(7).
    """
    effective = _EFFECTIVE.search(read(directory, "status", STATUS_LIMIT_BYTES))
    if effective is None or not int(effective[1], 16) >> CAP_KILL & 1:
        return False
    return read(directory, "uid_map").split() == WHOLE_UID_RANGE
