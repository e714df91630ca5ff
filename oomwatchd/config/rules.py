"""A rule's mapping to a `model.Rule`, with what has to hold between its keys."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from oomwatchd.config import hooks, keys
from oomwatchd.config.fault import Place, Report
from oomwatchd.config.section import Section
from oomwatchd.config.source import Mapping
from oomwatchd.model import ALMOST_UNKILLABLE, OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN, Match, Rule

ANYTHING: Final = "*"


class Where(NamedTuple):
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule as far as it could be read, and where it stands."""

    report: Report
    place: Place
    name: str | None
    name_place: Place
    rule: Rule | None  # None: has faults

    @property
    def where(self) -> Where:
        return Where(self.report.file, self.place.line)


def draft(node: Mapping, report: Report) -> Draft:
    faults_before = len(report.faults)
    section = Section(node, report, keys.RULE_TABLE, keys.TABLES)
    name = section.require(keys.NAME)
    match = section.require(keys.MATCH)
    oom_score_adj = section.require(keys.OOM_SCORE_ADJ)
    rule = None
    if name is not None and match is not None and oom_score_adj is not None:
        rule = completed(section, name, match, oom_score_adj)
    sound = len(report.faults) == faults_before
    name_place = section.place_of(keys.NAME)
    return Draft(report, section.place, name, name_place, rule if sound else None)


def completed(section: Section, name: str, match: Match, oom_score_adj: int) -> Rule:
    workers = section.take(keys.WORKERS, default=None)
    negative = min(oom_score_adj, workers or 0) < 0
    rule = Rule(
        name=name,
        match=match,
        oom_score_adj=oom_score_adj,
        workers=workers,
        descendants=section.take(keys.DESCENDANTS, default="reset" if negative else "inherit"),
        shield=section.take(keys.SHIELD, default="preference" if negative else "none"),
        drift=section.take(keys.DRIFT, default="reassert"),
        unkillable=section.take(keys.UNKILLABLE, default=False),
        critical_signal=section.take(hooks.ON_CRITICAL, default=None),
    )
    check_unkillable(section, rule)
    warn_of_impostors(section, rule)
    return rule


def check_unkillable(section: Section, rule: Rule) -> None:
    asking = [
        key
        for key, value in ((keys.OOM_SCORE_ADJ, rule.oom_score_adj), (keys.WORKERS, rule.workers))
        if value == OOM_SCORE_ADJ_MIN
    ]
    if rule.unkillable and not asking:
        section.report.warning(
            section.place_of(keys.UNKILLABLE), "unkillable: changes nothing, as no value is -1000"
        )
    if not rule.unkillable:
        for key in asking:
            section.report.fault(
                section.place_of(key),
                f"{key.name}: '-1000' makes it unkillable, which has to be said; "
                f"allowed: {ALMOST_UNKILLABLE} to {OOM_SCORE_ADJ_MAX}, "
                "or -1000 together with 'unkillable: true'",
            )


def warn_of_impostors(section: Section, rule: Rule) -> None:
    match = rule.match
    proofs = (match.unit, match.cgroup, match.exe)
    if not rule.protects or match.user or any(proof and ANYTHING not in proof for proof in proofs):
        return
    section.report.warning(
        section.place_of(keys.MATCH),
        "match: any user can name a program so and be protected; add user:, unit:, cgroup: or exe:",
    )
