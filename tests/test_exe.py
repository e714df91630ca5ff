"""Which file a process runs, what proves it, and on which file systems that is looked up."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
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
ODD = b"/odd\x0c\x1c\xc2\x85\xe2\x80\xa8\xff"  # what Python takes for line breaks, and no text


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


def test_a_mount_that_a_user_calls_oddly_is_one_line() -> None:
    mounts = parse_mountinfo(MOUNTINFO + b"34 22 0:44 / %s rw - fuse x rw\n" % ODD)

    assert len(mounts) == 6
    assert kind_at(os.fsdecode(ODD) + "/x", mounts) == "fuse"


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


# -- what runs -------------------------------------------------------------------------------------


def anything(_path: str) -> bool:
    return True


def exe_of(process_directory: Path, wanted: Callable[[str], bool] = anything) -> Exe | None:
    directory = os.open(process_directory, READ_DIRECTORY)
    try:
        return read_exe(directory, wanted)
    finally:
        os.close(directory)


def exe_of_child(program: Path, wanted: Callable[[str], bool] = anything) -> Exe | None:
    with subprocess.Popen([program], stdin=subprocess.PIPE) as child:
        exe = exe_of(PROC / str(child.pid), wanted)
        child.communicate()
    return exe


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of our own, which waits for the end of its input."""
    path = tmp_path / "waits"
    shutil.copy2(shutil.which("cat") or "/bin/cat", path)
    return path


def test_the_file_at_its_path_is_proven(program: Path) -> None:
    assert exe_of_child(program) == Exe(str(program), proven=True)


def test_a_program_replaced_by_an_upgrade_keeps_its_proof(program: Path) -> None:
    with subprocess.Popen([program], stdin=subprocess.PIPE) as child:
        fresh = program.with_suffix(".dpkg-new")
        shutil.copy2(program, fresh)
        fresh.rename(program)
        exe = exe_of(PROC / str(child.pid))
        child.communicate()

    assert exe == Exe(str(program), proven=True)


def test_a_file_that_is_merely_called_deleted_keeps_its_name(program: Path) -> None:
    posing = program.with_name("postgres (deleted)")
    program.rename(posing)

    assert exe_of_child(posing) == Exe(str(posing), proven=True)


POSE = """
mount -t tmpfs none {home}
touch '{home}/postgres (deleted)'
mount --bind {program} '{home}/postgres (deleted)'
exec '{home}/postgres (deleted)'
"""


def test_root_s_program_mounted_at_a_path_called_deleted_proves_nothing(tmp_path: Path) -> None:
    """Anybody may do that in a mount namespace of his own."""
    program, home = shutil.which("cat") or "/bin/cat", tmp_path
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    if subprocess.run([*unshare, "mount -t tmpfs none /mnt"], check=False).returncode:
        pytest.skip("no user namespaces here")
    script = POSE.format(program=program, home=home)
    with subprocess.Popen([*unshare, script], stdin=subprocess.PIPE) as child:
        until = time.monotonic() + 10
        while (exe := exe_of(PROC / str(child.pid))) is None or "postgres" not in exe.path:
            assert time.monotonic() < until
            time.sleep(0.01)
        child.communicate()

    assert exe == Exe(f"{home}/postgres (deleted)", proven=False)


def test_the_path_is_looked_up_as_the_machine_has_it(fake: FakeProc, tmp_path: Path) -> None:
    """Our own service has a /tmp of its own; pid 1 has that of the machine."""
    machine = tmp_path / "machine"
    (machine / str(tmp_path).lstrip("/")).mkdir(parents=True)
    program = tmp_path / "program"
    program.touch()
    fake.add(Fake(7), exe=program)
    as_we_have_it = exe_of(fake.root / "7")
    (fake.root / "1").mkdir()
    (fake.root / "1/root").symlink_to(machine)
    (fake.root / "1/mountinfo").write_bytes(b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    (fake.root / "1/mountinfo").write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\n")
    not_there = exe_of(fake.root / "7")
    os.link(program, f"{machine}{program}")

    assert as_we_have_it == Exe(str(program), proven=True)
    assert not_there == Exe(str(program), proven=False)
    assert exe_of(fake.root / "7") == Exe(str(program), proven=True)


def test_a_program_that_may_not_be_seen_is_none(fake: FakeProc) -> None:
    fake.add(Fake(7))

    assert exe_of(fake.root / "7") is None


def test_bytes_in_a_path_that_are_no_text_can_be_told_apart(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))
    odd.touch()
    process = tmp_path / "7"
    process.mkdir()
    (process / "exe").symlink_to(odd)

    assert exe_of(process) == Exe(f"{tmp_path}/\\xff\n", proven=True)


def test_proof_is_only_sought_for_a_path_that_somebody_wants(program: Path) -> None:
    asked: list[str] = []

    def wanted(path: str) -> bool:
        asked.append(path)
        return False

    assert exe_of_child(program, wanted) == Exe(str(program), proven=False)
    assert asked == [str(program)]
