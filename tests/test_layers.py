"""Imports go one way, and few modules may act on the world; both stay so because of this table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "oomwatchd"

SHARED = {"model", "text", "auditing"}
TOLD = SHARED | {"incident"}  # the records of kills
PURE = TOLD | {"policy"}
EDGES = PURE | {"kernel"}
STATE = EDGES | {"holds", "identify", "ledger", "record"}
# What a module, or a package with all in it, may import of ours; itself always.  Each row names
# rows above it only.
MAY_IMPORT = {
    "model": set[str](),
    "text": set[str](),
    "auditing": {"model"},
    "incident": set[str](),
    "paths": set[str](),
    "spared": set[str](),
    "users": SHARED,
    "policy": TOLD,
    "kernel": TOLD,
    "systemd": EDGES,  # its worker moves processes
    "config": PURE,
    "pending": SHARED,
    "totals": SHARED,
    "beside": set[str](),
    "absent": PURE | {"beside", "config"},
    "listeners": SHARED,
    "record": TOLD,
    "ledger": PURE,
    "identify": EDGES,
    "holds": EDGES | {"record"},
    "surroundings": EDGES | {"identify", "systemd"},
    "auditor": EDGES | {"surroundings", "systemd"},
    "exposure": STATE | {"systemd"},
    "matching": STATE,
    "population": STATE | {"matching"},
    "orphans": EDGES | {"identify", "ledger", "population"},
    "blame": EDGES | {"identify"},
    "step": EDGES,
    "enforce": STATE | {"blame", "population", "orphans", "matching", "step"},
    "watch": STATE | {"population", "enforce"},
    "restore": STATE | {"population", "enforce", "watch"},
    "marks": EDGES | {"ledger", "record"},
    "moves": PURE | {"record", "systemd"},
    "shield": STATE | {"population", "systemd", "marks", "moves"},
    "journal": SHARED | {"record"},
    "barometer": EDGES,
    "hooked": EDGES,
    "hooks": SHARED | {"record", "systemd"},
    "alarm": STATE | {"hooks"},
    "series": TOLD,
    "metrics": SHARED | {"series"},
    "pages": SHARED | {"metrics", "series"},
    "server": SHARED | {"metrics", "pages", "spared", "listeners"},
    "largest": EDGES,
    "history": TOLD,
    "followed": EDGES | {"history"},
    "sampler": EDGES | {"identify", "history", "largest", "followed"},
    "docket": PURE,
    "backlog": PURE,
    "ends": PURE,
    "document": TOLD,
    "incidents": TOLD | {"document"},
    "scribe": PURE | {"document", "incidents"},
    "postmortem": PURE | {"history", "incidents"},
    "report": PURE,
    "coroner": EDGES
    | {
        "record",
        "population",
        "history",
        "sampler",
        "ends",
        "systemd",
        "docket",
        "backlog",
        "document",
        "incidents",
        "scribe",
        "postmortem",
        "report",
        "users",
    },
    "host": EDGES | {"population", "systemd", "server"},
    "hearing": STATE | {"host"},
    "reload": PURE | {"beside", "config", "host", "journal"},
    "daemon": STATE
    | {
        "absent",
        "population",
        "enforce",
        "watch",
        "restore",
        "shield",
        "systemd",
        "exposure",
        "coroner",
        "barometer",
        "hooks",
        "alarm",
        "config",
        "pending",
        "journal",
        "host",
        "hearing",
        "reload",
        "totals",
    },
}
TOP = {"cli", "__main__"}  # everything

# Who may name a thing that reaches beyond our own memory.
MAY_USE = {
    "logging": {"journal"},
    "journal": {"daemon", "reload", "cli.run"},
    "subprocess": set[str](),
    "O_WRONLY": {"kernel.adjust", "kernel.lineage", "ledger", "incidents", "cli.table"},
    "O_RDWR": {"kernel.psi", "cli.main"},  # a pressure trigger is set by writing to the file
    "open for writing": {"ledger", "incidents", "cli.main"},  # or standard output
    "write_text": {"cli.stored"},  # the page that was asked for
    "write_bytes": set[str](),
    "setxattr": {"kernel.mark"},
    "removexattr": {"kernel.mark"},
    # Children of theirs, when these take too long or have said all.
    "kill": {"systemd.asking", "systemd.manager", "exposure", "hooks"},
    "raise_signal": {"cli.top.terminal"},  # to ourselves: to be stopped, or ended, as is usual
    "killpg": {"hooks", "systemd.journalctl"},
    "fork": {"systemd.asking", "systemd.worker"},
    "posix_spawn": {"systemd.manager", "systemd.journalctl", "hooks"},
    "execv": {"hooked"},
    "pidfd_send_signal": {"kernel.signals"},  # to those under a rule that asks for it
    "pidfd_open": {"kernel.proc"},
    "connect": {"cli.status", "listeners", "systemd.bus"},  # to another program's socket
    "setrlimit": {"cli.run", "kernel.memory"},
    "rich": {"cli.top.screen"},  # a library that one command needs, and no daemon
    "path in /proc": {"kernel.proc", "kernel.features"},  # the root of all others; /proc/self
}
# Decisions are made from what they are given: no files, no clock, no other process.
NOT_IN_POLICY = {
    "os",
    "io",
    "pathlib",
    "socket",
    "select",
    "subprocess",
    "time",
    "datetime",
    "open",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
CODE = {name: tree for name, tree in MODULES.items() if name}  # less oomwatchd/__init__.py


def imports(tree: ast.AST) -> Iterator[str]:
    """The full name of each module or object that is imported, relative ones with their dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def parts_imported(tree: ast.AST) -> set[str]:
    """Of ours, the modules and packages directly in oomwatchd."""
    ours = (name.split(".") for name in imports(tree) if name.startswith("oomwatchd."))
    return {parts[1] for parts in ours} - {"__version__"}


def docstrings(tree: ast.AST) -> set[ast.expr]:
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {node.value for node in statements if isinstance(node.value, ast.Constant)}


def opens_for_writing(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] != "open":
        return False
    values = [str(value.value) for value in ast.walk(node) if isinstance(value, ast.Constant)]
    return any(re.fullmatch("r[bt]?[+][bt]?|[wax][bt+]*", value) for value in values)


def is_in_proc(value: object) -> bool:
    return isinstance(value, str) and value.split("/")[:2] == ["", "proc"]


def used(tree: ast.AST) -> Iterator[str]:
    """Every name, and the two acts that take a closer look."""
    yield from (part for name in imports(tree) for part in name.split("."))
    said = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif opens_for_writing(node):
            yield "open for writing"
        elif isinstance(node, ast.Constant) and node not in said and is_in_proc(node.value):
            yield "path in /proc"


@pytest.mark.parametrize("module", CODE)
def test_imports_go_one_way(module: str) -> None:
    part = module.split(".")[0]
    allowed = MAY_IMPORT.keys() | TOP if part in TOP else MAY_IMPORT[part] | {part}

    assert parts_imported(CODE[module]) <= allowed


def test_the_table_has_no_way_back_up() -> None:
    parts = list(MAY_IMPORT)

    for number, part in enumerate(parts):
        assert MAY_IMPORT[part] <= set(parts[:number])


@pytest.mark.parametrize("thing", MAY_USE)
def test_only_the_modules_that_should_can_act_outside(thing: str) -> None:
    users = {module for module, tree in CODE.items() if thing in used(tree)}

    assert users <= MAY_USE[thing]


@pytest.mark.parametrize("module", [name for name in CODE if name.split(".")[0] == "policy"])
def test_decisions_read_neither_files_nor_clocks(module: str) -> None:
    assert set(used(CODE[module])).isdisjoint(NOT_IN_POLICY)


@pytest.mark.parametrize("module", CODE)
def test_imports_are_absolute(module: str) -> None:
    assert not [name for name in imports(CODE[module]) if name.startswith(".")]


def test_the_table_names_no_module_that_is_gone() -> None:
    parts = {module.split(".")[0] for module in CODE}
    users = set[str]().union(*MAY_USE.values())

    assert MAY_IMPORT.keys() | TOP <= parts
    assert users <= CODE.keys()


@pytest.mark.parametrize(
    ("source", "thing"),
    [
        ("open(path, 'wb')", "open for writing"),
        ("Path(x).open(mode='a')", "open for writing"),
        ("open(path, 'r+b')", "open for writing"),
        ("stat = '/proc/1/stat'", "path in /proc"),
        ("os.kill(1, 9)", "kill"),
        ("from os import kill", "kill"),
        ("import logging.handlers", "logging"),
    ],
)
def test_the_check_sees(source: str, thing: str) -> None:
    assert thing in used(ast.parse(source))


@pytest.mark.parametrize(
    "source", ["open(path, 'rb')", "'''/proc/1/stat, parsed.'''", "opened = 1"]
)
def test_the_check_is_not_mistaken_about(source: str) -> None:
    assert MAY_USE.keys().isdisjoint(used(ast.parse(source)))
