"""Control groups: where a process lies, and which systemd unit that is."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.model import Units
from oomwatchd.text import decoded

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
LEVELS_MAX: Final = 64  # below the root; whoever has a cgroup of his own can nest thousands
UNIT: Final = re.compile(r".+\.(service|scope|socket|mount|swap|slice)")
USER_MANAGER: Final = re.compile(r"user@\d+\.service")
USER_SLICE: Final = re.compile(r"/user\.slice/(user-\d+\.slice)(?:/|$)")
UNIFIED: Final = b"0::"
# A pod's own cgroup where the kubelet arranges them by itself; its static pods have no dashes.
POD: Final = re.compile(r"pod[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
# What docker, podman, cri-o and containerd name the scope of a container, under systemd ...
CONTAINER_SCOPE: Final = re.compile(
    r"(docker|libpod|libpod-conmon|crio|cri-containerd|nerdctl|buildkit|lxc)-.+\.scope"
)
# ... and where they and LXC put it, where they arrange cgroups by themselves; nspawn; below the
# unit that runs podman --cgroups=split, as Quadlet has it.
CONTAINER_PARENT: Final = re.compile(
    r"docker|buildkit|libpod_parent|libpod-payload-.+|lxc|lxc\.(payload|monitor)\b.*|k8s\.io|machine\.slice"
)


class Membership(NamedTuple):
    path: str  # in the unified hierarchy; where that is not in use, in the memory controller's
    unit_path: str  # in the hierarchy that systemd arranges


def parse_cgroup(raw: bytes, decode: Callable[[bytes], str] = decoded) -> Membership:
    """Take ``/proc/PID/cgroup`` apart: lines ``ID:CONTROLLERS:PATH``, the path being anything.

    On a machine with cgroup v1 or both, systemd arranges its own named hierarchy and the memory
    controller has another; with v2 alone there is the one line ``0::PATH``.  There, a hierarchy of
    that name may still have been mounted for old containers; it has no controllers beside it.

    Raises:  ValueError, if it is not such a file.
    Source:  cgroups(7), proc_pid_cgroup(5).
    """
    paths = {}
    for line in decode(raw).split("\n"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            for controller in controllers.split(","):
                paths[controller] = path
    if not paths:
        raise ValueError(f"not a cgroup file: {raw[:80]!r}")
    unified = paths.get("", "/")
    systemd_s = paths.get("name=systemd", unified)
    v2_alone = "" in paths and all(not name or name.startswith("name=") for name in paths)
    return Membership(
        path=paths.get("memory", unified),
        unit_path=unified if v2_alone else systemd_s,
    )


def units_of(path: str) -> Units:
    """The units that the cgroup *path* belongs to, by systemd's own rule.

    The first component below the slices is the unit; what lies deeper may have been named by
    anybody to whom the unit was delegated, and does not count.

    Source:  systemd, src/basic/cgroup-util.c, cg_path_get_unit(), cg_path_get_user_unit().
    """
    system, rest = first_unit(components_of(path))
    if system is None or not USER_MANAGER.fullmatch(system):
        return Units(system, None)
    return Units(system, first_unit(rest)[0])


def components_of(path: str) -> list[str]:
    """The names from the root down; what lies deeper than LEVELS_MAX is nobody's but a user's."""
    return path.strip("/").split("/", LEVELS_MAX)[:LEVELS_MAX]


def is_too_deep(path: str) -> bool:
    """Whether it would take too long to look at each cgroup from the root down to *path*."""
    return path.count("/") > LEVELS_MAX


def first_unit(components: list[str]) -> tuple[str | None, list[str]]:
    """The first component that is no slice, if it names a unit, and the components below it."""
    for position, component in enumerate(components):
        name = component.removeprefix("_")  # set before names that would clash with the kernel's
        if not UNIT.fullmatch(name):
            return None, []
        if not name.endswith(".slice"):
            return name, components[position + 1 :]
    return None, []


def user_slice(path: str) -> str | None:
    """The slice of the user in whose sessions, or by whose manager, the cgroup *path* was made."""
    found = USER_SLICE.match(path)
    return found[1] if found is not None else None


def in_kubernetes_pod(path: str) -> bool:
    """Whether a kubelet manages what lies in the cgroup *path*.

    Its root is kubepods or kubepods.slice, perhaps below another (kubelet-kubepods.slice in kind);
    a user may name a cgroup of his own so, but only below user.slice.  A daemon that is in a pod
    itself may see less of the path: ``/../../podUID/ID``.
    """
    components = components_of(path)
    return "user.slice" not in components and any(
        component.startswith("kubepods") or "-kubepods" in component or POD.fullmatch(component)
        for component in components
    )


def unified_path(raw: bytes) -> str | None:
    """Where ``/proc/PID/cgroup`` says that the process lies, as a path below the cgroup2 mount.

    Bytes that are not UTF-8 become surrogates, so that the path leads back to the directory.  None
    where it lies outside of what we see, or in a cgroup that is there no more.

    Source:  cgroups(7); kernel/cgroup/cgroup.c, proc_cgroup_show().
    """
    for line in raw.split(b"\n"):
        if line.startswith(UNIFIED):
            path = os.fsdecode(line.removeprefix(UNIFIED))
            outside = path.startswith("/..") or not path.startswith("/")
            return None if outside or path.endswith(" (deleted)") else path
    return None


def in_container(path: str) -> bool:
    """Whether a container runtime or a kubelet manages what lies in the cgroup *path*.

    A user may name a cgroup of his own so, and will get less protection for it.
    """
    return in_kubernetes_pod(path) or any(
        CONTAINER_SCOPE.fullmatch(component) or CONTAINER_PARENT.fullmatch(component)
        for component in components_of(path)
    )


def unit_cgroup(path: str) -> str:
    """The cgroup of the unit that the cgroup *path* belongs to; *path* itself, if to none.

    Of what lies in a user's manager, that manager's unit.
    """
    components = components_of(path)
    system, rest = first_unit(components)
    if system is None:
        return path
    if USER_MANAGER.fullmatch(system):
        user, deeper = first_unit(rest)
        rest = deeper if user is not None else []
    depth = len(components) - len(rest)
    return "/" + "/".join(components[:depth])
