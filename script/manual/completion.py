"""The shells' completions: which words there are, and what stands for the value of an argument.

What depends on the machine is asked when a key is pressed: rules of the configuration, incidents.
The scripts around the words are in this directory; @NAME@ is replaced by what is made here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from manual.commands import Argument, Command, commands

# What completes the value of an argument; the scripts have a function of each name.
VALUES: Final = {
    "config": "yaml_files",
    "file": "yaml_files",
    "rule": "rules",
    "pid": "pids",
    "why pid": "dead_pids",
    "unit": "units",
    "cgroup": "cgroups",
    "id": "incidents",
    "html": "files",
    "since": "nothing",
    "interval": "nothing",
    "wait": "nothing",
}
FURTHER: Final = re.compile(r"([;:,]? \(|[;:] ).*")
ALWAYS: Final = (Argument(("-h", "--help"), "help", "", (), "show what it takes"),)


def scripts() -> dict[str, str]:
    """By the name of the file: bash and zsh want theirs called like this."""
    return {
        "oomwatchd": made(
            "bash.in", {"COMMANDS": bash_names, "VALUED": bash_valued, "CASES": bash_cases}
        ),
        "_oomwatchd": made("zsh.in", {"COMMANDS": zsh_commands, "CASES": zsh_cases}),
        "oomwatchd.fish": made("fish.in", {"VALUED": fish_valued, "LINES": fish_lines}),
    }


def made(template: str, parts: Mapping[str, Callable[[], Iterator[str]]]) -> str:
    text = (Path(__file__).parent / "completion" / template).read_text(encoding="utf-8")
    for name, lines in parts.items():
        text = text.replace(f"@{name}@\n", "".join(f"{line}\n" for line in lines()))
    return text


def value(command: Command, argument: Argument) -> str:
    """What completes it; a KeyError tells who adds an argument to say so in VALUES."""
    return VALUES.get(f"{command.name} {argument.name}") or VALUES[argument.name]


def options(command: Command) -> list[Argument]:
    return [one for one in (*ALWAYS, *command.arguments) if one.flags]


def places(command: Command) -> list[Argument]:
    return [one for one in command.arguments if not one.flags]


def short(about: str) -> str:
    """The start of it, for one line beside a word, and without what shells would read."""
    return re.sub(r"[][`'\"\\:]", "", FURTHER.sub("", about))


# -- bash ------------------------------------------------------------------------------------------


def bash_names() -> Iterator[str]:
    yield f"    local commands='{' '.join(one.name for one in commands())} --help --version'"


def bash_valued() -> Iterator[str]:
    for command in commands():
        valued = [one for one in options(command) if one.shown]
        if valued:
            yield f"    {bash_patterns(command, valued)}) return 0 ;;"


def bash_patterns(command: Command, arguments: Iterable[Argument]) -> str:
    flags = (flag for one in arguments for flag in one.flags)
    return " | ".join(f'"{command.name} {flag}"' for flag in flags)


def bash_cases() -> Iterator[str]:
    """The value of an option; options; the first and the second word after the command."""
    for command in commands():
        for one in options(command):
            if one.shown:
                yield f"    {bash_patterns(command, [one])}) _oomwatchd_{value(command, one)} ;;"
        flags = " ".join(flag for one in options(command) for flag in one.flags)
        yield f"    \"{command.name} -\") _oomwatchd_words '{flags}' ;;"
        for number, one in enumerate(places(command), 1):
            yield f'    "{command.name} {number}") {bash_action(command, one)} ;;'


def bash_action(command: Command, argument: Argument) -> str:
    if argument.choices:
        return f"_oomwatchd_words '{' '.join(argument.choices)}'"
    return f"_oomwatchd_{value(command, argument)}"


# -- zsh -------------------------------------------------------------------------------------------


def zsh_commands() -> Iterator[str]:
    yield from (f"        '{one.name}:{short(one.about)}'" for one in commands())


def zsh_cases() -> Iterator[str]:
    for command in commands():
        specs = [zsh_option(command, one) for one in options(command)]
        specs += [zsh_place(command, one) for one in places(command)]
        yield f"    {command.name})"
        yield "        _arguments -s \\"
        yield from (f"            {spec} \\" for spec in specs[:-1])
        yield f"            {specs[-1]}"
        yield "        ;;"


def zsh_option(command: Command, argument: Argument) -> str:
    names, text = argument.flags, f"[{short(argument.about)}]"
    if argument.shown:
        text += zsh_action(command, argument)
        names = tuple(f"{name}=" if name.startswith("--") else f"{name}+" for name in names)
    if len(names) == 1:
        return f"'{names[0]}{text}'"
    return f"'({' '.join(argument.flags)})'{{{','.join(names)}}}'{text}'"


def zsh_place(command: Command, argument: Argument) -> str:
    return f"':{zsh_action(command, argument)}'"


def zsh_action(command: Command, argument: Argument) -> str:
    if argument.choices:
        return f":{argument.name}:({' '.join(argument.choices)})"
    return f":{argument.shown.lower()}:_oomwatchd_{value(command, argument)}"


# -- fish ------------------------------------------------------------------------------------------


def fish_valued() -> Iterator[str]:
    found = (
        flag
        for command in commands()
        for one in options(command)
        if one.shown
        for flag in one.flags
    )
    yield f"    set -l valued {' '.join(sorted(set(found)))}"


def fish_lines() -> Iterator[str]:
    for command in commands():
        yield (
            "complete -c oomwatchd -n '__oomwatchd_at 0'"
            f" -a {command.name} -d '{short(command.about)}'"
        )
        for one in options(command):
            yield fish_line(command, one, " ".join(map(fish_flag, one.flags)), 0)
        for number, one in enumerate(places(command), 1):
            yield fish_line(command, one, "", number)


def fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


def fish_line(command: Command, argument: Argument, flags: str, place: int) -> str:
    where = f"at {place}" if place else "in"
    words = [f"complete -c oomwatchd -n '__oomwatchd_{where} {command.name}'"]
    if flags:
        words.append(flags)
    if argument.choices:
        words.append(f"-a '{' '.join(argument.choices)}'")
    elif argument.shown:
        words.append(f"{'-x ' if flags else ''}-a '(__oomwatchd_{value(command, argument)})'")
    return " ".join([*words, f"-d '{short(argument.about)}'"])
