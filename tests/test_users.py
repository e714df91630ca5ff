"""Names of users, from the local file."""

from pathlib import Path

from oomwatchd.users import local_name, parse_passwd

FILE = (
    b"root:x:0:0:root:/root:/bin/bash\n\nalice:x:1000:1000::/:/bin/sh\nsame:x:1000:1:::\n+::::::\n"
)


def test_the_first_name_of_a_uid_counts_and_odd_lines_do_not() -> None:
    assert parse_passwd(FILE) == {"0": "root", "1000": "alice"}


def test_who_has_no_name_keeps_his_number(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(FILE)

    assert local_name("1000", tmp_path / "passwd") == "alice"
    assert local_name("1001", tmp_path / "passwd") == "1001"
    assert local_name("1000", tmp_path / "none") == "1000"
