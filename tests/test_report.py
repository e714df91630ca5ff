"""The page: well-formed, alone in the world, and not to be taken over by a name."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import GIB, KILLED_AT, MIB, TRAINER, copy, flat, past
from test_incidents import CASE, incident

from oomwatchd.incident import Incident, Past, Victim
from oomwatchd.report.chart import Chart, Mark, Series, drawn, nice_step, path_of, times
from oomwatchd.report.markup import Markup, element, joined, lines
from oomwatchd.report.page import page, victim_marks
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
    assert joined(*lines("a\n<b>")) == "<span>a\n</span><span>&lt;b&gt;\n</span>"


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


def test_what_happened_while_nobody_watched_is_told_to_have() -> None:
    text = words(parsed(incident()._replace(past=Past(), while_down=True)))

    assert "Nothing was sampled before this kill: the daemon was not running then." in text
    assert "at the daemon's next start" in text


def test_that_it_was_not_the_first_time_stands_beside_the_explanation() -> None:
    root = ElementTree.fromstring(page(incident(), "3 times before <b>"))  # noqa: S314 - see above

    told = [one.text for one in root.findall(".//p[@class='verdict']")]

    assert told[1:] == ["3 times before <b>"]


def test_of_very_many_victims_it_is_said_how_many_are_not_shown() -> None:
    victims = tuple(TRAINER._replace(pid=at) for at in range(64))
    root = parsed(incident(case=CASE._replace(victims=victims, victims_left_out=900)))
    text = words(root)

    assert "All 964 that died of it" in text
    assert "and 963 more with it" in text
    assert "and 934 more" in text
    assert len(root.findall(".//tbody/tr")) == 30 + len(incident().candidates)


def test_who_was_killed_is_told_in_words_and_not_by_colour_alone() -> None:
    [dead] = parsed(incident()).findall(".//tr[@class='dead']")

    assert "killed" in "".join(dead.itertext())


def test_each_cell_knows_its_heading_as_a_phone_shows_no_head() -> None:
    root = parsed(incident())
    heads = [one.text for one in root.findall(".//thead/tr/th")]

    for row in root.findall(".//tbody/tr"):
        assert [one.get("data-label") for one in row.findall("td")] == heads


def test_each_line_of_the_log_is_one_line_of_the_page() -> None:
    [log] = parsed(incident()).findall(".//pre")

    assert [one.text for one in log] == [f"{line}\n" for line in CASE.raw]


# -- charts ----------------------------------------------------------------------------------------


def test_a_gap_in_the_samples_is_a_gap_in_the_line() -> None:
    assert path_of([(0, 1), (1, 1), None, (3, 1)]).count("M") == 2


def marks_of(story: Past) -> list[list[str]]:
    """Chart by chart."""
    figures = parsed(incident()._replace(past=story)).findall(".//figure")
    return [
        [
            one.text or ""
            for one in figure.iter("span")
            if "mark" in (one.get("class") or "").split()
        ]
        for figure in figures
    ]


def test_the_jump_is_marked_with_what_it_held_before_and_at_the_end_and_the_limit_is_named() -> (
    None
):
    curve = copy(31 * GIB, begins=-2.0, takes=1.9)

    memory, near, *pressure = marks_of(past(curve, cgroup=curve, limit=64 * GIB))

    assert memory == near == ["31.0 GiB", "62.0 GiB", "limit 64.0 GiB"]
    assert pressure == [[], []]


def test_without_a_jump_the_peak_is_marked_where_it_last_was() -> None:
    assert marks_of(past(flat(3 * GIB)))[0] == ["3.0 GiB"]
    story = Chart("t", [-10.0, -5.0, -1.0], [], "GiB", GIB, marks=[*victim_marks(
        [-10.0, -5.0, -1.0], [2 * GIB, 2 * GIB, GIB])])  # fmt: skip

    assert [(mark.seconds, mark.value) for mark in story.marks] == [(-5.0, 2 * GIB)]


@pytest.mark.parametrize(("at", "value", "places"), [
    (-9.0, 1.0, {"after", "above"}), (-0.1, 1.0, {"before", "above"}),
    (-0.1, 10.0, {"before", "below"}), (-9.0, 10.0, {"after", "below"}),
])  # fmt: skip
def test_a_mark_is_written_to_where_there_is_room(
    at: float, value: float, places: set[str]
) -> None:
    seconds = [-10.0, 0.0]
    chart = Chart("t", seconds, [Series("a", "victim", [1.0, 10.0])], "%", 1.0,
                  marks=[Mark(at, value, "here", "victim")])  # fmt: skip
    root = ElementTree.fromstring(drawn(chart))  # noqa: S314 - see above
    [mark] = [one for one in root.iter("span") if one.text == "here"]

    assert places <= set((mark.get("class") or "").split())


def test_the_axis_goes_to_the_kill_though_the_last_sample_was_before_it() -> None:
    chart = Chart("t", [-20.0, -8.0], [Series("a", "victim", [1.0, 1.0])], "%", 1.0)

    assert chart.x(-20.0) == 0
    assert chart.x(-8.0) == pytest.approx(0.6)
    assert chart.x(0.0) == 1
    assert times(chart) == [0, -5, -10, -15, -20]


def test_lines_on_the_axis_are_left_out() -> None:
    story = past(flat(30 * GIB), [("tiny", 1, flat(9 * MIB)), ("large", 2, flat(9 * GIB))])

    text = words(parsed(incident()._replace(past=story)))

    assert "large (2)" in text
    assert "tiny (1)" not in text


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
