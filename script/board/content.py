"""What the dashboard shows, from what needs somebody now to what the daemon itself costs."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from board.panels import (
    BLUE,
    DATASOURCE,
    GREEN,
    ORANGE,
    RED,
    WHOLE,
    bars,
    gauges,
    levels,
    lines,
    table,
    tile,
)

MACHINES: Final = 'job=~"$job",instance=~"$instance"'
RULES: Final = f'{MACHINES},rule=~"$rule"'
WANT_OF_MEMORY: Final = f'{RULES},killer!="unknown"'  # an unknown sender is a kill by hand
PROTECTING: Final = f"on (job, instance, rule) oomwatchd_rule_oom_score_adj{{{RULES}}} < 0"
RATE: Final = "[$__rate_interval]"
RANGE: Final = "[$__range]"
STARTED: Final = f"oomwatchd_start_time_seconds{{{MACHINES}}}"
CONFIGURED_AT: Final = "oomwatchd_config_last_reload_success_timestamp_seconds"
MANY: Final = 10  # lines, where each would be a machine
KILL_TITLE: Final = "Killed by {{killer}}"
KILL_TEXT: Final = "rule {{rule}} on {{instance}}"


def dashboard() -> build.Dashboard:
    made = (
        build.Dashboard("oomwatchd")
        .uid("oomwatchd")
        .description("What must live, what may die, and what has: oomwatchd on all machines.")
        .tags(["oomwatchd", "memory"])
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-24h", "now")
        .refresh("1m")
        .timezone("browser")
        .editable()
    )
    for variable in variables():
        made.with_variable(variable)
    made.annotation(kills_annotation())
    for row in (now, kills, pressure, machines, rules, protection, daemon):
        row(made)
    return made


# -- what it is about ------------------------------------------------------------------------------


def variables() -> list[build.DatasourceVariable | build.QueryVariable]:
    return [
        build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        # No value of its own for all: `up` of other jobs would be among them.
        chosen("job", "label_values(oomwatchd_build_info, job)"),
        chosen("instance", 'label_values(oomwatchd_build_info{job=~"$job"}, instance)').all_value(
            ".*"
        ),
        chosen("rule", f"label_values(oomwatchd_rule_oom_score_adj{{{MACHINES}}}, rule)").all_value(
            ".*"
        ),
    ]


def chosen(label: str, query: str) -> build.QueryVariable:
    return (
        build.QueryVariable(label)
        .label(label.capitalize())
        .query(query)
        .datasource(DATASOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def killed(labels: str, span: str) -> str:
    """Kills heard of in that time, also those in the first sample of a series.

    increase() misses these: of a job that comes and goes between two scrapes, and those that are
    found when the daemon starts. Where all series are new, so is the machine to Prometheus, and
    its kills may be old.
    """
    total = f"oomwatchd_oom_kills_total{{{labels}}}"
    # Summed up, as a pod's series have its name, and those of the one before are in the span, too.
    of_machine = f"sum by (job, instance) (count_over_time({STARTED}{span}))"
    return (
        f"(increase({total}{span}) > 0"
        f" or {total} > 0 and count_over_time({total}{span})"
        f" < on (job, instance) group_left () {of_machine}"
        f" or {total} > 0 and on (job, instance) changes({STARTED}{span}) > 0"
        f" or 0 * {total})"
    )


def kills_annotation() -> build.AnnotationQuery:
    kinds = "sum by (instance, rule, killer)"
    return (
        build.AnnotationQuery()
        .name("Kills")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(RED)
        .expr(f"{kinds} {killed(RULES, RATE)} > 0")
    )


# -- the rows --------------------------------------------------------------------------------------


def now(made: build.Dashboard) -> None:
    bad, worth_a_look = (1.0, RED), (1.0, ORANGE)
    made.with_row(build.Row("Now"))
    made.with_panel(tile(
        "Machines", "On which Prometheus looks for a daemon.",
        f"count(up{{{MACHINES}}})", (None, BLUE),
    )).with_panel(tile(
        "Silent", "Machines whose daemon does not answer. Values that were set stay.",
        f"count(up{{{MACHINES}}} == 0) or vector(0)", (None, GREEN), worth_a_look,
    )).with_panel(tile(
        "Protected and killed", "Processes of rules with a negative value that were killed for want"
        " of memory, in the time shown.",
        f"sum({killed(WANT_OF_MEMORY, RANGE)} and {PROTECTING})"
        " or vector(0)", (None, GREEN), bad,
    )).with_panel(tile(
        "Killed", "All kills for want of memory in the time shown, also of what may die.",
        f"sum({killed(WANT_OF_MEMORY, RANGE)}) or vector(0)",
        (None, GREEN), worth_a_look,
    )).with_panel(tile(
        "Critical pressure", "Machines on which tasks hardly run for want of memory.",
        f"count(oomwatchd_memory_pressure_level{{{MACHINES}}} == 2) or vector(0)",
        (None, GREEN), bad,
    )).with_panel(tile(
        "Exposed", "Processes of protecting rules that some killer can still take; `oomwatchd"
        " audit` says why.",
        "sum(max by (job, instance, rule)"
        f" (oomwatchd_rule_exposed_processes{{{RULES}}})) or vector(0)",
        (None, GREEN), worth_a_look,
    )).with_panel(tile(
        "Refused values", "How often the kernel refused a value, in the time shown.",
        f'sum(increase(oomwatchd_adjustments_total{{{RULES},outcome="refused"}}{RANGE}))'
        " or vector(0)", (None, GREEN), worth_a_look,
    )).with_panel(tile(
        "Refused files", "Machines whose configuration has a fault; the one before it is in force.",
        f"sum(oomwatchd_config_last_reload_successful{{{MACHINES}}} == bool 0) or vector(0)",
        (None, GREEN), worth_a_look,
    ))  # fmt: skip


def kills(made: build.Dashboard) -> None:
    by_all = f"sum by (instance, rule, killer) {killed(RULES, RANGE)}"
    made.with_row(build.Row("Kills"))
    made.with_panel(bars(
        "Kills by killer", "Who killed. unknown: a process under a rule ended by SIGKILL, and"
        " neither the kernel nor systemd-oomd says that it was them.",
        (f"sum by (killer) {killed(RULES, RATE)}", "{{killer}}"),
    )).with_panel(table(
        "Who was killed, where, by whom", "In the time shown. On the machine, `oomwatchd incidents`"
        " explains each of them.",
        [("kills", f"{by_all} > 0", "short")], width=12, worst_first="kills",
    ))  # fmt: skip


def pressure(made: build.Dashboard) -> None:
    ratio = f'oomwatchd_memory_pressure_ratio{{{MACHINES},kind="%s",window="10s"}}'
    stalled = "oomwatchd_memory_pressure_stalled_seconds_total"
    made.with_row(build.Row("Memory pressure"))
    made.with_panel(levels(
        "Level", "By the thresholds in each machine's configuration; the worst twenty.",
        f"topk(20, max by (instance) (oomwatchd_memory_pressure_level{{{MACHINES}}}))",
        "{{instance}}",
    )).with_panel(lines(
        "Time lost", "Share of the time in which all tasks waited for memory; the worst ten.",
        "percentunit",
        (f'topk({MANY}, rate({stalled}{{{MACHINES},kind="full"}}{RATE}))', "{{instance}}"),
    )).with_panel(lines(
        "Some tasks wait", "Share of the last ten seconds; the worst ten. `pressure.warning` goes"
        " by this, if not set otherwise.",
        "percentunit", (f"topk({MANY}, {ratio % 'some'})", "{{instance}}"),
    )).with_panel(lines(
        "All tasks wait", "Share of the last ten seconds; the worst ten. `pressure.critical` goes"
        " by this, if not set otherwise.",
        "percentunit", (f"topk({MANY}, {ratio % 'full'})", "{{instance}}"),
    ))  # fmt: skip


def machines(made: build.Dashboard) -> None:
    def of(function: str, metric: str) -> str:
        return f"{function} by (instance) ({metric}{{{MACHINES}}})"

    for_memory = killed(f'{MACHINES},killer!="unknown"', RANGE)
    made.with_row(build.Row("Machines"))
    made.with_panel(table(
        "Machines", "Level: 0 ok, 1 warning, 2 critical. A click on a machine shows it alone.",
        [
            ("level", of("max", "oomwatchd_memory_pressure_level"), "short"),
            ("kills", f"sum by (instance) {for_memory}", "short"),
            ("exposed", of("sum", "oomwatchd_rule_exposed_processes"), "short"),
            ("processes", of("sum", "oomwatchd_rule_processes"), "short"),
            ("resident", of("sum", "oomwatchd_rule_resident_bytes"), "bytes"),
            ("running for", f"time() - {of('max', 'oomwatchd_start_time_seconds')}", "s"),
            ("configured for", f"time() - {of('max', CONFIGURED_AT)}", "s"),
        ], worst_first="level",
    ))  # fmt: skip


def rules(made: build.Dashboard) -> None:
    def of(function: str, metric: str) -> str:
        return f"{function} by (rule) ({metric}{{{RULES}}})"

    made.with_row(build.Row("Rules"))
    made.with_panel(table(
        "Rules", "The value that each sets (the lowest, if machines differ), and what it matches on"
        " all machines together.",
        [
            ("oom_score_adj", of("min", "oomwatchd_rule_oom_score_adj"), "none"),
            ("processes", of("sum", "oomwatchd_rule_processes"), "short"),
            ("resident", of("sum", "oomwatchd_rule_resident_bytes"), "bytes"),
            ("swap", of("sum", "oomwatchd_rule_swap_bytes"), "bytes"),
        ], width=WHOLE // 2, worst_first="resident",
    )).with_panel(lines(
        "Processes", "That each rule matches, on all machines.", "short",
        (of("sum", "oomwatchd_rule_processes"), "{{rule}}"), stacked=True,
    )).with_panel(lines(
        "Resident memory", "Of the processes of each rule; what they share counts for each.",
        "bytes", (of("sum", "oomwatchd_rule_resident_bytes"), "{{rule}}"), stacked=True,
    )).with_panel(lines(
        "Swap", "Of the processes of each rule.", "bytes",
        (of("sum", "oomwatchd_rule_swap_bytes"), "{{rule}}"), stacked=True,
    ))  # fmt: skip


def protection(made: build.Dashboard) -> None:
    def happened(metric: str, labels: str = MACHINES) -> str:
        return f"sum by (outcome) (increase({metric}{{{labels}}}{RATE}))"

    trips = f"sum(increase(oomwatchd_unkillable_guard_trips_total{{{MACHINES}}}{RATE}))"
    held = f"sum(oomwatchd_unkillable_guard_tripped{{{MACHINES}}})"
    made.with_row(build.Row("Protection"))
    made.with_panel(lines(
        "Exposed, by killer", "Processes of protecting rules that this killer can still take.",
        "short",
        (f"sum by (killer) (oomwatchd_rule_exposed_processes{{{RULES}}})", "{{killer}}"),
    )).with_panel(bars(
        "Values", "drifted: somebody else changed it. refused: the kernel did not let us.",
        (happened("oomwatchd_adjustments_total", RULES), "{{outcome}}"),
    )).with_panel(bars(
        "Marks for systemd-oomd", "repaired: somebody, as a rule systemd, had removed it.",
        (happened("oomwatchd_shield_marks_total"), "{{outcome}}"), width=8,
    )).with_panel(bars(
        "Moves to scopes of their own", "For rules with `shield: scope`.",
        (happened("oomwatchd_shield_moves_total"), "{{outcome}}"), width=8,
    )).with_panel(lines(
        "Memory at -1000", "Which the kernel cannot free; the ten machines with most.", "bytes",
        (f"topk({MANY}, oomwatchd_unkillable_memory_bytes{{{MACHINES}}})", "{{instance}}"), width=8,
    )).with_panel(bars(
        "Guard for -1000", "Machines on which it holds processes at -999; how often it tripped.",
        (held, "held now"), (trips, "tripped"), width=12,
    )).with_panel(bars(
        "Hooks", "By how they ended.",
        (f"sum by (hook, outcome) (increase(oomwatchd_hook_runs_total{{{MACHINES}}}{RATE}))",
         "{{hook}} {{outcome}}"),
    ))  # fmt: skip


def daemon(made: build.Dashboard) -> None:
    took = f"sum by (le) (rate(oomwatchd_scan_duration_seconds_bucket{{{MACHINES}}}{RATE}))"
    looking = f"rate(oomwatchd_scan_duration_seconds_sum{{{MACHINES}}}{RATE})"

    def lost(metric: str) -> str:
        return f"sum(increase({metric}{{{MACHINES}}}{RATE}))"

    made.with_row(build.Row("The daemon itself"))
    made.with_panel(lines(
        "Time spent looking", "Share of one processor; the worst ten machines.", "percentunit",
        (f"topk({MANY}, {looking})", "{{instance}}"), width=8,
    )).with_panel(lines(
        "A look at all processes", "How long it takes.", "s",
        (f"histogram_quantile(0.5, {took})", "half of them"),
        (f"histogram_quantile(0.99, {took})", "99 of 100"), width=8,
    )).with_panel(lines(
        "A scrape", "How long it takes; the worst ten machines.", "s",
        (f"topk({MANY}, scrape_duration_seconds{{{MACHINES}}})", "{{instance}}"), width=8,
    )).with_panel(lines(
        "Processor", "Share of one, audits and hooks with it; the ten machines with most.",
        "percentunit",
        (f"topk({MANY}, rate(oomwatchd_cpu_seconds_total{{{MACHINES}}}{RATE}))", "{{instance}}"),
    )).with_panel(lines(
        "Memory", "Resident; the ten machines with most.", "bytes",
        (f"topk({MANY}, oomwatchd_resident_bytes{{{MACHINES}}})", "{{instance}}"),
    )).with_panel(lines(
        "Events", "What the kernels tell of processes, in a second.", "short",
        (f"sum(rate(oomwatchd_process_events_total{{{MACHINES}}}{RATE}))", "events"), width=8,
    )).with_panel(bars(
        "Lost and given up", "None of it stops the daemon; docs/alerts.md has what to do.",
        (lost("oomwatchd_process_events_lost_total"), "times the kernel had more to tell"),
        (lost("oomwatchd_kernel_log_lost_total"), "lines of the kernel's log"),
        (lost("oomwatchd_match_timeouts_total"), "patterns that took too long"),
        (lost("oomwatchd_unreadable_total"), "command lines not read in time"),
        (lost("oomwatchd_systemd_worker_failures_total"), "workers that ask systemd"), width=8,
    )).with_panel(lines(
        "Series", "That Prometheus keeps of all daemons together.", "short",
        (f"sum(scrape_samples_scraped{{{MACHINES}}})", "series"), width=8,
    )).with_panel(gauges(
        "Machines by version", "How far a rollout is.",
        f"count by (version) (oomwatchd_build_info{{{MACHINES}}})", "{{version}}", (None, BLUE),
        width=12,
    )).with_panel(gauges(
        "Machines that lack a feature", "lower_adj: protecting rules have no effect. kernel_log:"
        " kills go unexplained. The daemon's log says why.",
        f"sum by (feature) (oomwatchd_feature_available{{{MACHINES}}} == bool 0)", "{{feature}}",
        (None, GREEN), (1.0, ORANGE), width=12,
    ))  # fmt: skip
