"""The C programs beside this file: built, started, and what they print.

python3 -m bench.programs DIRECTORY     only build them there
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

SOURCES: Final = ("reference", "listener", "sleepers", "target", "launch")
POOLS: Final = 99  # each is one rule; see `contenders`
# What `target` is called as: the kernel keeps 15 bytes.
OURS: Final = "bench-ours"  # a rule of oomwatchd matches it
THEIRS: Final = "bench-theirs"  # the listener sets its value
NOBODYS: Final = "bench-nobodys"
OURS_VALUE: Final = 345
THEIRS_VALUE: Final = 456
VALUES: Final = {OURS: str(OURS_VALUE), THEIRS: str(THEIRS_VALUE), NOBODYS: "-"}
FORK: Final = "fork"
LOOK_ONCE: Final = -1


class Launched(NamedTuple):
    """What came of programs that were started one after the other."""

    started: int
    missed: int
    seconds: float
    cpu_microseconds: float  # of all of them, and of starting them
    starts: tuple[int, ...]  # microseconds from before the exec to main
    delays: tuple[int, ...]  # to the value

    @property
    def cpu_of_one(self) -> float:
        """Microseconds."""
        return self.cpu_microseconds / max(self.started, 1)


def build(directory: Path) -> None:
    for name in SOURCES:
        source = Path(__file__).parent / f"{name}.c"
        subprocess.run(["cc", "-O2", "-static", "-o", directory / name, source], check=True)
    for name in VALUES:
        shutil.copy(directory / "target", directory / name)


@contextmanager
def sleepers(scratch: Path, count: int, tracked: int) -> Iterator[None]:
    """That many idle processes, of which *tracked* are under rules."""
    reading_end, writing_end = os.pipe()
    command = [str(scratch / "sleepers"), str(count), str(tracked), str(POOLS)]
    with (
        open(reading_end, "rb") as ready,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing_end) as process,
    ):
        os.close(writing_end)
        if not ready.readline():
            raise SystemExit(f"sleepers: ended with status {process.wait()}")
        yield


def launching(
    scratch: Path,
    name: str,
    *,
    rate: float,
    seconds: float,
    lives_milliseconds: int = 0,
    every_microseconds: int = LOOK_ONCE,
) -> subprocess.Popen[str]:
    """Start programs of that name, *rate* times a second; 0: each when the one before has ended."""
    command = [str(scratch / "launch"), str(rate), str(seconds)]
    if name == FORK:
        command += [FORK]
    else:
        command += [str(scratch / name), VALUES[name]]
        command += [str(lives_milliseconds), str(every_microseconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def launched(launcher: subprocess.Popen[str]) -> Launched:
    """Wait for the end of it."""
    printed, _ = launcher.communicate()
    if launcher.returncode:
        raise SystemExit(f"launch: ended with status {launcher.returncode}")
    return parse_launched(printed.splitlines())


def parse_launched(lines: Sequence[str]) -> Launched:
    _, started, missed, seconds, cpu_microseconds = lines[-1].split()
    told = [tuple(map(int, line.split())) for line in lines[:-1]]
    return Launched(
        int(started),
        int(missed),
        float(seconds),
        float(cpu_microseconds),
        starts=tuple(start for start, _ in told),
        delays=tuple(delay for _, delay in told),
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
