"""Text that users control, made safe to show: in logs, on terminals, in pages; and sizes."""

from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30


def decoded(raw: bytes) -> str:
    """*raw* as text; bytes that are not UTF-8 become ``\\xff`` and can be told apart."""
    return raw.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """*text* on one line and without control characters: these become ``\\n`` or ``\\x1b``.

    A process may put a line break or a terminal's escape codes into its name; shown raw, it could
    forge a log line or rewrite the screen.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def size(size_bytes: int, *, sign: bool = False) -> str:
    """``51.2 MiB``, ``-20.8 GiB``; with *sign*, ``+9.6 GiB``."""
    unit, name = (GIB, "GiB") if abs(size_bytes) >= GIB else (MIB, "MiB")
    return f"{size_bytes / unit:{'+' if sign else ''}.1f} {name}"
