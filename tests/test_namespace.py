"""Paths of cgroups, as a daemon in a container has to understand them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import REPOSITORY, needs_root

from oomwatchd.kernel.cgroup import Membership
from oomwatchd.kernel.namespace import NOT_FOUND, in_machine, namespace_root, our_root

MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
CONTAINER = "/kubepods/podA/c1"
NAMED = "oomwatchd-test-namespace"
# What a process in a namespace below NAMED finds, and what it is told of its parent outside.
FINDS = """
import os, sys
from pathlib import Path
from oomwatchd.kernel.cgroup import parse_cgroup
from oomwatchd.kernel.namespace import in_machine, namespace_root
mount = Path(sys.argv[1])
whose = ("self", os.environ["LOOKED_AT"])
own, outside = (Path(f"/proc/{who}/cgroup").read_bytes() for who in whose)
root = namespace_root(own, os.getpid(), mount)
told = "".join(line + "\\n" for line in outside.decode().splitlines() if line.startswith("0::"))
print(told.strip(), root, in_machine(parse_cgroup(told.encode()), root).path)
"""


def tree(root: Path, **members: str) -> Path:
    for cgroup, pids in {"": "", **members}.items():
        path = root / cgroup.replace("__", "/")
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.procs").write_text(pids)
    (root / "cgroup.controllers").touch()
    return root


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("/", CONTAINER),
        ("/inner", f"{CONTAINER}/inner"),
        ("/../c2", "/kubepods/podA/c2"),
        ("/../../podB/c2", "/kubepods/podB/c2"),
        ("/../../../system.slice/ssh.service", "/system.slice/ssh.service"),
        ("/../../..", "/"),
    ],
)
def test_what_a_container_is_told_becomes_what_the_machine_would_tell(told: str, path: str) -> None:
    assert in_machine(Membership(told, told), CONTAINER) == Membership(path, path)


@pytest.mark.parametrize("root", ["/", NOT_FOUND])
def test_on_the_machine_itself_and_where_nothing_is_known_paths_stay(root: str) -> None:
    assert in_machine(Membership("/../a", "/b"), root) == Membership("/../a", "/b")


@pytest.mark.parametrize("own", [b"0::/\n", b"1:name=systemd:/\n0::/\n"])
def test_the_root_of_a_namespace_is_where_its_process_is_a_member(
    own: bytes, tmp_path: Path
) -> None:
    cgroups = tree(tmp_path, system__slice="1\n47\n", kubepods__podA__c1="4\n47110\n4711\n")

    assert namespace_root(own, 4711, cgroups) == CONTAINER


def test_a_process_deeper_in_its_namespace_finds_the_root_all_the_same(tmp_path: Path) -> None:
    cgroups = tree(tmp_path, kubepods__podA__c1__inner="4711\n")

    assert namespace_root(b"0::/inner\n", 4711, cgroups) == CONTAINER


@pytest.mark.parametrize("own", [b"0::/\n", b"1:name=systemd:/x\n", b""])
def test_where_only_the_namespace_is_mounted_there_is_no_root_to_be_found(
    own: bytes, tmp_path: Path
) -> None:
    cgroups = tree(tmp_path, inner="1\n")
    (cgroups / "cgroup.procs").write_text("4711\n")

    assert namespace_root(own, 4711, cgroups) == NOT_FOUND


def test_cgroups_that_a_user_has_nested_by_the_thousand_do_not_end_the_search(
    tmp_path: Path,
) -> None:
    cgroups = tree(tmp_path, a="", kubepods__podA__c1="4711\n")
    directory = os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a", dir_fd=directory)
        above, directory = directory, os.open("a", os.O_RDONLY, dir_fd=directory)
        os.close(above)
    os.close(directory)

    assert namespace_root(b"0::/\n", 4711, cgroups) == CONTAINER
    assert namespace_root(b"0::/\n", 4712, cgroups) == NOT_FOUND
    subprocess.run(
        ["rm", "-r", tmp_path / "a"], check=True
    )  # shutil.rmtree goes down by recursion, too


def test_among_several_hierarchies_there_is_no_one_root(tmp_path: Path) -> None:
    cgroups = tree(tmp_path, memory__kubepods__podA__c1="4711\n")
    (cgroups / "cgroup.controllers").unlink()

    assert namespace_root(b"0::/\n", 4711, cgroups) == NOT_FOUND


def test_a_threaded_or_vanished_cgroup_is_passed_over(tmp_path: Path) -> None:
    cgroups = tree(tmp_path, a="1\n", kubepods__podA__c1="4711\n")
    (cgroups / "a/cgroup.procs").unlink()
    (cgroups / "a/cgroup.procs").mkdir()  # reading it fails

    assert namespace_root(b"0::/\n", 4711, cgroups) == CONTAINER


def test_the_tests_themselves_run_in_the_machines_own_namespace_or_can_be_told_apart() -> None:
    initial = Path("/proc/self/ns/cgroup").stat().st_ino == 0xEFFFFFFB

    assert (our_root() == "/") == initial


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One of the kernel's, with nobody in it."""
    mount = next((one for one in MOUNTS if (one / "cgroup.controllers").exists()), None)
    if mount is None or os.geteuid() != 0 or not os.access(mount, os.W_OK):
        pytest.skip("no hierarchy of cgroup2 that we may write to")
    path = mount / NAMED / "inner"
    path.mkdir(parents=True)
    yield path
    path.rmdir()
    path.parent.rmdir()


@needs_root
def test_a_real_namespace_is_seen_through(cgroup: Path, mount_namespaces: None) -> None:
    mount = cgroup.parent.parent
    enters = (
        f'echo $$ >{cgroup}/cgroup.procs && exec unshare --cgroup {sys.executable} -c "$0" {mount}'
    )
    here = Path("/proc/self/cgroup").read_text().splitlines()[-1].removeprefix("0::")

    done = subprocess.run(
        ["sh", "-c", enters, FINDS], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "LOOKED_AT": str(os.getpid())},
    )  # fmt: skip

    told, root, path = done.stdout.split()
    assert told == f"0::/../..{here}".rstrip("/")
    assert (root, path) == (f"/{NAMED}/inner", here)
