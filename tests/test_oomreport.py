"""Reports of the OOM killer, of many kernels, field by field; see tests/data/kmsg/README.md."""

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kernellog import DATA, raw, record, records_of, reports_of

from oomwatchd.kernel.kmsg import parse_record
from oomwatchd.kernel.oom import NOT_TOLD, Killed, OomReport, ReportedTask, kernel_kills
from oomwatchd.kernel.oomdraft import CANDIDATES_MAX, KILLED_MAX, RAW_HEAD_LINES, RAW_TAIL_LINES
from oomwatchd.kernel.oomreport import OomReports

PAGE = 4096
SAMPLES = sorted(path for path in DATA.iterdir() if path.suffix in (".kmsg", ".log"))

INVOKED = "hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
WHY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/a,task_memcg=/a/b,task={comm},pid={pid},uid=1000"
)
KILLED = (
    "Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:40kB, anon-rss:30kB,"
    " file-rss:2kB, shmem-rss:1kB, UID:1000 pgtables:8kB oom_score_adj:100"
)


# -- the samples ----------------------------------------------------------------------------------


def told(report: OomReport) -> dict[str, Any]:
    """*report* in the units of the log, as the expectations beside the samples are written."""
    invoker = report.invoker and report.invoker._asdict()
    if invoker:
        invoker["gfp_mask"] = hex(invoker["gfp_mask"])
    return {
        "of_cgroup": report.of_cgroup,
        "constraint": report.constraint,
        "killed": [told_killed(killed) for killed in report.killed],
        "allocating_task": report.allocating_task,
        "chosen_pid": report.chosen_pid,
        "invoker": invoker,
        "oom_memcg": report.oom_memcg,
        "task_memcg": report.task_memcg,
        "oom_group": report.oom_group,
        "charges": {
            one.resource: [one.usage_bytes >> 10, in_kb(one.limit_bytes), one.failures]
            for one in report.charges
        },
        "stats": dict(report.memcg_stats),
        "whole": told_whole(report),
        "table": [told_task(task) for task in report.candidates],
    }


def told_killed(killed: Killed) -> dict[str, Any]:
    return {
        "sequence": killed.sequence,
        "pid": killed.pid,
        "comm": killed.comm,
        "uid": killed.uid,
        "oom_score_adj": killed.oom_score_adj,
        "total_vm_kb": killed.total_vm_bytes >> 10,
        "anon_kb": killed.anon_bytes >> 10,
        "file_kb": killed.file_bytes >> 10,
        "shmem_kb": killed.shmem_bytes >> 10,
        "page_table_bytes": killed.page_table_bytes,
    }


def told_task(task: ReportedTask) -> dict[str, Any]:
    apart = {
        "rss_anon": task.anon_bytes,
        "rss_file": task.file_bytes,
        "rss_shmem": task.shmem_bytes,
    }
    return {
        "pid": task.pid,
        "tgid": task.tgid,
        "uid": task.uid,
        "name": task.comm,
        "oom_score_adj": task.oom_score_adj,
        "total_vm": task.total_vm_bytes // PAGE,
        "rss": task.resident_bytes // PAGE,
        "swapents": task.swap_bytes // PAGE,
        "page_table_bytes": task.page_table_bytes,
        **{name: size // PAGE for name, size in apart.items() if size is not None},
    }


def told_whole(report: OomReport) -> dict[str, Any]:
    whole = report.whole
    values = {
        "ram_pages": whole.ram_bytes and whole.ram_bytes // PAGE,
        "swap_total_kb": in_kb(whole.swap_total_bytes),
        "swap_free_kb": in_kb(whole.swap_free_bytes),
        "pages": {name: size // PAGE for name, size in whole.counts_bytes.items()} or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def in_kb(size: int | None) -> int | None:
    return None if size is None else size >> 10


def expected(path: Path) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return answer


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_field_of_every_sample_is_read(path: Path) -> None:
    reports, fruitless = reports_of(records_of(path))

    assert [told(report) for report in reports] == expected(path)["reports"]
    assert fruitless == expected(path)["fruitless"]


def test_there_are_samples_of_all_formats() -> None:
    versions = {path.name.split("_")[0].split("-")[0] for path in SAMPLES}
    series = {".".join(version.split(".")[:2]) for version in versions}

    assert len(SAMPLES) >= 60
    assert series >= {"4.19", "5.0", "5.3", "5.4", "5.10", "6.1", "6.12", "7.2"}
    assert {path.stem for path in SAMPLES} == {path.stem for path in DATA.glob("*.json")}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_each_kill_is_evidence_once_with_what_is_certain(path: Path) -> None:
    reports, _ = reports_of(records_of(path))
    kills = [kill for report in reports for kill in kernel_kills(report)]

    assert len({kill.sequence for kill in kills}) == len(kills)
    assert len(kills) == sum(len(report["killed"]) for report in expected(path)["reports"])
    for report in reports:
        assert all(kill.raw for kill in kernel_kills(report)[:1])


@pytest.mark.parametrize(
    ("name", "shmem"),
    [
        ("5.8.2_cpuset.log", 735 * PAGE),  # of the whole machine
        ("6.12.117_own-limit.kmsg", 0),
        ("4.4.0-130_docker-limit.log", None),  # not told then
    ],
)
def test_how_much_was_shared_is_evidence_too(name: str, shmem: int | None) -> None:
    [report], _ = reports_of(records_of(DATA / name))

    assert [kill.shmem_bytes for kill in kernel_kills(report)] == [shmem]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("6.1.192_own-limit.kmsg", 0),
        ("6.1.192_swap-used.kmsg", 16384 << 10),
        ("5.1-rc_limit-told-as-no-constraint.log", None),
        ("6.18.44-v1_own-limit.kmsg", None),
        ("4.4.0-130_docker-limit.log", None),
        ("6.1.192_whole-machine-with-swap.kmsg", None),
    ],
)
def test_how_much_swap_the_cgroup_may_use_is_evidence_too(name: str, limit: int | None) -> None:
    [report], _ = reports_of(records_of(DATA / name))

    assert [kill.swap_limit_bytes for kill in kernel_kills(report)] == [limit]


def test_a_limit_on_memory_and_swap_together_is_one_on_swap_by_what_is_left() -> None:
    charges = (
        "memory: usage 1024kB, limit 1024kB, failcnt 1",
        "memory+swap: usage 1024kB, limit 4096kB, failcnt 0",
        "kmem: usage 0kB, limit 9007199254740988kB, failcnt 0",
    )
    [report], _ = reports_of(lines(INVOKED, *charges, why(), killed()))

    assert report.swap_limit_bytes == 3072 << 10


@pytest.mark.parametrize("name", ["6.1.192_swap-used.kmsg", "6.1.192_whole-machine-with-swap.kmsg"])
def test_what_was_swapped_out_of_the_killed_one_counts_as_it_does_in_the_table(name: str) -> None:
    [report], _ = reports_of(records_of(DATA / name))
    [kill] = kernel_kills(report)
    [row] = [task for task in report.candidates if task.pid == kill.pid]

    assert row.swap_bytes > 1 << 20
    assert kill.memory_bytes == pytest.approx(row.memory_bytes, abs=64 * PAGE)


def test_of_a_cgroup_v1_it_counts_what_those_below_it_share() -> None:
    below = "cache 9\nshmem 5\ntotal_cache 90\ntotal_shmem 50"
    story = lines(INVOKED, "Memory cgroup stats for /a:", below, why(), killed())
    [report], _ = reports_of(story)

    assert (report.shmem_bytes, report.file_cache_bytes) == (50, 90)


# -- stories --------------------------------------------------------------------------------------


def lines(*texts: str, start: int = 1) -> list[Any]:
    return [record(number, text) for number, text in enumerate(texts, start)]


def why(pid: int = 7, comm: str = "hog") -> str:
    return WHY.format(pid=pid, comm=comm)


def killed(pid: int = 7, comm: str = "hog") -> str:
    return KILLED.format(pid=pid, comm=comm)


def group(path: str) -> str:
    return f"Tasks in {path} are going to be killed due to memory.oom.group set"


def exiting(pid: int = 7, comm: str = "hog") -> str:
    prefix = "Memory cgroup out of memory: OOM victim"
    return f"{prefix} {pid} ({comm}) is already exiting. Skip killing the task"


def pids(reports: list[OomReport]) -> list[list[int]]:
    return [[one.pid for one in report.killed] for report in reports]


def test_lines_of_other_parts_of_the_kernel_in_between_change_nothing() -> None:
    alone, _ = reports_of(lines(INVOKED, why(), killed()))
    among, _ = reports_of(lines(INVOKED, "eth0: link up", why(), "hog[7]: segfault at 0", killed()))

    assert among[0].killed[0]._replace(sequence=0, microseconds=0) == alone[0].killed[0]._replace(
        sequence=0, microseconds=0
    )
    assert (among[0].oom_memcg, among[0].task_memcg) == ("/a", "/a/b")


def test_tables_of_slabs_and_of_allocations_are_no_statistics_of_the_cgroup() -> None:
    """Since Linux 4.15, and 6.10 with CONFIG_MEM_ALLOC_PROFILING."""
    tables = (
        "Unreclaimable slab info:",
        "Name                      Used          Total",
        "kmalloc-8k               256KB        256KB",
        "Memory allocations:",
        "     119 MiB    31168 mm/page_ext.c:270 func:alloc_page_ext",
    )
    above = ("Memory cgroup stats for /a:", "anon 30720")
    [report], _ = reports_of(lines(INVOKED, *above, *tables, why(), killed()))

    assert report.memcg_stats == {"anon": 30720}
    assert report.whole == NOT_TOLD


def test_what_is_set_aside_for_huge_pages_is_summed_over_the_nodes_and_their_sizes() -> None:
    pages = "Node {} hugepages_total={} hugepages_free=1 hugepages_surp=0 hugepages_size={}kB"
    nodes = pages.format(0, 3, 2048), pages.format(0, 1, 1048576), pages.format(1, 2, 2048)
    [report], _ = reports_of(lines(INVOKED, *nodes, why(), killed()))

    assert report.whole.hugepages_bytes == (5 * 2048 + 1048576) << 10


def test_a_report_waits_for_the_others_of_a_group_until_told_that_it_is_over() -> None:
    reports = OomReports(PAGE)
    fed = [reports.feed(one) for one in lines(INVOKED, why(), killed())]
    waiting = reports.last_sequence
    flushed = reports.flush()

    assert fed == [[], [], []]
    assert waiting == 3
    assert pids(flushed) == [[7]]
    assert reports.last_sequence is None
    assert reports.flush() == []


def test_whoever_is_killed_seconds_after_a_group_is_not_of_it() -> None:
    story = lines(INVOKED, why(), killed(), group("/a"), killed(8), killed(7))
    late = record(7, killed(9), microseconds=5_000_000)
    reports, _ = reports_of([*story, late])

    assert pids(reports) == [[7, 8], [9]]
    assert [report.oom_group for report in reports] == ["/a", None]


def test_of_kills_at_a_high_rate_each_is_a_report_of_its_own() -> None:
    reports, _ = reports_of(lines(INVOKED, why(), killed(7), killed(8), killed(9)))

    assert pids(reports) == [[7], [8], [9]]
    assert [report.invoker is None for report in reports] == [False, True, True]
    assert [report.constraint for report in reports] == ["memcg"] * 3
    assert reports[1].oom_memcg is None


def test_a_line_in_fragments_is_joined_though_another_processor_writes_in_between() -> None:
    text = why()
    parts = text[:40], text[40:75], text[75:]
    story = [
        record(1, INVOKED, caller="T7"),
        record(2, parts[0], caller="T7"),
        record(3, "eth0: link up", caller="T9"),
        record(4, parts[1], caller="T7", fragment=True),
        record(5, " and down", caller="T9", fragment=True),
        record(6, parts[2], caller="T7", fragment=True),
        record(7, killed(), caller="T7"),
    ]
    [report], _ = reports_of(story)

    assert (report.chosen_pid, report.oom_memcg, report.task_memcg) == (7, "/a", "/a/b")


def test_records_lost_within_a_report_are_told_and_mix_no_two_reports() -> None:
    story = lines(INVOKED, why(pid=7))
    reports, _ = reports_of([*story, record(500, killed(8, "other"), lost_before=497)])

    assert pids(reports) == [[8]]
    assert reports[0].truncated
    assert (reports[0].oom_memcg, reports[0].invoker) == (None, None)


def test_a_kill_after_a_gap_keeps_what_proves_to_be_its_own() -> None:
    reports, _ = reports_of([*lines(INVOKED, why()), record(500, killed(), lost_before=497)])

    assert reports[0].truncated
    assert reports[0].oom_memcg == "/a"


def test_a_thread_is_named_by_its_process() -> None:
    head = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[   1857]     0  1703    18682     8949   131072        0             0 hog"
    [report], _ = reports_of(lines(INVOKED, head, row, why(1703), killed(1857)))
    [kill] = kernel_kills(report)

    assert (report.chosen_pid, report.killed[0].pid) == (1703, 1857)
    assert kill.pid == 1703
    assert [task.pid for task in kill.tasks] == [1703]


def test_whoever_is_about_to_die_anyway_is_no_victim() -> None:
    reports, fruitless = reports_of(lines(INVOKED, exiting()))

    assert (reports, fruitless) == ([], 0)


def test_what_was_told_of_one_who_died_anyway_is_not_told_of_the_next() -> None:
    reports, _ = reports_of(lines(INVOKED, why(), exiting(), killed(8), exiting(9), killed(10)))

    assert pids(reports) == [[8], [10]]
    assert [report.oom_memcg for report in reports] == [None, None]


def test_those_of_a_group_who_are_exiting_already_do_not_end_its_report() -> None:
    limit = "memory: usage 64kB, limit 64kB, failcnt 1"
    members = (killed(8), exiting(7), killed(9), exiting(10))
    [report], _ = reports_of(lines(INVOKED, limit, why(), killed(), group("/a"), *members))

    assert pids([report]) == [[7, 8, 9]]
    assert (report.oom_group, report.oom_memcg, report.limit_bytes) == ("/a", "/a", 64 << 10)


def test_a_group_whose_chosen_one_is_exiting_is_told_with_the_others() -> None:
    [report], _ = reports_of(lines(INVOKED, why(), exiting(), group("/a"), killed(8, "other")))

    assert pids([report]) == [[8]]
    assert (report.oom_group, report.task_memcg, report.chosen_pid) == ("/a", "/a/b", 7)


def test_a_group_of_one_who_has_gone_by_the_time_of_the_second_round_is_told() -> None:
    [report], _ = reports_of(lines(INVOKED, why(), killed(), group("/a"), exiting()))

    assert pids([report]) == [[7]]
    assert report.oom_group == "/a"


def test_groups_without_any_head_are_reports_of_their_own() -> None:
    first = (killed(1), group("/a"), killed(1), killed(2), exiting(3))
    second = (killed(10), "eth0: link up", group("/b"), killed(10), killed(11))
    third = (exiting(20), group("/c"), killed(21))
    fourth = (exiting(30), group("/d"), exiting(30))
    reports, _ = reports_of(lines(*first, *second, *third, *fourth, killed(40), group("/e")))

    assert pids(reports) == [[1, 2], [10, 11], [21], [40]]
    assert [report.oom_group for report in reports] == ["/a", "/b", "/c", "/e"]
    assert [report.kill_lines for report in reports] == [3, 3, 1, 1]
    assert killed(40) in reports[3].raw
    assert killed(40) not in reports[2].raw


def test_a_report_ends_though_the_kernel_logs_something_else_all_the_time() -> None:
    story = lines(INVOKED, why(), killed())
    others = [
        record(number, "x[9]: segfault at 0", microseconds=number * 800_000)
        for number in range(4, 8)
    ]
    reports = OomReports(PAGE)
    told = [report for one in [*story, *others] for report in reports.feed(one)]

    assert pids(told) == [[7]]
    assert reports.last_sequence is None


# -- forged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comm",
    [
        ") total-vm:1kB,",
        "x,pid=1,uid=0",
        "x,task=y,pid=1",
        ",task_memcg=/x",
        "a\nOut of memory",
        "] 0 1 2 3 4 5 6",
        "  12 -5 7 ",
        "",
        "(",
        ")",
        "\\xff\\xc3",
        " invoked oom-ki",
    ],
)
def test_no_name_changes_another_field(comm: str) -> None:
    head = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[      7]  1000     7       10        9     8192        1           100 " + comm
    invoked = INVOKED.replace("hog", comm, 1)
    cpu = f"CPU: 1 UID: 1000 PID: 7 Comm: {comm} Not tainted 6.12.0 #1"
    [report], _ = reports_of(lines(invoked, cpu, head, row, why(comm=comm), killed(comm=comm)))
    [victim] = report.killed
    [task] = report.candidates
    assert report.invoker is not None

    assert (victim.pid, victim.comm, victim.uid, victim.oom_score_adj) == (7, comm, 1000, 100)
    assert (victim.total_vm_bytes, victim.anon_bytes, victim.shmem_bytes) == (40960, 30720, 1024)
    assert (report.oom_memcg, report.task_memcg, report.chosen_pid) == ("/a", "/a/b", 7)
    assert (task.pid, task.comm, task.oom_score_adj, task.swap_bytes) == (7, comm, 100, PAGE)
    assert (report.invoker.comm, report.invoker.pid) == (comm, 7)


@pytest.mark.parametrize(
    "path",
    [
        "/a,task=sshd",
        "/a,task=sshd,pid=1,uid=0",
        "/a,task_memcg=/system.slice/ssh.service,task=sshd,pid=1,uid=0",
        "/a,oom_memcg=/b,task_memcg=/b",
        "/a,mems_allowed=0,oom_memcg=/b",
        "/a:",
        "/a: anon 5",
    ],
)
def test_no_path_changes_another_field(path: str) -> None:
    stats = f"Memory cgroup stats for {path}:"
    line = why().replace("oom_memcg=/a,task_memcg=/a/b", f"oom_memcg={path},task_memcg={path}/b")
    [report], _ = reports_of(lines(INVOKED, stats, "anon 30720", line, killed()))

    assert (report.oom_memcg, report.task_memcg) == (path, f"{path}/b")
    assert (report.chosen_pid, report.memcg_stats) == (7, {"anon": 30720})


def test_without_statistics_a_path_is_read_by_what_lies_in_what() -> None:
    line = why().replace("/a,task_memcg=/a/b", "/a,task_memcg=/b,task_memcg=/a,task_memcg=/b/c")
    [report], _ = reports_of(lines(INVOKED, line, killed()))

    assert (report.oom_memcg, report.task_memcg) == ("/a,task_memcg=/b", "/a,task_memcg=/b/c")


TWO_WAYS = "/a,task_memcg=/a/x,task_memcg=/a,task_memcg=/a/x"


@pytest.mark.parametrize(
    ("stats", "told"),
    [
        ("/a", ("/a", "/a/x,task_memcg=/a,task_memcg=/a/x")),
        ("/a,task_memcg=/a/x", ("/a,task_memcg=/a/x", "/a,task_memcg=/a/x")),
        (None, (None, None)),
    ],
)
def test_a_path_that_can_be_read_in_two_ways_needs_the_line_above_the_statistics(
    stats: str | None, told: tuple[str | None, str | None]
) -> None:
    above = [] if stats is None else [f"Memory cgroup stats for {stats}:"]
    line = why().replace("/a,task_memcg=/a/b", TWO_WAYS)
    [report], _ = reports_of(lines(INVOKED, *above, line, killed()))

    assert (report.oom_memcg, report.task_memcg) == told


def test_another_s_trace_does_not_tell_who_asked() -> None:
    cpu = "CPU: 0 PID: {} Comm: {} Not tainted 6.12.0 #1"
    story = lines(INVOKED, cpu.format(5, "hog2"), cpu.format(6, "hog"), why(), killed())
    [report], _ = reports_of(story)

    assert report.invoker is not None
    assert report.invoker.pid == 6


def test_page_tables_larger_than_the_address_space_were_bytes() -> None:
    """Linux 5.4, with vm.oom_dump_tasks off: there is no table to compare with."""
    [report], _ = reports_of(lines(why(), killed().replace("pgtables:8kB", "pgtables:8192kB")))

    assert report.killed[0].page_table_bytes == 8192


@pytest.mark.parametrize(
    "cpuset",
    ["x,mems_allowed=0,global_oom,task_memcg=", "x,mems_allowed=0,oom_memcg=", "x y,pid=1"],
)
def test_no_cpuset_s_name_changes_another_field(cpuset: str) -> None:
    line = why().replace("cpuset=/,", f"cpuset={cpuset},")
    [report], _ = reports_of(lines(INVOKED, line, killed()))

    assert (report.constraint, report.oom_memcg, report.task_memcg) == ("memcg", "/a", "/a/b")


@pytest.mark.parametrize(
    "text",
    [
        "Killed process 7 (hog)",
        "Out of memory: Killed process 7 (hog) total-vm:1kB",
        f"audit: {KILLED.format(pid=7, comm='x')}",
        f"{KILLED.format(pid=7, comm='x')} he said",
        "lowmemorykiller: Killed process 7 (hog) total-vm:1kB, anon-rss:1kB, file-rss:1kB",
        "Out of memory: Killed process -7 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB",
    ],
)
def test_what_only_looks_like_a_kill_is_none(text: str) -> None:
    assert reports_of(lines(text)) == ([], 0)


def test_what_users_write_to_the_log_is_no_report() -> None:
    """The kernel gives such records another facility than its own, whatever they ask for."""
    forged = raw(5, killed().encode(), priority=(1 << 3) + 3)

    assert parse_record(forged).facility == 1
    assert parse_record(raw(5, killed().encode())).facility == 0


# -- bounds ---------------------------------------------------------------------------------------


def test_of_a_vast_table_those_most_in_danger_are_kept() -> None:
    head = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[{pid:7d}]     0 {pid:5d}    10000 {rss:8d}     4096        0 {adj:13d} worker"
    adj = {13: 1000, 14: -1000}
    rows = [row.format(pid=pid, rss=pid, adj=adj.get(pid, 0)) for pid in range(1, 20_001)]
    memory = "memory: usage 4000000kB, limit 4000000kB, failcnt 1"
    [report], _ = reports_of(lines(INVOKED, memory, head, *rows, why(), killed()))
    kept = [task.pid for task in report.candidates]

    assert report.candidates_seen == 20_000
    assert len(kept) == CANDIDATES_MAX
    assert kept == sorted(kept)
    assert 13 in kept
    assert 14 not in kept
    assert set(range(20_001 - CANDIDATES_MAX + 1, 20_001)) <= set(kept)


@pytest.mark.parametrize(("limit", "in_danger"), [("9007199254740988", True), ("0", False)])
def test_swap_without_a_limit_weighs_in_who_is_in_danger(
    limit: str,
    in_danger: bool,  # noqa: FBT001 -- a case
) -> None:
    """One unit of oom_score_adj is more than 1000 pages then, and else less."""
    head = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[{pid:7d}]     0 {pid:5d}   900000 {rss:8d}     4096        0 {adj:13d} worker"
    rows = [row.format(pid=pid, rss=1000, adj=0) for pid in range(1, 1000)]
    first = row.format(pid=1000, rss=0, adj=1)
    charges = (
        "memory: usage 1048576kB, limit 1048576kB, failcnt 1",
        f"swap: usage 0kB, limit {limit}kB, failcnt 0",
    )
    story = lines(INVOKED, *charges, head, first, *rows, why(), killed())
    [report], _ = reports_of(story, swap_bytes=64 << 30)

    assert (1000 in {task.pid for task in report.candidates}) is in_danger


def test_a_vast_table_takes_little_memory_and_keeps_nobody_who_cannot_be_killed() -> None:
    head = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[{pid:7d}]     0 {pid:5d}    10000    10000     4096        0 {adj:13d} worker"
    adj = dict.fromkeys(range(300), -1000)
    reports = OomReports(PAGE)
    tracemalloc.start()
    for one in lines(INVOKED, head):
        reports.feed(one)
    for pid in range(20_000):
        reports.feed(record(pid + 3, row.format(pid=pid, adj=adj.get(pid, 0))))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reports.feed(record(20_003, killed()))
    [report] = reports.flush()

    assert peak_bytes < 1_000_000
    assert {task.oom_score_adj for task in report.candidates} == {0}


def test_a_vast_report_keeps_its_beginning_and_its_end() -> None:
    [report], _ = reports_of(lines(INVOKED, *["x" * 5000] * 10_000, why(), killed()))

    assert len(report.raw) == RAW_HEAD_LINES + RAW_TAIL_LINES
    assert report.raw_dropped == 10_003 - len(report.raw)
    assert (report.raw[0], report.raw[-2:]) == (INVOKED, (why(), killed()))
    assert sum(map(len, report.raw)) < 400_000


def test_a_vast_group_is_bounded() -> None:
    members = [killed(pid) for pid in range(8, 5000)]
    [report], _ = reports_of(lines(INVOKED, why(), killed(), group("/a"), *members))

    assert len(report.killed) == KILLED_MAX
    assert report.kill_lines == 4993
