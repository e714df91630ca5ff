"""A report of the kernel's OOM killer while its lines come in.  What is kept of it is bounded."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from oomwatchd.kernel import oom, oomlines
from oomwatchd.kernel.kmsg import Record
from oomwatchd.kernel.oom import Charge, Invoker, Killed, OomReport, ReportedTask, WholeMemory
from oomwatchd.kernel.oomlines import Chosen, Exiting, KillLine
from oomwatchd.model import OOM_SCORE_ADJ_MIN

KILLED_MAX: Final = 1000
CANDIDATES_MAX: Final = 256
NAMES_MAX: Final = 200  # of statistics
RAW_HEAD_LINES: Final = 120
RAW_TAIL_LINES: Final = 120
RAW_LINE_CHARACTERS: Final = 1200  # two paths and a name fit
JOINED_CHARACTERS: Final = 16_384
FRAGMENTS_MAX: Final = 64  # of one line, which is read again with each; the kernel writes some 20
# How the lines begin that the kernel writes in several steps, between which others may write.
IN_STEPS: Final = ("oom-kill:", "Task in ", "Tasks in ", "Memory cgroup stats for ")


@dataclass(slots=True)
class Draft:
    first: Record
    last: Record  # by which it went on: after the first kill, only others of the group are of it
    page_bytes: int
    machine_swap_bytes: int  # which a report of a cgroup's limit does not tell
    invoker: Invoker | None = None
    columns: tuple[str, ...] = ()  # of the table, once its head was there
    chosen: Chosen | None = None
    task_in: str | None = None
    about_to: tuple[bool, int] | None = None  # until Linux 5.0: whether of a cgroup, and whom
    allocating_task: bool = False
    of_cgroup: bool | None = None
    stats_of: str | None = None
    stats: dict[str, int] = field(default_factory=dict)
    charges: dict[str, Charge] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)
    ram_pages: int | None = None
    swap_bytes: dict[str, int] = field(default_factory=dict)  # Free, Total
    hugepages_bytes: int = 0
    candidates: list[ReportedTask] = field(default_factory=list)
    candidates_seen: int = 0
    first_name: str | None = None  # of whom it took first, also if that one was exiting already
    killed: dict[int, Killed] = field(default_factory=dict)
    last_kill: Record | None = None
    kill_lines: int = 0
    group: str | None = None
    truncated: bool = False
    begun: Record | None = None  # a line that may go on in a fragment
    fragments: int = 0  # of it, so far
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=RAW_TAIL_LINES))
    lines: int = 0

    def keep(self, record: Record) -> None:
        if self.first_name is None:
            self.last = record
        self.lines += 1
        text = record.text[:RAW_LINE_CHARACTERS]
        if len(self.head) < RAW_HEAD_LINES:
            self.head.append(text)
        else:
            self.tail.append(text)

    def joined(self, record: Record) -> str:
        """The line that *record* is, or ends, so far."""
        if not record.fragment:
            if record.text.startswith(IN_STEPS):
                self.begun, self.fragments = record, 0
            return record.text
        begun = self.begun
        if begun is None or begun.caller != record.caller:
            return record.text
        text = (begun.text + record.text)[:JOINED_CHARACTERS]
        self.fragments += 1
        over = self.fragments == FRAGMENTS_MAX or len(text) == JOINED_CHARACTERS
        self.begun = None if over else begun._replace(text=text)
        return text

    def belongs(self, line: KillLine | Exiting) -> bool:
        """Whether this kill is the one that the lines before it were about, or one of its group."""
        if None not in (line.of_cgroup, self.of_cgroup) and line.of_cgroup != self.of_cgroup:
            return False
        if self.first_name is not None:
            return self.group is not None
        if not self.truncated:
            return True  # also by another pid and name: of a thread, or until Linux 5.0 a child
        same = [task for task in self.candidates if task.pid == line.pid]
        if self.chosen is None:
            return bool(same)
        return self.chosen.pid in (line.pid, *(task.tgid for task in same))

    def add(self, line: KillLine, record: Record) -> None:
        self.go_on(line, record)
        self.last_kill = record
        self.allocating_task |= line.allocating_task
        self.kill_lines += 1
        if len(self.killed) < KILLED_MAX:  # of a group, the one chosen is killed twice
            self.killed.setdefault(line.killed.pid, line.killed)

    def pass_over(self, line: Exiting, record: Record) -> None:
        """It dies of itself, and is not counted; others of its group may follow."""
        self.go_on(line, record)
        self.last_kill = None

    def go_on(self, line: KillLine | Exiting, record: Record) -> None:
        self.last = record
        if self.first_name is None:
            self.first_name = line.comm
        if line.of_cgroup is not None:
            self.of_cgroup = line.of_cgroup

    def give_up_last_kill(self) -> Record | None:
        """The line of the last one killed, who is not of this group."""
        record, self.last_kill = self.last_kill, None
        if record is None:
            return None
        self.killed = {
            pid: one for pid, one in self.killed.items() if one.sequence != record.sequence
        }
        self.kill_lines -= 1
        kept = self.tail or self.head
        if kept[-1] == record.text[:RAW_LINE_CHARACTERS]:
            kept.pop()
            self.lines -= 1
        return record

    def domain_pages(self) -> int:
        """What oom_score_adj is counted in thousandths of."""
        memory = self.charges.get("memory")
        if memory is not None:
            swap, all_swap = oom.swap_limit_bytes(self.charges.values()), self.machine_swap_bytes
            swap = all_swap if swap is None else min(swap, all_swap)
            return ((memory.limit_bytes or 0) + swap) // self.page_bytes
        return (self.ram_pages or 0) + self.swap_bytes.get("Total", 0) // self.page_bytes

    def prune(self) -> None:
        """Keep of the candidates those most in danger, in the order in which they came."""
        step_bytes = self.domain_pages() // 1000 * self.page_bytes

        def danger(place: int) -> tuple[bool, int]:
            task = self.candidates[place]
            points = task.memory_bytes + task.oom_score_adj * step_bytes
            return task.oom_score_adj != OOM_SCORE_ADJ_MIN, points

        kept = heapq.nlargest(CANDIDATES_MAX, range(len(self.candidates)), key=danger)
        self.candidates = [self.candidates[place] for place in sorted(kept)]


# -- one line -------------------------------------------------------------------------------------


def take_table(draft: Draft, text: str) -> None:
    if not draft.columns:
        draft.columns = oomlines.parse_table(text) or ()
        return
    task = oomlines.parse_task(text, draft.columns, draft.page_bytes)
    if task is None:
        return
    draft.candidates_seen += 1
    draft.candidates.append(task)
    if len(draft.candidates) >= 2 * CANDIDATES_MAX:
        draft.prune()


def take_cpu(draft: Draft, text: str) -> None:
    """Who asked, by its pid."""
    match = oomlines.ON_CPU.fullmatch(text)
    invoker = draft.invoker
    if match and invoker and invoker.pid is None and match[2].startswith(invoker.comm + " "):
        draft.invoker = invoker._replace(pid=int(match[1]))


def take_chosen(draft: Draft, text: str) -> None:
    if chosen := oomlines.parse_chosen(text):
        draft.chosen = chosen
        draft.of_cgroup = chosen.of_cgroup


def take_task_in(draft: Draft, text: str) -> None:
    draft.task_in = text
    draft.of_cgroup = True


def take_about_to(draft: Draft, text: str) -> None:
    if match := oomlines.ABOUT_TO.fullmatch(text):
        draft.of_cgroup = match[1].startswith("Memory cgroup")
        draft.allocating_task = "allocating" in match[1]
        draft.about_to = draft.of_cgroup, int(match[2])


def take_group(draft: Draft, text: str) -> None:
    if match := oomlines.GROUP.fullmatch(text):
        draft.group = match[1]


def take_stats_of(draft: Draft, text: str) -> None:
    """Until Linux 5.2 also of all cgroups below, which come after it."""
    match = oomlines.STATS_OF.fullmatch(text)
    if match and draft.stats_of in (None, match[1]):
        draft.of_cgroup = True
        draft.stats_of = match[1]
        draft.stats.update(oomlines.parse_stats(match[2] or ""))


def take_charge(draft: Draft, text: str) -> None:
    if charge := oomlines.parse_usage(text):
        draft.charges[charge.resource] = charge
        draft.of_cgroup = True


def take_swap(draft: Draft, text: str) -> None:
    if match := oomlines.SWAP.fullmatch(text):
        draft.swap_bytes[match[1]] = int(match[2]) << 10


def take_number(draft: Draft, text: str) -> None:
    """The lines that begin with a number or a word of the kernel's statistics."""
    if match := oomlines.RAM.fullmatch(text):
        draft.ram_pages = int(match[1])
    elif match := oomlines.HUGEPAGES.fullmatch(text):
        draft.hugepages_bytes += int(match[1]) * (int(match[2]) << 10)
    elif oomlines.COUNTS.fullmatch(text):
        for name, pages in oomlines.COUNT.findall(text):
            if len(draft.pages) < NAMES_MAX:
                draft.pages[name] = int(pages)
    elif draft.stats_of and oomlines.STATS.fullmatch(text) and len(draft.stats) < NAMES_MAX:
        draft.stats.update(oomlines.parse_stats(text))


TAKERS: Final[tuple[tuple[str, Callable[[Draft, str], None]], ...]] = (
    ("[", take_table),
    ("CPU: ", take_cpu),
    ("oom-kill:", take_chosen),
    ("Task in ", take_task_in),
    ("Tasks in ", take_group),
    ("Memory cgroup stats for ", take_stats_of),
    ("Memory cgroup out of memory: Kill process ", take_about_to),
    ("Out of memory", take_about_to),
    ("memory: ", take_charge),
    ("swap: ", take_charge),
    ("memory+swap: ", take_charge),
    ("kmem: ", take_charge),
    ("Free swap ", take_swap),
    ("Total swap ", take_swap),
)


def take(draft: Draft, text: str) -> None:
    for beginning, taker in TAKERS:
        if text.startswith(beginning):
            taker(draft, text)
            return
    take_number(draft, text)


# -- the end --------------------------------------------------------------------------------------


def finished(draft: Draft) -> OomReport:
    if len(draft.candidates) > CANDIDATES_MAX:
        draft.prune()
    oom_memcg, task_memcg = cgroups(draft)
    chosen_pid = draft.chosen.pid if draft.chosen else draft.about_to and draft.about_to[1]
    rows = {task.pid: task for task in draft.candidates}
    raw = (*draft.head, *draft.tail)
    return OomReport(
        first_sequence=draft.first.sequence,
        last_sequence=draft.last.sequence,
        microseconds=draft.first.microseconds,
        of_cgroup=bool(draft.of_cgroup),
        killed=tuple(
            completed(one, rows.get(one.pid), draft.chosen) for one in draft.killed.values()
        ),
        kill_lines=draft.kill_lines,
        constraint=draft.chosen.constraint
        if draft.chosen
        else "memcg"
        if draft.of_cgroup
        else None,
        allocating_task=draft.allocating_task,
        invoker=draft.invoker,
        chosen_pid=chosen_pid,
        oom_memcg=oom_memcg,
        task_memcg=task_memcg,
        oom_group=draft.group,
        charges=tuple(draft.charges.values()),
        memcg_stats=draft.stats,
        whole=whole(draft),
        candidates=tuple(draft.candidates),
        candidates_seen=draft.candidates_seen,
        truncated=draft.truncated,
        raw=raw,
        raw_dropped=draft.lines - len(raw),
    )


def cgroups(draft: Draft) -> tuple[str | None, str | None]:
    if draft.chosen:
        return oomlines.paths_of(draft.chosen, draft.first_name or "", draft.stats_of)
    if draft.task_in:
        return oomlines.parse_task_in(draft.task_in, draft.stats_of) or (draft.stats_of, None)
    return draft.stats_of, None


def completed(killed: Killed, row: ReportedTask | None, chosen: Chosen | None) -> Killed:
    """With what the other lines say of it, where its own did not."""
    if killed.uid is None and chosen and chosen.pid == killed.pid:
        killed = killed._replace(uid=chosen.uid)
    killed = killed._replace(page_table_bytes=page_tables(killed, row))
    if row is None:
        return killed
    return killed._replace(
        uid=row.uid if killed.uid is None else killed.uid,
        oom_score_adj=row.oom_score_adj if killed.oom_score_adj is None else killed.oom_score_adj,
        swap_bytes=row.swap_bytes,
    )


def page_tables(killed: Killed, row: ReportedTask | None) -> int | None:
    """Linux 5.4 and 5.5 at first wrote bytes, and called them kB."""
    told = killed.page_table_bytes
    if told is None:
        return row.page_table_bytes if row else None
    if row is None:
        return told >> 10 if told > killed.total_vm_bytes else told
    return min(told, told >> 10, key=lambda size: abs(size - row.page_table_bytes))


def whole(draft: Draft) -> WholeMemory:
    page = draft.page_bytes
    return WholeMemory(
        ram_bytes=None if draft.ram_pages is None else draft.ram_pages * page,
        swap_total_bytes=draft.swap_bytes.get("Total"),
        swap_free_bytes=draft.swap_bytes.get("Free"),
        hugepages_bytes=draft.hugepages_bytes,
        counts_bytes={name: pages * page for name, pages in draft.pages.items()},
    )
