"""Names of users, from the local file alone: a directory service may not answer in time."""

from pathlib import Path
from typing import Final

from oomwatchd.text import decoded

PASSWD: Final = Path("/etc/passwd")
FILE_LIMIT_BYTES: Final = 1 << 20


def parse_passwd(raw: bytes) -> dict[str, str]:
    """Names by uid in digits, of several the first; lines that are none are passed over.

    Source:  passwd(5).
    """
    names: dict[str, str] = {}
    for line in decoded(raw).split("\n"):
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdecimal():
            names.setdefault(fields[2], fields[0])
    return names


def local_name(uid: str, path: Path = PASSWD) -> str:
    """The user's name; *uid* itself, if the file has none."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_LIMIT_BYTES)
    except OSError:  # a bare container has no such file
        return uid
    return parse_passwd(raw).get(uid, uid)
