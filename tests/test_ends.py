"""Who is gone and who was killed are told apart, in either order; together they are an end."""

from oomwatchd.ends import JOIN_SECONDS, KILLED_MAX, Ends
from oomwatchd.incident import Ended, Victim

HOG = Victim(pid=278, name="hog", start_ticks=7)
CAT = Victim(pid=279, name="cat", start_ticks=8)
LATER = 100.0 + JOIN_SECONDS / 2
TOO_LATE = 100.0 + 2 * JOIN_SECONDS


def test_an_end_is_told_at_once_and_once_more_when_it_was_by_sigkill() -> None:
    ends = Ends()

    assert ends.hear([HOG], [], 100.0) == [Ended(100.0, HOG, by_sigkill=None)]
    assert ends.hear([], [278], LATER) == [Ended(100.0, HOG, by_sigkill=True)]
    assert ends.hear([], [278], LATER) == []


def test_who_was_killed_may_be_told_first() -> None:
    ends = Ends()

    assert ends.hear([], [278], 100.0) == []
    assert ends.hear([HOG, CAT], [], LATER) == [
        Ended(LATER, HOG, by_sigkill=None),
        Ended(LATER, CAT, by_sigkill=None),
        Ended(LATER, HOG, by_sigkill=True),
    ]


def test_a_pid_that_was_killed_long_ago_is_another_s() -> None:
    ends = Ends()
    ends.hear([CAT], [278], 100.0)

    assert ends.hear([HOG], [279], TOO_LATE) == [
        Ended(100.0, CAT, by_sigkill=False),
        Ended(TOO_LATE, HOG, by_sigkill=None),
    ]


def test_one_kill_explains_one_end() -> None:
    ends = Ends()
    ends.hear([HOG], [278], 100.0)

    assert ends.hear([HOG], [], LATER) == [Ended(LATER, HOG, by_sigkill=None)]


def test_of_a_flood_of_kills_the_last_are_remembered() -> None:
    ends = Ends()
    ends.hear([], range(300, 300 + 3 * KILLED_MAX), 100.0)
    ends.hear([], [278], 100.0)
    first = Victim(pid=300, name="first")

    assert [end.by_sigkill for end in ends.hear([HOG, first], [], LATER)] == [None, None, True]


def test_who_would_have_been_heard_of_was_not_killed() -> None:
    ends = Ends()
    ends.hear([HOG], [], 100.0)

    assert ends.hear([], [], TOO_LATE) == [Ended(100.0, HOG, by_sigkill=False)]
    assert ends.hear([], [], TOO_LATE) == []


def test_of_who_may_have_been_killed_unheard_that_is_not_said() -> None:
    before, after, late = Ends(), Ends(), Ends()
    before.hear([], [], 100.0 - JOIN_SECONDS / 2, deaf=True)
    before.hear([HOG], [], 100.0)
    after.hear([HOG], [], 100.0)
    after.hear([], [], LATER, deaf=True)
    late.hear([HOG], [], 100.0, late={278})

    assert before.hear([], [], TOO_LATE) == []
    assert after.hear([], [], TOO_LATE) == []
    assert late.hear([], [], TOO_LATE) == []
