"""Word vectors: the scores that skip-gram, CBOW and GloVe train.

With v the rows of `input` and u those of `output`:

    skip-gram   score(centre c, context o) = v_c . u_o                          Mikolov et al. 2013 (arXiv:1310.4546)
    CBOW        score(context O, centre c) = mean over o in O of v_o, times u_c Mikolov et al. 2013 (arXiv:1301.3781)
    GloVe       score(i, j) = v_i . u_j + a_i + b_j                             Pennington et al. 2014, equation 7

Words come as blocks of running text, [B, L]. A block's rows are looked up once, and each word is scored against all of
its stretch of the text by a product of matrices: 0.2 times as many scores are wanted as are made, but per pair there
is no row to fetch and none to add to. What counts among the scores, the task says.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.windows import around, stretches


class WordVectors(nn.Module):
    """Two vectors a word. A call scores skip-gram's pairs, `cbow` the middle word; `vectors` are the words' own."""

    width: int = 100
    vocabulary: int | None = None

    def setup(self):
        # Small numbers in `output`, where word2vec has zeros: those would give `input` no gradient at the first step.
        init = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -0.5, 0.5) / self.width
        self.input = self.param("input_embedding", init, (self.vocabulary, self.width))
        self.output = self.param("output_embedding", init, (self.vocabulary, self.width))

    def __call__(self, words, noise, *, window=1, train=False):
        """Scores of each word with the words around it and with the noise of its stretch.

        Args:
            words: int32[B, L].
            noise: int32[B, L / T, N].
            window: the farthest that is scored.

        Returns:
            float32[B, L / T, T, T + 2 window], as `around` lays out the second words, and float32[B, L / T, T, N].
        """
        u, n = self._outputs(words, noise)
        scores = self._scores(stretches(self.input[words]), jnp.concatenate([around(u, window), n], axis=2))
        return scores[..., : -noise.shape[-1]], scores[..., -noise.shape[-1] :]

    def cbow(self, words, noise, weights, *, train=False):
        """Scores of the word in the middle and of the noise.

        Args:
            words: int32[B, L].
            noise: int32[B, L / T, N].
            weights: float32[B, L / T, T, T + 2 window], of the words around each in their mean.

        Returns:
            float32[B, L / T, T] and float32[B, L / T, T, N].
        """
        window = (weights.shape[-1] - weights.shape[-2]) // 2
        means = jnp.einsum("bcts,bcsd->bctd", weights, around(self.input[words], window))
        u, n = self._outputs(words, noise)
        return (means * stretches(u)).sum(axis=-1), self._scores(means, n)

    def vectors(self):
        """float32[V, D]."""
        return self.input

    def _outputs(self, words, noise):
        """Rows of `output`, [B, L, D] and [B, L / T, N, D], in one lookup: the gradient of each is a whole matrix."""
        rows = self.output[jnp.concatenate([words, noise.reshape(words.shape[0], -1)], axis=1)]
        return rows[:, : words.shape[1]], rows[:, words.shape[1] :].reshape(*noise.shape, self.width)

    @staticmethod
    def _scores(v, u):  # [B, C, T, D], [B, C, S, D] -> [B, C, T, S]
        return jnp.einsum("bctd,bcsd->bcts", v, u)


class Glove(nn.Module):
    """Two vectors and two biases a word."""

    width: int = 100
    vocabulary: int | None = None

    def setup(self):
        init = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -0.5, 0.5) / self.width
        self.input = self.param("input_embedding", init, (self.vocabulary, self.width))
        self.output = self.param("output_embedding", init, (self.vocabulary, self.width))
        self.input_bias = self.param("input_bias", nn.initializers.zeros, (self.vocabulary,), jnp.float32)
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,), jnp.float32)

    def __call__(self, row, column, *, train=False):  # int32[B], int32[B] -> [B]
        products = (self.input[row] * self.output[column]).sum(axis=-1)
        return products + self.input_bias[row] + self.output_bias[column]

    def vectors(self):
        """float32[V, D]: the sum of both (section 4.2)."""
        return self.input + self.output
