"""Users whom rules name and whom nobody knew at the load: a directory may come up after us."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from oomwatchd.beside import Beside
from oomwatchd.config.patterns import uid
from oomwatchd.model import Config, Rule, User

RETRY_SECONDS: Final = 60.0


class AbsentUsers:
    """Asks for them again and again, beside the loop."""

    def __init__(self, uid_of: Callable[[str], int | None] = uid) -> None:
        self._uid_of = uid_of  # may take long
        self._names: frozenset[str] = frozenset()
        self._next_seconds = float("-inf")
        self._asking = Beside(self._known)

    def configure(self, config: Config) -> None:
        self._names = unknown(config)

    def found(self, now_seconds: float) -> Mapping[str, int]:
        """Of those in the rules in force, the uids that are known by now; each is told once."""
        if self._names and self.idle and now_seconds >= self._next_seconds:
            self._next_seconds = now_seconds + RETRY_SECONDS
            self._asking.ask(now_seconds)
        try:
            found = self._asking.take(now_seconds) or {}
        except OSError:  # no thread is to be had now: in a minute, perhaps
            return {}
        wanted = {name: number for name, number in found.items() if name in self._names}
        self._names -= wanted.keys()
        return wanted

    @property
    def idle(self) -> bool:
        return self._asking.idle

    def close(self) -> None:
        self._asking.close()

    def _known(self) -> dict[str, int]:
        numbers = {name: self._uid_of(name) for name in self._names}
        return {name: number for name, number in numbers.items() if number is not None}


def unknown(config: Config) -> frozenset[str]:
    users = (user for rule in config.rules for user in rule.match.user)
    return frozenset(user.name for user in users if user.uid is None)


def completed(config: Config, found: Mapping[str, int]) -> Config:
    return replace(config, rules=tuple([with_users(rule, found) for rule in config.rules]))


def with_users(rule: Rule, found: Mapping[str, int]) -> Rule:
    users = [User(one.name, found.get(one.name, one.uid)) for one in rule.match.user]
    return replace(rule, match=replace(rule.match, user=tuple(users)))
