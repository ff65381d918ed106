"""Always-valid inference for an estimate that is normal in the limit: mixtures of likelihood ratios over the effect.

The clock is the information 1 / V, not the number of rows: repeated calls of the same units bring less and less news.
That the bounds hold at any number of looks is exact for a normal process with known variance, and asymptotic for ratios
of sums, whose increments are not quite independent (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024).
"""

from __future__ import annotations

import math

from dspyq.experiments.normal import scaled_log_tail

#: Where the interval of pairs is tightest: files of hundreds to thousands of documents or questions.
_TIGHTEST_AT_CLUSTERS = 500


def mixture_radius(variance: float, spread: float, alpha: float) -> float:
    """Return half the width of the always-valid interval.

    Robbins' normal mixture, N(0, spread²) over the effect (Robbins, Annals of Mathematical Statistics 41, 1970; the
    mSPRT of Johari, Koomen, Pekelis, Walsh, Operations Research 70, 2022; Howard, Ramdas, McAuliffe, Sekhon, Annals of
    Statistics 49, 2021, eq. 14).

    Args:
        variance: Of the estimate now.
        spread: Standard deviation of the mixture, in the effect's unit; the interval is tightest for such effects.
        alpha: The chance that it ever leaves out the true effect.
    """
    if not math.isfinite(variance):
        return math.inf
    if variance <= 0:
        return 0.0
    prior = spread * spread
    logarithm = math.log((variance + prior) / variance) + 2 * math.log(1 / alpha)
    return math.sqrt(variance * (variance + prior) / prior * logarithm)


def mixture_log_evidence(effect: float, variance: float, spread: float) -> float:
    """Return ln of the e-value against no effect, of the mixture above: its expectation is at most 1 at any look."""
    if not 0 < variance < math.inf:
        return 0.0
    prior = spread * spread
    return 0.5 * math.log(variance / (variance + prior)) + effect**2 * prior / (2 * variance * (variance + prior))


def one_sided_log_evidence(effect: float, variance: float, spread: float) -> float:
    """Return ln of the e-value against "the effect is at most 0": the mixture over a half normal above 0.

    Twice the normal mixture, over its positive half: ln 2 + ½ ln(V / (V + spread²)) + z² / 2 + ln Φ(z), with
    z = effect · √(spread² / (V (V + spread²))). Each likelihood ratio of that half is a supermartingale for every
    effect ≤ 0, and so is their mixture (the one-sided normal mixture of Howard et al. 2021).
    """
    if not 0 < variance < math.inf:
        return 0.0
    prior = spread * spread
    z = effect * math.sqrt(prior / (variance * (variance + prior)))
    return math.log(2) + 0.5 * math.log(variance / (variance + prior)) + scaled_log_tail(-z)


def paired_radius(variance: float, clusters: float, alpha: float) -> float:
    """Return half the width of the always-valid interval of a mean whose clusters come one after another.

    The mixture above with a spread of ρ standard deviations of a cluster, so that it needs no least effect: the
    asymptotic confidence sequence of Waudby-Smith et al. 2024, eq. 3, with their ρ for the tightest interval at 500
    clusters. ρ is fixed before any row is seen.

    Args:
        variance: Of the mean now, by cluster.
        clusters: The number of clusters.
        alpha: The chance that it ever leaves out the true mean.
    """
    if not 0 < variance < math.inf or clusters <= 0:
        return math.inf
    logarithm = 2 * math.log(1 / alpha)
    spread = math.sqrt((logarithm + math.log(1 + logarithm)) / _TIGHTEST_AT_CLUSTERS * variance * clusters)
    return mixture_radius(variance, spread, alpha)
