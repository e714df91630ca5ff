"""What the user has chosen to see, and what each key changes of that."""

import re
from typing import Final, Literal, NamedTuple

Order = Literal["death", "memory"]

# One key: an escape sequence of a terminal (ECMA-48, CSI or SS3), or one character.
KEY: Final = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO[ -~]|[^\x1b]|\x1b", re.DOTALL)
NAMES: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"q": "quit",
    b"s": "death",
    b"m": "memory",
    b" ": "pause",
    b"?": "help",
    b"h": "help",
}
ESCAPE: Final = b"\x1b"


class View(NamedTuple):
    order: Order = "death"
    first: int = 0  # row that is shown first
    paused: bool = False
    help: bool = False


class Page(NamedTuple):
    """What there is to scroll in."""

    rows: int  # on one screen
    total: int


def keys(raw: bytes) -> list[str]:
    """The keys that a terminal has sent as *raw*; those that mean nothing here are left out."""
    return [NAMES[key] for key in KEY.findall(raw) if key in NAMES]


def pressed(view: View, key: str, page: Page) -> View:
    """The view after *key*, which is not "quit"; any key closes the help."""
    if view.help:
        return view._replace(help=False)
    if key == "help":
        return view._replace(help=True)
    if key == "pause":
        return view._replace(paused=not view.paused)
    if key == "memory":
        return view._replace(order="memory", first=0)
    if key == "death":
        return view._replace(order="death", first=0)
    return scrolled(view, view.first + steps(page).get(key, 0), page)


def steps(page: Page) -> dict[str, int]:
    return {
        "up": -1,
        "down": 1,
        "page up": -page.rows,
        "page down": page.rows,
        "home": -page.total,
        "end": page.total,
    }


def scrolled(view: View, first: int, page: Page) -> View:
    """*view* from row *first* on, or as far as there are rows to fill the screen."""
    return view._replace(first=max(min(first, page.total - page.rows), 0))
