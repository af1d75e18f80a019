"""Questions that a stretch of a text answers: windows of the text behind its question, and where the answer is."""

import dataclasses
import functools

import numpy as np

from research.data.cache import cached
from research.data.choose_tokenizer import digest, tokenizer_of, with_ends
from research.data.dataset import Dataset, Reordered, from_tfds
from research.data.text import Rows, padded
from research.data.tokens import CHUNK, count, read_records, texts
from research.errors import UserError

FORMAT = "questions-v1"  # of what is kept: which windows there are
OUTSIDE = -1  # the place of a token that is none of the text


def questions(
    raw,
    *,
    tokenizer: str = "bert",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 384,
    stride: int = 128,
    question_len: int = 64,
):
    """Windows of texts behind the questions asked of them. Devlin et al. 2019, section 4.2.

    Examples, one a window: tokens int32[max_len], a begin, the question, an end, a stretch of the text, an end, and
    padding; types int32[max_len], 1 for the text and its end; first and last int32, the places of the answer's tokens,
    of the first answer that is given, and 0, the begin's, where the window does not hold all of it. What is scored
    compares text: text uint8, the stretch in UTF-8, spans int32[max_len, 2], the bytes of it that each token is,
    OUTSIDE for a token that is none of it, answers uint8, all that are given, parted by zeros, and question int32,
    which one is asked.

    Args:
        raw: opens a data set with question, context and answers, as SQuAD has them.
        stride: tokens by which a window begins behind the one before.
        question_len: a question is cut at so many tokens, and counted.

    Raises:
        UserError: 2 for windows that would leave some of a text out, 3 for an answer that is not in its context.
    """
    raw = raw()
    tokenizer = tokenizer_of(tokenizer, raw, ("question", "context"), vocabulary_size, min_count, normalize)
    tokenizer = with_ends(tokenizer)
    least = max_len - _marks(tokenizer) - question_len  # tokens of a text that there is room for
    if not 0 < stride <= least:
        fits = f"it is from 1 to {least}" if least > 0 else "none does"
        raise UserError(
            2, f"config.data.stride: {stride}; with max_len {max_len} and question_len {question_len} {fits}"
        )
    read = functools.partial(_read, raw, tokenizer, question_len)
    numbered = dict(zip(raw.examples, np.cumsum([0, *raw.examples.values()])))  # of all splits, no number twice

    @functools.cache
    def index(base):
        name = (
            f"{raw.name}-{base}-{FORMAT}-{digest(raw.fingerprint(base), tokenizer.json, max_len, stride, question_len)}"
        )
        return cached(name, lambda: _windows(raw, base, read, tokenizer, max_len, stride))

    def open(base):
        found, notes = index(base)
        stacked = functools.partial(_stacked, read, base, found, tokenizer, features, int(numbered[base]))
        return Rows(len(found["record"]), stacked, notes)

    wide = [int(max(index(base)[0][name][0] for base in raw.examples)) for name in ("text_bytes", "answer_bytes")]
    features = dict.fromkeys(("tokens", "types"), ((max_len,), "int32")) | {"spans": ((max_len, 2), "int32")}
    features |= dict.fromkeys(("first", "last", "question"), ((), "int32"))
    features |= {name: ((size,), "uint8") for name, size in zip(("text", "answers"), wide)}
    features = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in features.items()}
    return Dataset(
        raw.name,
        features,
        {base: len(index(base)[0]["record"]) for base in raw.examples},
        open,
        shuffled=raw.shuffled,
        tokenizer=tokenizer,
        sequences=("tokens",),
        beside=("types", "spans"),
        augmented={"tokens": ()},
        places=("first", "last"),
        fingerprint=lambda base: digest(
            raw.fingerprint(base), tokenizer.json, FORMAT, max_len, stride, question_len, wide, int(numbered[base])
        ),
    )


def xquad():
    """XQuAD's English questions, cut by their articles, since it has but a test split: of five articles three are
    train, one is validation and one test. Artetxe et al. 2020 (arXiv:1910.11856).
    """
    raw = from_tfds("xquad/en")
    source = raw.open("test")
    titles = [example["title"] for example in source.__getitems__(list(range(len(source))))]
    place = {title: i % 5 for i, title in enumerate(sorted(set(titles)))}
    parts = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
    records = {base: [i for i, title in enumerate(titles) if place[title] in part] for base, part in parts.items()}
    return dataclasses.replace(
        raw,
        examples={base: len(own) for base, own in records.items()},
        open=lambda base: Reordered(raw.open("test"), np.array(records[base])),
        fingerprint=lambda base: f"{raw.fingerprint('test')}-{base}-by-article",
    )


def _read(raw, tokenizer, question_len, base, records, notes):
    """Questions of a split by their records: (question's ids, text, its ids, the characters that they are, answers)."""
    examples = read_records(raw, base, raw.open(base), [int(i) for i in records])
    asked, given = (texts(examples, field, notes) for field in ("question", "context"))
    rows = tokenizer.encode(asked)
    count(notes, f"questions cut to {question_len} tokens", sum(len(row) > question_len for row in rows))
    for row, text, (ids, spans), example in zip(rows, given, tokenizer.encode_spans(given), examples):
        answers = example["answers"]
        found = [
            (answer.decode(errors="replace"), int(at)) for answer, at in zip(answers["text"], answers["answer_start"])
        ]
        yield row[:question_len], text, ids, np.array(spans).reshape(-1, 2), found


def _windows(raw, base, read, tokenizer, max_len, stride):
    """The windows of a split: record int64[n], which question, start int64[n], the first token of its text; and how
    many bytes their texts and answers take at most.

    Raises:
        UserError: 3.
    """
    notes, record, start, text_bytes, answer_bytes = {}, [], [], 1, 1
    source = raw.open(base)
    number = source.record if hasattr(source, "record") else np.asarray
    for low in range(0, raw.examples[base], CHUNK):
        records = np.arange(low, min(low + CHUNK, raw.examples[base]))
        for i, (question, text, ids, spans, answers) in zip(records, read(base, records, notes)):
            where = f"data set {raw.name}, split {base}, record {number([i])[0]}"
            if not answers or not len(ids):
                raise UserError(3, f"{where}: it has no {'context' if answers else 'answer'}")
            for answer, at in answers:
                if not answer or at < 0 or text[at : at + len(answer)] != answer:
                    raise UserError(3, f"{where}: the answer {answer!r:.60} is not in its context at {at}")
            places = starts(len(ids), len(question), tokenizer, max_len, stride)
            record += [i] * len(places)
            start += places.tolist()
            room = max_len - _marks(tokenizer) - len(question)
            answer_bytes = max(answer_bytes, len(_parted(answers)))
            text_bytes = max(text_bytes, *(len(_stretch(text, spans, at, room)[0]) for at in places))
            count(notes, "answers without a token", _of_answer(spans, answers[0]) is None)
    sizes = {"text_bytes": np.array([text_bytes]), "answer_bytes": np.array([answer_bytes])}
    return {"record": np.array(record), "start": np.array(start), **sizes}, notes


def _stacked(read, base, found, tokenizer, features, first_number, records):
    """The windows of these numbers."""
    asked, which = np.unique(found["record"][records], return_inverse=True)
    rows = list(read(base, asked, {}))
    windows = [_window(tokenizer, features, *rows[j], at) for j, at in zip(which, found["start"][records])]
    stacked = {field: np.stack([window[field] for window in windows]) for field in windows[0]}
    return {**stacked, "question": (found["record"][records] + first_number).astype(np.int32)}


def _window(tokenizer, features, question, text, ids, spans, answers, at):
    """One example but for its question's number."""
    found = window(tokenizer, question, text, ids, spans, at, features["tokens"][0][0])
    first, last = _of_answer(spans, answers[0]) or (-1, -1)
    begin, n = int(found["types"].argmax()), int((found["spans"][:, 0] != OUTSIDE).sum())
    holds = at <= first and last < at + n
    filled = lambda name, data: np.frombuffer(data.ljust(features[name][0][0], b"\0"), np.uint8)
    found |= {"first": begin + first - at if holds else 0, "last": begin + last - at if holds else 0}
    found |= {"text": filled("text", found["text"]), "answers": filled("answers", _parted(answers))}
    return {field: np.asarray(value, features[field][1]) for field, value in found.items()}


def window(tokenizer, question, text, ids, spans, at, max_len):
    """A question and the stretch of a text from its token `at`, as there is room for: tokens and types int32[max_len],
    text, the stretch in UTF-8, and spans int32[max_len, 2], the bytes of it that each token is, OUTSIDE elsewhere.

    Args:
        question: ids.
        text, ids, spans: the text, its ids and the characters that each is.
    """
    room = max_len - _marks(tokenizer) - len(question)
    tokens, types = tokenizer.join(question, ids[at : at + room])
    stretch, own = _stretch(text, spans, at, room)
    places = np.full((max_len, 2), OUTSIDE, np.int32)
    places[types.index(1) :][: len(own)] = own
    rows = {"tokens": padded([tokens], max_len, tokenizer.pad)[0], "types": padded([types], max_len, 0)[0]}
    return {**rows, "spans": places, "text": stretch}


def starts(tokens, question, tokenizer, max_len, stride):
    """The first tokens of the windows of a text of so many, behind a question of so many; the last holds its end."""
    room = max_len - _marks(tokenizer) - question
    return np.arange(0, max(tokens - room, 0) + stride, stride)


def _marks(tokenizer):
    """How many marks a pair has."""
    return len(tokenizer.join([0], [0])[0]) - 2


def _stretch(text, spans, at, room):
    """The stretch of a text that a window holds, in UTF-8, and int[n, 2], the bytes of it that its tokens are."""
    own = spans[at : at + room]
    low = own[:, 0].min()
    stretch = text[low : own[:, 1].max()]
    codes = np.frombuffer(stretch.encode("utf-32-le"), np.uint32)
    ends = np.cumsum([0, *(1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF))])
    return stretch.encode(), ends[own - low]


def _of_answer(spans, answer):
    """The first and the last token that has a part in an answer (its text, its first character); None of none."""
    text, start = answer
    inside = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < start + len(text)) & (spans[:, 1] > spans[:, 0]))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _parted(answers):
    return b"\0".join(text.encode() for text, _ in answers)
