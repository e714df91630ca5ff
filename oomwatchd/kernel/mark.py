"""The mark by which systemd-oomd passes a cgroup over: an extended attribute of its directory.

systemd-oomd reads it each time that it looks for somebody to kill, of the cgroups that it may kill;
it is not inherited by those below.  systemd sets and removes it too, for its units (and only for
these), when it applies ManagedOOMPreference=.  Users may set it on cgroups of their own.

Source:  systemd, src/oom/oomd-util.c, oomd_fetch_cgroup_oom_preference(); src/core/cgroup.c,
         cgroup_oomd_xattr_apply(); systemd.resource-control(5).  cgroup2 takes the attribute since
         Linux 5.7; before that systemd-oomd knows no marks (trusted.* is something else to it).
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.kernel.proc import READ_DIRECTORY

OMIT: Final = "user.oomd_omit"
SET: Final = b"1"
HOME: Final = "user.oomwatchd_home"  # on a scope of ours: the cgroup that its first process is from
MEANS_YES: Final = frozenset({b"1", b"yes", b"y", b"true", b"t", b"on"})  # parse_boolean()
PATH_MAX_BYTES: Final = 4096  # include/uapi/linux/limits.h
VANISHED: Final = (errno.ENOENT, errno.ENODEV)


class Vanished(Exception):
    """The cgroup is there no more."""


class Refused(Exception):
    """The kernel or a mount does not let us; the text is the errno's name."""


class Cgroup(NamedTuple):
    """A cgroup's directory, held: never another one, should the path come to mean that."""

    directory: int
    inode: int  # the kernel gives it out once, on 64-bit machines; kernel/cgroup: the cgroup's id


class CgroupFs:
    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)

    def path_of(self, cgroup: str) -> str:
        return f"{self.root}{cgroup}"

    def is_marked(self, cgroup: str) -> bool:
        """Whether it is marked now.  One system call, if the path is not too long."""
        path = self.path_of(cgroup)
        if len(os.fsencode(path)) >= PATH_MAX_BYTES:
            with self.held(cgroup) as directory:
                return is_marked(directory)
        with _told_apart():
            return marked(path)

    def home_of(self, scope: str) -> bytes | None:
        """Where those in a scope of ours are from; rules still see them there."""
        try:
            return os.getxattr(self.path_of(scope), HOME, follow_symlinks=False)
        except OSError:  # gone; or not set by us
            return None

    def is_killed_as_one(self, cgroup: str) -> bool:
        """memory.oom.group: systemd-oomd takes it whole, too, and looks at no mark below it."""
        try:
            with open(f"{self.path_of(cgroup)}/memory.oom.group", "rb") as file:
                return file.read(2) == b"1\n"
        except OSError:  # gone, or without the memory controller
            return False

    @contextmanager
    def held(self, cgroup: str) -> Iterator[Cgroup]:
        """The directory of the cgroup of that path, by way of directories alone, never of links."""
        with _told_apart():
            directory = os.open(self.root, READ_DIRECTORY)
            for component in cgroup.strip("/").split("/"):
                above = directory
                try:
                    directory = os.open(component, READ_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
                finally:
                    os.close(above)
            inode = os.fstat(directory).st_ino
        try:
            yield Cgroup(directory, inode)
        finally:
            os.close(directory)


def is_marked(cgroup: Cgroup) -> bool:
    with _told_apart():
        return marked(cgroup.directory)


def mark(cgroup: Cgroup) -> None:
    """Have systemd-oomd pass *cgroup* over."""
    with _told_apart():
        os.setxattr(cgroup.directory, OMIT, SET)


def set_home(scope: Cgroup, home: str) -> None:
    with _told_apart():
        os.setxattr(scope.directory, HOME, os.fsencode(home))


def unmark(cgroup: Cgroup) -> None:
    with _told_apart():
        try:
            os.removexattr(cgroup.directory, OMIT)
        except OSError as error:
            if error.errno != errno.ENODATA:  # somebody else was quicker
                raise


def marked(where: str | int) -> bool:
    try:
        value = os.getxattr(where, OMIT, follow_symlinks=isinstance(where, int))
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise
    return value.strip().lower() in MEANS_YES


@contextmanager
def _told_apart() -> Iterator[None]:
    """Raises:  Vanished or Refused, for every OSError."""
    try:
        yield
    except OSError as error:
        if error.errno in VANISHED:
            raise Vanished from error
        raise Refused(errno.errorcode.get(error.errno or 0, str(error))) from error
