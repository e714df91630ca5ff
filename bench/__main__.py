"""Measure, and print what was found as Markdown."""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import execs, programs, quiet, report, scrape, soak
from bench.report import Section

PARTS: Final = ("quiet", "execs", "scrape")
NOT_PERMITTED: Final = 77


def main() -> int:
    arguments = parse(sys.argv[1:])
    if os.geteuid() != 0:
        print("only root can set other processes' values and count system calls", file=sys.stderr)
        return NOT_PERMITTED
    command = shlex.join(["bench/run", *sys.argv[1:]])
    missed = []
    with tempfile.TemporaryDirectory(prefix="oomwatchd-bench-") as scratch:
        programs.build(Path(scratch))
        for part in measurements(arguments, Path(scratch)):
            load = os.getloadavg()[0]
            section = part()
            text = report.rendered(section, command, load)
            print(f"## {section.name}\n\n{text}", flush=True)
            if arguments.write:
                report.write(section, text)
            missed += [bar for bar in section.bars if not bar.met]
    for bar in missed:
        print(f"bar missed: {bar}", file=sys.stderr)
    return 1 if missed else 0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measure what oomwatchd costs, beside C programs and other daemons.",
        epilog="Exit status 1 if a bar is missed.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"{', '.join(PARTS)}; all of these if none is given")  # fmt: skip
    parser.add_argument("--peers", action="store_true",
                        help="also Debian's earlyoom, nohang and prometheus-process-exporter, "
                        "those that are installed")  # fmt: skip
    parser.add_argument("--write", action="store_true",
                        help="keep the results in docs/")  # fmt: skip
    parser.add_argument("--processes", type=numbers, default=[200, 2000, 10000], metavar="N,N",
                        help="idle ones, while it is quiet (%(default)s)")  # fmt: skip
    parser.add_argument("--quiet-seconds", type=float, default=30, metavar="N",
                        help="of each of the stretches (%(default)s)")  # fmt: skip
    parser.add_argument("--exec-seconds", type=float, default=60, metavar="N",
                        help="of each of the storms (%(default)s)")  # fmt: skip
    parser.add_argument("--exec-processes", type=int, default=2000, metavar="N",
                        help="idle ones, beside the storms (%(default)s)")  # fmt: skip
    parser.add_argument("--soak", type=int, nargs="?", const=10_000, metavar="TURNS",
                        help="only that: so many turns (%(const)s), ten a second")  # fmt: skip
    arguments = parser.parse_args(words)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    return arguments


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def measurements(arguments: argparse.Namespace, scratch: Path) -> list[Callable[[], Section]]:
    if arguments.soak is not None:
        return [lambda: soak.measure(scratch, arguments.soak)]
    every: dict[str, Callable[[], Section]] = {
        "quiet": lambda: quiet.measure(
            scratch, arguments.processes, arguments.quiet_seconds, peers=arguments.peers
        ),
        "execs": lambda: execs.measure(scratch, arguments.exec_processes, arguments.exec_seconds),
        "scrape": lambda: scrape.measure(scratch, peers=arguments.peers),
    }
    return [every[part] for part in arguments.parts or PARTS]


if __name__ == "__main__":
    sys.exit(main())
