"""Users whom nobody knows when the rules are read: they are asked for until they are there."""

import threading
from collections.abc import Iterator

import pytest
from live import until
from stage import PATIENCE_SECONDS

from oomwatchd.absent import RETRY_SECONDS, AbsentUsers, completed
from oomwatchd.model import Config, Match, Rule, User


def config(*users: User) -> Config:
    return Config((Rule("theirs", Match(user=users), 300),))


class Directory:
    def __init__(self) -> None:
        self.uids: dict[str, int] = {}
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()

    def uid_of(self, name: str) -> int | None:
        assert self.answers.wait(PATIENCE_SECONDS)
        self.asked.append(name)
        return self.uids.get(name)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def absent(directory: Directory) -> Iterator[AbsentUsers]:
    absent = AbsentUsers(directory.uid_of)
    absent.configure(config(User("alice", None), User("bob", 7)))
    yield absent
    directory.answers.set()
    absent.close()


def settled(absent: AbsentUsers, directory: Directory, asked: int, seconds: float) -> list[str]:
    """Those who are found at that moment, once *asked* names in all have been asked for."""
    found: list[str] = []

    def is_settled() -> bool:
        found.extend(absent.found(seconds))
        return absent.idle and len(directory.asked) == asked

    until(is_settled, "an answer")
    return found


def test_who_is_absent_is_asked_for_every_minute_until_known(
    absent: AbsentUsers, directory: Directory
) -> None:
    first = settled(absent, directory, 1, 0.0)
    soon = settled(absent, directory, 1, RETRY_SECONDS - 1)
    directory.uids["alice"] = 1234
    later = settled(absent, directory, 2, RETRY_SECONDS)

    assert (first, soon, later) == ([], [], ["alice"])
    assert directory.asked == ["alice", "alice"]


def test_a_directory_that_hangs_holds_up_nobody_and_is_not_asked_twice(
    absent: AbsentUsers, directory: Directory
) -> None:
    directory.answers.clear()
    directory.uids["alice"] = 1234
    for minute in range(5):
        assert absent.found(minute * RETRY_SECONDS) == {}
    directory.answers.set()

    assert settled(absent, directory, 1, 4 * RETRY_SECONDS) == ["alice"]


def test_who_is_in_no_rule_any_more_is_not_found(absent: AbsentUsers, directory: Directory) -> None:
    directory.answers.clear()
    directory.uids["alice"] = 1234
    absent.found(0.0)
    absent.configure(config(User("bob", 7)))
    directory.answers.set()

    assert settled(absent, directory, 1, 1.0) == []


def test_what_is_found_fills_the_gaps_of_the_rules() -> None:
    rules = config(User("alice", None), User("bob", 7), User("carol", None))

    assert completed(rules, {"alice": 1234}) == config(
        User("alice", 1234), User("bob", 7), User("carol", None)
    )
