"""Under which rule somebody was who was killed before this daemon came: the one before it knew."""

from collections.abc import Iterable

from oomwatchd.incident import Case, Victim
from oomwatchd.model import ProcessId
from oomwatchd.policy.plan import Claim


class Remembered:
    """*claims*: what the ledger held when this daemon began."""

    def __init__(self, claims: Iterable[tuple[ProcessId, Claim]] = ()) -> None:
        by_start = sorted(claims, key=lambda entry: entry[0].start_ticks)
        self._claims = {id.pid: claim for id, claim in by_start if claim.standing == "matched"}

    def with_rules(self, case: Case) -> Case:
        return case._replace(victims=tuple(map(self._with_rule, case.victims)))

    def _with_rule(self, victim: Victim) -> Victim:
        """The pid may have been given to another since: the value that died with it has to be one
        that the rule had set.
        """
        if victim.rule is not None or victim.pid is None:
            return victim
        claim = self._claims.get(victim.pid)
        if claim is None or victim.oom_score_adj not in claim.ours:
            return victim
        return victim._replace(rule=claim.rule)
