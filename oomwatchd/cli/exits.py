"""The exit statuses, as the README lists them; the numbers are those of sysexits.h."""

from typing import Final

FINE: Final = 0
NO: Final = 1  # no match, not found, faults; also any failure that another try may mend
USAGE: Final = 64
NO_INPUT: Final = 66
NOT_PERMITTED: Final = 77
CONFIG: Final = 78  # the unit does not restart on this one
