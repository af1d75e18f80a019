"""Vectors of texts: what they are the mean of, which texts they bring together, how they are asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CASES, assert_same_numbers, make_config, make_setup, run_script

from research import loop, runs
from research.data.batches import read
from research.errors import UserError
from research.evaluation import evaluate
from research.inference import similarity
from research.randomness import run_key
from research.tasks.embed_text import embedded, parts

CASE = {**CASES["encoder"], "model__name": "encoder", "model__head": "none", "task__name": "embed_text"}
CASE |= {"eval__metric": "loss"}


@pytest.fixture(scope="module")
def setup():
    return make_setup(**CASE)


@pytest.fixture(scope="module")
def variables(setup):
    params = jax.jit(setup.init)(run_key(0)).params
    drawn = np.random.default_rng(0)
    return {"params": jax.tree.map(lambda x: x + 0.1 * jnp.asarray(drawn.normal(size=x.shape), x.dtype), params)}


def test_parts_of_pairs_are_texts_of_their_own(setup):
    batch, ids = read(setup.splits["train"], np.arange(12)), setup.dataset.tokenizer
    for prefix in ("", "other_"):
        tokens, types = batch[f"{prefix}tokens"], batch[f"{prefix}types"]
        first, second = map(np.asarray, parts(jnp.asarray(tokens), jnp.asarray(types), ids))
        for row, type, one, other in zip(tokens, types, first, second):
            whole = row[row != ids.pad]
            size = int((type[: len(whole)] == 0).sum())
            assert one[one != ids.pad].tolist() == whole[:size].tolist() and one[size - 1] == ids.end
            assert other[other != ids.pad].tolist() == [ids.begin, *whole[size:]] and other[0] == ids.begin
            assert (one[size:] == ids.pad).all() and (other[len(whole) - size + 1 :] == ids.pad).all()


def test_a_vector_is_the_mean_over_tokens_and_padding_changes_nothing(setup, variables):
    tokens, ids = read(setup.splits["train"], np.arange(4))["tokens"], setup.dataset.tokenizer
    tokens[1, 9:] = ids.pad
    embed = jax.jit(lambda tokens: embedded(setup.model, variables, tokens, ids.pad)[0])
    vectors = embed(tokens)
    for row, vector in zip(tokens, vectors):
        whole = row[row != ids.pad][None]
        states = jax.jit(lambda tokens: setup.model.apply(variables, tokens))(whole)[0]
        mean = np.asarray(states, np.float64).mean(axis=0)
        assert_same_numbers(vector, (mean / np.linalg.norm(mean)).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert not np.asarray(embed(np.full((1, 8), ids.pad, np.int32))).any()  # of no token


def test_the_loss_is_of_which_text_is_the_nearer(setup, variables):
    batch = {**read(setup.splits["train"], np.arange(6)), "mask": np.array([1, 1, 0, 1, 1, 1], np.float32)}
    ids = setup.dataset.tokenizer
    text = lambda prefix, part: parts(batch[f"{prefix}tokens"], batch[f"{prefix}types"], ids)[part]
    embed = lambda *which: np.asarray(embedded(setup.model, variables, text(*which), ids.pad)[0], np.float64)
    first, right, wrong = embed("", 0), embed("", 1), embed("other_", 1)
    near, far = (first * right).sum(axis=1), (first * wrong).sum(axis=1)
    losses = np.log1p(np.exp((far - near) / 0.05))
    terms, metrics, _ = jax.jit(lambda batch: setup.task.loss(setup.model, variables, batch, None, False))(batch)
    seen = batch["mask"] > 0
    assert terms["loss"] == pytest.approx((losses[seen].sum(), 5), rel=1e-4)
    assert metrics["accuracy"] == ((near > far)[seen].sum(), 5)


def test_texts_that_are_all_the_same_are_never_told_apart(setup, variables):
    nothing = {"params": jax.tree.map(jnp.zeros_like, variables["params"])}
    found = evaluate(setup, nothing, "validation")
    assert found["accuracy"] == 0 and found["loss"] == pytest.approx(np.log(2), rel=1e-5)


def test_evaluation_is_the_same_whatever_the_batch(setup, variables):
    wanted = evaluate(setup, variables, "validation")
    again = evaluate(make_setup(**CASE, data__eval_batch_size=5), variables, "validation")
    assert again == pytest.approx(wanted, rel=1e-5) and 0 < wanted["accuracy"] <= 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed") / "run"
    own = {"optimizer__name": "adam", "optimizer__learning_rate": 3e-3, "train__steps": 40, "eval__every_steps": 20}
    loop.train(make_config(**CASE, **own), folder, devices=jax.devices()[:1])
    return folder


LINES = ["the game of war was played", "a small town", "it had 3 men", "they won in a small town", "the game of war"]


def test_sentences_are_asked_for_their_neighbours(run, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("\n\n".join(LINES))  # an empty line is none
    flags = [f"--workdir={run}", f"--sentences={tmp_path / 'lines.txt'}"]
    assert run_script("nearest", *flags, "the game was played", "a small town", "a war", "--top=4") == 0
    blocks = capsys.readouterr().out.split("\n")
    loaded = runs.load(run)
    vectors = similarity.sentence_vectors(loaded, [*LINES, "the game was played"], [""] * 6)
    assert vectors.shape == (6, 32)
    order = np.argsort(-(vectors[:5] @ vectors[5]), kind="stable")[:4]
    assert [line.strip().rsplit("  ", 1)[0].strip() for line in blocks[1:5]] == [LINES[i] for i in order]
    told = [line.strip().rsplit("  ", 1)[0].strip() for line in blocks]
    assert told.count("a small town") in (2, 3) and told.count("a war") == told.count("the game was played") == 1
    assert run_script("nearest", *flags, "--picture", tmp_path / "sentences.png") == 0
    assert (tmp_path / "sentences.png").stat().st_size > 1000


def test_an_encoder_of_another_task_makes_vectors_too_and_other_runs_none(run, tmp_path, capsys):
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(LINES))
    loop.train(make_config(**CASES["encoder"], model__name="encoder"), tmp_path / "other", devices=jax.devices()[:1])
    assert run_script("nearest", f"--workdir={tmp_path / 'other'}", f"--sentences={lines}", "a war", "--top=1") == 0
    loop.train(make_config(model__name="mlp", model__widths=(8,)), tmp_path / "digits", devices=jax.devices()[:1])
    capsys.readouterr()
    (tmp_path / "long.txt").write_text(f"a war\n\n{'the game ' * 20}\n")
    flags = [f"--workdir={run}", f"--sentences={lines}"]
    for given, code, message in [
        (
            [f"--workdir={tmp_path / 'digits'}", f"--sentences={lines}", "a"],
            2,
            "its model mlp makes no vectors of ",
        ),
        ([*flags, "the game " * 20], 2, "the sentence asked about: 41 tokens and an end; the run reads at most 24"),
        ([*flags, " "], 2, "the sentence asked about: ' ' is empty"),
        ([f"--workdir={run}", f"--sentences={tmp_path / 'long.txt'}", "a war"], 2, "long.txt, line 3: 41 tokens"),
        ([f"--workdir={run}", f"--sentences={tmp_path / 'none.txt'}", "a war"], 3, "none.txt: cannot be read"),
        ([*flags, "a", "--analogy=a - b + c"], 2, "--analogy: of words alone; leave --sentences out"),
        ([f"--workdir={run}", "a"], 2, "its task embed_text makes no word vectors"),
    ]:
        assert run_script("nearest", *given) == code
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"model__head": "pooled"}, "config.model.head: pooled; config.task.name embed_text wants none"),
        ({"task__temperature": 0.0}, "config.task.temperature: 0.0: more than 0"),
        (
            {"data__name": "wikitext2", "data__tokenizer": "bert"},
            "config.task.name: embed_text wants pairs of sen",
        ),
    ],
)
def test_what_makes_no_run_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as error:
        make_setup(**{**CASE, **changes})
    assert error.value.code == 2
