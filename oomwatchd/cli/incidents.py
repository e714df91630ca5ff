"""``oomwatchd incidents``: the kills there were, and all that is known of one of them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.stored import directory, print_incident, stored, when, write_page
from oomwatchd.cli.table import Column, bold, show, show_document, table, terminal_width
from oomwatchd.document import row
from oomwatchd.incident import Incident
from oomwatchd.report.verdict import victims_total
from oomwatchd.text import size

NEWEST: Final = "last"
COLUMNS: Final = (
    Column("ID"),
    Column("WHEN"),
    Column("KILLER"),
    Column("PID", right=True),
    Column("NAME", cut=True),
    Column("MEMORY", right=True),
    Column("RULE", cut=True),
    Column("DIAGNOSIS"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("list", "show"), default="list",
                        help="all of them (if not given), or one")  # fmt: skip
    parser.add_argument("id", nargs="?", metavar="ID",
                        help=f"which to show: its beginning is enough; or `{NEWEST}`")  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE",
                        help="write a page that stands alone, with charts; of the newest, "
                        "if none is named")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        if (arguments.what == "show") != (arguments.id is not None):
            raise Failure("`show` takes the ID of an incident, `list` takes none", exits.USAGE)
        if arguments.what == "show":
            return show_one(arguments, chosen(arguments.id))
        if arguments.html is not None:
            write_page(chosen(NEWEST), arguments.html)
            return exits.FINE
        return list_all(list(stored(directory())), as_document=arguments.json)
    except Failure as failure:
        return fail("incidents", failure)


def show_one(arguments: argparse.Namespace, incident: Incident) -> int:
    if arguments.html is not None:
        write_page(incident, arguments.html)
    if arguments.html is None or arguments.json:
        print_incident(incident, as_document=arguments.json)
    return exits.FINE


def chosen(id: str) -> Incident:
    """Raises Failure, if there is none or more than one."""
    path = directory()
    found = [one for one in stored(path) if id == NEWEST or one.id.startswith(id)]
    exact = [one for one in found if one.id == id]
    if id == NEWEST or len(exact) == 1:
        found = found[:1] if id == NEWEST else exact
    if not found:
        raise Failure(f"there is no incident {id} in {path}", exits.NO)
    if len(found) > 1:
        raise Failure(f"{len(found)} incidents begin with {id}: give more of it", exits.USAGE)
    return found[0]


def list_all(incidents: Sequence[Incident], *, as_document: bool) -> int:
    if as_document:
        show_document([row(one) for one in incidents])
    elif not incidents:
        show(["no incident: nobody was killed for want of memory"], sys.stdout)
    else:
        rows = [cells(one) for one in incidents]
        heading, *lines = table(COLUMNS, rows, terminal_width(sys.stdout))
        show([bold(heading, sys.stdout), *lines], sys.stdout)
    return exits.FINE


def cells(incident: Incident) -> tuple[str, ...]:
    victim = incident.victim
    more = victims_total(incident.case) - 1
    return (
        incident.id,
        when(incident.time_unix_seconds),
        incident.case.killer,
        "" if victim.pid is None else str(victim.pid),
        f"{victim.name} and {more} more" if more > 0 else victim.name,
        "" if victim.memory_bytes is None else size(victim.memory_bytes),
        victim.rule or "",
        incident.diagnosis.kind,
    )
