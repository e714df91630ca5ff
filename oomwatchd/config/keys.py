"""The table of all keys: what the file may hold, with what it is read by.

The loader, the faults about unknown keys and the JSON Schema come from these tables.  The defaults
here are for the schema; those that count are `model.Config`'s, and a test keeps them equal.
"""

from typing import Final, Literal, get_args

from oomwatchd.config.hooks import (
    ON_CRITICAL,
    ON_CRITICAL_TABLE,
    ON_INCIDENT,
    ON_PRESSURE,
    PRESSURE_HOOKS_TABLE,
)
from oomwatchd.config.patterns import (
    NAME_LIMIT_CHARACTERS,
    PATH_LIMIT_CHARACTERS,
    glob,
    not_absolute,
    regex,
    rule_name,
    user,
    with_directory,
    without_suffix,
)
from oomwatchd.config.section import Section, mapping, mappings
from oomwatchd.config.table import Key, Table
from oomwatchd.config.values import (
    address,
    boolean,
    choice,
    duration,
    one_or_more,
    percentage,
    threshold,
    whole_number,
)
from oomwatchd.model import (
    OOM_SCORE_ADJ_MAX,
    OOM_SCORE_ADJ_MIN,
    Config,
    IncidentSettings,
    Match,
    PressureKind,
    PressureSettings,
    PressureWindow,
    Threshold,
)

DEFAULTS: Final = Config()

# -- under match: of a rule ------------------------------------------------------------------------

PROGRAM: Final = Key(
    "name",
    one_or_more(glob(NAME_LIMIT_CHARACTERS, with_directory)),
    "Shell pattern for the program's name (comm), compared as a whole: `foo` does not match "
    "`foobar`. The kernel keeps 15 bytes of a name; a longer pattern is compared with the name "
    "that those 15 are the start of.",
)
SCRIPT: Final = Key(
    "script",
    one_or_more(glob(PATH_LIMIT_CHARACTERS)),
    "Shell pattern for the script, module, jar or main class that an interpreter runs: `train.py`, "
    "`torch.distributed.run`. Options and their arguments are skipped; `vim train.py` runs no "
    "script. Without `/` it is for the basename, with it for the path as given or in full.",
)
CMDLINE: Final = Key(
    "cmdline",
    one_or_more(regex()),
    "Regular expression, searched in the arguments joined by one space, of which the first 4,096 "
    "bytes are looked at.",
)
EXE: Final = Key(
    "exe",
    one_or_more(glob(PATH_LIMIT_CHARACTERS, not_absolute)),
    "Shell pattern for the program's real path. For a negative value, the file at that path on "
    "this machine has to be the one that runs: what a container or a user has mounted there does "
    "not count.",
)
USER: Final = Key(
    "user", one_or_more(user()), "Owner of the process, by name or uid: the real one."
)
UNIT: Final = Key(
    "unit",
    one_or_more(glob(NAME_LIMIT_CHARACTERS, without_suffix)),
    "Shell pattern for the systemd unit's name, such as `postgresql@*.service`. For a negative "
    "value, units of a user's own manager count only if the rule also has `user`, as anybody can "
    "start one of any name.",
)
CGROUP: Final = Key(
    "cgroup",
    one_or_more(glob(PATH_LIMIT_CHARACTERS, not_absolute)),
    "Shell pattern for the cgroup's path, such as `/user.slice/*`; `*` matches `/` as well.",
)
MATCH_TABLE: Final = Table(
    "under 'match' of a rule", (PROGRAM, SCRIPT, CMDLINE, EXE, USER, UNIT, CGROUP)
)


def match(section: Section) -> Match:
    return Match(
        name=section.take(PROGRAM, default=()),
        script=section.take(SCRIPT, default=()),
        cmdline=section.take(CMDLINE, default=()),
        exe=section.take(EXE, default=()),
        user=section.take(USER, default=()),
        unit=section.take(UNIT, default=()),
        cgroup=section.take(CGROUP, default=()),
    )


# -- a rule ----------------------------------------------------------------------------------------

NAME: Final = Key(
    "name", rule_name(), "Label of the rule in logs and metrics, unique.", required=True
)
MATCH: Final = Key(
    "match",
    mapping(MATCH_TABLE, match, at_least=1),
    "Which processes: all keys given must match; a list means any of its items.",
    required=True,
)
OOM_SCORE_ADJ: Final = Key(
    "oom_score_adj",
    whole_number(OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX),
    "The value to set: the lower, the later the kernel kills; each 1 is worth a thousandth of RAM "
    "and swap. 0 is a value like any other; -1000 takes `unkillable: true`.",
    required=True,
)
WORKERS: Final = Key(
    "workers",
    whole_number(OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX),
    "The value of a match whose parent matches this same rule: forked workers.",
    default_text="that of `oom_score_adj`",
)
DESCENDANTS: Final[Key[Literal["reset", "inherit"]]] = Key(
    "descendants",
    choice("reset", "inherit"),
    "`reset`: children that match no rule do not keep the value they inherited, but get the one "
    "that their ancestor had before; `inherit`: they keep it.",
    default_text="`reset` for a negative value, `inherit` otherwise",
)
SHIELD: Final[Key[Literal["none", "preference", "scope"]]] = Key(
    "shield",
    choice("none", "preference", "scope"),
    "Against killers that read no `oom_score_adj`: `preference` has systemd-oomd pass its cgroup "
    "over; `scope` gives the process a cgroup of its own, against `OOMPolicy=` too.",
    default_text="`preference` for a negative value, `none` otherwise",
)
DRIFT: Final[Key[Literal["reassert", "yield"]]] = Key(
    "drift",
    choice("reassert", "yield"),
    "When somebody else changes the value: `reassert` sets it again, at most 3 times a minute, "
    "and then leaves it; `yield` leaves it at once.",
    default="reassert",
)
UNKILLABLE: Final = Key(
    "unkillable",
    boolean(),
    "Has to be `true` for -1000, at which the kernel never kills it.",
    default=False,
)
RULE_TABLE: Final = Table(
    "in a rule",
    (NAME, MATCH, OOM_SCORE_ADJ, WORKERS, DESCENDANTS, SHIELD, DRIFT, UNKILLABLE, ON_CRITICAL),
)
RULES: Final = Key(
    "rules", mappings(RULE_TABLE), "The first rule that matches a process decides about it."
)

# -- settings --------------------------------------------------------------------------------------

LISTEN: Final = Key(
    "listen",
    address(),
    "Where Prometheus finds the metrics; `off` for none.",
    default="127.0.0.1:9847",
)
METRICS_TABLE: Final = Table("under 'metrics'", (LISTEN,))
METRICS: Final = Key(
    "metrics",
    mapping(METRICS_TABLE, lambda section: section.take(LISTEN, default=DEFAULTS.metrics_listen)),
    "Metrics for Prometheus.",
)

WHO: Final[dict[PressureKind, str]] = {"some": "some task", "full": "all tasks"}
THRESHOLDS: Final[tuple[tuple[Key[float], PressureKind, PressureWindow], ...]] = tuple(
    (
        Key(
            f"{kind}_{window}",
            threshold(),
            f"Percent of the last {window[3:]} seconds in which {who} waited for memory.",
        ),
        kind,
        window,
    )
    for kind, who in WHO.items()
    for window in get_args(PressureWindow)
)
LEVEL_TABLE: Final = Table(
    "under 'warning' or 'critical' of 'pressure'", tuple(key for key, _, _ in THRESHOLDS)
)


def level(section: Section) -> tuple[Threshold, ...]:
    given = ((kind, window, section.take(key, default=None)) for key, kind, window in THRESHOLDS)
    return tuple(
        Threshold(kind, window, percent) for kind, window, percent in given if percent is not None
    )


WARNING: Final = Key(
    "warning",
    mapping(LEVEL_TABLE, level),
    "Percent of time: any of `some_` or `full_` (some, or all tasks waited for memory) with "
    "`avg10`, `avg60` or `avg300` (seconds). The level holds while all that are given are reached; "
    "`{}` for never.",
    default={"some_avg10": 20},
)
CRITICAL: Final = Key(
    "critical",
    mapping(LEVEL_TABLE, level),
    "Percent of time: any of `some_` or `full_` (some, or all tasks waited for memory) with "
    "`avg10`, `avg60` or `avg300` (seconds). The level holds while all that are given are reached; "
    "`{}` for never.",
    default={"full_avg10": 10},
)
CLEAR_AFTER: Final = Key(
    "clear_after",
    duration("0s", "1h"),
    "How long the pressure must stay below a level before that level ends.",
    default="30s",
)
PRESSURE_TABLE: Final = Table("under 'pressure'", (WARNING, CRITICAL, CLEAR_AFTER))


def pressure(section: Section) -> PressureSettings:
    default = DEFAULTS.pressure
    return PressureSettings(
        warning=section.take(WARNING, default=default.warning),
        critical=section.take(CRITICAL, default=default.critical),
        clear_after_seconds=section.take(CLEAR_AFTER, default=default.clear_after_seconds),
    )


PRESSURE: Final = Key(
    "pressure",
    mapping(PRESSURE_TABLE, pressure),
    "Levels of memory pressure, from the averages in /proc/pressure/memory.",
)

KEEP: Final = Key("keep", whole_number(1, 100_000), "How many incidents are kept.", default=200)
HISTORY: Final = Key(
    "history", duration("1m", "24h"), "How far back an incident looks.", default="10m"
)
INCIDENTS_TABLE: Final = Table("under 'incidents'", (KEEP, HISTORY))


def incidents(section: Section) -> IncidentSettings:
    default = DEFAULTS.incidents
    return IncidentSettings(
        keep=section.take(KEEP, default=default.keep),
        history_seconds=section.take(HISTORY, default=default.history_seconds),
    )


INCIDENTS: Final = Key("incidents", mapping(INCIDENTS_TABLE, incidents), "The reports about kills.")

INTERVAL: Final = Key(
    "interval",
    duration("100ms", "1h"),
    "How often all of `/proc` is looked at.",
    default="5s",
)
EVENTS: Final[Key[Literal["auto", "off"]]] = Key(
    "events",
    choice("auto", "off"),
    "`auto`: the kernel also tells of each new program at once; `off`: look only every interval.",
    default="auto",
)
UNKILLABLE_MEMORY_MAX: Final = Key(
    "unkillable_memory_max",
    percentage(),
    "Share of RAM that processes at -1000 may hold together; above it they are set to -999.",
    default="50%",
)
KUBERNETES_PODS: Final[Key[Literal["leave", "manage"]]] = Key(
    "kubernetes_pods",
    choice("leave", "manage"),
    "`leave`: never touch processes that a kubelet manages; `manage`: treat them as any other.",
    default="leave",
)
ON_STOP: Final[Key[Literal["keep", "restore"]]] = Key(
    "on_stop",
    choice("keep", "restore"),
    "`keep`: values stay when the daemon stops; `restore`: the old ones are put back.",
    default="keep",
)
TOP_TABLE: Final = Table(
    "at the top level of the main file",
    (
        INTERVAL,
        EVENTS,
        METRICS,
        PRESSURE,
        UNKILLABLE_MEMORY_MAX,
        KUBERNETES_PODS,
        INCIDENTS,
        ON_INCIDENT,
        ON_PRESSURE,
        ON_STOP,
        RULES,
    ),
)
FRAGMENT_TABLE: Final = Table("in a fragment", (RULES,))
TABLES: Final = (
    TOP_TABLE,
    METRICS_TABLE,
    PRESSURE_TABLE,
    LEVEL_TABLE,
    INCIDENTS_TABLE,
    PRESSURE_HOOKS_TABLE,
    RULE_TABLE,
    ON_CRITICAL_TABLE,
    MATCH_TABLE,
)


def settings(section: Section) -> Config:
    """All but the rules."""
    return Config(
        interval_seconds=section.take(INTERVAL, default=DEFAULTS.interval_seconds),
        events=section.take(EVENTS, default=DEFAULTS.events),
        metrics_listen=section.take(METRICS, default=DEFAULTS.metrics_listen),
        pressure=section.take(PRESSURE, default=DEFAULTS.pressure),
        unkillable_memory_max_ratio=section.take(
            UNKILLABLE_MEMORY_MAX, default=DEFAULTS.unkillable_memory_max_ratio
        ),
        kubernetes_pods=section.take(KUBERNETES_PODS, default=DEFAULTS.kubernetes_pods),
        incidents=section.take(INCIDENTS, default=DEFAULTS.incidents),
        on_incident=section.take(ON_INCIDENT, default=DEFAULTS.on_incident),
        on_pressure=section.take(ON_PRESSURE, default=DEFAULTS.on_pressure),
        on_stop=section.take(ON_STOP, default=DEFAULTS.on_stop),
    )
