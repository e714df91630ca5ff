"""The tables of the manual, in Markdown, made of what the code says."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from manual.commands import Argument, Command, commands
from oomwatchd.cli import exits
from oomwatchd.config.keys import MATCH_TABLE, RULE_TABLE, TOP_TABLE
from oomwatchd.config.table import Key
from oomwatchd.series import DECLARED

FURTHER: Final = {  # sections of the README that tell more of a key
    "shield": "Shield",
    "on_incident": "Hooks",
    "on_pressure": "Hooks",
    "on_critical": "Hooks",
}
BAR: Final = "\\|"  # within a cell


def table(heading: str, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    titles = heading.split(" | ")
    yield f"| {heading} |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        cells = (cell.replace("|", BAR) for cell in row)
        yield "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


# -- the configuration -----------------------------------------------------------------------------


def settings() -> Iterator[str]:
    keys = (one for key in TOP_TABLE.keys for one in flat(key))
    yield from table("key | default | allowed | what", (key_row(*one) for one in keys))


def flat(key: Key[object]) -> Iterator[tuple[str, Key[object]]]:
    """``metrics.listen`` in place of ``metrics``; lists of mappings have tables of their own."""
    inner = key.kind.table
    if inner is None or key.kind.schema["type"] != "object":
        yield key.name, key
    else:
        yield from ((f"{key.name}.{one.name}", one) for one in inner.keys)


def key_row(name: str, key: Key[object]) -> tuple[str, ...]:
    further = FURTHER.get(name.partition(".")[0])
    see = f" See [{further}](#{further.lower()})." if further else ""
    allowed = "" if key.kind.table else key.kind.allowed  # what it may hold has a table, or is told
    return code(name), default(key), allowed, key.about + see


def default(key: Key[object]) -> str:
    if key.required:
        return "required"
    return key.default_text or ("none" if key.default is None else code(as_yaml(key.default)))


def as_yaml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_yaml(one)}" for key, one in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def rule() -> Iterator[str]:
    yield from table(
        "key | default | allowed | what", (key_row(key.name, key) for key in RULE_TABLE.keys)
    )


def match() -> Iterator[str]:
    yield from table("key | what", ((code(key.name), key.about) for key in MATCH_TABLE.keys))


def match_in_full() -> Iterator[str]:
    rows = ((code(key.name), key.kind.allowed, key.about) for key in MATCH_TABLE.keys)
    yield from table("key | allowed | what", rows)


# -- the commands ----------------------------------------------------------------------------------


def command_table() -> Iterator[str]:
    rows = ((code(f"oomwatchd {one.name}"), code(one.usage), one.about) for one in commands())
    yield from table("command | arguments | what", rows)


def synopsis() -> Iterator[str]:
    for one in commands():
        yield code(f"oomwatchd {one.name} {one.usage}".rstrip())
        yield ""
    yield "`oomwatchd --version`"


def command_sections() -> Iterator[str]:
    """Each command with its options, as a man page has them."""
    for one in commands():
        yield from command_section(one)


def command_section(command: Command) -> Iterator[str]:
    yield f"### oomwatchd {command.name} {command.usage}".rstrip()
    yield ""
    yield f"{'Runs' if command.name == 'run' else 'Shows'} {command.about}."
    yield ""
    rows = ((code(signature(one)), sentence(one.about)) for one in command.arguments)
    yield from table("argument | what", rows)
    yield ""


def signature(argument: Argument) -> str:
    value = f" {argument.shown}" if argument.shown else ""
    return ", ".join(argument.flags) + value if argument.flags else argument.shown


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def exit_statuses() -> Iterator[str]:
    rows = ((code(str(status)), meaning) for status, meaning in exits.MEANING.items())
    yield from table("status | what", rows)


# -- the metrics -----------------------------------------------------------------------------------


def metrics() -> Iterator[str]:
    rows = (
        (code(one.name), one.type, " ".join(map(code, one.labels)), one.help) for one in DECLARED
    )
    yield from table("metric | type | labels | what", rows)


TABLES: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "settings": settings,
    "rule": rule,
    "match": match,
    "match in full": match_in_full,
    "commands": command_table,
    "synopsis": synopsis,
    "command sections": command_sections,
    "exit statuses": exit_statuses,
    "metrics": metrics,
}
