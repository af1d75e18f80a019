"""What vectors of words and sentences are asked: neighbours, analogies, people's judgements, a picture. By cosine."""

from typing import NamedTuple

import jax
import numpy as np

from research import pictures
from research.data.reading import read_lines
from research.errors import UserError, nearest
from research.inference.prediction import in_batches
from research.inference.translation import encode, padded
from research.tasks.embed_text import embedded

CHUNK = 256  # analogies answered at a time


class Correlation(NamedTuple):
    """How vectors agree with a set of judged pairs."""

    spearman: float  # nan where fewer than two pairs are known
    pairs: int  # that are known
    unknown: int  # pairs with a word that has no vector, left out


class Accuracy(NamedTuple):
    """How many analogies of a section are answered right."""

    section: str
    right: int
    asked: int
    unknown: int  # with a word that has no vector, left out


def unit(matrix):
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(matrix, axis=-1, keepdims=True)
    return matrix / np.where(length > 0, length, 1)


def neighbours(vectors, words, minus=(), top=10, left_out=()):
    """The words nearest to the mean of the unit vectors of `words`, those of `minus` with the sign turned.

    The words asked about, and those that are `left_out`, are no answers. Mikolov et al. 2013 (arXiv:1301.3781), section
    4; as gensim's most_similar.

    Args:
        vectors: research.pretrained.word_vectors.Vectors.

    Returns:
        [(word, cosine)], nearest first.

    Raises:
        UserError: 2, for a word that has no vector.
    """
    places = [place(vectors, word) for word in (*words, *minus)]
    units, signs = unit(vectors.matrix), np.repeat([1.0, -1.0], [len(words), len(minus)])
    cosines = units @ unit((signs[:, None] * units[places]).mean(axis=0))
    places += [place(vectors, word) for word in left_out]
    cosines[places] = -np.inf
    best = np.argsort(-cosines, kind="stable")[: min(top, len(cosines) - len(set(places)))]
    return [(vectors.words[i], float(cosines[i])) for i in best]


def place(vectors, word):
    """The row of a word, as it is spelt or else in lower case."""
    for spelling in (word, word.lower()):
        if spelling in vectors.words:
            return vectors.words.index(spelling)
    raise UserError(2, f"{word!r} has no vector{nearest(word.lower(), vectors.words)}")


def sentence_vectors(run, texts, names):
    """The mean of what a run's encoder makes of each text's tokens, of length 1: float32[n, D].

    Args:
        names: what an error calls each of the texts.

    Raises:
        UserError: 2 for a run whose model tells nothing of tokens, or a text that it cannot read.
    """
    if not hasattr(run.model, "head") or "tokens" not in run.spec.features:
        raise UserError(2, f"{run.folder}: its model {run.config.model.name} makes no vectors of texts")
    ids, model = run.tokenizer, run.model.clone(head="none")
    rows = [ids.join(row)[0] for row in encode(run, texts, names)]
    embed = jax.jit(lambda variables, batch: embedded(model, variables, batch["tokens"], ids.pad)[0])
    tokens = [{"tokens": row} for row in padded(run, rows, "tokens", names, len(ids.frame[1]))]
    return np.stack(list(in_batches(lambda batch: embed(run.variables, batch), tokens)))


def correlation(vectors, path):
    """Spearman's rank correlation with a file of judged pairs: word, word and score a line, with tabs between them.

    Raises:
        UserError: 3, for a file that is none, or whose pairs of known words have no order.
    """
    from scipy import stats

    rows, units, found, unknown = _rows(vectors), unit(vectors.matrix), [], 0
    for number, line in _lines(path):
        try:
            first, second, score = line.split("\t")
            score = float(score)
            if not np.isfinite(score):
                raise ValueError
        except ValueError:
            raise UserError(3, f"{path}, line {number}: {line[:60]!r}: word, word and score are wanted") from None
        i, j = (rows(word) for word in (first, second))
        if i is None or j is None:
            unknown += 1
        else:
            found.append((units[i] @ units[j], score))
    if len({score for _, score in found}) < 2:
        known = f"{len(found)} pairs whose words both have vectors, and {unknown} others"
        raise UserError(3, f"{path}: holds {known}; a correlation wants two with different scores")
    return Correlation(float(stats.spearmanr(*zip(*found)).statistic), len(found), unknown)


def analogies(vectors, path):
    """Accuracy on a file of analogies: ": section" begins one, four words a line ask for the fourth.

    Returns:
        [Accuracy], one a section and one, "all", of them together.

    Raises:
        UserError: 3, for a file that is none.
    """
    rows, sections = _rows(vectors), {}
    name = "all"
    for number, line in _lines(path):
        if line.startswith(":"):
            name = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise UserError(3, f"{path}, line {number}: {line[:60]!r}: four words are wanted")
        sections.setdefault(name, []).append([rows(word) for word in words])
    if not sections:
        raise UserError(3, f"{path}: holds no analogy: four words a line are wanted")
    units, found = unit(vectors.matrix), []
    for name, questions in sections.items():
        known = np.array([q for q in questions if None not in q], np.int64).reshape(-1, 4)
        right = sum(_right(units, known[i : i + CHUNK]) for i in range(0, len(known), CHUNK))
        found.append(Accuracy(name, right, len(known), len(questions) - len(known)))
    return [*found, Accuracy("all", *(sum(column) for column in list(zip(*found))[1:]))]


def _right(units, questions):
    """How many of int64[n, 4] are answered right: the nearest to b - a + c, these three left out."""
    a, b, c, answer = questions.T
    cosines = (units[b] - units[a] + units[c]) @ units.T
    for asked in (a, b, c):
        cosines[np.arange(len(questions)), asked] = -np.inf
    return int((cosines.argmax(axis=1) == answer).sum())


def plane(matrix):
    """Rows of float[N, D] on their two principal axes: float[N, 2], and each axis' share of the variance."""
    centred = matrix - matrix.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    u, s = (np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, max(0, 2 - len(s)))])[..., :2] for x in (u, s))
    return u * s, s**2 / max((centred**2).sum(), 1e-30)


def draw(vectors, words, path, title):
    """Writes a picture of words by their unit vectors, on the plane of these."""
    at, share = plane(unit(vectors.matrix)[[place(vectors, word) for word in words]])
    axes = [
        f"{axis} principal axis ({100 * part:.0f} % of the variance)" for axis, part in zip(("first", "second"), share)
    ]
    pictures.named_points(path, at, words, title, axes)


def _rows(vectors):
    """word -> its row or None, as it is spelt or else in lower case."""
    rows = {word: i for i, word in enumerate(vectors.words)}
    return lambda word: rows.get(word, rows.get(word.lower()))


def _lines(path):
    """Numbered lines of a text file, without empty ones and those that begin with #."""
    for number, line in enumerate(read_lines(path, pipe=True), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()
