"""Well-formed markup from text that anybody may have chosen.

Everything that is shown goes through `element`, which escapes it; so no caller can forget to.
"""

from collections.abc import Iterator
from html import escape

from oomwatchd.text import printable


class Markup(str):
    """Text that is markup already, and is not escaped again."""

    __slots__ = ()


def element(tag: str, /, *content: str, **attributes: object) -> Markup:
    """``<tag key="value">content</tag>``; ``class_`` is class, and ``stroke_width`` has a hyphen.

    What is no `Markup` is shown as it is, with control characters as ``\\x1b``.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{shown(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    head = f"<{tag}{''.join(parts)}"
    if not content and tag not in ("span", "div", "td"):
        return Markup(f"{head} />")
    return Markup(f"{head}>{joined(*content)}</{tag}>")


def joined(*content: str) -> Markup:
    return Markup("".join(one if isinstance(one, Markup) else shown(one) for one in content))


def shown(text: str) -> str:
    return escape(printable(text), quote=True)


def lines(text: str) -> Iterator[Markup]:
    """Each line of *text* by itself, with its end, which is copied with it."""
    for line in text.split("\n"):
        yield element("span", line, Markup("\n"))
