"""Pairs of stretches of documents: where sentences end, what stands in a pair, and documents that have none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from research.data import open_dataset, sentences, tokenize
from research.data.batches import open_split, read
from research.errors import UserError


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """corpus(documents, **arguments) -> the data set `sentences` of them, its tokenizer trained on them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(documents, **arguments):
        folder = tmp_path / f"corpus{len(list(tmp_path.iterdir()))}"
        (folder / "train").mkdir(parents=True)
        for i, text in enumerate(documents):
            (folder / "train" / f"{i:03}.txt").write_text(text)
        own = {"folder": str(folder), "vocabulary_size": 200, "max_len": 16, **arguments}
        return open_dataset("sentences", own)

    return made


@pytest.mark.parametrize(
    "text,expected",
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("a line\nanother\n\n  third  ", ["a line", "another", "third"]),
        ("as e.g. this one, i.e. that.", ["as e.g. this one, i.e. that."]),
        ("3.5 men . They won . ", ["3.5 men .", "They won ."]),
        (" \n \n", []),
        ("今天很好。我们走。", ["今天很好。", "我们走。"]),
        ("他说：“好！？”然后走了。", ["他说：“好！？”", "然后走了。"]),
        ("यह अच्छा है। हम चलें।", ["यह अच्छा है।", "हम चलें।"]),
        ("هل أنت بخير؟ نعم۔ جيد", ["هل أنت بخير؟", "نعم۔", "جيد"]),
    ],
)
def test_sentences_end_with_lines_and_full_stops(text, expected):
    assert sentences.sentences(text) == expected


WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9).map(lambda words: " ".join(words))


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(st.lists(WORDS, min_size=1, max_size=9), min_size=2, max_size=5).filter(
        lambda found: any(len(document) > 1 for document in found)
    ),
    max_len=st.integers(5, 24),
)
def test_a_pair_is_two_stretches_of_sentences_and_the_other_part_is_out_of_another_document(documents, max_len):
    text, spans = made_text(documents)
    room = max_len - sentences.MARKS
    found, notes = sentences._pairs(text, max_len, "here")
    bounds = {0, *text.parts.tolist()}
    document = lambda place: next(i for i, end in enumerate(text.ends) if place < end)
    covered = set()
    for first, behind, end, other, other_end in zip(*(found[name].tolist() for name in found)):
        assert {first, behind, end, other, other_end} <= bounds and first < behind < end and other < other_end
        assert document(first) == document(end - 1) != document(other) == document(other_end - 1)
        inside = [span for span in spans if first <= span[0] < end]
        assert len(inside) == 2 or end - first <= room  # as many as there is room for, and two at least
        covered |= set(inside)
        one_more = [stop for start, stop in spans if start == other_end and document(start) == document(other)]
        left = room - (behind - first)
        assert other_end - other <= left or sum(other <= start < other_end for start, _ in spans) == 1
        assert not one_more or one_more[0] - other > left
    alone = [span for span in spans if len(documents[document(span[0])]) == 1]
    assert covered == set(spans) - set(alone)
    assert sum(notes.values()) == len(alone)


def test_a_pair_is_parted_at_any_of_its_sentences_ends():
    text = Text([[2] * 40] * 20)
    found, _ = sentences._pairs(text, sentences.MARKS + 8, "here")
    sizes = (found["behind"] - found["first"])[found["end"] - found["first"] == 8]
    assert len(sizes) == 200 and chisquare(np.bincount(sizes)[[2, 4, 6]]).pvalue > 0.01


class Text:
    """What a TokenFile of sentences has, in memory."""

    def __init__(self, sizes):
        self.parts = np.cumsum([size for document in sizes for size in document])
        self.ends = np.cumsum([sum(document) for document in sizes])

    def at(self, places):
        return np.asarray(places).astype(np.int32) + 10


def made_text(documents):
    text = Text([[len(sentence.split()) for sentence in document] for document in documents])
    return text, list(zip([0, *text.parts[:-1].tolist()], text.parts.tolist()))


def test_an_example_is_a_pair_between_its_marks(corpus):
    documents = ["a b c. D e f g. H a b.", "k l. M m m m m m m m m m m m m m m m m m."]
    dataset = corpus(documents)
    ids, split = dataset.tokenizer, open_split(dataset, "train", "train", 2**30, 0)
    batch = read(split, np.arange(len(split)))
    words = [ids.encode([text])[0] for text in documents]
    for tokens, types, other, other_types in zip(*batch.values()):
        for row, parts in ((tokens, types), (other, other_types)):
            size = int((row != ids.pad).sum())
            first, second = np.flatnonzero(row == ids.end)
            assert row[0] == ids.begin and second == size - 1 and set(row[size:]) <= {ids.pad}
            assert parts.tolist() == [0] * (first + 1) + [1] * (second - first) + [0] * (16 - size)
            stretches = row[1:first].tolist(), row[first + 1 : second].tolist()
            own = [next(i for i, document in enumerate(words) if contains(document, part)) for part in stretches]
            assert (own[0] == own[1]) == (row is tokens)
        if (tokens == ids.pad).any():
            assert contains(words[own[0]], [i for i in tokens[1:].tolist() if i not in (ids.pad, ids.end)])
    assert batch["tokens"].shape == (len(dataset.open("train")), 16)


def contains(whole, part):
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


def test_pairs_are_the_same_each_time_and_the_tails_of_train_are_other_documents():
    first, second = (open_dataset("wikitext2_sentences", {"max_len": 32}) for _ in range(2))
    assert first.fingerprint("train") == second.fingerprint("train")
    n = len(first.open("train"))
    one, two = (dataset.open("train").stacked(np.arange(n)) for dataset in (first, second))
    assert all(np.array_equal(one[field], two[field]) for field in one) and first.shuffled


def test_an_unknown_word_of_wikitext_is_the_tokenizers_own():
    dataset = open_dataset("wikitext2_sentences", {"max_len": 32})
    rows = dataset.open("train").stacked(np.arange(len(dataset.open("train"))))["tokens"]
    assert (rows == dataset.tokenizer.unknown).any() and "<" not in dataset.tokenizer.vocabulary


@pytest.mark.parametrize(
    "documents,arguments,code,message",
    [
        (["A b. C d.", "E."], {"max_len": 4}, 2, "config.data.max_len: 4; a pair takes at least 5 tokens"),
        (["A b", "C d"], {}, 3, "data set .*, split train: no document has two sentences; a line is one"),
        (["A b. C d. E f."], {}, 3, "data set .*, split train: one document; half of the pairs want another"),
        (
            ["A b. C d.", "E."],
            {"tokenizer": "hf:./nowhere"},
            3,
            "config.data.tokenizer: hf:./nowhere: there is no fold",
        ),
    ],
)
def test_text_without_pairs_is_refused(corpus, documents, arguments, code, message):
    with pytest.raises(UserError, match=message) as error:
        corpus(documents, **arguments)
    assert error.value.code == code


def test_documents_of_one_sentence_are_counted(corpus):
    dataset = corpus(["A b. C d.", "X y.", "G", "H a. B c. D e."])
    split = open_split(dataset, "train", "train", 2**30, 0)
    assert any("2 documents of one sentence, which have no pair" in note for note in split.notes())
    batch = read(split, np.arange(len(split)))
    assert len(split) == 2 and dataset.tokenizer.encode(["x"])[0][0] not in batch["tokens"]


def test_texts_with_the_names_of_marks_have_their_say(corpus):
    """As with BERT: [SEP] in a text is the mark itself."""
    dataset = corpus(["A [SEP] b. C d.", "E f. G h."])
    assert dataset.tokenizer.end in dataset.tokenizer.encode(["a [SEP] b"])[0]


def test_fitted_sizes_fill_the_room(monkeypatch):
    first, second = np.meshgrid(np.arange(12), np.arange(12))
    for room in range(14):
        one, two = tokenize.fitted(first, second, room)
        assert (one <= first).all() and (two <= second).all() and (one + two == np.minimum(first + second, room)).all()
        cut = (one < first) & (two < second)
        assert (np.abs(one - two)[cut] <= 1).all()
