"""Figures of other packages for what comes on standard input; runs in the environment that has them."""

import json
import sys
import warnings

import numpy as np
import pyarrow as pa
import scipy.integrate
import scipy.stats
import tea_tasting as tt
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import RatioStatistic, SampleMeanStatistic


def gbstats_ratio(clusters):
    """Return gbstats' statistic of a ratio of sums by cluster."""
    s, n = (np.array(each) for each in clusters)
    mean_of = [SampleMeanStatistic(n=len(s), sum=each.sum(), sum_squares=(each**2).sum()) for each in (s, n)]
    return RatioStatistic(len(s), *mean_of, float((s * n).sum()))


def gbstats(case):
    """Return effect, variance, half width of the always-valid interval, its rho, and the p-value."""
    statistics = [gbstats_ratio(case[arm]) for arm in ("control", "challenger")]
    config = SequentialConfig(sequential_tuning_parameter=case["tuning"])
    config.difference_type = "absolute"
    test = SequentialTwoSidedTTest(*statistics, config)
    low, high = test.confidence_interval
    return {
        "effect": float(test.point_estimate),
        "variance": float(test.variance),
        "radius": float(high - low) / 2,
        "rho": float(test.rho),
        "p": float(test.p_value),
    }


def tea_tasting(case):
    """Return effect, variance, and that of the logarithm, by the delta method."""
    columns = {"variant": [], "s": [], "n": []}
    for index, arm in enumerate(("control", "challenger")):
        s, n = case[arm]
        columns["variant"] += [index] * len(s)
        columns["s"] += s
        columns["n"] += n
    metric = tt.RatioOfMeans("s", "n", use_t=False)
    found = tt.Experiment(metric=metric).analyze(pa.table(columns))["metric"]
    z = scipy.stats.norm.ppf(0.975)
    half = np.log((1 + found.rel_effect_size_ci_upper) / (1 + found.rel_effect_size))
    return {
        "effect": found.effect_size,
        "variance": (found.effect_size / found.statistic) ** 2,
        "log_effect": float(np.log1p(found.rel_effect_size)),
        "log_variance": float((half / z) ** 2),
    }


def holm(case):
    """Return adjusted p-values of tea-tasting, of metrics that have these z."""
    rows = 400
    draw = np.random.default_rng(1)
    noise = draw.normal(size=rows)
    variant = np.arange(rows) % 2
    columns = {f"m{index}": noise + shift * variant for index, shift in enumerate(case["shifts"])}
    metrics = {name: tt.Mean(name) for name in columns}
    result = tt.Experiment(metrics).analyze(pa.table({"variant": variant, **columns}))
    adjusted = tt.adjust_fwer(result, arbitrary_dependence=True, method="bonferroni").to_dicts()
    return {"p": [each["pvalue"] for each in adjusted], "adjusted": [each["pvalue_adj"] for each in adjusted]}


def scipys(case):
    """Return what scipy has for each."""
    counts, shares = np.array(case["counts"]), np.array(case["shares"])
    ratio = scipy.stats.dirichlet_multinomial.logpmf(counts, case["strength"] * shares, counts.sum())
    ratio -= scipy.stats.multinomial.logpmf(counts, counts.sum(), shares)
    effect, variance, spread = case["effect"], case["variance"], case["spread"]

    def likelihood(t):
        return np.exp((effect * t - t * t / 2) / variance) * scipy.stats.norm.pdf(t, scale=spread)

    both, _ = scipy.integrate.quad(
        likelihood, -20 * spread, 20 * spread, points=[effect], epsabs=0, epsrel=1e-11, limit=500
    )
    above, _ = scipy.integrate.quad(likelihood, 0, 20 * spread, points=[abs(effect)], epsabs=0, epsrel=1e-11, limit=500)
    return {
        "sample_ratio": float(ratio),
        "mixture": float(np.log(both)),
        "one_sided": float(np.log(2 * above)),
        "tails": scipy.stats.norm.logsf(case["z"]).tolist(),
        "quantiles": scipy.stats.norm.isf(case["probabilities"]).tolist(),
        "row_variance": float(
            sum(np.var(each, ddof=1) / len(each) for each in (case["rows"][::2], case["rows"][1::2]))
        ),
        "welch": float(scipy.stats.ttest_ind(case["rows"][::2], case["rows"][1::2], equal_var=False).statistic),
    }


ANSWERS = {"gbstats": gbstats, "tea_tasting": tea_tasting, "holm": holm, "scipy": scipys}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    json.dump({name: [ANSWERS[name](case) for case in cases] for name, cases in asked.items()}, sys.stdout)
