"""Write packaging/grafana/oomwatchd.json, or look whether it is what would be written."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from board.content import KILL_TEXT, KILL_TITLE, dashboard

DOCUMENT: Final = Path(__file__).parents[2] / "packaging/grafana/oomwatchd.json"


def document() -> str:
    made: dict[str, Any] = json.loads(JSONEncoder().encode(dashboard().build()))
    for annotation in made["annotations"]["list"]:  # the library knows of no texts
        annotation |= {"titleFormat": KILL_TITLE, "textFormat": KILL_TEXT, "tagKeys": "killer"}
    for row in made["panels"]:
        row.pop("id", None)  # Grafana gives them out; the library has 0 for each row
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/make-dashboard", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it differs")
    if not parser.parse_args().check:
        DOCUMENT.write_text(document(), encoding="utf-8")
        return 0
    if DOCUMENT.read_text(encoding="utf-8") == document():
        return 0
    print(
        f"{DOCUMENT.name} is not what script/board/ makes: run script/make-dashboard",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
