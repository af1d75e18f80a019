"""Sentences whose words have a tag each, as of the entities they name, and words cut to pieces by a tokenizer."""

import itertools

import numpy as np

from research.data.choose_tokenizer import tokenizer_of
from research.data.dataset import UNTAGGED, changed, from_tfds
from research.data.text import as_dataset, padded
from research.data.tokens import count, texts
from research.errors import UserError


def tagged(
    raw,
    *,
    tokenizer: str = "bert",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 128,
    buckets: tuple[int, ...] = (),
):
    """Sentences of words, and a tag for each word. Devlin et al. 2019, section 5.3.

    Examples: tokens int32[max_len], the pieces of all words as the tokenizer's texts are read whole, padded; and tags
    int32[max_len], the word's tag at its first piece, UNTAGGED at all else. Words for which there is no room are cut,
    and counted: nothing is told of them.

    Args:
        raw: a data set with tokens, the words, and tags; or its name for TFDS.

    Raises:
        UserError: 2 for a max_len without room for a word.
    """
    raw = from_tfds(raw) if isinstance(raw, str) else raw
    sentences = changed(raw, "tokens", b" ".join, "sentences")
    tokenizer = tokenizer_of(tokenizer, sentences, ("tokens",), vocabulary_size, min_count, normalize)
    marks = sum(map(len, tokenizer.frame))
    if max_len <= marks:
        raise UserError(
            2, f"config.data.max_len: {max_len}; a word between its marks takes at least {marks + 1} tokens"
        )

    def convert(examples, notes):
        words = [texts([{"word": word} for word in example["tokens"]], "word", notes) for example in examples]
        tokens, tags, lost = [], [], 0
        for example, own, (ids, places) in zip(examples, words, by_word(tokenizer, words, max_len)):
            if len(example["tags"]) != len(own) or not all(own):
                raise ValueError(
                    f"{len(own)} words, none of them empty, and as many tags are wanted: {own}, {example['tags']}"
                )
            row = np.full(len(ids), UNTAGGED)
            row[places] = example["tags"][: len(places)]
            tokens.append(ids)
            tags.append(row)
            lost += len(own) - len(places)
        count(notes, f"words behind {max_len} tokens, which are not tagged", lost)
        return {"tokens": padded(tokens, max_len, tokenizer.pad), "tags": padded(tags, max_len, UNTAGGED)}

    features = dict.fromkeys(("tokens", "tags"), ((max_len,), "int32"))
    own = (("tokens",), buckets, ("tagged", max_len), ("tags",), {"tokens": ("tags",)})
    return as_dataset(raw, tokenizer, convert, features, *own)


def by_word(tokenizer, sentences, max_len):
    """Lists of words as ids: for each the row, between the tokenizer's marks, and the places of its words' first
    pieces. A word of which a normalizer leaves nothing is an unknown one; those without room are left out.
    """
    before, behind = tokenizer.frame
    # With the blank before it, which to some tokenizers is a part of a word.
    words = [" " * (i > 0) + word for sentence in sentences for i, word in enumerate(sentence)]
    encoded = iter(tokenizer.encode(words))
    found = []
    for sentence in sentences:
        pieces = [ids or [tokenizer.unknown] for ids in itertools.islice(encoded, len(sentence))]
        ends = len(before) + np.cumsum([len(ids) for ids in pieces], dtype=np.int64)
        kept = int((ends <= max_len - len(behind)).sum())
        row = [*before, *itertools.chain.from_iterable(pieces[:kept]), *behind]
        found.append((row, [len(before), *ends.tolist()][:kept]))
    return found
