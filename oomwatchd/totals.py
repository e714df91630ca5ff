"""What the processes under each rule add up to."""

from collections.abc import Iterable

from oomwatchd.model import RuleTotals, Tracked


def totals(processes: Iterable[Tracked]) -> dict[str, RuleTotals]:
    sums: dict[str, list[int]] = {}
    for process in processes:
        row = sums.setdefault(process.rule, [0, 0, 0])
        row[0] += 1
        row[1] += process.resident_bytes
        row[2] += process.swap_bytes
    return {rule: RuleTotals(*row) for rule, row in sums.items()}
