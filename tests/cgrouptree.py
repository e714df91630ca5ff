"""A tree of cgroups in a temporary directory, with what we use of one: directories and xattrs.

What differs from the kernel: a cgroup's inode may be given out again, and files do not act.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OMIT = "user.oomd_omit"


class CgroupTree:
    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, *cgroups: str) -> None:
        for cgroup in cgroups:
            self._path(cgroup).mkdir(parents=True, exist_ok=True)

    def remove(self, cgroup: str) -> None:
        shutil.rmtree(self._path(cgroup))

    def again(self, cgroup: str) -> None:
        """It ends, and another of the same name comes."""
        path = self._path(cgroup)
        path.rename(path.with_name("ended"))  # so that its inode is not free
        path.mkdir()
        shutil.rmtree(path.with_name("ended"))

    def set_group(self, cgroup: str) -> None:
        (self._path(cgroup) / "memory.oom.group").write_text("1\n")

    def set_mark(self, cgroup: str, value: bytes = b"1") -> None:
        """Somebody else does."""
        os.setxattr(self._path(cgroup), OMIT, value)

    def remove_mark(self, cgroup: str) -> None:
        os.removexattr(self._path(cgroup), OMIT)

    def mark(self, cgroup: str) -> bytes | None:
        try:
            return os.getxattr(self._path(cgroup), OMIT)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return None

    def marked(self) -> set[str]:
        root = str(self.root)
        return {
            path.removeprefix(root)
            for path, _, _ in os.walk(root)
            if self.mark(path.removeprefix(root)) is not None
        }

    def _path(self, cgroup: str) -> Path:
        return Path(f"{self.root}{cgroup}")


@contextmanager
def cgroup_tree() -> Iterator[CgroupTree]:
    """On a file system that takes user xattrs; tmpfs does since Linux 6.6 only."""
    for where in (None, "/var/tmp"):  # noqa: S108 - mkdtemp chooses the name below it
        with tempfile.TemporaryDirectory(dir=where, prefix="cgroup-") as name:
            try:
                os.setxattr(name, OMIT, b"")
                os.removexattr(name, OMIT)
            except OSError:
                continue
            yield CgroupTree(Path(name))
            return
    pytest.skip("no file system here takes user xattrs")
