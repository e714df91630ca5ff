"""Which cgroup and which systemd unit a process lies in, and what users cannot forge about it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.kernel.cgroup import (
    Membership,
    in_container,
    in_kubernetes_pod,
    parse_cgroup,
    unified_path,
    unit_cgroup,
    units_of,
    user_slice,
)
from oomwatchd.model import Units

V2 = "0::/system.slice/cron.service\n"
HYBRID = """\
12:pids:/system.slice/cron.service
11:memory:/system.slice/cron.service
10:cpu,cpuacct:/
1:name=systemd:/system.slice/cron.service
0::/system.slice/cron.service
"""
V1_WITH_OWN_MEMORY_GROUP = """\
11:memory:/jobs/17
4:cpuset:/
1:name=systemd:/user.slice/user-1000.slice/session-3.scope
"""
V2_WITH_A_MOUNT_FOR_OLD_CONTAINERS = "1:name=systemd:/\n" + V2


@pytest.mark.parametrize(
    ("text", "membership"),
    [
        (V2, Membership("/system.slice/cron.service", "/system.slice/cron.service")),
        (HYBRID, Membership("/system.slice/cron.service", "/system.slice/cron.service")),
        (
            V1_WITH_OWN_MEMORY_GROUP,
            Membership("/jobs/17", "/user.slice/user-1000.slice/session-3.scope"),
        ),
        (
            V2_WITH_A_MOUNT_FOR_OLD_CONTAINERS,  # systemd does not use that hierarchy
            Membership("/system.slice/cron.service", "/system.slice/cron.service"),
        ),
        ("0::/\n", Membership("/", "/")),
        ("0::/a:b/c::d\n", Membership("/a:b/c::d", "/a:b/c::d")),
        ("0::/..\n", Membership("/..", "/..")),
        ("1:name=systemd:/x.service\n", Membership("/", "/x.service")),
        ("0::/a\udcff\n".encode("utf-8", "surrogateescape"), Membership("/a\\xff", "/a\\xff")),
    ],
)
def test_the_lines_of_every_kind_of_machine(text: str | bytes, membership: Membership) -> None:
    raw = text.encode() if isinstance(text, str) else text

    assert parse_cgroup(raw) == membership


@given(st.binary())
def test_what_is_no_cgroup_file_is_a_value_error_and_nothing_else(raw: bytes) -> None:
    try:
        membership = parse_cgroup(raw)
    except ValueError:
        return

    assert b":" in raw
    assert isinstance(membership.path, str)


def test_the_file_of_this_kernel_is_understood() -> None:
    assert parse_cgroup(Path("/proc/self/cgroup").read_bytes()).path.startswith("/")


@pytest.mark.parametrize(
    ("path", "system", "user"),
    [
        ("/", None, None),
        ("", None, None),
        ("/init.scope", "init.scope", None),
        ("/system.slice", None, None),
        ("/system.slice/cron.service", "cron.service", None),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", None),
        ("/postgresql.service", "postgresql.service", None),
        ("/system.slice/dev-hugepages.mount", "dev-hugepages.mount", None),
        ("/system.slice/ssh.socket", "ssh.socket", None),
        ("/machine.slice/libpod-1234.scope/container", "libpod-1234.scope", None),
        ("/system.slice/docker-1234.scope", "docker-1234.scope", None),
        ("/docker/1234", None, None),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service",
            "user@1000.service",
            "jupyter.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "user@1000.service",
            "init.scope",
        ),
        ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service", None),
        ("/system.slice/_cpu.service", "cpu.service", None),
        ("/..", None, None),
    ],
)
def test_the_unit_is_the_first_component_below_the_slices(
    path: str, system: str | None, user: str | None
) -> None:
    assert units_of(path) == Units(system, user)


@pytest.mark.parametrize(
    "path",
    [
        # whoever got a unit delegated names what is below it as he likes
        "/system.slice/ci-runner.service/system.slice/postgresql.service",
        "/system.slice/ci-runner.service/postgresql.service",
        "/machine.slice/libpod-1.scope/system.slice/postgresql.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service/postgresql.service",
        "/user.slice/user-1000.slice/user@1000.service/postgresql.service/x.service",
        "/user.slice/user-1000.slice/session-3.scope/postgresql.service",
        "/docker/1234/system.slice/postgresql.service",
        "/lxc.payload.c1/system.slice/postgresql.service",
    ],
)
def test_a_delegated_cgroup_cannot_pose_as_a_unit_of_the_system(path: str) -> None:
    assert units_of(path).system != "postgresql.service"


def test_only_a_manager_s_own_unit_has_units_of_a_user_below_it() -> None:
    assert units_of("/system.slice/user@x.service/a.service").user is None
    assert units_of("/system.slice/cron.service/a.service").user is None


@pytest.mark.parametrize(
    "path",
    [
        "/kubepods/burstable/pod1234/5678",
        "/kubepods.slice/kubepods-pod1234.slice/cri-containerd-5678.scope",
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/x.scope",
        "/kubepods-besteffort.slice:cri-containerd:5678",
        "/../../pod7f0c2a5e-1d3b-4c6a-9e8f-001122334455/5678",  # seen by a daemon in a pod
        "/../../pod7f0c2a5e1d3b4c6a9e8f001122334455/5678",
    ],
)
def test_what_a_kubelet_manages_is_known(path: str) -> None:
    assert in_kubernetes_pod(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/system.slice/kubelet.service",
        "/system.slice/docker-1234.scope",
        "/system.slice/podman.service",
        "/system.slice/podcafe.service",
        "/user.slice/user-1000.slice/user@1000.service/kubepods/x",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/a-kubepods.service",
    ],
)
def test_what_no_kubelet_manages_cannot_hide_behind_its_name(path: str) -> None:
    assert not in_kubernetes_pod(path)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"0::/system.slice/cron.service\n", "/system.slice/cron.service"),
        (b"1:name=systemd:/x\n0::/a:b::c\n", "/a:b::c"),
        (b"0::/a\xff\\x2d\n", "/a\udcff\\x2d"),  # as the directory is called
        (b"0::/\n", "/"),
        (b"0::/../other\n", None),
        (b"0::/x.scope (deleted)\n", None),
        (b"1:name=systemd:/x\n", None),
        (b"", None),
    ],
)
def test_the_path_that_leads_to_the_directory(raw: bytes, path: str | None) -> None:
    assert unified_path(raw) == path


USER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/db.service", "/system.slice/db.service"),
        ("/system.slice/db.service/workers/one", "/system.slice/db.service"),
        (f"{USER}/app.slice/term.scope", f"{USER}/app.slice/term.scope"),
        (f"{USER}/app.slice/term.scope/inner", f"{USER}/app.slice/term.scope"),
        (f"{USER}/init.scope", f"{USER}/init.scope"),
        (USER, USER),
        (f"{USER}/odd/name", f"{USER}/odd/name"),
        ("/jobs/17", "/jobs/17"),
        ("/", "/"),
    ],
)
def test_the_cgroup_of_the_unit(path: str, unit: str) -> None:
    assert unit_cgroup(path) == unit


@pytest.mark.parametrize(
    ("path", "container"),
    [
        ("/system.slice/docker-0123.scope", True),
        ("/docker/0123", True),
        ("/machine.slice/libpod-0123.scope/container", True),
        ("/machine.slice/systemd-nspawn@web.service/payload", True),
        (f"{USER}/user.slice/libpod-0123.scope", True),
        ("/system.slice/web.service/libpod-payload-0123", True),  # Quadlet: --cgroups=split
        (f"{USER}/app.slice/web.service/libpod-payload-0123/init", True),
        ("/system.slice/web.service/runtime", False),  # its conmon
        ("/system.slice/cri-containerd-0123.scope", True),
        ("/lxc.payload.web/init.scope", True),
        ("/kubepods.slice/kubepods-pod1.slice/x", True),
        ("/system.slice/docker.service", False),
        ("/system.slice/containerd.service", False),
        (f"{USER}/app.slice/app-dockers.scope", False),
        (f"{USER}/app.slice/vte-spawn-0123.scope", False),
        ("/", False),
    ],
)
def test_what_a_container_runtime_manages(path: str, *, container: bool) -> None:
    assert in_container(path) is container


@pytest.mark.parametrize(
    ("path", "slice"),
    [
        ("/user.slice/user-1000.slice", "user-1000.slice"),
        ("/user.slice/user-1000.slice/session-3.scope", "user-1000.slice"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope", "user-1000.slice"),
        ("/user.slice", None),
        ("/user.slice/user-x.slice", None),
        ("/system.slice/docker-1.scope/user.slice/user-1000.slice", None),  # its own systemd's
        ("/", None),
    ],
)
def test_the_slice_of_a_user(path: str, slice: str | None) -> None:
    assert user_slice(path) == slice
