"""JSON Schema of the configuration, for editors: ``python3 -m oomwatchd.config.schema`` prints it.

It tells less than the loader does: ranges of durations, unique names and rules that can never be
reached are beyond it.
"""

import json
import sys
from typing import Any, Final

from oomwatchd.config import keys
from oomwatchd.config.load import RULES_LIMIT
from oomwatchd.config.table import Key, Kind, Table
from oomwatchd.model import OOM_SCORE_ADJ_MIN

Schema = dict[str, Any]

DIALECT: Final = "http://json-schema.org/draft-07/schema#"  # what yaml-language-server reads best
UNKILLABLE_SAID: Final = {
    "if": {
        "anyOf": [
            {"properties": {key.name: {"const": OOM_SCORE_ADJ_MIN}}, "required": [key.name]}
            for key in (keys.OOM_SCORE_ADJ, keys.WORKERS)
        ]
    },
    "then": {
        "properties": {keys.UNKILLABLE.name: {"const": True}},
        "required": [keys.UNKILLABLE.name],
    },
}


def schema() -> Schema:
    title = {"$schema": DIALECT, "title": "oomwatchd.yaml, and fragments in oomwatchd.yaml.d"}
    return title | of_table(keys.TOP_TABLE)


def of_table(table: Table) -> Schema:
    required = [key.name for key in table.keys if key.required]
    return (
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {key.name: of_key(key) for key in table.keys},
        }
        | ({"required": required} if required else {})
        | (UNKILLABLE_SAID if table is keys.RULE_TABLE else {})
    )


def of_key(key: Key[object]) -> Schema:
    allowed = "" if key.kind.table else f" Allowed: {key.kind.allowed}."
    default = f" Default: {key.default_text}." if key.default_text else ""
    described: Schema = {"description": (key.about + default + allowed).replace("`", "")}
    if key.default is not None:
        described["default"] = key.default
    return described | of_kind(key.kind)


def of_kind(kind: Kind[object]) -> Schema:
    if kind.table is None:
        return dict(kind.schema)
    inner = of_table(kind.table)
    if kind.schema["type"] == "object":
        return {**kind.schema, **inner}
    return {**kind.schema, "maxItems": RULES_LIMIT, "items": inner}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
