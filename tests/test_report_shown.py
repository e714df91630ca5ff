"""The page in a real browser, on a desk and on a phone, by day and by night.

Skipped where there is no Chromium; what can be told from its text alone is in test_report.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, browser
from kernellog import DATA, records_of
from stories import (
    GIB,
    LIMITED,
    MIB,
    TRAINER,
    copy,
    flat,
    leak,
    noisy,
    past,
    sawtooth,
    steps,
)
from test_incidents import CASE, incident
from test_report import HOSTILE

from oomwatchd.incident import Incident, Past, Victim
from oomwatchd.report.page import page

PHONE, DESK = 390, 1100
SMALLEST = 320
LEGIBLE = 4.5  # the contrast that WCAG 2 asks of text (level AA)
DISCERNIBLE = 3.0  # and of lines
LONG = "/" + "/".join(["kubepods-besteffort-pod0123456789abcdef0123456789abcdef.slice"] * 3)
RAW = tuple(one.text for one in records_of(DATA / "7.2.13_whole-machine-with-swap.kmsg"))

OUTSIDE = """[...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => one.tagName + ' ' + one.className + ' ' + one.textContent.slice(0, 60))"""
OVERLAPPING = """[...document.querySelectorAll('.plot')].flatMap(plot => {
    const labels = [...plot.querySelectorAll('.x, .y')];
    const boxes = labels.map(one => one.getBoundingClientRect());
    return labels.filter((label, at) => boxes.slice(at + 1).some(other =>
        boxes[at].left < other.right && other.left < boxes[at].right &&
        boxes[at].top < other.bottom && other.top < boxes[at].bottom)).map(one => one.textContent);
})"""
CONTRASTS = """(() => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const light = text => {
        const [r, g, b] = numbers(text).slice(0, 3).map(c => c / 255).map(
            c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = one => {
        const own = getComputedStyle(one).backgroundColor;
        return one.parentElement && numbers(own)[3] === 0 ? behind(one.parentElement) : own;
    };
    const contrast = (one, colour) => {
        const [a, b] = [light(colour), light(behind(one))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    };
    const texts = [...document.querySelectorAll('body *')].filter(
        one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
    const lines = [...document.querySelectorAll('path.line')];
    return [Math.min(...texts.map(one => contrast(one, getComputedStyle(one).color))),
            Math.min(...lines.map(one => contrast(
                one.closest('.plot'), getComputedStyle(one).stroke)))];
})()"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def hostile() -> Incident:
    name = "".join(HOSTILE)
    victim = TRAINER._replace(
        name=name[:15], cmdline=name * 5, user=name, unit=name, cgroup=name, rule=name
    )
    case = CASE._replace(victims=(victim, victim), raw=(name,) * 3, asked_by=name, reason=name)
    story = past(copy(GIB, begins=-2.0, takes=1.9), [(one, 9, flat(GIB)) for one in HOSTILE[:3]])
    return incident(case=case)._replace(victim=victim, advice=name, past=story)


def sudden() -> Incident:
    japanese = "python3 学習/訓練.py --入力=売上データ_2024年度.parquet " + "列" * 200
    victim = TRAINER._replace(cmdline=japanese, cgroup=LONG)
    case = CASE._replace(killer="cgroup", scope=LONG, limit_bytes=64 * GIB, victims=(victim,))
    curve = copy(31 * GIB, begins=-2.0, takes=1.9)
    story = past(
        curve, [("データ読込", 9, noisy(flat(3 * GIB), GIB))], cgroup=curve, limit=64 * GIB
    )
    return incident(case=case)._replace(victim=victim, past=story)


def long() -> Incident:
    seconds = [-3600 + 6 * at for at in range(600)]
    others = [("a-name-of-15-byt", 4_194_304, flat(5 * GIB)), ("java", 9, leak(0, MIB))]
    story = past(sawtooth(4 * GIB, 58 * GIB, 400.0), others, seconds=seconds, swap_free=flat(GIB))
    return incident(case=CASE._replace(raw=RAW))._replace(past=story)


def group() -> Incident:
    victims = tuple(TRAINER._replace(pid=9000 + at) for at in range(64))
    case = CASE._replace(
        killer="oom_group", scope=LIMITED, victims=victims, victims_left_out=900, raw=RAW
    )
    story = past(steps(MIB, MIB, 50), cgroup=steps(20 * MIB, 14 * MIB, 50), limit=192 * MIB)
    return incident(case=case)._replace(past=story)


def nothing() -> Incident:
    nobody = Victim(None, "batch.service")
    case = CASE._replace(victims=(nobody,), killer="systemd_oomd", scope=LONG, raw=())
    return incident(case=case)._replace(victim=nobody, past=Past(), candidates=(), while_down=True)


STORIES = [hostile, sudden, long, group, nothing]


@pytest.mark.parametrize("width", [SMALLEST, PHONE, DESK])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_nothing_is_cut_off_or_written_over(
    story: Callable[[], Incident], width: int, shown: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(story()))
    shown.show(path, width=width)

    assert shown.value("document.documentElement.scrollWidth") <= width
    assert shown.value(OUTSIDE) == []
    assert shown.value(OVERLAPPING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_text_and_lines_stand_out_by_day_and_by_night(
    story: Callable[[], Incident], scheme: str, shown: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(story()))
    shown.show(path, width=DESK, scheme=scheme)
    background = shown.value("getComputedStyle(document.body).backgroundColor")
    texts, lines = shown.value(CONTRASTS)

    assert ("253" in background) == (scheme == "light")
    assert texts >= LEGIBLE
    assert lines is None or lines >= DISCERNIBLE


def test_hostile_text_does_nothing_but_stand_there(shown: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(hostile()))
    shown.show(path, width=DESK)

    assert [one["request"]["url"] for one in shown.heard("Network.requestWillBeSent")] == [
        path.as_uri()
    ]
    assert shown.heard("Page.javascriptDialogOpening") == []
    assert shown.heard("Log.entryAdded") == []  # not even tried, and then refused by the policy
    assert shown.value("document.querySelectorAll('script, img, b').length") == 0
    assert shown.value("document.title").startswith("<script>alert(")
    assert "<script>alert(1)</script>" in shown.value("document.querySelector('pre').innerText")
