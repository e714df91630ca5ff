"""A decision on its way to being carried out."""

from typing import NamedTuple

from oomwatchd.kernel.proc import Look
from oomwatchd.model import Rule
from oomwatchd.policy.plan import Claim, Decision


class Step(NamedTuple):
    look: Look
    comm: str
    rule: Rule | None
    before: int
    own: Claim | None
    decision: Decision

    @property
    def claim(self) -> Claim:
        return self.decision.claim

    def claim_without_write(self) -> Claim:
        """What remains of the decision's claim when nothing could be written."""
        if self.rule is None and self.own is not None:
            return self.own  # still to be put back
        ours = self.claim.ours - {self.decision.wanted}
        return self.claim._replace(ours=ours | (self.own.ours if self.own else frozenset()))
