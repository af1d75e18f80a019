"""Masked tokens and next sentences: what is masked, by which draws, and what is scored of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CASES, assert_same_numbers, make_config, make_setup, run_script
from scipy.stats import binomtest, chisquare

from research import loop, runs
from research.data.batches import read
from research.errors import UserError
from research.evaluation import evaluate
from research.randomness import fold, run_key
from research.tasks.losses import cross_entropy
from research.tasks.masked_lm import mask_tokens
from research.train_step import eval_keys, example_keys

V, MASK, SPECIAL, GOES_ON = 40, 4, np.arange(5), np.arange(30, 40)  # the last ten go on with a word
ORDINARY = ~np.isin(np.arange(V), SPECIAL)
TABLES = MASK, np.flatnonzero(ORDINARY), ORDINARY, np.zeros(V, bool)
WORDS = (*TABLES[:3], np.isin(np.arange(V), GOES_ON))


def rows(n, T=60):
    """Begin, words, an end, words, an end, and padding: of many lengths."""
    rng = np.random.default_rng(0)
    found = np.zeros((n, T), np.int32)
    for row in found:
        size = int(rng.integers(4, T + 1))
        row[:size] = rng.integers(5, V, size)
        row[0], row[size // 2], row[size - 1] = 2, 3, 3
    return found


def masked(tokens, rate=0.15, tables=TABLES, seed=0):
    keys = example_keys(run_key(seed), 0, len(tokens))
    draw = jax.jit(jax.vmap(lambda key, row: mask_tokens(key, row, rate, *tables)))
    return [np.asarray(x) for x in draw(keys, tokens)]


def test_the_tokens_that_are_told_are_a_share_of_the_ordinary_ones_and_never_special():
    tokens = rows(400)
    read, places, targets, told = masked(tokens)
    assert places.shape == (400, 9)
    counts = ORDINARY[tokens].sum(axis=1)
    wanted = np.clip(0.15 * counts, 1, 9)
    assert (np.abs(told.sum(axis=1) - wanted)[counts > 0] <= 0.5 + 1e-6).all() and not told[counts == 0].any()
    for row, after, at, what, which in zip(tokens, read, places, targets, told > 0):
        assert len(set(at)) == 9 and np.array_equal(what, row[at])
        assert ORDINARY[what[which]].all() and ORDINARY[after[at[which]]][after[at[which]] != MASK].all()
        untouched = np.delete(np.arange(60), at[which])
        assert np.array_equal(after[untouched], row[untouched])


def test_a_row_without_ordinary_tokens_has_nothing_to_tell():
    read, _, _, told = masked(np.array([[2, 3, 3, 0, 0, 0, 0, 0]], np.int32))
    assert read.tolist() == [[2, 3, 3, 0, 0, 0, 0, 0]] and not told.any()


def test_of_them_eight_tenths_are_masked_one_is_another_and_one_stays():
    tokens = rows(4000)
    read, places, targets, told = masked(tokens)
    after = np.take_along_axis(read, places, axis=1)[told > 0]
    before = targets[told > 0]
    # A token that is drawn by chance is the same one of 35 times.
    shares = np.array([0.8, 0.1 * 34 / 35, 0.1 + 0.1 / 35])
    counts = [(after == MASK).sum(), ((after != MASK) & (after != before)).sum(), (after == before).sum()]
    assert chisquare(counts, shares * len(before)).pvalue > 0.01
    others = after[(after != MASK) & (after != before)]
    assert chisquare(np.bincount(others, minlength=V)[ORDINARY]).pvalue > 0.01


def test_each_place_is_as_likely_as_another():
    tokens = np.tile(np.array([2, *range(5, 25), 3, *range(5, 25), 3], np.int32), (4000, 1))
    _, places, _, told = masked(tokens)
    counts = np.bincount(places[told > 0], minlength=43)
    assert counts[[0, 21, 42]].sum() == 0
    assert chisquare(np.delete(counts, [0, 21, 42])).pvalue > 0.01


def test_whole_words_are_told_or_not_at_all():
    tokens = rows(400)
    _, places, _, told = masked(tokens, tables=WORDS)
    shares = []
    for row, at, which in zip(tokens, places, told > 0):
        word = np.cumsum(~np.isin(row, GOES_ON))
        chosen = set(at[which].tolist())
        for number in set(word[list(chosen)].tolist()):
            assert set(np.flatnonzero((word == number) & ORDINARY[row]).tolist()) <= chosen
        count = ORDINARY[row].sum()
        assert len(chosen) <= np.clip(np.round(0.15 * count), 1, 9)
        shares.append(len(chosen) / count if count > 20 else np.nan)
    assert 0.12 < np.nanmean(shares) <= 0.15


def test_draws_follow_from_the_key_alone():
    tokens = rows(8)
    for x, y in zip(masked(tokens), masked(tokens[:3])):
        assert np.array_equal(x[:3], y)
    for x, y in zip(masked(tokens)[:3], masked(tokens, seed=1)):
        assert not np.array_equal(x, y)


@pytest.fixture(scope="module")
def setup():
    return make_setup(model__name="encoder")


def variables_of(setup):
    params = jax.jit(setup.init)(run_key(0)).params
    return {"params": jax.tree.map(lambda x: x + 0.1 * jax.random.normal(run_key(1), x.shape), params)}


def batch_of(setup, n=8):
    return {**read(setup.splits["train"], np.arange(n)), "mask": np.ones(n, np.float32)}


def by_hand(setup, variables, batch, keys, head):
    """The sums of masked_lm with every token scored: losses are picked out of them afterwards."""
    ids = setup.dataset.tokenizer
    other = (
        np.array([jax.random.bernoulli(k) for k in next_keys(keys)])
        if head == "pretraining"
        else np.zeros(len(keys), bool)
    )
    tokens = np.where(other[:, None], batch["other_tokens"], batch["tokens"])
    types = np.where(other[:, None], batch["other_types"], batch["types"])
    ordinary = ~np.isin(np.arange(ids.size), list(ids.special.values()))
    tables = ids.mask, np.flatnonzero(ordinary), ordinary, np.zeros(ids.size, bool)
    draw = jax.jit(jax.vmap(lambda key, row: mask_tokens(key, row, 0.15, *tables)))
    seen, places, _, told = draw(keys, tokens)
    found = jax.jit(setup.model.clone(head=head).apply)(variables, seen, tokens != ids.pad, types)
    logits = found["masked"] if head == "pretraining" else found
    each = np.take_along_axis(np.asarray(cross_entropy(logits, tokens)), np.asarray(places), axis=1)
    sums = {"masked_loss": ((each * told).sum(), told.sum())}
    if head == "pretraining":
        sums["next_loss"] = cross_entropy(found["next"], other.astype(np.int32)).sum(), len(keys)
    return sums, other


def next_keys(keys):
    return [fold(key, "next") for key in keys]


@pytest.mark.parametrize("head", ["pretraining", "masked"])
def test_places_that_are_scored_equal_scoring_all_and_choosing_them(setup, head):
    batch, variables = batch_of(setup, 24), variables_of(setup)
    batch["other_types"] = 1 - batch["other_types"]  # so that it is seen whose parts are read
    keys = example_keys(run_key(3), 0, 24)
    expected, other = by_hand(setup, variables, batch, keys, head)
    loss = jax.jit(
        lambda keys: setup.task.loss(setup.model.clone(head=head), variables, batch, {"augment": keys}, False)
    )
    terms, metrics, _ = loss(keys)
    assert_same_numbers(terms, {name: tuple(map(np.float32, pair)) for name, pair in expected.items()})
    assert ("next_accuracy" in metrics) == (head == "pretraining") == other.any()


def test_half_of_the_second_parts_are_out_of_other_documents_and_labelled_so(setup):
    """A head that always says that they follow is right where the true one was read."""
    batch, variables = batch_of(setup), variables_of(setup)
    params = {**variables["params"], "next_kernel": jnp.zeros((32, 2)), "next_bias": jnp.array([1.0, 0.0])}
    loss = jax.jit(lambda keys: setup.task.loss(setup.model, {"params": params}, batch, {"augment": keys}, False)[1])
    keys = [example_keys(run_key(seed), 0, 8) for seed in range(200)]
    right = [float(loss(one)["next_accuracy"][0]) for one in keys]
    assert right == [sum(not jax.random.bernoulli(key) for key in next_keys(one)) for one in keys]
    assert binomtest(int(sum(right)), 1600).pvalue > 0.01


def test_evaluation_masks_the_same_each_time_whatever_the_batch(setup):
    variables = variables_of(setup)
    small = setup._replace(config=setup.config.copy_and_resolve_references())
    with small.config.unlocked():
        small.config.data.eval_batch_size = 2
    found, again = evaluate(setup, variables, "validation"), evaluate(small, variables, "validation")
    assert found.keys() == again.keys() >= {"masked_loss", "next_loss", "masked_accuracy", "next_accuracy"}
    for name in found:
        assert found[name] == pytest.approx(again[name], rel=1e-5)
    of = jax.jit(lambda rows: setup.task.evaluate(setup.model, variables, batch_of(setup), eval_keys(rows))[0])
    one, other = of(np.arange(8, dtype=np.int32)), of(np.arange(8, 16, dtype=np.int32))
    assert float(one["masked_loss"][0]) != float(other["masked_loss"][0])


def test_the_weights_of_the_terms_are_the_tasks(setup):
    weighted = make_setup(model__name="encoder", task__weights=("next_loss=0.25",))
    assert dict(weighted.task.weights) == {"next_loss": 0.25} and dict(setup.task.weights) == {}


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"task__weights": ("next_loss=much",)}, "config.task.weights: 'next_loss=much'; a term=weight of at least 0"),
        ({"task__weights": ("next_loss=-1",)}, "config.task.weights: 'next_loss=-1'"),
        ({"task__weights": ("last_loss=1",)}, "config.task.weights: there is no term last_loss; the terms are masked_"),
        ({"task__rate": 1.0}, "config.task.rate: 1.0"),
        ({"task__rate": 0.0}, "config.task.rate: 0.0"),
        ({"model__head": "span"}, "config.model.head: span; config.task.name masked_lm wants "),
        ({"data__max_len": 25}, "config.model.context: 24 positions; 25 tokens are read"),
        ({"data__tokenizer": "words"}, "config.data.tokenizer: it has no token for a mask: neither"),
        ({"data__name": "tiny_shakespeare", "data__max_len": 12, "model__context": 12, "model__heads": 2,
          "model__width": 8, "model__layers": 1, "task__name": "masked_lm", "data__splits__test": None},
         "masked_lm wants pairs of sentences; tiny_shakespeare has tokens, targets; config.data.name=sentences makes"),
    ],
)  # fmt: skip
def test_what_makes_no_run_is_refused(overrides, message):
    with pytest.raises(UserError, match=message) as error:
        make_setup(**{"model__name": "encoder", **overrides})
    assert error.value.code == 2


CASE = {**CASES["encoder"], "model__name": "encoder"}


def test_a_run_tells_the_word_for_a_mask(tmp_path, capsys):
    loop.train(make_config(**CASE, train__steps=2, eval__every_steps=2), tmp_path / "run", devices=jax.devices()[:1])
    capsys.readouterr()
    assert run_script("predict", f"--workdir={tmp_path}/run", "--text=the game of [MASK] was played", "--top=2") == 0
    said = capsys.readouterr().out
    run = runs.load(tmp_path / "run")
    row, _ = run.tokenizer.join(run.tokenizer.encode(["the game of [MASK] was played"])[0])
    logits = run.model.apply(run.variables, np.array([row]))["masked"][0, row.index(run.tokenizer.mask)]
    best = run.tokenizer.vocabulary[int(np.argmax(logits))]
    assert f"  {best} {float(jax.nn.softmax(logits).max()):.4f}" in said
    for text, part in (("the game of war", "has no [MASK], for which"), ("", "has no [MASK]")):
        assert run_script("predict", f"--workdir={tmp_path}/run", f"--text={text}") == 2
        assert part in capsys.readouterr().err
    assert run_script("predict", f"--workdir={tmp_path}/run", "--split=test") == 2
    assert "has no labels; give --text" in capsys.readouterr().err
