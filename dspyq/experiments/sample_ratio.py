"""The sequential test of the sample ratio: arms that do not get their shares of the units are no experiment.

The Bayes factor of a Dirichlet prior about the shares against the shares themselves is a martingale under them, so it
may be looked at after every unit (Lindon, Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: The prior's weight, in units: large, for what goes wrong is a share of a few percent.
STRENGTH = 1000.0
#: A ratio is broken at 1,000 to 1: at most one sound experiment in 1,000 ever is.
BROKEN_LOG_EVIDENCE = math.log(1000)


def sample_ratio_log_evidence(units: Sequence[int], shares: Sequence[float], strength: float = STRENGTH) -> float:
    """Return ln of the e-value against the shares.

    Args:
        units: Units that were counted, by arm; first exposures alone.
        shares: The shares that they should have; they add up to 1.
        strength: Weight of the prior, in units.
    """
    evidence = math.lgamma(strength) - math.lgamma(strength + sum(units))
    for count, share in zip(units, shares, strict=True):
        if share > 0:
            evidence += math.lgamma(strength * share + count) - math.lgamma(strength * share) - count * math.log(share)
        elif count:
            return math.inf
    return evidence
