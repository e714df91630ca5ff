"""From a look at /proc to a `Process`: reads what the rules need, and no more."""

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from oomwatchd.kernel.cgroup import CGROUP_ROOT, Membership, parse_cgroup, units_of
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.namespace import in_machine, our_root
from oomwatchd.kernel.patience import Overdue, PatientReader
from oomwatchd.kernel.proc import (
    COMM_LIMIT_BYTES,
    GONE,
    Look,
    parse_arguments,
    read,
    read_arguments,
    read_working_directory,
)
from oomwatchd.kernel.status import read_status
from oomwatchd.model import CMDLINE_LIMIT_BYTES, Exe, Needs, Process
from oomwatchd.policy.patterns import globbed
from oomwatchd.policy.script import script_of
from oomwatchd.policy.shielding import our_scope
from oomwatchd.text import decoded

CGROUPS: Final = CgroupFs(CGROUP_ROOT)
NEW_NANOSECONDS: Final = 100_000_000
UNTOLD: Final = Membership("", "")
CGROUP_KEPT_BYTES: Final = 1024
CGROUP_LIMIT_BYTES: Final = 65536  # a path may be 4 KiB long, in each of a dozen v1 hierarchies


class Slow(NamedTuple):
    """What may take as long as the process's owner likes."""

    arguments: bytes
    exe: Exe | None
    gone: bool = False


class Unreadable(NamedTuple):
    """The process is there, but its command line did not come in time: ask again later."""

    read: Overdue


class Untried(NamedTuple):
    """Others have used up the time: its turn comes at the next one."""


SlowReader = PatientReader[Slow]
Identity = Process | Unreadable | Untried | None  # None: gone


def identify(
    looks: Sequence[Look],
    needs: Needs,
    reader: SlowReader,
    execed_ns: Mapping[int, int] = MappingProxyType({}),
) -> list[Identity]:
    """What each of *looks* is a look at, in their order.

    *execed_ns* is when, by pid and by the monotonic clock, some have executed their program.
    """
    reads = [slow_read(look, needs, execed_ns.get(look.id.pid, 0)) for look in looks]
    answers = iter(reader.answers([read for read in reads if not isinstance(read, Slow)]))
    return [
        assembled(look, needs, read if isinstance(read, Slow) else next(answers, Untried()))
        for look, read in zip(looks, reads, strict=True)
    ]


def is_new(execed_ns: int) -> bool:
    """Whether a program is too new for its memory to make anybody wait.

    It lies where execve has just put it, so nothing has to be fetched; and there is too little of
    it yet to be busy with for long.  To read it at once is several times cheaper than to have
    another thread do so.
    """
    return time.monotonic_ns() - execed_ns < NEW_NANOSECONDS


def slow_read(look: Look, needs: Needs, execed_ns: int) -> Slow | Callable[[], Slow]:
    """The part of reading *look* that may be slow, to be done apart; or what it has read."""
    cmdline = needs.cmdline or (needs.long_name and len(look.stat.comm) == COMM_LIMIT_BYTES)
    if not cmdline and not needs.exe:
        return Slow(b"", None)
    exe_of = exe_reader(needs.exe)

    def job() -> Slow:
        try:
            arguments = read_arguments(look.directory) if cmdline else b""
            return Slow(arguments, exe_of(look.directory))
        except GONE:
            return Slow(b"", None, gone=True)
        except PermissionError:  # an ordinary user, looking at what hidepid covers
            return Slow(b"", None)

    return job() if not needs.exe and is_new(execed_ns) else job


def assembled(look: Look, needs: Needs, slow: Slow | Untried | Overdue) -> Identity:
    if isinstance(slow, Overdue):
        return Unreadable(slow)
    if isinstance(slow, Untried):
        return slow
    if slow.gone:
        return None
    arguments = parse_arguments(slow.arguments)
    words = [decoded(argument) for argument in arguments]
    comm = decoded(look.stat.comm)
    script = script_of(words, comm) if words else None
    process = Process(
        id=look.id,
        parent_pid=look.stat.parent_pid,
        comm=comm,
        long_name=long_name(look.stat.comm, arguments, script),
        cmdline=shown_cmdline(slow.arguments) if needs.cmdline else None,
        script=script,
        script_path=absolute(script, look.directory) if needs.working_directory else None,
        exe=slow.exe,
    )
    return placed(process, look, needs)


def placed(process: Process, look: Look, needs: Needs) -> Process | None:
    """*process* with its owner and its cgroup, as far as they are needed; None if it has gone."""
    try:
        uid = read_status(look.directory).uid if needs.uid else None
        membership = home_of(look.directory) if needs.cgroup else None
    except GONE:
        return None
    if membership is None:
        return process if uid is None else process.placed(uid, None, None)
    return process.placed(uid, units_of(membership.unit_path), membership.path)


@lru_cache(maxsize=1)
def exe_reader(patterns: tuple[str, ...]) -> Callable[[int], Exe | None]:
    """Reads the program's file, if any of *patterns* asks for such files.

    Not within the time that a read may take, as importing takes its time as well.
    """
    if not patterns:
        return lambda _directory: None
    from oomwatchd.kernel.exe import read_exe  # ctypes: 0.8 MiB, which only such rules cost

    wanted = globbed(patterns)
    return lambda directory: read_exe(directory, wanted)


def cgroup_of(
    directory: int, name: str = "cgroup", decode: Callable[[bytes], str] = decoded
) -> Membership:
    """Where the process lies; nowhere that a pattern names, if the kernel cannot tell.

    By os.fsdecode the path leads back to the directory; otherwise it is fit to be shown.

    Before Linux 6.8 it refuses (ENAMETOOLONG) where the path is longer than 4 KiB, and whoever has
    a cgroup of his own can nest more of them as deep as that.
    """
    try:
        raw = read(directory, name, CGROUP_LIMIT_BYTES)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return UNTOLD
    placed = kept_cgroup if len(raw) <= CGROUP_KEPT_BYTES else placed_cgroup
    return placed(raw, decode)


def placed_cgroup(raw: bytes, decode: Callable[[bytes], str]) -> Membership:
    return in_machine(parse_cgroup(raw, decode), our_root())


# What many processes have in common, as they lie in the same cgroup.
kept_cgroup: Final = lru_cache(maxsize=256)(placed_cgroup)


def home_of(directory: int, cgroups: CgroupFs = CGROUPS) -> Membership:
    """Where the process lies; or lay, before we moved it to a scope: that loses it no rule."""
    membership = cgroup_of(directory)
    scope = our_scope(membership.path)
    home = cgroups.home_of(scope) if scope is not None else None
    return Membership(decoded(home), decoded(home)) if home is not None else membership


def shown_cmdline(raw: bytes) -> str:
    """The arguments joined by one space, as patterns and people see them."""
    return decoded(raw[:CMDLINE_LIMIT_BYTES].rstrip(b"\0").replace(b"\0", b" "))


def long_name(comm: bytes, arguments: Sequence[bytes], script: str | None) -> str | None:
    """The name that *comm* is the first 15 bytes of, if the program or script was called by it."""
    if len(comm) < COMM_LIMIT_BYTES:
        return None
    called = [*arguments[:2], *([script.encode()] if script else [])]
    names = (word.rpartition(b"/")[2] for word in called)
    return next((decoded(name) for name in names if name.startswith(comm)), None)


def absolute(script: str | None, directory: int) -> str | None:
    """Where *script* lies, if it was given relative to the directory the process works in."""
    if script is None or script.startswith("/"):
        return script
    working_directory = read_working_directory(directory)
    if working_directory is None:
        return None
    return f"{working_directory.rstrip('/')}/{script.removeprefix('./')}"
