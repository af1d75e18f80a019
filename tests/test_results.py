"""What tables say of measured results: ratios that other work on the machine cannot bend unseen, and sides."""

import pytest
from scipy import stats

from research.metrics import shown
from research.studies import claims
from research.studies.results import TABLES, disturbed, pretraining, ratios, similarity


def row(ours, torch):
    sides = {"ours": {"per_second": ours}, "torch": {"per_second": torch}}
    return {"date": "2026-11-24", "versions": {}, "sides": sides}


def test_a_disturbed_peer_is_seen_and_the_best_rounds_tell_the_truth():
    """The rounds of a run in which other work slowed PyTorch's spinning threads: by the medians it would be 2.8."""
    found = row([6700, 6734, 6800], [6335, 6273, 2383, 900, 1511])
    best, median = ratios(found, "torch")
    assert best == pytest.approx(6800 / 6335) and median == pytest.approx(6734 / 2383)
    assert disturbed(found, "torch") and not disturbed(found, "ours")
    quiet = row([6700, 6734, 6800], [6335, 6273, 6300])
    assert not disturbed(quiet, "torch")
    _, rows_of = TABLES["speed_recurrent.json"]
    head, shown, other = rows_of({"gru": {"2 cores": found}, "greedy": {"2 cores": quiet}})
    assert head[2] == "over PyTorch eager"
    assert shown[2] == "1.07, medians 2.83 (1.06 to 7.56), disturbed" and shown[3] == "2 cores, 2026-11-24"
    assert other[2] == "1.07, medians 1.07 (1.06 to 1.08)"


def test_a_side_that_was_not_measured_is_no_number():
    found, alone = row([2.0], [1.0]), row([2.0], [1.0])
    del alone["sides"]["torch"]
    _, rows_of = TABLES["speed_images.json"]
    _, _, second = rows_of({"mnist_64": {"2 cores": found}, "mnist_256": {"2 cores": alone}})
    assert second[2] == "-"


def test_work_has_a_row_on_each_machine():
    _, rows_of = TABLES["speed_images.json"]
    _, *rows = rows_of({"mnist_64": {"2 cores": row([2.0], [1.0]), "4 cores": row([9.0], [3.0])}})
    assert [(shown[2].split(",")[0], shown[3]) for shown in rows] == [
        ("2.00", "2 cores, 2026-11-24"), ("3.00", "4 cores, 2026-11-24")
    ]  # fmt: skip


def test_a_rate_is_shown_in_per_cent_whatever_it_is_a_rate_of():
    assert shown("accuracy") == ("accuracy", "%", 100.0) and shown("next_accuracy") == ("next accuracy", "%", 100.0)
    assert shown("masked_loss") == ("masked loss", "nats", 1.0) and shown("perplexity") == ("perplexity", "", 1.0)


def test_spread_is_over_seeds_and_one_seed_has_none():
    scores = lambda a, b: {"wordsim353": a, "simlex999": b, "seconds": 61.0}
    found = {"sides": {"ours, skipgram": [scores(0.5, 0.2), scores(0.6, 0.2)], "gensim, skipgram": [scores(0.4, 0.1)]}}
    _, ours, theirs = similarity(found)
    assert ours == ("ours, skipgram", "2†", "1:01", "0.55 ± 0.07", "0.2000 ± 0")
    assert theirs == ("gensim, skipgram", "1†", "1:01", "0.4000", "0.1000")


def test_a_linear_model_stands_beside_our_runs_on_the_same_messages():
    run = lambda accuracy, seconds: {"metrics": {"test/accuracy": accuracy}, "seconds": seconds}
    bare, runs = "no headers, footers, quotes", [run(0.5, 60), run(0.6, 62)]
    claim = claims.Claim("configs/newsgroups_gpt.py", None, "cpu", "accuracy", variant="pretrained+bare")
    kept = [claims.Judged(claim, runs, None, "", "")]
    kept.append(claims.Judged(claim._replace(file="configs/mnist_cnn.py"), [run(0.9, 1)], None, "", ""))
    _, rows_of = TABLES["newsgroups.json"]
    assert list(rows_of({"sides": {f"linear, {bare}": [run(0.7, 5)]}}, kept))[1:] == [
        ("linear", bare, "70.00", "1†", "0:05"),
        ("newsgroups_gpt:cpu from wikitext_gpt's parameters", bare, "55 ± 7", "2†", "1:01"),
    ]


def test_what_pretraining_brings_is_told_of_pairs_with_several_seeds():
    def kept(file, variant, *values):
        claim = claims.Claim(f"configs/{file}.py", None, "cpu", "accuracy", variant=variant)
        return claims.Judged(claim, [{"metrics": {"test/accuracy": value}} for value in values], None, "", "")

    both = [kept("ner", "random+bare", 0.5, 0.52, 0.48), kept("ner", "pretrained+bare", 0.6, 0.63, 0.63)]
    same = [kept("qa", "random", 0.2, 0.3), kept("qa", "pretrained", 0.2, 0.3)]
    unpaired = [kept("ner", "random", 0.5, 0.6), kept("gpt", "pretrained", 0.5, 0.6), kept("mlp", "", 0.5, 0.6)]
    one = [kept("sst", "random", 0.5), kept("sst", "pretrained", 0.6, 0.7)]
    _, *rows = pretraining(both + unpaired + same + one)
    p = stats.ttest_ind([0.5, 0.52, 0.48], [0.6, 0.63, 0.63], equal_var=False).pvalue
    assert rows == [
        ("ner+bare:cpu", "test accuracy, %", "50.0 ± 2.0 (3)", "62.0 ± 1.7 (3)", "12 ± 4", f"{2 * p:.3f}"),
        ("qa:cpu", "test accuracy, %", "25 ± 7 (2†)", "25 ± 7 (2†)", "0 ± 30", "1.000"),
    ]
