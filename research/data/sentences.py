"""Pairs of stretches of documents, the second behind the first or out of another document: for BERT's pretraining."""

import functools
import re
from functools import partial

import numpy as np

from research.data import tokenize
from research.data.cache import cached
from research.data.choose_tokenizer import digest, tokenizer_of, with_ends
from research.data.dataset import Dataset, changed, from_tfds
from research.data.files import corpus
from research.data.text import Rows
from research.data.tokens import count, token_file
from research.errors import UserError
from research.randomness import generator

# Split after a line break; after a full stop and its closing quotes, unless a lower-case letter follows (an
# abbreviation); and after the full stops and question marks of other scripts, even if no blank follows.
END = re.compile(r"\n\s*|(?<=[.!?])(?:\s*[\"')\]»”’]+)?\s+(?![a-z])|[。！？｡।॥؟۔።։။។]+[)\]»”’」』】》〉）]*\s*")
FORMAT = "sentences-v2"  # of what is kept: where sentences end, and which pairs are made of them
MARKS = 3  # of a pair: one before it, one between, one behind


def sentence_pairs(
    raw,
    field,
    *,
    tokenizer: str = "bert",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 128,
):
    """Sentences of a document that fill max_len tokens, parted in two at one of their ends by chance, as Devlin et al.
    2019, appendix A.2, have them; and in place of the second part one out of another document.

    Examples: tokens int32[max_len], a begin, the first part, an end, the second, an end, and padding; types
    int32[max_len], 1 for the second part and its end; other_tokens and other_types, the same with the part of another
    document. All of this is the same each time; which of the two is read is drawn by the task. A document of one
    sentence has no pair, and is counted; of a pair that is too long the longer part is cut.

    Args:
        raw: opens a data set of texts.

    Raises:
        UserError: 2 for a max_len that holds no pair, 3 where no document has two sentences, or but one has.
    """
    if max_len < MARKS + 2:
        raise UserError(2, f"config.data.max_len: {max_len}; a pair takes at least {MARKS + 2} tokens")
    raw = raw()
    tokenizer = with_ends(tokenizer_of(tokenizer, raw, (field,), vocabulary_size, min_count, normalize))

    @functools.cache
    def opened(base):
        name = f"{raw.name}-{base}-{FORMAT}-{digest(raw.fingerprint(base), tokenizer.json)}"
        text = token_file(name, tokenizer, raw, base, field, cut=sentences)
        found, notes = cached(f"{name}-{max_len}", partial(_pairs, text, max_len, f"data set {raw.name}, split {base}"))
        stacked = partial(_stacked, text, found, tokenizer, max_len)
        return Rows(len(found["first"]), stacked, {**text.notes, **notes})

    fields = ("tokens", "types", "other_tokens", "other_types")
    return Dataset(
        raw.name,
        dict.fromkeys(fields, ((max_len,), np.dtype("int32"))),
        {base: len(opened(base)) for base in raw.examples},
        opened,
        shuffled=True,  # neighbours are of one document: train's tail is of others
        mapped=True,
        tokenizer=tokenizer,
        sequences=("tokens", "other_tokens"),
        augmented={"tokens": (), "other_tokens": ()},
        fingerprint=lambda base: digest(raw.fingerprint(base), tokenizer.json, FORMAT, max_len),
        notes=raw.notes,
    )


def wikitext2():
    """WikiText-2 whose <unk> a tokenizer like BERT's reads as its own unknown word, and not as three."""
    return changed(from_tfds("wikitext2"), "text", lambda text: text.replace(b"<unk>", b"[UNK]"), "unknown")


def own_sentences(
    *,
    folder: str | None = None,
    tokenizer: str = "bert",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 128,
):
    """Pairs out of a user's own documents: a folder of files, one each; see research.data.files.corpus."""
    own = {"tokenizer": tokenizer, "vocabulary_size": vocabulary_size, "min_count": min_count, "normalize": normalize}
    return sentence_pairs(partial(corpus, folder), "text", **own, max_len=max_len)


def sentences(text):
    """Returns the sentences of a text, none of them empty."""
    parts, start = [], 0
    for end in END.finditer(text):
        parts.append(text[start : end.end()].strip())
        start = end.end()
    return [part for part in (*parts, text[start:].strip()) if part]


def _pairs(text, max_len, where):
    """What pairs there are in a TokenFile of sentences, and what befell its documents: places int64[n] of the `first`
    part, of the second, `behind` it, its `end`, and of the `other` part and its `other_end`."""
    room, notes = max_len - MARKS, {}
    bounds = np.concatenate([[0], text.parts])  # sentence i is bounds[i] to bounds[i + 1]
    lasts = np.searchsorted(bounds, text.ends)  # the sentence behind each document
    firsts = np.concatenate([[0], lasts[:-1]])
    found = [
        (start, end, first, last)
        for first, last in zip(firsts.tolist(), lasts.tolist())
        for start, end in _filled(bounds, first, last, room)
    ]
    count(notes, "documents of one sentence, which have no pair", int((lasts - firsts == 1).sum()))
    if not found:
        raise UserError(3, f"{where}: no document has two sentences; a line is one, and what a full stop ends")
    start, end, first, last = np.array(found).T
    drawn = generator(0, "sentence pairs", max_len)
    middle = drawn.integers(start + 1, end)
    strangers = len(bounds) - 1 - (last - first)  # sentences of other documents
    if not strangers.all():
        raise UserError(3, f"{where}: one document; half of the pairs want another: put each into a file of its own")
    other = drawn.integers(0, strangers)
    other += (other >= first) * (last - first)
    their_last = lasts[np.searchsorted(lasts, other, side="right")]
    fits = np.searchsorted(bounds, bounds[other] + np.maximum(room - (bounds[middle] - bounds[start]), 0), "right") - 1
    places = {"first": start, "behind": middle, "end": end, "other": other}
    places["other_end"] = np.clip(fits, other + 1, their_last)
    return {name: bounds[sentence] for name, sentence in places.items()}, notes


def _filled(bounds, first, last, room):
    """Stretches of at least two of a document's sentences, as many as there is room for; a last one that is left over
    is read with the one before it."""
    start = first
    while start < last and last - first > 1:
        start = min(start, last - 2)
        end = int(np.searchsorted(bounds, bounds[start] + room, side="right")) - 1
        end = min(max(end, start + 2), last)
        yield start, end
        start = end


def _stacked(text, found, ids, max_len, records):
    """The examples of these numbers."""
    first, behind, end, other, other_end = (
        found[name][records] for name in ("first", "behind", "end", "other", "other_end")
    )
    one = _framed(text, ids, max_len, first, behind - first, behind, end - behind)
    two = _framed(text, ids, max_len, first, behind - first, other, other_end - other)
    return {"tokens": one[0], "types": one[1], "other_tokens": two[0], "other_types": two[1]}


def _framed(text, ids, max_len, first, first_size, second, second_size):
    """int32[n, max_len] twice: pairs of stretches of a text between their marks, and of which part each token is."""
    first_size, second_size = tokenize.fitted(first_size, second_size, max_len - MARKS)
    column, wide = np.arange(max_len)[None], lambda x: x[:, None]
    in_second = column - wide(first_size + 2)  # place in the second part
    is_first = (column >= 1) & (column <= wide(first_size))
    is_second = (in_second >= 0) & (in_second < wide(second_size))
    places = np.where(is_first, wide(first) + column - 1, np.where(is_second, wide(second) + in_second, 0))
    tokens = np.where(is_first | is_second, text.at(places), ids.pad)
    tokens[:, 0] = ids.begin
    is_end = (column == wide(first_size + 1)) | (in_second == wide(second_size))
    tokens = np.where(is_end, ids.end, tokens).astype(np.int32)
    return tokens, ((in_second >= 0) & (in_second <= wide(second_size))).astype(np.int32)
