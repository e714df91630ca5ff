"""The schema for editors and the example file say what the code does."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from oomwatchd.config import keys, load, parse
from oomwatchd.config.schema import schema
from oomwatchd.config.table import Key, Table
from oomwatchd.model import Config

CHECKOUT = Path(__file__).parent.parent
EXAMPLE = CHECKOUT / "config" / "example.yaml"
SCHEMA = CHECKOUT / "docs" / "oomwatchd.schema.json"
DATA = Path(__file__).parent / "data" / "config"

Schema = dict[str, Any]
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


class Yaml12(yaml.SafeLoader):
    """YAML as editors read it: version 1.2, in which `off` and `yes` are text."""


Yaml12.yaml_implicit_resolvers = {}
for tag, form, first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", "n~"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        "-+.0123456789",
    ),
):
    Yaml12.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{form})$"), [*first, ""]
    )


def in_editor(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=Yaml12)  # noqa: S506 - is a SafeLoader


# -- as much of JSON Schema as ours uses -----------------------------------------------------------


def is_of(value: Any, type_name: str) -> bool:
    if isinstance(value, bool):
        return type_name == "boolean"
    return isinstance(value, TYPES[type_name])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, types: any(is_of(value, name) for name in as_list(types)),
    "enum": lambda value, choices: value in choices,
    "const": lambda value, one: value == one and type(value) is type(one),
    "pattern": lambda value, form: not is_of(value, "string") or bool(re.search(form, value)),
    "minLength": lambda value, low: not is_of(value, "string") or len(value) >= low,
    "maxLength": lambda value, high: not is_of(value, "string") or len(value) <= high,
    "minimum": lambda value, low: not is_of(value, "number") or value >= low,
    "maximum": lambda value, high: not is_of(value, "number") or value <= high,
    "exclusiveMinimum": lambda value, low: not is_of(value, "number") or value > low,
    "minItems": lambda value, low: not is_of(value, "array") or len(value) >= low,
    "maxItems": lambda value, high: not is_of(value, "array") or len(value) <= high,
    "items": lambda value, each: (
        not is_of(value, "array") or all(is_valid(item, each) for item in value)
    ),
    "minProperties": lambda value, low: not is_of(value, "object") or len(value) >= low,
    "required": lambda value, names: not is_of(value, "object") or set(names) <= set(value),
    "properties": lambda value, known: (
        not is_of(value, "object")
        or all(is_valid(value[name], known[name]) for name in known if name in value)
    ),
    "anyOf": lambda value, choices: any(is_valid(value, choice) for choice in choices),
    "not": lambda value, other: not is_valid(value, other),
}
NO_CHECKS = {"$schema", "title", "description", "default"}
CHECKED_TOGETHER = {"if", "then", "additionalProperties"}


def is_valid(value: Any, against: Schema) -> bool:
    assert set(against) <= CHECKS.keys() | NO_CHECKS | CHECKED_TOGETHER  # nothing is passed over
    if "if" in against and is_valid(value, against["if"]) and not is_valid(value, against["then"]):
        return False
    closed = against.get("additionalProperties") is False and is_of(value, "object")
    if closed and not set(value) <= set(against["properties"]):
        return False
    return all(CHECKS[name](value, against[name]) for name in CHECKS.keys() & against.keys())


# -- the schema ------------------------------------------------------------------------------------


def test_the_schema_in_docs_is_the_one_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "oomwatchd.config.schema"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == SCHEMA.read_text()
    assert json.loads(done.stdout) == schema()


@pytest.mark.parametrize(
    "path", [EXAMPLE, *sorted((DATA / "good").glob("*-k*.yaml")), DATA / "good" / "json.yaml"]
)
def test_an_editor_finds_no_fault_in_a_good_file(path: Path) -> None:
    assert is_valid(in_editor(path), schema())


BROKEN = [
    "unknown-key",
    "key-of-a-rule-at-the-top",
    "key-of-match-in-a-rule",
    "number-not-whole",
    "number-quoted",
    "number-word",
    "number-missing",
    "number-is-a-list",
    "number-out-of-range",
    "incidents-too-little",
    "duration-no-unit",
    "duration-forms",
    "threshold-range",
    "threshold-unknown",
    "pressure-not-a-mapping",
    "percentage-range",
    "percentage-decimal",
    "listen-no-port",
    "listen-null",
    "hooks",
    "choice-events",
    "choices",
    "boolean",
    "rule-without-keys",
    "rule-name",
    "rules-is-a-mapping",
    "rules-hold-a-word",
    "match-empty",
    "match-is-a-word",
    "pattern-empty",
    "pattern-nested",
    "pattern-too-long",
    "cmdline-too-long",
    "unkillable-not-said",
    "unkillable-false",
    "top-is-a-list",
    "everything-at-once",
]


@pytest.mark.parametrize("name", BROKEN)
def test_an_editor_finds_the_fault_of_a_bad_file(name: str) -> None:
    assert not is_valid(in_editor(DATA / "bad" / f"{name}.yaml"), schema())


# -- defaults and example --------------------------------------------------------------------------


def every_key(table: Table) -> Iterator[Key[object]]:
    for key in table.keys:
        yield key
        if key.kind.table is not None:
            yield from every_key(key.kind.table)


def defaults(table: Table) -> dict[str, object]:
    """A file in which each key has the default that the table states for it."""
    stated = {
        key.name: defaults(key.kind.table)
        if key.kind.table is not None and key.default is None
        else key.default
        for key in table.keys
    }
    return {name: value for name, value in stated.items() if value is not None and value != {}}


def test_the_defaults_of_the_table_are_those_of_the_code() -> None:
    settings = Table("", tuple(key for key in keys.TOP_TABLE.keys if key is not keys.RULES))

    stated = defaults(settings)

    assert len(stated) == len(settings.keys)
    assert parse(json.dumps(stated).encode(), "x.yaml").config == Config()


def test_the_example_is_accepted_without_a_warning() -> None:
    loaded = load(EXAMPLE, root_only=False)

    assert loaded.warnings == ()
    assert len(loaded.config.rules) >= 8


def test_the_settings_of_the_example_are_the_defaults() -> None:
    given = in_editor(EXAMPLE)
    del given["rules"]

    assert set(given) == set(keys.TOP_TABLE.names) - {"rules"}
    assert parse(json.dumps(given).encode(), "x.yaml").config == Config()


@pytest.mark.parametrize("key", {key.name: key for key in every_key(keys.TOP_TABLE)}.values())
def test_the_example_names_every_key_with_its_default(key: Key[object]) -> None:
    text = EXAMPLE.read_text()

    assert re.search(rf"\b{key.name}\b", text)
    if key.default is not None:
        written = re.sub(r'"', "", json.dumps(key.default))
        assert re.search(
            rf"^ *{key.name}: {re.escape(written)} +# default: {re.escape(written)};", text, re.M
        )


def test_the_example_states_what_follows_from_the_value() -> None:
    text = EXAMPLE.read_text()

    assert "descendants: reset           # default: reset for a negative value, inherit oth" in text
    assert (
        "shield: preference           # default: preference for a negative value, none oth" in text
    )
    assert "workers: -800                # default: the value of oom_score_adj" in text


def test_the_example_tells_editors_where_the_schema_is() -> None:
    first_line = EXAMPLE.read_text().partition("\n")[0]

    assert first_line == (
        "# yaml-language-server: $schema=/usr/share/oomwatchd/oomwatchd.schema.json"
    )
