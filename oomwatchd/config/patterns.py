"""Readers for what a rule matches: globs, regular expressions, users."""

import fnmatch
import pwd
import re
import warnings
from collections.abc import Callable
from typing import Final

from oomwatchd.config.fault import quoted
from oomwatchd.config.source import Node, Scalar
from oomwatchd.config.table import REFUSED, Kind, Reading, Refused
from oomwatchd.config.values import Wrong, scalar, single
from oomwatchd.model import User
from oomwatchd.policy.patterns import searched

NAME_LIMIT_CHARACTERS: Final = 255  # NAME_MAX of <linux/limits.h>
PATH_LIMIT_CHARACTERS: Final = 4096  # PATH_MAX
REGEX_LIMIT_CHARACTERS: Final = 1000
USER_LIMIT_CHARACTERS: Final = 256
UID_MAX: Final = 4294967294  # the next one, (uid_t)-1, means "no user" to the kernel
UID: Final = re.compile(r"0|[1-9][0-9]{0,9}")
RULE_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
RESERVED_NAME: Final = "none"  # label of oomwatchd_oom_kills_total for what no rule matches
WRITTEN: Final = ["string", "number", "boolean"]  # a program may be called 123 or true

Doubt = Callable[[str], str | None]


def rule_name() -> Kind[str]:
    def parse(value: Scalar) -> str | Wrong:
        if value.text == RESERVED_NAME:
            return Wrong("is reserved, the metrics use it for what no rule matches")
        if not RULE_NAME.fullmatch(value.text):
            return Wrong("is not such a name")
        return value.text

    schema = {
        "type": ["string", "integer", "boolean"],
        "pattern": f"^{RULE_NAME.pattern}$",
        "not": {"const": RESERVED_NAME},
    }
    return single("1 to 64 of the characters a-z 0-9 _ -", schema, parse)


def glob(limit_characters: int, doubt: Doubt = lambda pattern: None) -> Kind[str]:
    """A shell pattern; *doubt* says why one that is valid would match nothing."""

    def read(node: Node, reading: Reading) -> str | Refused:
        value = scalar(node, reading)
        if value is REFUSED:
            return REFUSED
        wrong = why_no_text(value.text, limit_characters) or why_no_glob(value.text)
        if wrong:
            return reading.refuse(node, wrong)
        doubtful = doubt(value.text)
        if doubtful:
            reading.warn(node, f"{quoted(value.text)} {doubtful}")
        return value.text

    schema = {"type": WRITTEN, "minLength": 1, "maxLength": limit_characters}
    return Kind(f"a pattern of 1 to {limit_characters} characters", schema, read)


def why_no_text(text: str, limit_characters: int) -> str | None:
    if not text:
        return "the text is empty"
    if "\0" in text:
        return f"{quoted(text)} holds a NUL character"
    if len(text) > limit_characters:
        return f"{quoted(text)} is too long with {len(text)} characters"
    return None


def why_no_glob(text: str) -> str | None:
    if "[" not in text:  # without a set of characters every text is a pattern
        return None
    try:
        re.compile(fnmatch.translate(text))
    except re.error as error:  # early 3.10: a set such as [z-a]
        return f"{quoted(text)} is not a pattern: {error}"
    return None


def not_absolute(path: str) -> str | None:
    if path[0] in "/*?[":
        return None
    return f"matches nothing, as these paths start with '/'; perhaps '*/{path}' is meant"


def without_suffix(unit: str) -> str | None:
    if any(character in unit for character in ".*?["):
        return None
    return f"matches nothing, as names of units have a suffix; perhaps '{unit}.service' is meant"


def with_directory(name: str) -> str | None:
    if not name.startswith("/"):
        return None
    return "is compared with names, which hold no directory; perhaps the key 'exe' is meant"


def regex() -> Kind[str]:
    def read(node: Node, reading: Reading) -> str | Refused:
        value = scalar(node, reading)
        if value is REFUSED:
            return REFUSED
        wrong = why_no_text(value.text, REGEX_LIMIT_CHARACTERS)
        if wrong is None:
            wrong, doubts = tried_regex(value.text)
            for doubtful in doubts:
                reading.warn(
                    node, f"{quoted(value.text)} may come to mean something else: {doubtful}"
                )
        return value.text if wrong is None else reading.refuse(node, wrong)

    schema = {"type": WRITTEN, "minLength": 1, "maxLength": REGEX_LIMIT_CHARACTERS}
    allowed = f"a Python regular expression of 1 to {REGEX_LIMIT_CHARACTERS} characters"
    return Kind(allowed, schema, read)


def tried_regex(text: str) -> tuple[str | None, list[str]]:
    """Why *text* is no regular expression, and what Python warns of in it."""
    wrong = f"{quoted(text)} is not a regular expression"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)  # in 3.10 what is an error since 3.11
        try:
            re.compile(text)
            doubts = [str(warning.message) for warning in caught]
            searched((text,))  # as the rules will use it
        except re.error as error:
            return f"{wrong}: {error}", []
        except DeprecationWarning:
            return f"{wrong}: global flags not at the start of the expression", []
        except OverflowError:
            return f"{wrong}: a number of repetitions is too large", []
        except RecursionError:
            return f"{wrong}: nested too deeply", []
    return None, doubts


def user() -> Kind[User]:
    def read(node: Node, reading: Reading) -> User | Refused:
        value = scalar(node, reading)
        if value is REFUSED:
            return REFUSED
        wrong = why_no_text(value.text, USER_LIMIT_CHARACTERS) or why_no_user(value.text)
        if wrong:
            return reading.refuse(node, wrong)
        found = User(value.text, uid(value.text))
        if found.uid is None:
            reading.warn(
                node,
                f"no user {quoted(value.text)} on this machine now; "
                "the rule matches nothing by it until there is one",
            )
        return found

    name = {"type": "string", "minLength": 1, "maxLength": USER_LIMIT_CHARACTERS}
    number = {"type": "integer", "minimum": 0, "maximum": UID_MAX}
    return Kind(f"a user's name, or a uid from 0 to {UID_MAX}", {"anyOf": [name, number]}, read)


def why_no_user(text: str) -> str | None:
    if re.fullmatch(r"-?[0-9]+", text):
        if text.startswith("0") and text != "0":
            return f"{quoted(text)} would be read as octal"
        if not UID.fullmatch(text) or int(text) > UID_MAX:
            return f"{quoted(text)} is out of range"
    if not text.isprintable() or any(character in "*?[]:," for character in text):
        return f"{quoted(text)} is not a user's name, and patterns are not for users"
    return None


def uid(text: str) -> int | None:
    if UID.fullmatch(text):
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        return None
