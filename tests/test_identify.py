"""From a look at /proc to a `Process`: what is read, how it is shown, and what may go wrong."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from cgrouptree import cgroup_tree
from fakeproc import Fake, FakeProc, at_each_open, at_open_number

from oomwatchd.identify import (
    Identity,
    SlowReader,
    Unreadable,
    Untried,
    cgroup_of,
    home_of,
    identify,
    long_name,
    shown_cmdline,
)
from oomwatchd.kernel.cgroup import Membership
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.proc import Look, ProcFs
from oomwatchd.model import CMDLINE_LIMIT_BYTES, Exe, Needs, Process, ProcessId, Units

EVERYTHING = Needs(
    cmdline=True, long_name=True, exe=("*",), uid=True, cgroup=True, working_directory=True
)
CGROUP = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/job.service\n"
JOB = Fake(
    7,
    comm=b"python3",
    arguments=(b"python3", b"-u", b"./train.py", b"--epochs", b"3"),
    parent=4,
    start_ticks=4242,
    cgroup=CGROUP,
)
Identified = Callable[..., list[Identity]]


@pytest.fixture
def identified(proc: ProcFs) -> Iterator[Identified]:
    """Looks at the pids, which stay held until the test ends, and identifies them."""
    reader = SlowReader()
    with ExitStack() as stack:

        def all_of(pids: Sequence[int], needs: Needs) -> list[Identity]:
            looks: list[Look] = []
            for pid in pids:
                look = proc.look(pid)
                assert look is not None
                stack.callback(look.close)
                looks.append(look)
            return identify(looks, needs, reader)

        yield all_of


def one(identities: list[Identity]) -> Process:
    [process] = identities
    assert isinstance(process, Process)
    return process


def test_everything_is_read_where_everything_is_asked_for(
    fake: FakeProc, identified: Identified, tmp_path: Path
) -> None:
    fake.add(JOB, exe=Path("/bin/sh"), cwd=tmp_path)
    process = one(identified([7], EVERYTHING))

    assert process == Process(
        id=ProcessId(7, 4242),
        parent_pid=4,
        comm="python3",
        long_name=None,
        cmdline="python3 -u ./train.py --epochs 3",
        script="./train.py",
        script_path=f"{tmp_path}/train.py",
        exe=Exe("/bin/sh", proven=True),
        uid=1000,
        units=Units("user@1000.service", "job.service"),
        cgroup="/user.slice/user-1000.slice/user@1000.service/app.slice/job.service",
    )


def test_nothing_is_read_that_no_rule_asks_for(fake: FakeProc, identified: Identified) -> None:
    fake.add(JOB)
    for name in ("cmdline", "status", "cgroup", "exe", "cwd"):
        (fake.root / "7" / name).unlink(missing_ok=True)
    process = one(identified([7], Needs()))

    assert process == Process(ProcessId(7, 4242), 4, "python3")


@pytest.mark.parametrize(
    ("needs", "comm", "opened"),
    [
        (Needs(), b"cat", []),
        (Needs(cmdline=True), b"cat", ["cmdline"]),
        (Needs(uid=True), b"cat", ["status"]),
        (Needs(cgroup=True), b"cat", ["cgroup"]),
        (Needs(exe=("*",)), b"cat", []),  # a link, which is read and not opened
        (Needs(long_name=True), b"fourteen-bytes", []),
        (Needs(long_name=True), b"fifteen-bytes-!", ["cmdline"]),
    ],
)
def test_only_the_files_that_are_needed_are_opened(
    fake: FakeProc, identified: Identified, needs: Needs, comm: bytes, opened: list[str]
) -> None:
    fake.add(Fake(7, comm=comm))
    names: list[str] = []
    with at_each_open(names.append):
        identified([7], needs)

    assert names == ["7", "stat", *opened]


@pytest.mark.parametrize("cmdline", [False, True])
def test_the_program_s_file_is_read_with_and_without_the_command_line(
    fake: FakeProc,
    identified: Identified,
    cmdline: bool,  # noqa: FBT001 - a table
) -> None:
    fake.add(JOB, exe=Path("/bin/sh"))
    process = one(identified([7], Needs(exe=("*",), cmdline=cmdline)))

    assert process.exe == Exe("/bin/sh", proven=True)


def test_many_are_identified_in_their_order(fake: FakeProc, identified: Identified) -> None:
    for pid in range(10, 40):
        fake.add(Fake(pid, arguments=(b"%d" % pid,)))
    found = identified(list(range(39, 9, -1)), Needs(cmdline=True))

    assert [process.cmdline for process in found if isinstance(process, Process)] == [
        str(pid) for pid in range(39, 9, -1)
    ]


# -- races -----------------------------------------------------------------------------------------


SCOPE = "/oomwatchd.slice/oomwatchd-training-7.scope"
HOME = "/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope"


@pytest.mark.parametrize("within", ["", "/inner"])
def test_one_that_we_have_moved_counts_as_where_it_came_from(
    fake: FakeProc, proc: ProcFs, within: str
) -> None:
    """Else a rule by cgroup or unit would lose it by its own doing."""
    fake.add(Fake(7, cgroup=f"0::{SCOPE}{within}\n"))
    fake.add(Fake(8, cgroup=f"0::/user.slice{SCOPE}\n"))  # a user's own, of that name
    with cgroup_tree() as tree, ExitStack() as stack:
        tree.add(SCOPE, f"/user.slice{SCOPE}")
        for path in (SCOPE, f"/user.slice{SCOPE}"):
            os.setxattr(f"{tree.root}{path}", "user.oomwatchd_home", HOME.encode())
        looks = [look for pid in (7, 8) if (look := proc.look(pid)) is not None]
        for look in looks:
            stack.callback(look.close)
        cgroups = CgroupFs(tree.root)
        moved, posing = (home_of(look.directory, cgroups) for look in looks)
        os.removexattr(f"{tree.root}{SCOPE}", "user.oomwatchd_home")
        unknown = home_of(looks[0].directory, cgroups)

    assert moved == Membership(HOME, HOME)
    assert posing.path == f"/user.slice{SCOPE}"
    assert unknown.path == f"{SCOPE}{within}"


@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize("then", ["exit", "reuse"])
def test_a_process_that_ends_at_any_step_is_none(
    fake: FakeProc, proc: ProcFs, at: int, then: str
) -> None:
    fake.add(JOB, exe=Path("/bin/sh"))
    look = proc.look(7)
    assert look is not None

    def end() -> None:
        if then == "exit":
            fake.exit(7)
        else:
            fake.reuse(Fake(7, comm=b"sshd", start_ticks=9999))

    with at_open_number(at, end) as has_ended:
        [process] = identify([look], EVERYTHING, SlowReader())
    look.close()

    if has_ended():
        assert process is None
    else:
        assert isinstance(process, Process)
        assert process.comm == "python3"


def test_one_whose_command_line_does_not_come_is_told_from_the_others(
    fake: FakeProc, identified: Identified
) -> None:
    for pid in (5, 6, 7, 8):
        fake.add(Fake(pid))
    (fake.root / "6/cmdline").unlink()
    os.mkfifo(fake.root / "6/cmdline")
    found = identified([5, 6, 7, 8], Needs(cmdline=True))
    os.close(os.open(fake.root / "6/cmdline", os.O_WRONLY))  # what hangs ends

    assert isinstance(found[1], Unreadable)
    assert isinstance(found[0], Process)
    assert all(isinstance(one, (Process, Untried, Unreadable)) for one in found[2:])  # not: gone


def test_a_cgroup_too_deep_to_be_told_matches_no_unit(
    fake: FakeProc, identified: Identified
) -> None:
    fake.add(JOB)
    (fake.root / "7/cgroup").unlink()
    (fake.root / "7/cgroup").symlink_to("x" * 300)  # ENAMETOOLONG, as the kernel's answer
    process = one(identified([7], Needs(cgroup=True)))

    assert (process.units, process.cgroup) == (Units(None, None), "")


def test_a_broken_cgroup_file_is_no_reason_to_guess(fake: FakeProc, proc: ProcFs) -> None:
    fake.add(JOB)
    (fake.root / "7/cgroup").write_text("")
    look = proc.look(7)
    assert look is not None

    with pytest.raises(ValueError, match="not a cgroup file"):
        cgroup_of(look.directory)
    look.close()


# -- hostile text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"", ""),
        (b"\0\0", ""),
        (b"a\0b\0", "a b"),
        (b"a\0\0b\0", "a  b"),
        (b"a b\0c\0", "a b c"),  # quoting is no concern of ours
        (b"\xff\0m\xc3\xb6\0", "\\xff mö"),
        (b"a\nb\0\x1b[2J\0", "a\nb \x1b[2J"),
        (b"title: x\0\0\0\0\0", "title: x"),
        (b"x" * 5000 + b"\0secret\0", "x" * CMDLINE_LIMIT_BYTES),
        (b"x" * 4095 + b"\xc3\xb6\0", "x" * 4095 + "\\xc3"),  # cut within a letter
    ],
)
def test_a_command_line_is_shown_as_patterns_see_it(raw: bytes, shown: str) -> None:
    assert shown_cmdline(raw) == shown


@pytest.mark.parametrize("comm", [b"\xff\xfe", b"a)b", b"a\nb", b"\x1b[2J", b""])
def test_no_name_breaks_anything(fake: FakeProc, identified: Identified, comm: bytes) -> None:
    fake.add(Fake(7, comm=comm, arguments=(b"\xff" * 5000, b"", b"\n")), cwd=Path("/"))
    process = one(identified([7], EVERYTHING))

    assert process.comm == comm.decode("utf-8", "backslashreplace")
    assert process.cmdline is not None
    assert process.cmdline.isascii()


@pytest.mark.parametrize("arguments", [(), (b"",), (b"", b""), (b"\0",)])
def test_a_process_without_arguments_is_one(
    fake: FakeProc, identified: Identified, arguments: tuple[bytes, ...]
) -> None:
    fake.add(Fake(7, arguments=arguments))
    process = one(identified([7], EVERYTHING))

    assert (process.cmdline, process.script, process.comm) == ("", None, "cat")


# -- names that the kernel has cut -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("comm", "arguments", "script", "expected"),
    [
        (b"systemd-journal", [b"/lib/systemd/systemd-journald", b"-d"], None, "systemd-journald"),
        (b"systemd-journal", [b"python3", b"/bin/systemd-journald"], None, "systemd-journald"),
        (b"systemd-journal", [b"perl", b"-w", b"x"], "/bin/systemd-journald", "systemd-journald"),
        (b"systemd-journal", [b"perl", b"-w", b"x"], None, None),
        (b"systemd-journal", [b"systemd-journal"], None, "systemd-journal"),
        (b"systemd-journal", [], None, None),
        (b"Isolated Web Co", [b"/usr/lib/firefox/firefox", b"-contentproc"], None, None),
        (b"short", [b"short-of-another"], None, None),
        ("mülleräöüß".encode()[:15], ["mülleräöüß".encode()], None, "mülleräöüß"),
    ],
)  # fmt: skip
def test_the_long_name_is_one_that_the_cut_name_begins(
    comm: bytes, arguments: list[bytes], script: str | None, expected: str | None
) -> None:
    assert long_name(comm, arguments, script) == expected


def test_the_long_name_of_a_script_is_found_behind_its_interpreter_s_options(
    fake: FakeProc, identified: Identified
) -> None:
    """``#!/usr/bin/perl -w``: no other rule need ask for command lines."""
    fake.add(
        Fake(7, comm=b"unattended-upgr", arguments=(b"perl", b"-w", b"/bin/unattended-upgrade"))
    )

    assert one(identified([7], Needs(long_name=True))).long_name == "unattended-upgrade"


# -- where a script lies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "cwd", "path"),
    [
        (b"train.py", "/srv/job", "/srv/job/train.py"),
        (b"./train.py", "/srv/job", "/srv/job/train.py"),
        (b"job/train.py", "/", "/job/train.py"),
        (b"/srv/train.py", "/home", "/srv/train.py"),
        (b"/srv/train.py", None, "/srv/train.py"),
        (b"train.py", None, None),
    ],
)
def test_a_script_s_path_is_made_absolute(
    fake: FakeProc, identified: Identified, script: bytes, cwd: str | None, path: str | None
) -> None:
    fake.add(
        Fake(7, comm=b"python3", arguments=(b"python3", script)),
        cwd=None if cwd is None else Path(cwd),
    )
    process = one(identified([7], Needs(cmdline=True, working_directory=True)))

    assert process.script_path == path
