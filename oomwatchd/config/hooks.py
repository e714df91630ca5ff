"""The keys for what is run, and whom is told, when somebody was killed or memory is short."""

from typing import Final, get_args

from oomwatchd.config.patterns import PATH_LIMIT_CHARACTERS, WRITTEN
from oomwatchd.config.section import Section, described, mapping
from oomwatchd.config.source import Items, Node, Scalar
from oomwatchd.config.table import REFUSED, Key, Kind, Reading, Refused, Table
from oomwatchd.config.values import choice, scalar
from oomwatchd.model import CatchableSignal, Command, PressureHooks

ARGUMENTS_LIMIT: Final = 64
NO_COMMAND: Final = "off"


def command() -> Kind[Command]:
    """A program with its arguments; read as empty where it is ``off``."""

    def read(node: Node, reading: Reading) -> Command | Refused:
        if isinstance(node, Scalar) and node.text == NO_COMMAND:
            return ()
        if not isinstance(node, Items):
            return reading.refuse(node, f"{described(node)} stands where a list should")
        if not 1 <= len(node.items) <= ARGUMENTS_LIMIT:
            return reading.refuse(node, f"the list has {len(node.items)} items")
        words = [word(item, reading) for item in node.items]
        sound = tuple(one for one in words if one is not REFUSED)
        if len(sound) < len(words):
            return REFUSED
        if not sound[0].startswith("/"):
            return reading.refuse(node.items[0], f"'{sound[0]}' is no path from the root")
        return sound

    allowed = "off, or a list: a program's path and its arguments, which no shell reads"
    one = {"type": WRITTEN, "maxLength": PATH_LIMIT_CHARACTERS}
    many = {"type": "array", "minItems": 1, "maxItems": ARGUMENTS_LIMIT, "items": one}
    return Kind(allowed, {"anyOf": [{"type": "string", "enum": [NO_COMMAND]}, many]}, read)


def word(node: Node, reading: Reading) -> str | Refused:
    value = scalar(node, reading)
    if value is REFUSED:
        return REFUSED
    if "\0" in value.text or len(value.text) > PATH_LIMIT_CHARACTERS:
        return reading.refuse(node, "an argument holds a NUL character, or is too long")
    return value.text


ON_INCIDENT: Final = Key(
    "on_incident",
    command(),
    "A program to run when a kill has been explained; all of it is on its standard input, as JSON.",
    default=NO_COMMAND,
)
ON_WARNING: Final = Key(
    "warning", command(), "A program to run when the level rises to `warning`.", default=NO_COMMAND
)
ON_CRITICAL_LEVEL: Final = Key(
    "critical",
    command(),
    "A program to run when the level rises to `critical`.",
    default=NO_COMMAND,
)
PRESSURE_HOOKS_TABLE: Final = Table("under 'on_pressure'", (ON_WARNING, ON_CRITICAL_LEVEL))


def pressure_hooks(section: Section) -> PressureHooks:
    return PressureHooks(
        warning=section.take(ON_WARNING, default=()),
        critical=section.take(ON_CRITICAL_LEVEL, default=()),
    )


ON_PRESSURE: Final = Key(
    "on_pressure",
    mapping(PRESSURE_HOOKS_TABLE, pressure_hooks),
    "What is run when memory pressure rises, once until it is ok again.",
)

SIGNAL: Final[Key[CatchableSignal]] = Key(
    "signal",
    choice(*get_args(CatchableSignal)),
    "What is sent to each process of the rule that has a handler for it.",
    required=True,
)
ON_CRITICAL_TABLE: Final = Table("under 'on_critical' of a rule", (SIGNAL,))
ON_CRITICAL: Final = Key(
    "on_critical",
    mapping(ON_CRITICAL_TABLE, lambda section: section.require(SIGNAL)),
    "`{signal: SIGUSR1}` is sent, once, when memory pressure becomes critical, to each process of "
    "the rule that has a handler for it, so that it can save its work.",
)
