"""Which file systems a program's file may be looked up on."""

import os
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc

from oomwatchd.kernel.exe import Mount, kind_at, parse_mountinfo, read_exe
from oomwatchd.kernel.proc import PROC, READ_DIRECTORY
from oomwatchd.kernel.statx import status_of
from oomwatchd.model import Exe

MOUNTINFO = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home/al/my\040net rw,nosuid master:3 shared:7 - fuse.sshfs al@host:/ rw
31 30 0:41 / /home/al/my\040net/local rw - tmpfs tmpfs rw
32 22 0:42 / /srv rw - nfs4 server:/srv rw
33 22 0:43 / /srv rw - ext4 /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/usr/bin/python3", "ext4"),
        ("/home/al/my net", "fuse.sshfs"),
        ("/home/al/my net/bin/x", "fuse.sshfs"),
        ("/home/al/my network", "ext4"),
        ("/home/al/my net/local/x", "tmpfs"),
        ("/srv/x", "ext4"),  # mounted over what was there
    ],
)
def test_a_path_lies_on_the_uppermost_mount_above_it(path: str, kind: str) -> None:
    assert kind_at(path, parse_mountinfo(MOUNTINFO)) == kind


def test_the_machine_s_own_mounts_can_be_read() -> None:
    mounts = parse_mountinfo((PROC / "self/mountinfo").read_bytes())

    assert kind_at("/proc/self", mounts) == "proc"
    assert Mount("/proc", "proc") in mounts


@pytest.mark.parametrize("raw", [b"x", b"22 1 254:0 / /\n", b"22 1 254:0 / / rw shared:1 ext4\n"])
def test_what_is_no_mountinfo_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        parse_mountinfo(raw)


@pytest.mark.parametrize(("kind", "proven"), [("ext4", True), ("fuse.x", False), ("nfs4", False)])
def test_what_somebody_serves_proves_nothing(
    fake: FakeProc,
    tmp_path: Path,
    kind: str,
    proven: bool,  # noqa: FBT001 - a table
) -> None:
    program = tmp_path / "program"
    program.touch()
    fake.add(Fake(7), exe=program)
    (fake.root / "1").mkdir()
    (fake.root / "1/root").symlink_to("/")
    (fake.root / "1/mountinfo").write_text(f"22 1 254:0 / / rw - {kind} source rw\n")
    directory = os.open(fake.root / "7", READ_DIRECTORY)
    exe = read_exe(directory, lambda _path: True)
    unasked = read_exe(directory, lambda _path: False)
    os.close(directory)

    assert exe == Exe(str(program), proven=proven)
    assert unasked == Exe(str(program), proven=False)


def test_statx_tells_what_stat_tells(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch()
    os.link(program, tmp_path / "other")
    expected = program.stat()

    status = status_of(str(program))

    assert os.makedev(*status.device) == expected.st_dev
    assert (status.inode, status.links, status.uid) == (expected.st_ino, 2, expected.st_uid)
    with pytest.raises(FileNotFoundError):
        status_of(str(tmp_path / "missing"))
