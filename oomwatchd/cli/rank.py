"""``oomwatchd rank``: the order in which the kernel would kill now, with the arithmetic."""

import argparse
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.table import Column, bold, show, show_document, table, terminal_width
from oomwatchd.cli.verdict import Doubt, Judge, doubted, loaded, unseen_remarks
from oomwatchd.kernel.adjust import read_adj
from oomwatchd.kernel.proc import GONE, ProcFs, in_pid_namespace
from oomwatchd.kernel.settings import read_vm_setting
from oomwatchd.kernel.status import Memory, memory_status, parse_meminfo
from oomwatchd.model import ProcessId
from oomwatchd.paths import CONFIG
from oomwatchd.policy import badness
from oomwatchd.policy.badness import Candidate
from oomwatchd.text import decoded, size

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
FIRST_ROWS: Final = 20


class Names:
    """Names of rules, for the processes that are shown."""

    def __init__(self, judge: Judge | None, fault: str = "") -> None:
        """*judge*: None without a configuration, or with one that has a *fault*."""
        self._judge = judge
        self._fault = fault
        self._doubts: dict[int, Doubt] = {}

    def of(self, pid: int) -> str | None:
        """The name of the rule that *pid* matches, as far as may be seen."""
        verdict = self._judge.seen(pid) if self._judge is not None else None
        if verdict is None:
            return None
        if verdict.doubt is not None:
            self._doubts[pid] = verdict.doubt
        return verdict.rule.name if verdict.rule is not None else None

    def shown(self, pid: int) -> str:
        return self.of(pid) or ("?" if pid in self._doubts else "")

    def remarks(self) -> list[str]:
        """Once all have been named."""
        return [*([f"rules not named: {self._fault}"] if self._fault else []),
                *doubted(self._doubts.values())]  # fmt: skip


class Program(NamedTuple):
    """What a process runs: another once the process is another, or runs another program."""

    id: ProcessId
    mark: int


class Ranking(NamedTuple):
    memory: Memory
    killable: list[Candidate]  # in order of death
    exempt: list[Candidate]  # the largest first
    remarks: list[str]  # what may overrule this order, and what it leaves out
    programs: Mapping[int, Program]  # by pid


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", help="every process, also those that are never picked"
    )
    parser.add_argument("--json", action="store_true", help="a list in order of death")
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="whose rules are named")


def run(arguments: argparse.Namespace) -> int:
    try:
        proc = ProcFs()
        return rank(arguments, proc, naming(arguments.config, proc))
    except Failure as failure:
        return fail("rank", failure)
    except FileNotFoundError as error:  # /proc with subset=pid, or none at all
        print(f"oomwatchd rank: {error.filename}: {error.strerror}", file=sys.stderr)
        return exits.NO_INPUT


def naming(path: Path | None, proc: ProcFs) -> Names:
    """Names rules by the configuration at *path*; without it by the usual one, as far as that can
    be read: the order of death does not depend on it.
    """
    if path is not None:
        return Names(Judge(loaded(path, root_only=False).config, proc))
    if not CONFIG.exists():
        return Names(None)
    try:
        return Names(Judge(loaded(CONFIG, root_only=False).config, proc))
    except Failure as failure:
        return Names(None, failure.in_one_line)


def rank(arguments: argparse.Namespace, proc: ProcFs, names: Names) -> int:
    ranking = read_ranking(proc)
    if arguments.json:
        listed = ranking.killable + (ranking.exempt if arguments.all else [])
        show_document([as_json(candidate, names) for candidate in listed])
        show([*ranking.remarks, *names.remarks()], sys.stderr)
    else:
        show(as_text(ranking, names, everything=arguments.all), sys.stdout)
    return exits.FINE


# -- reading ---------------------------------------------------------------------------------------


def read_ranking(proc: ProcFs) -> Ranking:
    """Every process as it is now, but for kernel threads, pid 1, us, and what holds no memory.

    A process between vfork and exec is not told from others: it is shown, with the memory that
    it borrows from its parent, though the kernel would pass it over.
    """
    memory = parse_meminfo((proc.root / "meminfo").read_bytes())
    pids = {int(name) for name in proc.listing()}
    found: list[tuple[Program, Candidate]] = []
    refused = 0
    for pid in pids - {1, os.getpid()}:
        try:
            one = read_candidate(proc, pid, total_pages(memory))
        except PermissionError:
            refused += 1
            continue
        if one is not None:
            found.append(one)
    found.sort(key=created)  # as the kernel meets them
    candidates = [candidate for _, candidate in found]
    exempt = [candidate for candidate in candidates if candidate.points is None]
    return Ranking(
        memory,
        badness.order(candidates),
        sorted(exempt, key=lambda candidate: -candidate.memory_pages),
        [*overrulings(proc.root), *blind_spots(proc.root, pids, refused)],
        {program.id.pid: program for program, _ in found},
    )


def created(pair: tuple[Program, Candidate]) -> tuple[int, int]:
    id = pair[0].id
    return id.start_ticks, id.pid


def read_candidate(proc: ProcFs, pid: int, total: int) -> tuple[Program, Candidate] | None:
    """None if the process has gone, is a kernel thread, or holds no memory any more."""
    look = proc.look(pid)
    if look is None:
        return None
    try:
        status = None if look.stat.kernel_thread else memory_status(look.directory)
        if status is None:
            return None
        resident, swap, page_tables = (
            size_bytes // PAGE_BYTES
            for size_bytes in (status.resident_bytes, status.swap_bytes, status.page_tables_bytes)
        )
        adj = read_adj(look.directory)
    except GONE:
        return None
    finally:
        look.close()
    points = badness.points(resident, swap, page_tables, adj, total)
    name = decoded(look.stat.comm)
    program = Program(look.id, look.stat.program)
    return program, Candidate(pid, name, adj, resident + swap + page_tables, points)


def total_pages(memory: Memory) -> int:
    return (memory.total_bytes + memory.swap_total_bytes) // PAGE_BYTES


def overrulings(root: Path) -> Iterator[str]:
    """The settings under which this order does not decide."""
    setting = read_vm_setting(root, "panic_on_oom")
    if setting != 0:
        yield f"warning: vm.panic_on_oom={setting}: the kernel panics, no process is picked"
    if read_vm_setting(root, "oom_kill_allocating_task") != 0:
        yield (
            "warning: vm.oom_kill_allocating_task=1: whoever asks for memory at that moment is"
            " killed, not the first of this order"
        )


def blind_spots(root: Path, pids: Collection[int], refused: int) -> Iterator[str]:
    """The processes that the kernel knows and we were not shown."""
    if 1 not in pids:
        yield "not seen: processes of other users, as /proc hides them (hidepid); try as root"
    yield from unseen_remarks(refused)
    if in_pid_namespace(root):
        yield "not seen: processes outside of this container"


# -- showing ---------------------------------------------------------------------------------------


def as_json(candidate: Candidate, names: Names) -> dict[str, object]:
    """One entry; its field names are a contract."""
    return {
        "pid": candidate.pid,
        "name": candidate.comm,
        "oom_score_adj": candidate.oom_score_adj,
        "memory_bytes": candidate.memory_pages * PAGE_BYTES,
        "points_pages": candidate.points,
        "killable": candidate.points is not None,
        "rule": names.of(candidate.pid),
    }


def as_text(ranking: Ranking, names: Names, *, everything: bool) -> Iterator[str]:
    memory, total = ranking.memory, total_pages(ranking.memory)
    step = size(badness.step_pages(total) * PAGE_BYTES)
    yield (
        f"{size(total * PAGE_BYTES)} in all (RAM {size(memory.total_bytes)},"
        f" swap {size(memory.swap_total_bytes)}): 1 adj = {step} here"
    )
    yield from ranking.remarks
    yield ""
    killable = ranking.killable if everything else ranking.killable[:FIRST_ROWS]
    rows = [row(str(rank), one, total, names) for rank, one in enumerate(killable, 1)]
    if everything:
        rows += [row("-", one, total, names) for one in ranking.exempt]
    shown = columns(step)
    if not any(texts[-1] for texts in rows):  # no rule matches any of them
        shown, rows = shown[:-1], [texts[:-1] for texts in rows]
    heading, *lines = table(shown, rows, terminal_width(sys.stdout))
    yield bold(heading, sys.stdout)
    yield from lines
    if not everything:
        yield from left_out(ranking)
    yield from names.remarks()


def columns(step: str) -> list[Column]:
    return [
        Column("RANK", right=True),
        Column("PID", right=True),
        Column("NAME", cut=True),
        Column("ADJ", right=True),
        Column("MEMORY", right=True),
        Column(f"+ ADJ x {step}", right=True),
        Column("= POINTS", right=True),
        Column("RULE", cut=True),
    ]


def row(rank: str, candidate: Candidate, total: int, names: Names) -> tuple[str, ...]:
    adj_pages = candidate.oom_score_adj * badness.step_pages(total)
    never = candidate.points is None
    return (
        rank,
        str(candidate.pid),
        candidate.comm,
        str(candidate.oom_score_adj),
        size(candidate.memory_pages * PAGE_BYTES),
        "" if never else size(adj_pages * PAGE_BYTES, sign=True),
        "never" if candidate.points is None else size(candidate.points * PAGE_BYTES),
        names.shown(candidate.pid),
    )


def left_out(ranking: Ranking) -> Iterator[str]:
    """What --all would add."""
    later = len(ranking.killable) - FIRST_ROWS
    parts = []
    if later > 0:
        parts.append(f"{later} further down")
    if ranking.exempt:
        parts.append(f"{len(ranking.exempt)} never picked (oom_score_adj -1000)")
    if parts:
        yield ""
        yield f"left out: {', '.join(parts)}; --all shows them"
