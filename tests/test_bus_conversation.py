"""What is said to a bus and understood of it, without a connection: bytes in, bytes out."""

import pytest
from busclient import (
    ANSWERS,
    BUS,
    OK,
    OOMD,
    OWNER,
    WELCOME,
    description,
    killed,
    message,
    signal,
)
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.systemd.bus import TELL_OF_KILLS, Conversation, Killed, Refused
from oomwatchd.systemd.wire import Malformed, Messages


def owner_changed(name: str, before: str, after: str, sender: str = BUS) -> bytes:
    return signal(
        "/org/freedesktop/DBus", BUS, "NameOwnerChanged", [name, before, after], sender=sender
    )


def in_conversation(data: bytes = WELCOME) -> Conversation:
    conversation = Conversation()
    conversation.hear(data)
    return conversation


def heard(conversation: Conversation, *data: bytes) -> list[str]:
    kills, _ = conversation.hear(b"".join(data))
    return [one.cgroup for one in kills]


def test_it_says_who_it_is_and_asks_for_nothing_before_it_is_let_in() -> None:
    conversation = Conversation()

    assert conversation.opening(1000) == b"\0AUTH EXTERNAL 31303030\r\n"

    answers = [conversation.hear(bytes((byte,)))[1] for byte in OK]

    assert set(answers[:-1]) == {b""}
    assert answers[-1].startswith(b"BEGIN\r\nl\1")


def test_it_asks_for_changes_first_then_for_the_owner_and_for_kills_last() -> None:
    _, answer = Conversation().hear(OK)
    asked = Messages().feed(answer.removeprefix(b"BEGIN\r\n"))

    assert [one.fields[3] for one in asked] == ["Hello", "AddMatch", "GetNameOwner", "AddMatch"]
    assert [one.fields[6] for one in asked] == [BUS] * 4
    assert "arg0='org.freedesktop.oom1'" in asked[1].strings()[0]
    assert "sender='org.freedesktop.oom1'" in asked[3].strings()[0]


def test_it_listens_when_all_has_been_answered() -> None:
    conversation = Conversation()
    listening = []
    for data in (OK, *ANSWERS):
        conversation.hear(data)
        listening.append(conversation.listening)

    assert listening == [False, False, False, False, True]


def test_answers_count_once_and_only_the_buss_own() -> None:
    conversation = in_conversation(OK + b"".join(ANSWERS[:2]))
    conversation.hear(message(2, {5: 3, 7: ":1.6"}, [":1.6"]) + message(2, {5: 3}, [":1.6"]))
    before = conversation.owner
    conversation.hear(ANSWERS[2] + message(2, {5: 3, 7: BUS}, [":1.6"]))

    assert (before, conversation.owner) == (None, OWNER)


def test_a_kill_counts_by_the_sender_that_the_bus_has_set() -> None:
    conversation = in_conversation()
    told = [killed("/none"), killed("/name", sender=OOMD), killed("/other", sender=":1.33")]

    assert heard(conversation, *told, killed("/it", sender=OWNER)) == ["/it"]


def test_a_call_is_no_signal() -> None:
    told = killed("/call", sender=OWNER)

    assert heard(in_conversation(), told[:1] + b"\1" + told[2:]) == []


def test_a_message_without_a_sender_is_not_that_of_an_owner_who_is_not_there() -> None:
    no_owner = message(3, {5: 3, 7: BUS, 4: "org.freedesktop.DBus.Error.NameHasNoOwner"}, ["-"])
    conversation = in_conversation(OK + b"".join([*ANSWERS[:2], no_owner, ANSWERS[3]]))

    assert conversation.listening
    assert conversation.owner is None
    assert heard(conversation, killed("/none"), killed("/empty", sender="")) == []


def test_the_owner_is_who_it_is_at_that_point_of_the_stream() -> None:
    conversation = in_conversation()
    old, new, gone = OWNER, ":1.4", ""
    said = [
        killed("/old", sender=old),
        owner_changed(OOMD, old, gone),
        killed("/old-again", sender=old),
        killed("/nobody", sender=gone),
        owner_changed(OOMD, gone, new),
        killed("/new", sender=new),
        killed("/still-old", sender=old),
    ]

    assert heard(conversation, *said) == ["/old", "/new"]


# -- whether it tells ------------------------------------------------------------------------------


def described(sender: str, *, signal: bool = True, number: int = 1) -> bytes:
    """What *sender* answers to our question of that *number*."""
    reply: dict[int, str | int] = {5: TELL_OF_KILLS + number, 7: sender}
    return message(2, reply, [description(signal=signal)])


def test_the_owner_is_asked_by_its_own_name_so_that_nobody_is_started() -> None:
    conversation = Conversation()
    _, answer = conversation.hear(WELCOME)
    *_, asked = Messages().feed(answer.removeprefix(b"BEGIN\r\n"))

    assert (asked.fields[6], asked.fields[3]) == (OWNER, "Introspect")
    assert conversation.tells is None


@pytest.mark.parametrize("signal", [True, False])
def test_whether_it_has_the_signal_it_says_itself(
    signal: bool,  # noqa: FBT001 -- a case
) -> None:
    conversation = in_conversation()
    conversation.hear(described(":1.33", signal=not signal))
    conversation.hear(described(OWNER, signal=not signal, number=2))
    before = conversation.tells
    conversation.hear(described(OWNER, signal=signal))

    assert (before, conversation.tells) == (None, signal)


@pytest.mark.parametrize(
    "answer",
    [
        message(3, {5: 5, 7: OWNER, 4: "org.freedesktop.DBus.Error.AccessDenied"}, ["no"]),
        message(3, {5: 5, 7: OWNER, 4: "a.B"}),
        message(2, {5: 5, 7: OWNER}),
        message(2, {5: 5, 7: OWNER}, ["", "a"]),
    ],
)
def test_who_does_not_describe_itself_is_not_trusted_to_tell(answer: bytes) -> None:
    conversation = in_conversation()
    conversation.hear(answer)

    assert conversation.tells is False
    assert conversation.listening


def test_each_owner_is_asked_and_where_there_is_none_there_is_nothing_to_tell() -> None:
    conversation = in_conversation()
    conversation.hear(described(OWNER, signal=False))
    conversation.hear(owner_changed(OOMD, OWNER, ""))
    without = conversation.tells
    _, asked = conversation.hear(owner_changed(OOMD, "", ":1.4"))
    unanswered = conversation.tells
    conversation.hear(described(OWNER, signal=False, number=2) + described(":1.4", number=2))

    assert b":1.4" in asked
    assert (without, unanswered, conversation.tells) == (True, None, True)


def test_changes_of_other_names_and_by_other_senders_are_none() -> None:
    conversation = in_conversation()
    conversation.hear(owner_changed("org.freedesktop.oom", OWNER, ":1.6"))
    conversation.hear(owner_changed(OOMD, OWNER, ":1.6", sender=":1.6"))

    assert conversation.owner == OWNER


@pytest.mark.parametrize(
    "answer",
    [
        b"REJECTED EXTERNAL\r\n",
        b"ERROR what?\r\n",
        b"DATA\r\n",
        b"\r\n",
        b"OKAY\r\n",
        b"x" * 1025,
        OK + message(3, {5: 1, 7: BUS, 4: "a.LimitsExceeded"}, ["too many"]),
        OK + message(3, {5: 2, 7: BUS, 4: "a.OOM"}),
        OK + message(3, {5: 3, 7: BUS, 4: "a.AccessDenied"}),
        OK + message(3, {5: 4, 7: BUS, 4: "org.freedesktop.DBus.Error.NameHasNoOwner"}),
    ],
)
def test_a_bus_that_does_not_do_as_asked_is_of_no_use(answer: bytes) -> None:
    with pytest.raises(Refused):
        Conversation().hear(answer)


def test_an_owner_that_is_no_name_is_malformed() -> None:
    with pytest.raises(Malformed):
        Conversation().hear(OK + message(2, {5: 3, 7: BUS, 8: "u"}))


@given(st.integers(0, len(WELCOME)), st.lists(st.binary()))
def test_whatever_a_bus_says_it_is_heard_refused_or_malformed(
    start: int, said: list[bytes]
) -> None:
    conversation = Conversation()
    kills: list[Killed] = []
    try:
        for data in (WELCOME[:start], *said):
            kills += conversation.hear(data)[0]
    except (Malformed, Refused):
        pass

    assert kills == []
