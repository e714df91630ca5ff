"""The commands with their arguments, as argparse knows them."""

import argparse
import importlib
from functools import partial
from typing import Final, NamedTuple

from oomwatchd.cli.main import COMMANDS, Parser

ONE_LINE: Final = 10_000  # columns: nothing is wrapped


class Argument(NamedTuple):
    flags: tuple[str, ...]  # none: it goes by its place
    name: str  # as argparse keeps it
    shown: str  # as the usage names its value; empty: it takes none
    choices: tuple[str, ...]
    about: str


class Command(NamedTuple):
    name: str
    about: str
    usage: str  # the arguments alone
    arguments: tuple[Argument, ...]


def commands() -> list[Command]:
    return [command(name, about) for name, about in COMMANDS.items()]


def command(name: str, about: str) -> Command:
    formatter = partial(argparse.HelpFormatter, width=ONE_LINE)
    prog = f"oomwatchd {name}"
    parser = Parser(prog, formatter_class=formatter, add_help=False)
    importlib.import_module(f"oomwatchd.cli.{name}").configure(parser)
    usage = parser.format_usage().removeprefix(f"usage: {prog}").strip()
    # argparse offers no other way to ask it; the libraries that make completions use it, too.
    return Command(name, about, usage, tuple(map(argument, parser._actions)))


def argument(action: argparse.Action) -> Argument:
    choices = tuple(map(str, action.choices or ()))
    shown = "" if action.nargs == 0 else str(action.metavar or "|".join(choices) or action.dest)
    return Argument(tuple(action.option_strings), action.dest, shown, choices, action.help or "")
