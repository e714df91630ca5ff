"""The exit statuses and what they mean; the numbers are those of sysexits.h."""

from typing import Final

FINE: Final = 0
NO: Final = 1
USAGE: Final = 64
NO_INPUT: Final = 66
UNAVAILABLE: Final = 69
UNWRITTEN: Final = 74
NOT_PERMITTED: Final = 77
CONFIG: Final = 78
INTERRUPTED: Final = 130

MEANING: Final = {
    FINE: "fine; of `why`, that it was killed for want of memory",
    NO: "no: no match, not found, faults, something exposed; also a failure that another try may "
    "mend, such as a port in use",
    USAGE: "wrong usage",
    NO_INPUT: "there is no such file",
    UNAVAILABLE: "a library that this command needs is not installed; the message says which",
    UNWRITTEN: "the answer could not be written where it was to go",
    NOT_PERMITTED: "not permitted to you",
    CONFIG: "faults in the configuration: `run` has touched nothing, and is not started again",
    INTERRUPTED: "interrupted from the keyboard",
}
