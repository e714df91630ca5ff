"""What a builder and a container runtime would do with our recipe and our manifest, in a chroot.

    tests/image.py CONTEXT ROOT

does in ROOT, a minimal Debian, what packaging/kubernetes/Containerfile says, and then starts the
daemon there as packaging/kubernetes/base would have it.  Takes root.
"""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import yaml

KUBERNETES: Final = Path(__file__).parent.parent / "packaging/kubernetes"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BARE: Final = {"PATH": PATH, "HOME": "/root"}
PATIENCE_SECONDS: Final = 30.0
FROM: Final = re.compile(r"docker\.io/library/debian:[a-z]+-slim")
KNOWN: Final = {
    "ARG",
    "FROM",
    "LABEL",
    "COPY",
    "RUN",
    "USER",
    "STOPSIGNAL",
    "EXPOSE",
    "ENTRYPOINT",
    "CMD",
}
# By number; include/uapi/linux/capability.h.
CAPABILITIES: Final = {"DAC_OVERRIDE": 1, "IPC_LOCK": 14, "SYS_PTRACE": 19, "SYS_RESOURCE": 24}


class Step(NamedTuple):
    instruction: str
    text: str


class Refused(Exception):
    """The recipe says what we do not know, or could not do."""


def steps(recipe: str) -> Iterator[Step]:
    """Its instructions, with comments gone, lines joined and arguments filled in.

    Raises:  Refused, for an instruction that is not KNOWN, and for a form of one.
    """
    whole = re.sub(r"^\s*#.*\n", "", recipe, flags=re.MULTILINE)
    arguments: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", "", whole).splitlines():
        if not line.strip():
            continue
        instruction, _, text = line.partition(" ")
        if instruction not in KNOWN or text.startswith("--"):
            raise Refused(line)
        if instruction == "ARG":
            name, _, value = text.partition("=")
            arguments[name] = value
        for name, value in arguments.items():
            text = text.replace(f"${{{name}}}", value)
        yield Step(instruction, text)


def words(recipe: list[Step], instruction: str) -> list[str]:
    """Of ENTRYPOINT or CMD, which take no shell."""
    [text] = [step.text for step in recipe if step.instruction == instruction]
    found: list[str] = json.loads(text)
    return found


# -- building --------------------------------------------------------------------------------------


def follow(recipe: list[Step], context: Path, root: Path) -> None:
    """Raises:  Refused; CalledProcessError, if a RUN fails."""
    for instruction, text in recipe:
        if instruction == "COPY":
            copy(text, context, root)
        elif instruction == "RUN":
            inside = ["chroot", str(root), "/bin/sh", "-c", text]
            subprocess.run(inside, check=True, env=BARE, stdout=subprocess.DEVNULL)
        elif instruction == "FROM" and not FROM.fullmatch(text):
            raise Refused(f"another base: {text}")


def copy(text: str, context: Path, root: Path) -> None:
    """Files alone, to a directory."""
    *patterns, target = text.split()
    sources = [path for pattern in patterns for path in context.glob(pattern) if path.is_file()]
    if not sources or not target.endswith("/"):
        raise Refused(f"COPY {text}")
    directory = root / PurePosixPath(target).relative_to("/")
    directory.mkdir(parents=True, exist_ok=True)
    for path in sources:
        shutil.copy(path, directory)


# -- running ---------------------------------------------------------------------------------------


def mounted(container: dict[str, Any], volumes: list[dict[str, Any]], root: Path) -> list[str]:
    """The commands that lay the container's files out, in a mount namespace of their own."""
    of_host = {one["name"] for one in volumes if "hostPath" in one}
    rules = KUBERNETES / "base/oomwatchd.yaml"
    lines = [f"mount --rbind {root} {root}"]
    for mount in container["volumeMounts"]:
        target = f"{root}{mount['mountPath']}"
        if mount["name"] not in of_host:
            lines += [f"touch {target}", f"mount --bind {rules} {target}"]
        elif mount.get("readOnly"):
            lines += [f"mount --rbind {mount['mountPath']} {target}"]
        else:  # the node's directory, fresh
            lines += [f"mkdir -p {target}", f"mount -t tmpfs tmpfs {target}"]
    lines.append(f"mount -o remount,ro,bind {root}")
    return [*lines, f"mount -t proc proc {root}/proc"]


def ours() -> set[str]:
    """The capabilities that we have to give: some test machines lack one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    mask = int(re.findall(r"^CapBnd:\t(\w+)", status, re.MULTILINE)[0], 16)
    return {name for name, number in CAPABILITIES.items() if mask >> number & 1}


def confined(rights: dict[str, Any], capabilities: set[str]) -> list[str]:
    """What starts a program as *rights* say, with these capabilities and no others."""
    added = "".join(f",+{name.lower()}" for name in sorted(capabilities & ours()))
    command = ["setpriv", f"--bounding-set=-all{added}", "--inh-caps=-all", "--clear-groups"]
    return [*command, f"--regid={rights['runAsGroup']}", "--no-new-privs", "--"]


def contained(program: list[str], root: Path) -> list[str]:
    """*program* in a container like the DaemonSet's, which sees no process but its own."""
    daemonset = yaml.safe_load((KUBERNETES / "base/daemonset.yaml").read_text(encoding="utf-8"))
    spec = daemonset["spec"]["template"]["spec"]
    [container] = spec["containers"]
    rights = container["securityContext"]
    added = set(rights["capabilities"]["add"])
    inside = ["chroot", str(root), *confined(rights, added), *program]
    script = "\n".join(["set -e", *mounted(container, spec["volumes"], root), 'exec "$@"'])
    return ["unshare", "--mount", "--pid", "--fork", "--", "sh", "-c", script, "sh", *inside]


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().read() == b"ok\n"
    except ConnectionError:
        return False
    finally:
        connection.close()


def run(recipe: list[Step], root: Path) -> None:
    """Check its rules, start it, read its health, and end it as a runtime does."""
    entrypoint = words(recipe, "ENTRYPOINT")
    subprocess.run(contained([*entrypoint, "check"], root), check=True, env=BARE)
    [stop] = [step.text for step in recipe if step.instruction == "STOPSIGNAL"]
    [port] = [int(step.text) for step in recipe if step.instruction == "EXPOSE"]
    with subprocess.Popen(contained([*entrypoint, *words(recipe, "CMD")], root), env=BARE) as outer:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not healthy(port):
            if outer.poll() is not None or time.monotonic() > deadline:
                outer.kill()
                raise Refused("the daemon does not answer")
            time.sleep(0.1)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        os.kill(int(children), signal.Signals[stop])
        if outer.wait(PATIENCE_SECONDS):
            raise Refused(f"it ended with {outer.returncode}")


if __name__ == "__main__":
    followed = list(steps((KUBERNETES / "Containerfile").read_text(encoding="utf-8")))
    follow(followed, Path(sys.argv[1]), Path(sys.argv[2]))
    run(followed, Path(sys.argv[2]))
