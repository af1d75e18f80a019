"""Data sets of text: read through TFDS, cut by a tokenizer trained on their own train split, padded to one length.

Three shapes: `pairs` (source and target), `labelled` (one label a text), `running` (windows of running text). Their
argument `tokenizer` is a kind of research.data.tokenize, a tokenizer.json or a folder of Hugging Face's layout, or a
Tokenizer: the one that a run folder has kept. Bytes that are no UTF-8 become U+FFFD; these and the texts cut at max_len
are counted.
"""

import functools
import json
from functools import partial

import numpy as np

from research.data.cache import cached
from research.data.choose_tokenizer import digest, tokenizer_of, with_ends
from research.data.cuts import NONE
from research.data.dataset import Dataset, from_tfds
from research.data.files import corpus, from_files
from research.data.prepare import ensure
from research.data.tokens import count, pieces, texts, token_file
from research.errors import UserError


def pairs(
    raw,
    source_field,
    target_field,
    target_len=None,
    language=True,
    *,
    reverse: bool = False,
    tokenizer: str = "bpe",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 64,
    buckets: tuple[int, ...] = (),
):
    """Parallel text, with one vocabulary for both sides. `raw` is a data set of texts, or its name for TFDS.

    Examples: source int32[max_len] and target int32[max_len], each closed by an end unless it is cut, and padded;
    and if they are `language`, reference uint8[R]: the complete target text as normalized, in UTF-8, padded with zeros,
    for scores that compare text. R is the length of the longest reference in any split. `target_len` is the length of
    targets, if it is not max_len.
    """
    target_len = target_len or max_len
    raw = from_tfds(raw) if isinstance(raw, str) else raw
    fields = (target_field, source_field) if reverse else (source_field, target_field)
    tokenizer = with_ends(tokenizer_of(tokenizer, raw, fields, vocabulary_size, min_count, normalize))
    behind = ([], [tokenizer.end])

    def convert(examples, notes):
        source, target = (texts(examples, field, notes) for field in fields)
        converted = {
            "source": _rows(tokenizer, source, max_len, behind, notes),
            "target": _rows(tokenizer, target, target_len, behind, notes),
        }
        return converted | ({"reference": _references(target, tokenizer, longest)} if language else {})

    longest = _longest_reference(raw, fields[1], tokenizer) if language else 0

    features = {"source": ((max_len,), "int32"), "target": ((target_len,), "int32")}
    features |= {"reference": ((longest,), "uint8")} if language else {}
    own = (("source", "target"), buckets, (fields, max_len, target_len, longest))
    return as_dataset(raw, tokenizer, convert, features, *own, augmented={"source": ()})


def _longest_reference(raw, field, tokenizer):
    """Returns the bytes of the longest text of a field as normalized, over all splits; cached."""

    def make():
        found = (tokenizer.normalize(text) for base in raw.examples for text, _ in pieces(raw, base, field, {}, NONE))
        return {"bytes": np.array(max(len(text.encode()) for text in found))}, {}

    known = [raw.fingerprint(base) for base in raw.examples]
    arrays, _ = cached(f"longest-{digest(known, field, json.loads(tokenizer.json)['normalizer'])}", make)
    return max(1, int(arrays["bytes"]))


def _references(texts, tokenizer, size):
    """Returns uint8[n, size]: texts as normalized, in UTF-8, padded with zeros."""
    return padded([list(tokenizer.normalize(text).encode()) for text in texts], size, 0).astype(np.uint8)


def parallel(
    *,
    folder: str | None = None,
    source: str = "src",
    target: str = "tgt",
    tokenizer: str = "bpe",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 64,
    buckets: tuple[int, ...] = (),
):
    """A user's own pairs of texts: train.src and train.tgt in a folder, and validation and test where it has them."""
    own = {"tokenizer": tokenizer, "vocabulary_size": vocabulary_size, "min_count": min_count, "normalize": normalize}
    return pairs(from_files(folder, (source, target)), source, target, **own, max_len=max_len, buckets=buckets)


def labelled(
    raw,
    fields,
    *,
    tokenizer: str = "words",
    vocabulary_size: int = 20000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 64,
    buckets: tuple[int, ...] = (),
):
    """One label a text, or a pair of texts; `raw` as for `pairs`.

    Examples: tokens int32[max_len], as the tokenizer's texts are read whole (see Tokenizer.join), cut at max_len and
    padded; label; of a pair besides types int32[max_len], 1 for the second text. What is cut keeps its marks, but for
    one text of a tokenizer of ours: its end is missing, since it was not reached.

    Args:
        fields: the text's, or those of a pair.

    Raises:
        UserError: 2 for a max_len that holds no pair.
    """
    raw = from_tfds(raw) if isinstance(raw, str) else raw
    tokenizer = tokenizer_of(tokenizer, raw, fields, vocabulary_size, min_count, normalize)
    paired, closed = len(fields) == 2, not tokenizer.is_ours or len(fields) == 2
    if paired and max_len < (least := len(tokenizer.join([0], [0])[0])):
        raise UserError(2, f"config.data.max_len: {max_len}; a pair takes at least {least} tokens")

    def convert(examples, notes):
        columns = [tokenizer.encode(texts(examples, field, notes)) for field in fields]
        count(notes, "pairs with an empty text", paired and sum(not all(row) for row in zip(*columns)))
        tokens, types = _joined(tokenizer, columns, max_len, closed, notes)
        found = {"tokens": tokens, "label": np.array([example["label"] for example in examples], np.int32)}
        return found | ({"types": types} if paired else {})

    features = {"tokens": ((max_len,), "int32"), "label": ((), "int32")}
    features |= {"types": ((max_len,), "int32")} if paired else {}
    parts = (fields, max_len, "closed") if closed else (*fields, max_len)
    beside = ("types",) if paired else ()
    return as_dataset(raw, tokenizer, convert, features, ("tokens",), buckets, parts, beside, {"tokens": beside})


def running(
    raw,
    field,
    *,
    tokenizer: str = "bpe",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    newline: str = "\n",
    max_len: int = 64,
    context: int = 0,
    packed: bool = False,
):
    """Windows of running text, the documents of a split laid end to end, an end token between them; read from a file of
    ids that is made once, see research.data.tokens.

    Examples: targets int32[max_len], a stretch of the text, and tokens int32[max_len], the token before each. Each
    token of a split is scored once. Beyond train a window reaches back by `context` tokens that were scored in the
    window before: they are read and not scored (targets of padding), so that no window begins in ignorance.

    Where they are `packed` the documents of a window know nothing of each other: each begins with a begin token, and
    besides there are segments int32[max_len], another number for each document, and positions int32[max_len], which
    begin anew with it. Of one that is cut its part in the window is the document.

    Args:
        raw: TFDS's name of a data set of texts, or a function that opens one.
        newline: what the tokenizer reads for the end of a line; " <eos> " by custom, for words.
    """
    if context >= max_len:
        raise UserError(2, f"config.data.context: {context} of max_len {max_len} leave nothing to score")
    raw = from_tfds(raw) if isinstance(raw, str) else raw()
    tokenizer = with_ends(tokenizer_of(tokenizer, raw, (field,), vocabulary_size, min_count, normalize, newline))

    @functools.cache
    def tokens(base):
        name = f"{raw.name}-{base}-{digest(raw.fingerprint(base), tokenizer.json, newline)}"
        return token_file(name, tokenizer, raw, base, field, newline)

    @functools.cache
    def windows(base):
        return _windows(tokens(base), tokenizer, max_len, 0 if base == "train" else context, packed)

    n = len(tokens("train")) - 1
    if n < max_len:
        raise UserError(2, f"config.data.max_len: {max_len}; {raw.name} has but {n} tokens in train")
    fields = ("tokens", "targets", *(("segments", "positions") if packed else ()))
    return Dataset(
        raw.name,
        dict.fromkeys(fields, ((max_len,), np.dtype("int32"))),
        {base: len(windows(base)) for base in raw.examples},
        windows,
        shuffled=True,  # the end of a text is a text; windows out of its middle would have their neighbours in train
        mapped=True,
        tokenizer=tokenizer,
        sequences=("tokens", "targets"),
        augmented={"tokens": ()},
        token_counts=lambda: tokens("train").counts(n, tokenizer.size),
        counts_bytes=tokenizer.counts_bytes(newline),
        fingerprint=lambda base: digest(
            raw.fingerprint(base), tokenizer.json, newline, "ends", max_len, context, packed
        ),
        notes=raw.notes,
    )


def _windows(text, ids, max_len, context, packed):
    """The windows of a TokenFile as Rows, see `running`."""
    n = len(text) - 1  # an end stands between documents: that of the last is left out
    scored_from = np.concatenate([[0], np.arange(max_len, n, max_len - context)])

    def stacked(records):
        first = scored_from[records][:, None]
        start = first - np.where(first > 0, context, 0)
        places = start + np.arange(-1, max_len)  # with the token before
        inside = places[:, 0].min() >= 0 and places[:, -1].max() < n  # as most batches are
        found = text.at(places if inside else np.clip(places, 0, n - 1))
        before, targets, places = found[:, :-1].copy(), found[:, 1:], places[:, 1:]
        found = {"tokens": before, "targets": targets}
        if packed:
            document = np.searchsorted(text.ends, np.minimum(places, n - 1), side="right")
            begins = np.where(document > 0, text.ends[document - 1], 0)
            before[places == begins] = ids.begin
            found["segments"] = (document - document[:, :1]).astype(np.int32)
            found["positions"] = (places - np.maximum(begins, start)).astype(np.int32)
        if context:
            targets[places < first] = ids.pad
        if not inside:
            before[places == 0] = ids.begin
            for field, x in found.items():
                x[places >= n] = {"segments": -1, "positions": 0}.get(field, ids.pad)
        return found

    return Rows(len(scored_from), stacked, text.notes)


def own_text(
    *,
    folder: str | None = None,
    tokenizer: str = "bpe",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    newline: str = "\n",
    max_len: int = 64,
    context: int = 0,
    packed: bool = False,
):
    """A user's own running text: a file, or a folder of files, a document each; see research.data.files.corpus."""
    own = {"tokenizer": tokenizer, "vocabulary_size": vocabulary_size, "min_count": min_count, "normalize": normalize}
    return running(
        partial(corpus, folder), "text", **own, newline=newline, max_len=max_len, context=context, packed=packed
    )


def addition(*, digits: int = 3, tokenizer: str = "characters"):
    """Sums as text, "123+45" and "168", of numbers of up to `digits` digits; made on first use, no download.

    No pair of numbers stands in two splits, in either order.
    """
    name = f"addition/{digits}"
    ensure(name)
    # Each side as long as it may be, and its end.
    own = {"tokenizer": tokenizer, "vocabulary_size": 64, "max_len": 2 * digits + 2}
    return pairs(name, "question", "answer", digits + 2, False, **own)


class Rows:
    """A source whose records are made in stacks: stacked(int64[n]) -> {field: array[n, ...]}."""

    def __init__(self, n, stacked, notes):
        self.n, self.stacked = n, stacked
        self.notes = notes  # {what: how many}: what befell the texts read so far

    def __len__(self):
        return self.n

    def __getitem__(self, record):
        return {field: array[0] for field, array in self.stacked(np.array([record])).items()}


def buckets_to(buckets, longest):
    """The lengths that batches are cut to, of which the last is the longest.

    Raises:
        UserError: 2.
    """
    if any(not 0 < bucket <= longest for bucket in buckets) or list(buckets) != sorted(set(buckets)):
        raise UserError(2, f"config.data.buckets: {buckets}: rising lengths of at most max_len {longest} are wanted")
    return (*buckets, longest) if buckets and buckets[-1] < longest else tuple(buckets)


NAMED = {"label", "tags"}  # fields whose values have names


def as_dataset(raw, tokenizer, convert, features, sequences, buckets, parts, beside=(), augmented=None):
    """Builds the Dataset whose examples are convert(raw examples, notes); its fingerprint tells `parts` apart."""
    features = {field: (shape, np.dtype(dtype)) for field, (shape, dtype) in features.items()}
    longest = max(features[field][0][0] for field in sequences)

    def open(base):
        source, notes = raw.open(base), {}
        read = lambda records: convert(source.__getitems__([int(record) for record in records]), notes)
        return Rows(len(source), read, notes)

    return Dataset(
        raw.name,
        features,
        raw.examples,
        open,
        raw.classes if NAMED & features.keys() else None,
        raw.labels if NAMED & features.keys() else (),
        shuffled=raw.shuffled,
        tokenizer=tokenizer,
        sequences=sequences,
        beside=beside,
        augmented=augmented or {},
        buckets=buckets_to(buckets, longest),
        fingerprint=lambda base: digest(raw.fingerprint(base), tokenizer.json, *parts),
        notes=raw.notes,
    )


def _rows(tokenizer, texts, max_len, frame, notes):
    """int32[n, max_len]: the ids of a text between those of the frame, padded; longer ones are cut, and counted."""
    before, behind = frame
    rows = [[*before, *ids, *behind] for ids in tokenizer.encode(texts)]
    count(notes, f"texts cut to {max_len} tokens", sum(len(row) > max_len for row in rows))
    return padded([row[:max_len] for row in rows], max_len, tokenizer.pad)


def _joined(tokenizer, columns, max_len, closed, notes):
    """int32[n, max_len] twice, padded: texts or pairs as they are read whole, and which of the two each token is of;
    longer ones are cut, and counted.

    Args:
        columns: ids of the first texts, and of the second ones where there are any.
        closed: whether what is cut keeps the marks behind it.
    """
    rows = list(zip(*columns))
    joined = [tokenizer.join(*row) for row in rows]
    long = [len(tokens) > max_len for tokens, _ in joined]
    count(notes, f"texts cut to {max_len} tokens", sum(long))
    if closed:
        joined = [tokenizer.join(*row, size=max_len) if cut else whole for row, whole, cut in zip(rows, joined, long)]
    tokens, types = ([part[:max_len] for part in parts] for parts in zip(*joined))
    return padded(tokens, max_len, tokenizer.pad), padded(types, max_len, 0)


def padded(rows, length, fill):
    """int32[n, length] of lists of numbers."""
    result = np.full((len(rows), length), fill, np.int32)
    for row, ids in zip(result, rows):
        row[: len(ids)] = ids
    return result
