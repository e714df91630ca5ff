"""The command line: which command, with which arguments."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

from oomwatchd import __version__
from oomwatchd.cli import exits
from oomwatchd.cli.table import Unwritten, show, written

COMMANDS: Final = {
    "run": "the daemon, in the foreground; its log goes to stderr, as the journal takes it",
    "check": "all faults and warnings of the configuration, and what each rule matches now",
    "explain": "which rule decides about a process, and why the others do not",
    "audit": "which killers can still take what the rules match, and what would help",
    "rank": "the order in which the kernel would kill now, with the arithmetic",
    "top": "a live view in the terminal: the order of death, rules, pressure, the last kills",
    "status": "what the running daemon holds (for root)",
    "incidents": "the kills there were, and all that is known of each (for root, group adm)",
    "why": "whether a process, a unit or a cgroup was killed for want of memory, and by whom "
    "(for root, group adm)",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Name the fault in one line; the whole help would hide it."""
        self.exit(exits.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    open_standard_streams()
    try:
        try:
            return obeyed(sys.argv[1:] if argv is None else list(argv))
        finally:
            show([], sys.stdout)  # with what argparse has written
    except Unwritten as error:
        with suppress(OSError):  # standard error may be the one that cannot be written
            print(f"oomwatchd: the answer could not be written: {error}", file=sys.stderr)
        return exits.UNWRITTEN
    except KeyboardInterrupt:
        return exits.INTERRUPTED


def open_standard_streams() -> None:
    """Those that were closed lead nowhere: what is opened next must not take their place."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - likewise


def obeyed(arguments: Sequence[str]) -> int:
    parser = Parser("oomwatchd", description="Decides who lives when Linux runs out of memory.")
    parser.add_argument("--version", action="version", version=f"oomwatchd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"Show {summary}.")
        if name == asked:  # only this module is imported: the daemon stays small
            module = importlib.import_module(f"oomwatchd.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
    # Without arguments parsed, help has been shown, to a reader that had gone.
    parsed = argparse.Namespace(run=lambda _: exits.FINE)
    with written(sys.stdout):
        parsed = parser.parse_args(arguments)
    status: int = parsed.run(parsed)
    return status
