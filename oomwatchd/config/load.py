"""Files to one `model.Config`: what holds for each file, and what holds for all together."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from oomwatchd.config import files, keys
from oomwatchd.config.fault import START, ConfigError, Fault, Report, in_order
from oomwatchd.config.files import Source
from oomwatchd.config.rules import Draft, Where, draft
from oomwatchd.config.section import Section, described
from oomwatchd.config.source import Mapping as MappingNode
from oomwatchd.config.source import Scalar, parse_yaml
from oomwatchd.config.table import Table
from oomwatchd.model import Config
from oomwatchd.policy.shadow import shadowing

RULES_LIMIT: Final = 1000  # each is compared with all before it


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    warnings: tuple[Fault, ...]
    where: Mapping[str, Where]  # by rule


def load(path: Path, *, root_only: bool) -> Loaded:
    """The configuration at *path*, with the fragments in ``PATH.d``.

    With *root_only*, files have to belong to root and to be writable by nobody else.

    Raises:  ConfigError, with every fault of every file; OSError, if *path* cannot be read.
    """
    main = files.main_file(path, root_only=root_only)
    return assembled(main, files.fragments(path, root_only=root_only))


def parse(raw: bytes, file: str, fragments: Mapping[str, bytes] | None = None) -> Loaded:
    """The configuration in *raw*, called *file* in its faults; *fragments* by name.

    Raises:  ConfigError, with every fault.
    """
    sources = [Source(Report(name), content) for name, content in sorted((fragments or {}).items())]
    return assembled(Source(Report(file), raw), sources)


def assembled(main: Source, fragments: Iterable[Source]) -> Loaded:
    re.purge()  # Python warns of a doubtful pattern only when it has not seen it before
    reports = [main.report]
    section = top(main, keys.TOP_TABLE)
    config = Config() if section is None else keys.settings(section)
    drafts = rules_in(section)
    for fragment in fragments:
        reports.append(fragment.report)
        drafts += rules_in(top(fragment, keys.FRAGMENT_TABLE))
    check_together(drafts)
    faults = in_order([fault for report in reports for fault in report.faults])
    if not drafts and not faults:
        place = START if section is None else section.place_of(keys.RULES)
        main.report.warning(place, "no rules: nothing will be changed")
    warnings = in_order([warning for report in reports for warning in report.warnings])
    if faults:
        raise ConfigError(faults, warnings)
    rules = tuple(one.rule for one in drafts if one.rule is not None)
    where = {one.rule.name: one.where for one in drafts if one.rule is not None}
    return Loaded(replace(config, rules=rules), warnings, where)


def top(source: Source, table: Table) -> Section | None:
    """The top level of a file; None if it holds nothing that could be read."""
    if source.raw is None:
        return None
    root = parse_yaml(source.raw, source.report)
    if root is None or (isinstance(root, Scalar) and root.is_null):
        return None
    if not isinstance(root, MappingNode):
        source.report.fault(
            root.place,
            f"{described(root)} stands where a mapping should; allowed: {', '.join(table.names)}",
        )
        return None
    return Section(root, source.report, table, keys.TABLES)


def rules_in(section: Section | None) -> list[Draft]:
    if section is None:
        return []
    return [draft(node, section.report) for node in section.take(keys.RULES, default=())]


def check_together(drafts: Sequence[Draft]) -> None:
    if len(drafts) > RULES_LIMIT:
        surplus = drafts[RULES_LIMIT]
        surplus.report.fault(
            surplus.place, f"rule number {RULES_LIMIT + 1}; allowed: {RULES_LIMIT} in all files"
        )
        return
    check_names(drafts)
    check_reach(drafts)


def check_names(drafts: Sequence[Draft]) -> None:
    first: dict[str, Draft] = {}
    for one in drafts:
        if one.name is None:
            continue
        if one.name in first:
            one.report.fault(
                one.name_place,
                f"name: '{one.name}' is the name of the rule at {first[one.name].where}; "
                "allowed: each name once",
            )
        first.setdefault(one.name, one)


def check_reach(drafts: Sequence[Draft]) -> None:
    sound = [(one, one.rule) for one in drafts if one.rule is not None]
    rules = [rule for _, rule in sound]
    for index, (one, rule) in enumerate(sound):
        blocking = shadowing(rules[:index], rule)
        if blocking is None:
            continue
        where = next(other.where for other, candidate in sound if candidate is blocking)
        one.report.fault(
            one.place,
            f"rule '{rule.name}' can never be reached: rule '{blocking.name}' at {where} "
            "matches all that it matches; put it before or narrow the other",
        )
