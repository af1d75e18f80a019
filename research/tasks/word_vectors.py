"""Word vectors from running text: skip-gram and CBOW with negative sampling, and GloVe on counts of co-occurrence.

As word2vec has it, frequent words are left out at random before windows are laid, a window reaches 1 to `window` words
by chance, and noise is drawn from the unigram distribution to a power. All of this is drawn on the device, by block:

    loss = sum over pairs (i, o) of  softplus(-score(i, o)) + negatives / N * sum over n = 1..N of softplus(score(i, n))

The N words of noise are shared by a stretch of text, where word2vec draws `negatives` new ones for each pair: the
expectation is the same, but for noise that is the right word by chance, which is not left out here.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import randomness
from research.errors import UserError
from research.models.windows import STRETCH, around, stretches
from research.randomness import fold
from research.tasks.losses import masked
from research.tasks.task import Task, apply

EXPONENT = 0.75  # of the unigram distribution, from which noise is drawn; word2vec's
X_MAX, ALPHA = 100.0, 0.75  # GloVe's


class Draws(NamedTuple):
    """What chance makes of blocks of text."""

    words: jax.Array  # int32[B, L'], those that are kept, moved to the left; 0 behind
    reach: jax.Array  # int32[B, L'], of each word's window
    noise: jax.Array  # int32[B, L' / T, N]


def skipgram(
    spec,
    *,
    window: int = 5,
    negatives: int = 5,
    shared_negatives: int = 16,
    subsample: float = 1e-3,
):
    """Each word tells those around it. Mikolov et al. 2013 (arXiv:1310.4546), sections 2.2 and 2.3.

    Batches hold targets int32[B, L], blocks of text in which padding and unknown words count as not there, and mask
    float32[B]. The loss is a mean over pairs, in nats.

    Args:
        negatives: words of noise that weigh on a pair.
        shared_negatives: words of noise that are drawn for a stretch of 32 words.
        subsample: share of the text above which a word is thinned, as sqrt(t / f) + t / f; 0: none is.
    """

    def sums(applied, draws, mask):
        weights = pair_weights(draws, window) * mask[:, None, None, None]
        (pairs, noise), model_state = applied(draws.words, draws.noise, window=window)
        count = weights.sum(axis=-1)  # pairs of each word
        wrong = softplus(noise).sum(axis=-1) * (negatives / shared_negatives)
        return masked(softplus(-pairs), weights), masked(wrong, count), model_state

    return _task(spec, sums, window, shared_negatives, subsample)


def cbow(
    spec,
    *,
    window: int = 5,
    negatives: int = 5,
    shared_negatives: int = 16,
    subsample: float = 1e-3,
):
    """The mean of the words around tells each word. Mikolov et al. 2013 (arXiv:1301.3781), section 3.1.

    Batches and arguments as skipgram's; the loss is a mean over words.
    """

    def sums(applied, draws, mask):
        weights = pair_weights(draws, window)
        around_each = weights.sum(axis=-1, keepdims=True)
        means = weights / jnp.maximum(around_each, 1)
        (right, noise), model_state = applied(draws.words, draws.noise, means, method="cbow")
        count = (around_each[..., 0] > 0) * mask[:, None, None]
        wrong = softplus(noise).sum(axis=-1) * (negatives / shared_negatives)
        return masked(softplus(-right), count), masked(wrong, count), model_state

    return _task(spec, sums, window, shared_negatives, subsample)


def glove(spec):
    """Weighted least squares on log counts. Pennington et al. 2014, equations 8 and 9.

    Batches hold row and column int32[B], count float32[B] > 0 and mask float32[B]. Cells weigh (count / X_MAX)**ALPHA,
    and at most 1.
    """

    if "column" not in spec.features:
        raise UserError(2, f"config.task.name: glove wants co-occurrences; {spec.name} has {', '.join(spec.features)}")

    def inputs(spec, config):
        return {name: jax.ShapeDtypeStruct((1,), jnp.int32) for name in ("row", "column")}

    def loss(model, variables, batch, keys, train):
        scores, model_state = apply(model, variables, batch["row"], batch["column"], train=train, keys=keys)
        weights = jnp.minimum(batch["count"] / X_MAX, 1.0) ** ALPHA
        squares = weights * jnp.square(scores - jnp.log(batch["count"]))
        return {"loss": masked(squares, batch["mask"])}, {}, model_state

    def evaluate(model, variables, batch, keys):
        return loss(model, variables, batch, keys, False)[0], {}

    def predict(model, variables, batch):
        return {"vectors": model.apply(variables, method="vectors")[batch["row"]]}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)


def _task(spec, sums, window, shared_negatives, subsample):
    """The Task of sums(applied, draws, mask) -> (sum, count) of the right words, (sum, _) of the noise, model_state;
    `applied` is `apply` but for the model's own arguments."""
    if window > STRETCH:
        raise UserError(2, f"config.task.window: {window} is more than the {STRETCH} words that are scored together")
    if "targets" not in spec.features:
        raise UserError(
            2, f"config.task.name: word vectors want running text; {spec.name} has {', '.join(spec.features)}"
        )
    tables = functools.cache(lambda: chances(spec, subsample))  # reads the text: not before it is needed

    def inputs(spec, config):
        return {
            name: jax.ShapeDtypeStruct((1, *shape), jnp.int32) for name, shape in (("words", (8,)), ("noise", (1, 4)))
        }

    def loss(model, variables, batch, keys, train):
        own = {"window": window, "shared_negatives": shared_negatives}
        draws = draw(keys["augment"], batch["targets"], *tables(), **own)
        applied = functools.partial(apply, model, variables, train=train, keys=keys)
        (right, count), (wrong, _), model_state = sums(applied, draws, batch["mask"])
        return {"loss": (right + wrong, count)}, {}, model_state

    def evaluate(model, variables, batch, keys):
        return loss(model, variables, batch, keys, False)[0], {}

    def predict(model, variables, batch):
        return {"vectors": model.apply(variables, method="vectors")[batch["targets"]]}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)


def chances(spec, subsample):
    """float32[V] by which a word of the text is kept, float32[V] cumulative distribution of noise, and the share kept.

    Of the special tokens none is ever kept or drawn.
    """
    counts = np.array(spec.token_counts(), np.float64)
    ids = spec.tokenizer
    counts[[ids.pad, ids.unknown, ids.begin, ids.end]] = 0
    share = counts / max(counts.sum(), 1)
    with np.errstate(divide="ignore"):
        ratio = subsample / share if subsample else np.full_like(share, np.inf)
    keep = np.where(counts > 0, np.minimum(np.sqrt(ratio) + ratio, 1), 0)
    noise = np.cumsum(np.where(counts > 0, counts**EXPONENT, 0))
    kept = (keep * counts).sum() / max(spec.token_counts().sum(), 1)
    return keep.astype(np.float32), (noise / max(noise[-1], 1e-30)).astype(np.float32), kept


def draw(keys, words, keep, noise, share, *, window, shared_negatives):
    """Draws for blocks of text, each by its own key.

    Room is left for the share of a block that is kept, and three times the root of its length: topics thin blocks
    unequally (24 words of 1,000 on WikiText-2), and what goes beyond is lost.

    Args:
        keys: key[B].
        words: int32[B, L].
        keep, noise, share: see chances.
    """
    length = words.shape[1]
    room = min(length, int(share * length + 3 * length**0.5) + 1)
    parts = -(-room // STRETCH)
    room = max(room, window) if parts == 1 else parts * STRETCH

    def one(key, words):
        kept = randomness.draw(jax.random.uniform, fold(key, "keep"), (length,)) < jnp.asarray(keep)[words]
        place = jnp.where(kept, jnp.cumsum(kept) - 1, room)
        left = jnp.zeros(room, jnp.int32).at[place].set(words, mode="drop")
        reach = randomness.draw(jax.random.randint, fold(key, "window"), (room,), 1, window + 1)
        drawn = randomness.draw(jax.random.uniform, fold(key, "noise"), (parts, shared_negatives))
        return Draws(left, reach, jnp.searchsorted(jnp.asarray(noise), drawn, side="right").astype(jnp.int32))

    return jax.vmap(one)(keys, words)


@jax.custom_vjp
def softplus(x):
    """log(1 + exp(x)), and its gradient from the same exponential: saves a tenth of the step's time."""
    return _softplus(x)[0]


def _softplus(x):
    small = jnp.exp(-jnp.abs(x))
    return jnp.maximum(x, 0) + jnp.log(1 + small), jnp.where(x > 0, 1, small) / (1 + small)


softplus.defvjp(_softplus, lambda sigmoid, g: (g * sigmoid,))


def pair_weights(draws, window):
    """1 where the second word lies in the first one's reach, else 0: float[B, L / T, T, T + 2 window]."""
    first, second = stretches(draws.words)[..., None], around(draws.words, window)[..., None, :]
    t = jnp.arange(first.shape[2])
    distance = jnp.abs(t[:, None] + window - jnp.arange(second.shape[-1])[None])[None, None]
    near = (distance > 0) & (distance <= stretches(draws.reach)[..., None])
    return (near & (first > 0) & (second > 0)).astype(float)
