"""What holds for every audit, whatever the machine."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.auditing import (
    KILLERS,
    Cgroup,
    Holder,
    Machine,
    Oomd,
    Preference,
    Subject,
    Surroundings,
    UnitName,
    UnitSettings,
    Unseen,
    Verdict,
)
from oomwatchd.model import Match, Rule
from oomwatchd.policy.audit import GRAVITY, Auditor, as_shielded, worst
from oomwatchd.policy.audit_others import parse_earlyoom
from oomwatchd.policy.audit_systemd import honoured
from oomwatchd.policy.queue import Queue, by_kernel

PATH = (
    "/",
    "/user.slice",
    "/user.slice/user@1000.service",
    "/user.slice/user@1000.service/a.scope",
)
RAM_PAGES = 1_000_000
adjs = st.integers(-1000, 1000)
pages = st.integers(0, RAM_PAGES)
owners = st.sampled_from([0, 1000])
preferences: st.SearchStrategy[Preference] = st.sampled_from(get_args(Preference))
limits = st.none() | st.integers(0, RAM_PAGES * 4096)
settings = st.builds(
    UnitSettings,
    st.sampled_from([None, "stop", "continue", "kill"]),
    st.sampled_from(["auto", "kill"]),
    st.none() | st.floats(0.01, 1),
    st.none() | st.floats(1, 60),
    st.sampled_from(["auto", "kill"]),
)
answers = settings | st.builds(Unseen, st.just("it was not told"))
versions = st.tuples(st.integers(246, 262), st.integers(0, 40)) | st.just(Unseen("not told"))
rules = st.builds(
    Rule,
    st.just("r"),
    st.just(Match()),
    adjs,
    shield=st.sampled_from(["none", "preference", "scope"]),
)
machines = st.builds(
    Machine,
    st.just(4096),
    st.just(RAM_PAGES),
    st.sampled_from([0, 1000]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.integers(0, 2),
)


def holder(pid: int, adj: int, counted: int, cgroup: str) -> Holder:
    return Holder(pid, 1, pid, f"p{pid}", 1000, adj, counted, counted, cgroup, cgroup)


holders = st.lists(st.tuples(adjs, pages, st.sampled_from(PATH)), min_size=1, max_size=6).map(
    lambda rows: tuple(holder(10 + pid, *row) for pid, row in enumerate(rows))
)


@st.composite
def cgroups(draw: st.DrawFn, path: str) -> Cgroup:
    name = path.rpartition("/")[2] or "-.slice"
    return Cgroup(
        path,
        owner_uid=draw(owners),
        limit_bytes=draw(limits),
        oom_group=draw(st.booleans()),
        preference=draw(preferences),
        leaf=path == PATH[-1],
        units=(UnitName(None, name),),
    )


@st.composite
def audits(draw: st.DrawFn) -> tuple[Subject, Surroundings]:
    others = draw(holders)
    line = tuple(draw(cgroups(path)) for path in PATH)
    mine = holder(9, draw(adjs), draw(pages), PATH[-1])
    rule = draw(rules)
    manager = draw(st.none() | cgroups("/user.slice/user@1000.service/init.scope"))
    units = {unit: draw(answers) for cgroup in line for unit in cgroup.units}
    around = Surroundings(
        machine=draw(machines),
        holders=(mine, *others),
        unified=draw(st.booleans()),
        units=units,
        systemd_version=draw(versions),
        oomd=Oomd(draw(st.booleans())),
        hunters=(),
        hidden=draw(st.sampled_from(["", "processes of other users"])),
    )
    return Subject(mine, rule, rule.oom_score_adj, line, manager), around


@given(audits())
def test_every_killer_has_a_verdict_with_its_reason(audit: tuple[Subject, Surroundings]) -> None:
    subject, around = audit

    verdicts = Auditor(around).verdicts(subject)

    assert tuple(verdicts) == KILLERS
    assert all(verdict.reason for verdict in verdicts.values())


@given(audits())
def test_what_is_exposed_against_its_rule_has_a_remedy(audit: tuple[Subject, Surroundings]) -> None:
    subject, around = audit

    for verdict in Auditor(around).verdicts(subject).values():
        if verdict.verdict == "exposed" and subject.rule.protects:
            assert verdict.advice


@given(audits())
def test_only_who_is_last_in_line_has_memory_before_it(audit: tuple[Subject, Surroundings]) -> None:
    subject, around = audit

    for verdict in Auditor(around).verdicts(subject).values():
        assert (verdict.first_bytes is not None) == (verdict.verdict == "last_in_line")


@given(audits(), adjs)
def test_a_lower_value_never_makes_it_worse_for_the_whole_machine(
    audit: tuple[Subject, Surroundings], adj: int
) -> None:
    subject, around = audit
    lower = subject.holder._replace(oom_score_adj=min(adj, subject.holder.oom_score_adj))
    changed = around._replace(holders=(lower, *around.holders[1:]))
    if not any(other.oom_score_adj > -1000 for other in around.holders[1:]):
        return  # with nobody left to kill, the kernel panics

    before = Auditor(around).verdicts(subject)["kernel"].verdict
    after = Auditor(changed).verdicts(subject._replace(holder=lower))["kernel"].verdict

    assert GRAVITY.index(after) <= GRAVITY.index(before)


@given(audits())
def test_a_mark_that_is_kept_never_makes_it_worse(audit: tuple[Subject, Surroundings]) -> None:
    subject, around = audit
    marked = as_shielded(subject._replace(rule=Rule("r", Match(), -900, shield="preference")))

    before = Auditor(around).verdicts(subject)["systemd_oomd"].verdict
    after = Auditor(around).verdicts(marked)["systemd_oomd"].verdict

    assert GRAVITY.index(after) <= GRAVITY.index(before) or before == "last_in_line"


@given(audits())
def test_without_limits_watches_and_groups_nothing_of_systemd_is_exposed(
    audit: tuple[Subject, Surroundings],
) -> None:
    subject, around = audit
    line = tuple(cgroup._replace(limit_bytes=None, oom_group=False) for cgroup in subject.line)
    quiet = dict.fromkeys(around.units, UnitSettings("continue"))

    verdicts = Auditor(around._replace(units=quiet, hidden="")).verdicts(
        subject._replace(line=line)
    )

    found = {verdicts[killer].verdict for killer in KILLERS[1:5]}
    assert found <= {"safe", "absent"}


@given(owners, owners, st.tuples(st.integers(253, 262), st.integers(0, 40)))
def test_today_a_mark_counts_for_root_and_for_the_owner(
    mine: int, theirs: int, version: tuple[int, int]
) -> None:
    counts = honoured(Cgroup("/a/b", owner_uid=mine), Cgroup("/a", owner_uid=theirs), version)

    assert counts == (mine in (0, theirs))


@given(holders)
def test_the_queue_is_the_kernel_s_order(some: tuple[Holder, ...]) -> None:
    queue = Queue(some, by_kernel(RAM_PAGES))
    places = [queue.place(one.pid) for one in some]

    killable = [place for place in places if place.points is not None]
    assert sorted(place.ahead for place in killable) == list(range(len(killable)))
    for one in killable:
        for other in killable:
            if (one.points or 0) > (other.points or 0):
                assert one.ahead < other.ahead
                assert one.ahead_pages <= other.ahead_pages


@given(st.lists(st.builds(Verdict, st.sampled_from(GRAVITY), st.text()), min_size=1))
def test_of_several_verdicts_the_gravest_counts(verdicts: list[Verdict]) -> None:
    grave = worst(verdicts)

    assert grave in verdicts
    assert all(GRAVITY.index(one.verdict) <= GRAVITY.index(grave.verdict) for one in verdicts)


@given(st.lists(st.text()))
def test_any_command_line_of_earlyoom_is_understood_as_far_as_it_goes(words: list[str]) -> None:
    assert parse_earlyoom(words) is not None


def test_the_command_line_of_earlyoom() -> None:
    words = "earlyoom -r 60 -m 5,2 -M409600 --prefer ^web$ --avoid=sshd -g --ignore-root-user"

    ways = parse_earlyoom(words.split())

    assert (ways.limits, ways.whole_groups, ways.ignores_root) == ("-m 5,2 -M 409600", True, True)
    assert ways.prefer is not None
    assert ways.prefer.search("web")
    assert ways.avoid is not None
    assert ways.ignore is None
