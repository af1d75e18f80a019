"""Scoring a text in pieces: the numbers of the whole, and the memory of a piece."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_numbers, make_setup
from flax import linen as nn

from research.data import open_dataset
from research.data.batches import open_split, read, train_batches
from research.data.tokenize import BEGIN, PAD
from research.errors import UserError
from research.models.decoder import Decoder
from research.randomness import run_key
from research.tasks import losses
from research.tasks.losses import token_sums
from research.tasks.next_token import next_token

RNG = np.random.default_rng(0)
B, T, D, V = 3, 12, 5, 17


@pytest.fixture
def pieces(monkeypatch):
    """pieces(n): from now on what is scored is cut into at least n pieces."""
    return lambda n, size=B * T * V: monkeypatch.setitem(losses.LOGITS, "cpu", -(-size // n))


def whole(x, kernel, bias, targets, mask):
    """By the formula."""
    log_probs = jax.nn.log_softmax(x @ kernel + (0 if bias is None else bias.reshape(1, 1, -1)))
    picked = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    right = (log_probs.argmax(axis=-1) == targets) * mask
    return -(picked * mask).sum(), right.sum()


@pytest.mark.parametrize("n", [1, 2, 5, 12, 100])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_sums_in_pieces_and_their_gradients_are_those_of_the_whole(pieces, n, with_bias):
    pieces(n)
    with jax.enable_x64(True):
        draw = lambda *shape: jnp.asarray(RNG.normal(size=shape))
        x, kernel, bias = draw(B, T, D), draw(D, V), draw(V) if with_bias else None
        targets = jnp.asarray(RNG.integers(0, V, (B, T)))
        mask = jnp.asarray(RNG.integers(0, 2, (B, T)) * 0.5)
        ours = lambda *head: token_sums(*head, targets, mask, "float32")
        theirs = lambda *head: whole(*head, targets, mask)
        score = lambda f: jax.value_and_grad(lambda *head: 3 * f(*head)[0], (0, 1, 2) if with_bias else (0, 1))
        assert_same_numbers(score(ours)(x, kernel, bias), score(theirs)(x, kernel, bias), 1e-12)
        assert_same_numbers(ours(x, kernel, bias), theirs(x, kernel, bias), 1e-12)  # not differentiated: another path


def test_what_the_mask_hides_may_be_anything():
    logits, targets = jnp.asarray(RNG.normal(size=(B, T, V)), jnp.float32), jnp.full((B, T), 3)
    mask = jnp.ones((B, T)).at[1].set(0)
    score = jax.value_and_grad(lambda x, targets: token_sums(x, None, None, targets, mask, "float32")[0])
    assert_same_bits(score(logits.at[1].set(jnp.nan), targets.at[1].set(V + 5)), score(logits, targets))
    assert not np.any(score(logits, targets)[1][1])


def temporary_bytes(limit, monkeypatch):
    monkeypatch.setitem(losses.LOGITS, "cpu", limit)
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((8, 64, 8), (8, 20_000), (8, 64))]
    targets = jax.ShapeDtypeStruct((8, 64), "int32")
    loss = lambda x, kernel, mask, targets: token_sums(x, kernel, None, targets, mask, "float32")[0]
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes, targets).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_the_logits_of_all_tokens_are_never_there_at_once(monkeypatch):
    all_logits = 8 * 64 * 20_000 * 4
    assert temporary_bytes(10**9, monkeypatch) > all_logits
    assert temporary_bytes(8 * 4 * 20_000, monkeypatch) < all_logits / 4


@pytest.mark.parametrize("name", ["recurrent_lm", "decoder"])
def test_a_language_model_trains_and_is_evaluated_in_pieces_as_whole(name, pieces):
    setup = make_setup(model__name=name)
    batch = next(train_batches(setup.splits["train"], 0, 16, 0, 1))
    state = jax.jit(setup.init)(run_key(0))
    keys = {"dropout": run_key(1)}

    def found():
        def loss(params):
            terms, metrics, _ = setup.task.loss(setup.model, {"params": params}, batch, keys, True)
            return terms["loss"][0], metrics

        def all(params):
            variables = {"params": params}
            evaluated, _ = setup.task.evaluate(setup.model, variables, batch, {})
            predicted = setup.task.predict(setup.model, variables, batch)
            return jax.value_and_grad(loss, has_aux=True)(params), evaluated, predicted

        return jax.jit(all)(state.params)

    expected = found()
    pieces(6, 16 * 12 * setup.dataset.vocabulary)
    assert_same_numbers(found(), expected)


class Plain(nn.Module):
    """A user's own: it gives logits and nothing else."""

    vocabulary: int

    @nn.compact
    def __call__(self, tokens, mask, *, train=False):
        return nn.Dense(self.vocabulary)(nn.Embed(self.vocabulary, 4)(tokens))


def test_a_model_that_gives_logits_alone_is_scored_by_them():
    setup = make_setup(model__name="decoder")
    batch = next(train_batches(setup.splits["train"], 0, 16, 0, 1))
    model = Plain(setup.dataset.vocabulary)
    variables = model.init(run_key(0), batch["tokens"], batch["mask"])
    logits = model.apply(variables, batch["tokens"], batch["mask"])
    sums, _ = setup.task.evaluate(model, variables, batch, {})
    ones = np.ones_like(batch["targets"])
    loss, right = whole(logits, np.eye(setup.dataset.vocabulary, dtype=np.float32), None, batch["targets"], ones)
    assert_same_numbers(sums["loss"], (loss, np.float32(ones.sum())))
    assert_same_numbers(sums["accuracy"], (right, np.float32(ones.sum())))
    with pytest.raises(UserError, match=r"gives outputs of shape .* next_token wants"):
        setup.task.evaluate(Plain(3), Plain(3).init(run_key(0), batch["tokens"], batch["mask"]), batch, {})


DOCUMENTS = ["one two three\n", "four\n", "", "five six seven eight nine ten\n" * 3, "eleven\n"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Windows of 24 tokens of a few documents, packed, and each document's ids with its end."""
    folder = tmp_path_factory.mktemp("documents")
    for i, text in enumerate(DOCUMENTS):
        (folder / f"{i}.txt").write_text(text)
    own = {"folder": str(folder), "tokenizer": "characters", "max_len": 24, "packed": True}
    dataset = open_dataset("text", own)
    split = open_split(dataset, "train", "train", 10**9, 0)
    ids = [[*row, dataset.tokenizer.end] for row in dataset.tokenizer.encode(DOCUMENTS)]
    ids[-1].pop()  # of the last one none is scored
    return dataset, read(split, np.arange(len(split))), ids


def test_packed_documents_begin_anew_and_each_token_is_scored_once(packed):
    _, rows, documents = packed
    number, place = 0, 0
    for tokens, targets, segments, positions in zip(*(rows[f] for f in ("tokens", "targets", "segments", "positions"))):
        began = number
        for i in range(24):
            if number == len(documents):  # behind the last of them
                assert (tokens[i], targets[i], segments[i], positions[i]) == (PAD, PAD, -1, 0)
                continue
            assert targets[i] == documents[number][place] and segments[i] == number - began
            assert tokens[i] == (documents[number][place - 1] if place else BEGIN)
            assert positions[i] == min(place, i)
            number, place = (number + 1, 0) if place + 1 == len(documents[number]) else (number, place + 1)
    assert number == len(documents)


@pytest.mark.parametrize("kind", [pytest.param("learned", marks=pytest.mark.slow), "rotary"])
def test_packed_documents_are_scored_as_each_is_alone(packed, kind):
    dataset, rows, _ = packed
    model = Decoder(layers=2, heads=2, width=8, context=24, positions=kind, vocabulary=dataset.tokenizer.size)
    variables = jax.jit(model.init)(run_key(0), jnp.zeros((1, 4), jnp.int32))
    variables = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), variables)
    task = next_token(dataset)
    found = task.predict(model, variables, rows)["log_probabilities"]
    read_alone = jax.jit(lambda tokens: jax.nn.log_softmax(model.apply(variables, tokens[None]))[0])
    for row, tokens in enumerate(rows["tokens"]):
        for segment in range(rows["segments"][row].max() + 1):
            inside = rows["segments"][row] == segment
            n = inside.sum()
            alone = read_alone(np.pad(tokens[inside], (0, 24 - n)))  # padding behind is seen by none: one program
            alone = alone[np.arange(n), rows["targets"][row][inside]]
            assert_same_numbers(found[row][inside], alone, 1e-5)


def test_a_model_that_takes_no_segments_reads_no_packed_documents():
    with pytest.raises(
        UserError, match="recurrent_lm takes tokens, mask, but .* gives tokens, mask, positions"
    ) as error:
        make_setup(model__name="recurrent_lm", data__packed=True)
    assert error.value.code == 2
