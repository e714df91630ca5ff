"""The page: well-formed, alone in the world, and not to be taken over by a name."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import GIB, KILLED_AT, MIB, TRAINER, copy, flat, past
from test_incidents import CASE, incident

from oomwatchd.incident import Incident, Past, Victim
from oomwatchd.report.chart import Chart, Series, drawn, nice_step, path_of
from oomwatchd.report.markup import Markup, element, lines
from oomwatchd.report.page import page
from oomwatchd.report.verdict import headline

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; background: url(http://example.org/x)",
    "</title></style></svg>&amp;&#60;b&#62;",
    "line\nbreak\x00\x1b[2J\u202e",
    "]]><!-- -->",
]
OUTSIDE = re.compile(r"https?:|//|url\(|@import|javascript:|\bsrc=|\bhref=", re.IGNORECASE)


def parsed(incident: Incident) -> ElementTree.Element:
    return ElementTree.fromstring(page(incident))  # noqa: S314 - our own text, to be well-formed


def words(root: ElementTree.Element) -> str:
    return "\n".join(root.itertext())


def test_the_page_tells_what_happened_and_what_to_do() -> None:
    text = words(parsed(incident()))

    assert "python3 (pid 4711) was killed by the kernel: the machine was out of memory" in text
    assert "doubled in 1.9 s: from 31.0 GiB to 62.0 GiB" in text
    assert "Do this." in text
    assert "Out of memory: Killed process 4711 (python3)" in text


def test_the_order_of_death_marks_who_died() -> None:
    rows = parsed(incident()).findall(".//tbody/tr")

    assert [row.get("class") for row in rows] == ["dead", None]
    assert "chrome" in "".join(rows[1].itertext())


def test_it_draws_memory_and_pressure_whole_and_from_near() -> None:
    titles = [one.text or "" for one in parsed(incident()).findall(".//figcaption/strong")]

    assert titles[0] == "Memory"
    assert [title for title in titles if "last 20 s" in title] == titles[1::2]
    assert len(titles) == 4


def test_each_sample_of_the_jump_is_a_dot() -> None:
    near = parsed(incident()).findall(".//path[@class='dot victim']")

    assert len(near) == 1  # of ten minutes they would be a smear
    assert (near[0].get("d") or "").count("M") >= 20


def test_it_needs_nothing_from_outside() -> None:
    text = page(incident())

    assert OUTSIDE.findall(text) == []
    policy = parsed(incident()).find(".//meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    assert "default-src 'none'" in policy.attrib["content"]
    names = {one.tag for one in parsed(incident()).iter()}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "image", "use"})


def test_it_is_made_for_light_and_dark_and_for_phones() -> None:
    text = page(incident())

    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_become_markup(name: str) -> None:
    victim = TRAINER._replace(name=name, cmdline=name, user=name, unit=name, cgroup=name, rule=name)
    case = CASE._replace(
        victims=(victim, victim), raw=(name,), asked_by=name, reason=name, scope=name
    )
    story = past(copy(GIB, begins=-2.0, takes=1.9), [(name, 9, flat(MIB))])
    hostile = incident(case=case)._replace(
        victim=victim, advice=name, past=story,
        candidates=tuple(one._replace(name=name) for one in incident().candidates),
    )  # fmt: skip

    root, plain = parsed(hostile), parsed(incident(case=CASE._replace(victims=(TRAINER,) * 2)))

    assert {one.tag for one in root.iter()} <= {one.tag for one in plain.iter()}
    assert {key for one in root.iter() for key in one.attrib} <= {
        key for one in plain.iter() for key in one.attrib
    }
    assert all(line.isprintable() for line in words(root).split("\n"))


@given(st.text(), st.text())
def test_any_text_is_shown_as_text(content: str, attribute: str) -> None:
    root = ElementTree.fromstring(element("p", content, title=attribute))  # noqa: S314 - see above

    assert list(root) == []
    assert root.attrib.keys() == {"title"}


def test_line_breaks_are_kept_where_they_are_ours() -> None:
    assert lines("a\n<b>") == "a\n&lt;b&gt;"


@pytest.mark.parametrize("story", [Past(), past(flat(GIB), seconds=[-1.0]), past(None)])
def test_a_kill_without_samples_of_the_victim_has_a_page_as_well(story: Past) -> None:
    root = parsed(incident()._replace(past=story, candidates=()))

    assert "Who was killed" in words(root)


def test_a_victim_of_whom_nothing_is_known_has_a_page_as_well() -> None:
    nobody = Victim(None, "batch.service")
    case = CASE._replace(victims=(nobody,), killer="systemd_oomd", scope="/x", raw=())

    root = parsed(incident(case=case)._replace(victim=nobody, past=Past(), candidates=()))

    assert "batch.service was killed by systemd-oomd" in words(root)


def test_at_a_limit_the_machine_s_memory_is_left_out_of_the_chart() -> None:
    limited = past(flat(MIB), [("a", 1, flat(MIB))], cgroup=flat(MIB), limit=2 * MIB)
    case = CASE._replace(killer="cgroup", scope="/system.slice/train.service", limit_bytes=2 * MIB)

    text = words(parsed(incident(case=case)._replace(past=limited)))

    assert "available on the machine" not in text
    assert "limit" in text
    assert headline(incident(case=case)).endswith("at its cgroup's limit of 2 MiB")


# -- charts ----------------------------------------------------------------------------------------


def test_a_gap_in_the_samples_is_a_gap_in_the_line() -> None:
    assert path_of([0, 1, 2, 3], [1.0, 1.0, None, 1.0], 1.0).count("M") == 2


@pytest.mark.parametrize("values", [[], [None, None]])
def test_without_values_nothing_is_drawn(values: list[float | None]) -> None:
    chart = Chart("t", [float(at) for at in range(len(values))], [Series("a", "b", values)], "%", 1)

    assert drawn(chart) == Markup("")


@given(st.floats(1e-6, 1e12))
def test_the_vertical_axis_has_two_to_five_steps_of_round_numbers(top: float) -> None:
    step = nice_step(top)

    assert 1.9 <= top / step <= 5.0001


@given(
    st.lists(
        st.tuples(st.floats(0.001, 1e5), st.one_of(st.none(), st.floats(0, 1e15))), max_size=30
    )
)
def test_no_series_is_too_odd_to_be_drawn(rows: list[tuple[float, float | None]]) -> None:
    at, seconds = -KILLED_AT, []
    for wait, _ in rows:
        at += wait
        seconds.append(at)
    chart = Chart("t", seconds, [Series("a", "victim", [value for _, value in rows])], "GiB", GIB)

    figure = drawn(chart)

    if figure:
        root = ElementTree.fromstring(figure)  # noqa: S314 - see above
        assert root.find(".//svg") is not None
        assert "nan" not in figure
