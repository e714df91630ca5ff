"""A virtual machine under plain emulation: boot it, and run things in it as root."""

import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

HERE: Final = Path(__file__).parent
RECIPE: Final = (  # what an image is made from
    "build-image",
    "fetch-kernel",
    "guest/agent.py",
    "guest/init",
    "guest/test-agent.service",
)
SUITES: Final = ("bookworm", "trixie", "sid", "old-kernel")
MEMORY_MIB: Final = 1024
BOOT_SECONDS_MAX: Final = 240.0
BUILD_SECONDS_MAX: Final = 1200.0

log = logging.getLogger("vm")
T = TypeVar("T")


class MachineDied(Exception):
    """The machine has ended, or did not answer in time."""


class CommandFailed(Exception):
    """A command in the machine gave another status than 0, or ran out of time."""


@dataclass(frozen=True, slots=True)
class Image:
    suite: str
    directory: Path


def image(suite: str, cache: Path) -> Image:
    """The suite's image, built if there is none of the present recipe."""
    digest = hashlib.sha256()
    for name in RECIPE:
        digest.update((HERE / name).read_bytes())
    directory = cache / f"{suite}-{digest.hexdigest()[:12]}"
    if not directory.exists():
        log.info("building the image of %s in %s", suite, directory)
        unfinished = cache / f"{suite}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for outdated in cache.glob(f"{suite}-*"):
            shutil.rmtree(outdated)
        subprocess.run(
            [HERE / "build-image", suite, unfinished], check=True, timeout=BUILD_SECONDS_MAX
        )
        unfinished.rename(directory)
    log.info("%s", (directory / "about").read_text().strip().replace("\n", ", "))
    return Image(suite, directory)


@contextlib.contextmanager
def only_one(cache: Path) -> Iterator[None]:
    """Two machines at once on two cores take each other's time: wait until no other runs."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the machine of another run to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def qemu(image: Image, work: Path, kernel_arguments: Sequence[str], agent: int) -> list[str]:
    """The command line; nothing that the machine writes to its disk is kept.

    *agent* is the descriptor of a socket, which becomes the port that the agent listens on.
    """
    arguments = [
        *("root=/dev/vda", "rw", "console=ttyS0", "systemd.show_status=0", "mitigations=off"),
        # Otherwise the kernel takes the emulated HPET for its clock, a device read on every call.
        *("tsc=reliable", "no_timer_check"),
        *("panic=-1", *kernel_arguments),  # reboot on panic, which with -no-reboot ends qemu
    ]
    if not any(argument.startswith("psi=") for argument in kernel_arguments):
        arguments.append("psi=1")
    # fmt: off
    return [
        "setpriv", "--pdeathsig", "KILL",  # not even a killed test leaves a machine running
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512",
        "-cpu", "Nehalem", "-smp", "2", "-m", str(MEMORY_MIB),
        "-kernel", str(image.directory / "vmlinuz"), "-initrd", str(image.directory / "initrd"),
        "-append", " ".join(arguments),
        "-serial", f"file:{work / 'console.log'}",
        "-drive", f"file={image.directory / 'root.img'},format=raw,if=virtio,snapshot=on",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,fd={agent}",
        "-device", "virtserialport,chardev=agent,name=oomwatchd.agent",
    ]
    # fmt: on


class Machine:
    """One boot.  All calls wait, each with a bound."""

    def __init__(self, image: Image, work: Path, kernel_arguments: Sequence[str] = ()) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.image = image
        self.console = work / "console.log"
        started = time.monotonic()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._qemu = subprocess.Popen(
                qemu(image, work, kernel_arguments, theirs.fileno()),
                pass_fds=[theirs.fileno()],
                env={**os.environ, "TMPDIR": str(work)},  # where snapshot=on keeps what is written
            )
        self._received = b""
        try:
            self._receive(BOOT_SECONDS_MAX)
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = time.monotonic() - started
        log.info(
            "%s up after %.1f s", " ".join([image.suite, *kernel_arguments]), self.boot_seconds
        )

    def run(self, *command: str, timeout_seconds: float = 60.0, check: bool = True) -> str:
        """Run *command* as root and give what it wrote, both streams together.

        Raises: CommandFailed for a status that is not 0, unless *check* is false.
        """
        started = time.monotonic()
        reply = self._ask({"run": command, "timeout_seconds": timeout_seconds}, timeout_seconds)
        output: str = reply["output"]
        took = time.monotonic() - started
        shown = shlex.join(command)
        log.info("$ %s [%s, %.1f s]\n%s", shown, reply["status"], took, shortened(output))
        if reply["status"] is None or (check and reply["status"] != 0):
            raise CommandFailed(f"{shown}: status {reply['status']} after {took:.1f} s\n{output}")
        return output

    def sh(self, script: str, timeout_seconds: float = 60.0, *, check: bool = True) -> str:
        return self.run("sh", "-c", script, timeout_seconds=timeout_seconds, check=check)

    def status(self, *command: str, timeout_seconds: float = 60.0) -> int:
        """The exit status of *command*."""
        asked = {"run": command, "timeout_seconds": timeout_seconds}
        reply = self._ask(asked, timeout_seconds)
        log.info("$ %s [%s]\n%s", shlex.join(command), reply["status"], shortened(reply["output"]))
        if reply["status"] is None:
            raise CommandFailed(f"{shlex.join(command)}: no end within {timeout_seconds} s")
        status: int = reply["status"]
        return status

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        data = content.encode() if isinstance(content, str) else content
        self._ask({"put": path, "base64": base64.b64encode(data).decode(), "mode": mode}, 60.0)

    def get(self, path: str) -> str | None:
        """The file's text; None if it cannot be read."""
        reply = self._ask({"get": path}, 60.0)
        if "error" in reply:
            return None
        return base64.b64decode(reply["base64"]).decode("utf-8", "backslashreplace")

    def wait(self, what: str, check: Callable[[], T | None], timeout_seconds: float = 60.0) -> T:
        """Ask *check* until its answer is neither None nor false."""
        end = time.monotonic() + timeout_seconds
        while not (answer := check()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout_seconds:.0f} s: {what}")
            time.sleep(0.1)
        return answer

    def ended(self, timeout_seconds: float) -> bool:
        """Whether the machine ends by itself within that time."""
        try:
            self._qemu.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def journal(self) -> str:
        """The whole journal of this boot; empty if the machine no longer answers."""
        try:
            return self.run("journalctl", "-b", "--no-pager", "-o", "short-monotonic")
        except (MachineDied, CommandFailed) as error:
            return f"no journal: {error}"

    def stop(self) -> None:
        self._qemu.kill()
        self._qemu.wait()
        self._socket.close()

    def _ask(self, request: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise MachineDied(f"{error}; {self.console_end()}") from error
        return self._receive(timeout_seconds + 30.0)

    def _receive(self, timeout_seconds: float) -> dict[str, Any]:
        end = time.monotonic() + timeout_seconds
        while b"\n" not in self._received:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError as error:
                late = f"no answer within {timeout_seconds:.0f} s; {self.console_end()}"
                raise MachineDied(late) from error
            if not data:
                raise MachineDied(f"qemu ended; {self.console_end()}")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def console_end(self) -> str:
        if not self.console.exists():
            return "no console"
        lines = self.console.read_text(errors="replace").splitlines()[-40:]
        return "the console's last lines:\n" + "\n".join(lines)


def shortened(output: str, lines_max: int = 30) -> str:
    lines = output.rstrip().splitlines()
    if len(lines) > lines_max:
        lines = [*lines[: lines_max - 1], f"... {len(lines) - lines_max + 1} more lines"]
    return "\n".join(f"  | {line}" for line in lines)
