"""Greedy and beam search over a model whose best sequences are known by trying them all."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.generation import beam_search, greedy, log_probabilities, search

IDS = SimpleNamespace(pad=0, begin=2, end=3)
V, LENGTH, ROWS = 6, 4, 5
RNG = np.random.default_rng(0)
TABLE = jnp.asarray(2 * RNG.normal(size=(ROWS, LENGTH + 1, V, V)), jnp.float32)  # row, step, token before -> logits


def decode(carry, token):
    table, t = carry
    return table[jnp.arange(len(token)), t, token], (table, t + 1)


def carry(rows=slice(None)):
    table = TABLE[rows]
    return table, jnp.zeros(len(table), jnp.int32)


def first(rows=ROWS):
    return jnp.full(rows, IDS.begin, jnp.int32)


def beam(size, length_penalty=1.0, rows=slice(None)):
    n = len(TABLE[rows])
    run = jax.jit(
        lambda c: beam_search(decode, c, first(n), LENGTH, IDS, beam_size=size, length_penalty=length_penalty)
    )
    return jax.device_get(run(carry(rows)))


def all_sequences():
    """Every output: words closed by an end, or words to the last place."""
    words = [token for token in range(V) if token not in (IDS.pad, IDS.begin, IDS.end)]
    for n in range(LENGTH):
        yield from ((*sequence, IDS.end) for sequence in itertools.product(words, repeat=n))
    yield from itertools.product(words, repeat=LENGTH)


def log_probability(row, sequence):
    total, before = 0.0, IDS.begin
    for t, token in enumerate(sequence):
        total += float(log_probabilities(TABLE[row, t, before], IDS)[token])
        before = token
    return total


def padded(sequence):
    return [*sequence, *[IDS.pad] * (LENGTH - len(sequence))]


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_the_exact_best_in_their_order(length_penalty):
    sequences = list(all_sequences())
    tokens, scores = beam(len(sequences), length_penalty)
    for row in range(ROWS):
        score = {s: log_probability(row, s) / len(s) ** length_penalty for s in sequences}
        best = sorted(sequences, key=lambda s: -score[s])[:20]
        assert [list(found) for found in tokens[row, :20]] == [padded(s) for s in best]
        np.testing.assert_allclose(scores[row, :20], [score[s] for s in best], rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_beams_score_is_the_models(size):
    tokens, scores = beam(size, 0.7)
    for row in range(ROWS):
        for found, score in zip(tokens[row], scores[row]):
            sequence = [token for token in found.tolist() if token != IDS.pad]
            assert score == pytest.approx(log_probability(row, sequence) / len(sequence) ** 0.7, rel=1e-5)
        assert (np.diff(scores[row]) <= 0).all()
        assert len({tuple(found) for found in tokens[row].tolist()}) == size


@pytest.mark.smoke
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_a_beam_of_one_is_greedy(length_penalty):
    tokens, scores = beam(1, length_penalty)
    expected, sums = jax.device_get(greedy(decode, carry(), first(), LENGTH, IDS))
    assert np.array_equal(tokens[:, 0], expected)
    found, also = search(decode, carry(), first(), LENGTH, IDS, beam_size=1, length_penalty=length_penalty)
    assert np.array_equal(found[:, 0], expected)
    np.testing.assert_allclose(scores, also, rtol=1e-6)
    written = [[token for token in row if token != IDS.pad] for row in expected]
    np.testing.assert_allclose(sums, [log_probability(i, row) for i, row in enumerate(written)], rtol=1e-5)


def test_greedy_takes_the_likeliest_token_at_each_step():
    tokens, _ = greedy(decode, carry(), first(), LENGTH, IDS)
    for row in range(ROWS):
        before, expected = IDS.begin, []
        for t in range(LENGTH):
            before = int(np.argmax(log_probabilities(TABLE[row, t, before], IDS)))
            expected.append(before)
            if before == IDS.end:
                break
        assert tokens[row].tolist() == padded(expected)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_rows_result_does_not_depend_on_its_neighbours(size):
    tokens, scores = beam(size)
    for row in range(ROWS):
        alone, score = beam(size, rows=slice(row, row + 1))
        assert np.array_equal(alone[0], tokens[row])
        assert np.array_equal(score[0], scores[row])


def test_a_wider_beam_is_never_worse_than_greedy_here():
    narrow, wide = (beam(size, 0.0)[1][:, 0] for size in (1, 40))
    assert (wide >= narrow).all() and (wide > narrow).any()


def test_padding_and_begin_are_never_written():
    favoured = TABLE.at[..., IDS.pad].set(50.0).at[..., IDS.begin].set(40.0)
    tokens, _ = greedy(decode, (favoured, jnp.zeros(ROWS, jnp.int32)), first(), LENGTH, IDS)
    for row in np.asarray(tokens):
        written = row[: list(row).index(IDS.end) + 1] if IDS.end in row else row
        assert not {IDS.pad, IDS.begin} & set(written.tolist())
