"""How often words stand near each other: the cells of a matrix, as GloVe trains on them.

    X[i, j] = sum over places p of i and q of j, 0 < |p - q| <= window, of 1 / |p - q|

Pennington et al. 2014, section 4.2. Special tokens and unknown words are left out before distances are counted.
"""

import numpy as np

from research.data.cache import cached
from research.data.dataset import Dataset
from research.data.text import Rows, running
from research.randomness import generator

PART = 1_000_000  # words whose pairs are counted at a time


def cooccurring(
    name,
    field,
    *,
    tokenizer: str = "blanks",
    min_count: int = 5,
    normalize: tuple[str, ...] = (),
    window: int = 10,
):
    """The cells that are not 0 of the train split's symmetric matrix, shuffled: row and column int32, count float32.

    There is one split, train: what is held out is cells, not text.
    """
    # min_count decides how many words there are.
    own = {"vocabulary_size": 1_000_000, "min_count": min_count, "normalize": normalize, "newline": " "}
    text = running(name, field, tokenizer=tokenizer, **own)
    fingerprint = f"{text.fingerprint('train')}-{window}"

    def cells():
        def make():
            source, size = text.open("train"), text.tokenizer.size
            ids = source.stacked(np.arange(len(source)))["targets"].reshape(-1)
            special = [text.tokenizer.pad, text.tokenizer.unknown, text.tokenizer.begin, text.tokenizer.end]
            row, column, count = matrix(ids[~np.isin(ids, special)], size, window)
            order = generator(0, "cells").permutation(len(row))
            return {"row": row[order], "column": column[order], "count": count[order]}, {}

        return cached(f"{name}-cooccurrences-{fingerprint}-v1", make)[0]

    return Dataset(
        f"{name}_cooccurrences",
        {"row": ((), np.dtype("int32")), "column": ((), np.dtype("int32")), "count": ((), np.dtype("float32"))},
        {"train": len(cells()["row"])},
        lambda base: Rows(len(cells()["row"]), lambda records: {k: x[records] for k, x in cells().items()}, {}),
        shuffled=True,
        tokenizer=text.tokenizer,
        token_counts=text.token_counts,
        fingerprint=lambda base: fingerprint,
    )


def matrix(ids, size, window):
    """The cells that are not 0, by row and column: int32[n], int32[n], float32[n].

    Args:
        ids: int[n], the text.
        size: of the vocabulary.
    """
    keys, counts = np.zeros(0, np.int64), np.zeros(0)
    for start in range(0, len(ids), PART):
        part = ids[start : start + PART + window].astype(np.int64)
        found = [(keys, counts)]
        for distance in range(1, window + 1):
            n = min(PART, len(part) - distance)  # a pair belongs to the part in which it begins
            if n > 0:
                pairs, times = np.unique(part[:n] * size + part[distance : distance + n], return_counts=True)
                found.append((pairs, times / distance))
        keys, counts = _added(found)
    keys, counts = _added([(keys, counts), (keys % size * size + keys // size, counts)])
    return (keys // size).astype(np.int32), (keys % size).astype(np.int32), counts.astype(np.float32)


def _added(found):
    """[(keys, counts)] -> each key once, with the sum of its counts."""
    keys, place = np.unique(np.concatenate([keys for keys, _ in found]), return_inverse=True)
    return keys, np.bincount(place, np.concatenate([counts for _, counts in found]), len(keys))
