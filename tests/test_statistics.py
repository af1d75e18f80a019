"""Statistics of runs: against scipy, published values and cases computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from research.studies import statistics
from research.studies.statistics import (
    bootstrap_interval,
    compare,
    holm,
    interquartile_mean,
    one_sided,
    seeds_for,
    summary,
)  # fmt: skip

numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=2, max_size=12)
# "Student" 1908, Biometrika 6, table 1: hours of sleep gained by ten people on two drugs.
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
TESTS = ("t", "permutation", "rank")


@settings(max_examples=20, deadline=None)
@given(samples)
def test_a_summary_is_scipys(values):
    found = summary(values)
    assert found.n == len(values) and found.median == np.median(values)
    assert found.mean == pytest.approx(np.mean(values)) and found.std == pytest.approx(np.std(values, ddof=1))
    assert found.standard_error == pytest.approx(stats.sem(values))
    if found.std > 1e-6:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert found.interval == pytest.approx(expected)
    low, high = found.bootstrap
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9  # but for rounding
    assert found == summary(values)  # the bootstrap is seeded


def test_one_value_has_no_spread_and_equal_ones_have_none():
    one = summary([0.5])
    assert (one.n, one.mean, one.median, one.interquartile_mean) == (1, 0.5, 0.5, 0.5)
    assert (one.std, one.standard_error, one.interval, one.bootstrap) == (None,) * 4
    same = summary([0.99] * 3)
    assert (same.mean, same.std) == (0.99, 0.0) and same.interval == same.bootstrap == (0.99, 0.99)


def test_interquartile_means_are_rliables():
    """The values of its own tests, and by hand: the mean of the middle four of eight; of five one goes a side."""
    assert interquartile_mean(np.ravel([[1, 2], [2, 2], [1, 1], [2, 1]])) == 1.5
    assert interquartile_mean(np.ravel([[1, 1], [2, 2], [3, 3]])) == 2
    assert interquartile_mean([100, 1, 0, 3, 4, 5, 6, 20]) == 4.5
    assert interquartile_mean([100, 1, 2, 3, -50]) == 2


def test_the_bootstrap_of_many_values_is_near_the_t_interval_and_leans_to_the_long_side():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    assert bootstrap_interval(values) == pytest.approx(summary(values).interval, abs=0.02)
    skewed = rng.exponential(size=20)
    low, high = bootstrap_interval(skewed)
    assert high - skewed.mean() > skewed.mean() - low


def test_students_sleep_data_give_the_published_values():
    """R's documentation of t.test has both results on these data."""
    apart = compare(*SLEEP)
    assert apart.p == pytest.approx(0.07939, abs=5e-6) and apart.difference == pytest.approx(-1.58)
    assert apart.interval == pytest.approx((-3.3654832, 0.2054832), abs=5e-7)
    pairs = compare(*SLEEP, paired=True)
    assert pairs.p == pytest.approx(0.002833, abs=5e-7)
    assert pairs.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-7)


@settings(max_examples=20, deadline=None)
@given(samples, samples)
def test_welchs_test_is_scipys(a, b):
    if min(np.std(a), np.std(b)) < 1e-6:  # scipy warns of constant values
        return
    found, expected = compare(a, b), stats.ttest_ind(np.array(a), np.array(b), equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()), rel=1e-6, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12))
def test_paired_tests_are_scipys(pairs):
    a, b = map(np.array, zip(*pairs))
    if np.std(a - b) > 1e-6:
        assert compare(a, b, paired=True).p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=1e-9)
    if np.any(a != b):
        assert compare(a, b, "rank", paired=True).p == stats.wilcoxon(a, b).pvalue
    assert compare(a, b, "rank").p == stats.mannwhitneyu(a, b).pvalue


@pytest.mark.parametrize("test", ("permutation", "rank"))
def test_the_p_of_few_values_is_counted_by_hand(test):
    """Of 20 ways to deal six values out, two are as extreme as low against high; of 2^5 signs, two."""
    assert compare([1, 2, 3], [4, 5, 6], test).p == pytest.approx(2 / 20)
    assert compare([1, 2, 3, 4, 5], [2, 4, 6, 8, 10], test, paired=True).p == pytest.approx(2 / 32)


def test_effect_sizes_by_hand():
    """A pooled deviation of 1, two apart, four degrees of freedom: g = -2 (1 - 3 / 15). Of pairs, 2 / 1 (1 - 3 / 7)."""
    assert compare([1, 2, 3], [3, 4, 5]).effect == pytest.approx(-1.6)
    assert compare([1, 2, 3], [0, 0, 0], paired=True).effect == pytest.approx(2 * (1 - 3 / 7))
    assert compare([1, 1], [1, 1]).effect is None


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("paired", [False, True])
def test_equal_sets_do_not_differ_and_the_order_of_sides_is_only_a_sign(test, paired):
    assert compare([0.99] * 3, [0.99] * 3, test, paired).p == 1
    a, b = [1.0, 2.0, 4.0, 3.5], [2.0, 4.0, 4.5, 6.0]
    one, other = compare(a, b, test, paired), compare(b, a, test, paired)
    assert one.p == pytest.approx(other.p) and 0 < one.p < 1
    assert one.difference == -other.difference and one.effect == -other.effect
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


def test_constant_sets_that_differ_do():
    assert compare([1.0] * 3, [0.5] * 3).p == 0


def test_holm_by_hand_and_as_a_property():
    """0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 is no less than the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.6]) == [1.0, 1.0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(values):
    adjusted = holm(values)
    for p, q in zip(values, adjusted):
        assert p <= q <= min(1, p * len(values))
    order = np.argsort(values)
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_the_fewest_seeds_for_an_interval(std, wanted):
    n = seeds_for(std, wanted)
    assert statistics.half_width(std, n) <= wanted
    assert n == 2 or statistics.half_width(std, n - 1) > wanted


@settings(max_examples=20, deadline=None)
@given(samples, numbers, st.floats(0.1, 10))
def test_one_sided_tests_of_a_published_value_are_scipys(values, other, margin):
    if np.std(values) < 1e-6:
        return
    less, greater = (stats.ttest_1samp(values, other, alternative=side).pvalue for side in ("less", "greater"))
    assert one_sided(values, other, "at_least") == pytest.approx(greater)
    assert one_sided(values, other, "at_most") == pytest.approx(less)
    above = stats.ttest_1samp(values, other - margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, other + margin, alternative="less").pvalue
    assert one_sided(values, other, "within", margin) == pytest.approx(max(above, below))
    mean, std = np.mean(values), np.std(values, ddof=1)
    theirs = stats.ttest_ind_from_stats(
        mean, std, len(values), other, margin, 5, equal_var=False, alternative="greater"
    )
    assert one_sided(values, other, "at_least", spread=(margin, 5)) == pytest.approx(theirs.pvalue)


def test_equal_values_are_beyond_another_or_not():
    for kind, other, p in (("at_least", 0.8, 0), ("at_least", 0.9, 1), ("at_most", 0.95, 0), ("at_most", 0.9, 1)):
        assert one_sided([0.9] * 3, other, kind) == p
    assert [one_sided([0.9] * 3, 1.0, "within", margin) for margin in (0.2, 0.05)] == [0, 1]
