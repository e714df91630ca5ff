"""Which script a process runs, read from its command line as its interpreter reads it."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, dropwhile
from typing import Final, NamedTuple

from oomwatchd.policy.interpreters import ENV, FAMILIES, Effect, Family

LAUNCHES_MAX: Final = 8  # env in env; each one is a pass over all arguments

KNOWN: Final = FAMILIES.keys() | {"env", "busybox"}
# The name, then the version: python3, python3.13t, python3.11-dbg, php-cgi8.2, ksh93, guile-3.0.
VERSIONED: Final = re.compile(r"([A-Za-z]+(?:-[a-z]+)?)(?:-?[0-9][0-9.]*[a-z]{0,2}(?:-dbg)?)?")
QUOTED: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"|(\S+)")


class Found(NamedTuple):
    """What is run, and the option whose value it is; None for an operand."""

    option: str | None
    word: str


NOTHING: Final = Found(None, "")


def script_of(arguments: Sequence[str], comm: str = "") -> str | None:
    """The script, module, archive or class that an interpreter runs, as it was given.

    None for every other program, and for code on the command line or from standard input.  *comm*
    says which interpreter it is where argv[0] does not (`exec -a`).
    """
    command = list(arguments)
    name = (interpreter(command[0]) or interpreter(comm)) if command else None
    for _ in range(LAUNCHES_MAX):
        words = iter(command[1:])
        if name == "env":
            command = launched_by_env(words)
        elif name == "busybox":
            command = list(words)
        else:
            return script_in(FAMILIES[name], words) if name else None
        name = interpreter(command[0]) if command else None
    return None


def interpreter(program: str) -> str | None:
    """Which of KNOWN the path *program* is, in whatever version."""
    name = program.rpartition("/")[2].removeprefix("-")  # -bash is a login shell
    versioned = VERSIONED.fullmatch(name)
    return versioned[1] if versioned and versioned[1] in KNOWN else None


def script_in(family: Family, words: Iterator[str]) -> str | None:
    word = first_named(family, words).word
    return None if word in ("", "-") else word  # "-" is standard input


def launched_by_env(words: Iterator[str]) -> list[str]:
    """The command line of the program that `env` becomes.

    What `-S` splits may begin with more options of env.  Of its syntax, words in quotes are known,
    but neither escapes nor ${VARIABLES}.
    """
    option, word = first_named(ENV, words)
    if option is not None:
        return ["env", *("".join(groups) for groups in QUOTED.findall(word)), *words]
    return list(dropwhile(lambda word: "=" in word, chain([word], words)))


def first_named(family: Family, words: Iterator[str]) -> Found:
    """The first option or operand that says what is run; *words* is left at what follows it."""
    for word in words:
        if word in family.closers:
            return Found(None, next(words, ""))
        if word.startswith(family.skipped):
            continue
        if word in family.commands:
            family = family.commands[word]
            continue
        is_option = len(word) > 1 and word[0] in family.marks
        named = by_options(word, family, words) if is_option else by_operand(word, family)
        if named is not None:
            return named
    return NOTHING


def by_operand(word: str, family: Family) -> Found | None:
    if family.operand == "ignored":
        return None
    if family.operand == "file" and "." not in word and "/" not in word:
        return NOTHING
    return Found(None, word)


def by_options(word: str, family: Family, words: Iterator[str]) -> Found | None:
    """What the options in *word* name; None if they leave it open.  Takes their values."""
    for option, effect, attached in options_in(word, family):
        if effect == "end":
            return NOTHING
        if effect in ("value", "script"):
            value = next(words, "") if attached is None else attached
            if effect == "script":
                return Found(option, value)
    return None


def options_in(word: str, family: Family) -> Iterator[tuple[str, Effect, str | None]]:
    """The options in *word* that the family lists, with what is attached to them."""
    effect = family.options.get(word)
    if effect is not None:
        yield word, effect, None
    elif family.clusters == "none" or word.startswith("--"):
        name, equals, value = word.partition("=")
        if equals and name in family.options:
            yield name, family.options[name], value
    else:
        yield from letters_in(word, family)


def letters_in(cluster: str, family: Family) -> Iterator[tuple[str, Effect, str | None]]:
    for place, letter in enumerate(cluster[1:], start=2):
        option = f"-{letter}"
        effect = family.options.get(option)
        if effect is None:
            continue
        if family.clusters == "getopt":
            yield option, effect, cluster[place:] or None
            return
        yield option, effect, None
