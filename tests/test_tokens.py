"""Files of token ids: the same ids whatever the pieces, made once, in bounded memory, and never half or damaged."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import ROOT, run_script
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data import cache, cuts, open_dataset, tokenize, tokens, train_tokenizer
from research.data.batches import open_split, train_batches
from research.data.dataset import from_tfds
from research.data.files import Documents, corpus
from research.data.text import running
from research.errors import UserError

SAMPLE = [
    "To be, or not to be: that is the question.\nWhether 'tis nobler\n\n  in the mind 12 + 3\n",
    "Ünïcode 漢字\nüx",
    "a:\n\n  b \n \n  a\n  b\n" * 9,  # so that bpe has tokens of several blanks
    *["b \n"] * 60,
]
PARTS = [
    "a",
    "b",
    "Z",
    "1",
    "'",
    ".",
    ",",
    "<",
    ">",
    "<b>",
    "\u0301",
    "\u200b",
    "www.a",
    "。",
    "é",
    "漢",
    " ",
    "\n",
    "\t",
    "\u00a0",
    "\u3000",
    "\n  ",
    " \n",
    "\n\n",
]
TEXT = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)


class Texts:
    """A source of records."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitems__(self, records):
        return [{"text": self.texts[i].encode()} for i in records]


class Raw(NamedTuple):
    """A data set of one split."""

    source: Any
    name: str = "some"

    def open(self, base):
        return self.source


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def characters():
    return train_tokenizer.train(["\n ab."], "characters", 100)


TRAINED = {kind: train_tokenizer.train(SAMPLE * 3, kind, 300) for kind in train_tokenizer.KINDS}


NORMALIZED = {
    (kind, names): train_tokenizer.train(SAMPLE * 3, kind, 300, 1, names)
    for kind in train_tokenizer.KINDS
    for names in ((), ("nfkc", "lowercase"), ("strip_accents",), ("strip_control", "strip_urls"),
                  ("strip_tags", "whitespace"), ("whitespace", "strip_tags"))
}  # fmt: skip


def parts_of(tokenizer, newline, text, size):
    """The tokenizer for the parts of a text of at least so many characters, and the parts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cuts, "PIECE", size)
        bare, found = tokens.encodable(tokenizer, newline, [[text[:7], text[7:]], [text[::-1]]])
        found = list(found)
    assert [last for _, last in found].count(True) == 2 and found[-1][1]
    return bare, [part for part, _ in found[: [last for _, last in found].index(True) + 1]]


@pytest.mark.parametrize("newline", ["\n", " <eos> ", " ", ""])
@pytest.mark.parametrize("kind", train_tokenizer.KINDS)
@settings(max_examples=40, deadline=None)
@given(text=TEXT, size=st.integers(1, 20), names=st.sampled_from(sorted({names for _, names in NORMALIZED})))
def test_the_parts_of_a_document_encode_to_what_all_of_it_does(kind, newline, text, size, names):
    tokenizer = NORMALIZED[kind, names]
    bare, parts = parts_of(tokenizer, newline, text, size)
    read = text.replace("\n", newline)
    if bare is tokenizer:
        assert "".join(parts) == read
    assert [i for ids in bare.encode(parts) for i in ids] == tokenizer.encode([read])[0]


HARD = [  # what a normalizer removes, composes or replaces, at places of cuts
    "a <b c\nd e> f < g h> i\n",
    "a \u0301\nb \u0301 c\n",
    "e\n\u0301e \u0301\n",
    "x\u200b \u200b y\u200b\nz \u200b\n",
    "http://a b www.c d\nwww. e\n",
    "  a  <b>  \n <c> d  ",
]


@pytest.mark.parametrize("text", HARD)
def test_what_normalizers_change_at_a_cut_changes_no_id(text):
    for (kind, names), tokenizer in NORMALIZED.items():
        for newline in ("\n", " <eos> ", ""):
            whole = tokenizer.encode([(text * 3).replace("\n", newline)])[0]
            for size in (1, 2, 3, 5, 8):
                bare, parts = parts_of(tokenizer, newline, text * 3, size)
                assert [i for ids in bare.encode(parts) for i in ids] == whole, (kind, names, newline, size)


ONE_LINE = "the <b>war</b> of 42 men, é see www.a.bc/d and 漢字 so " * 400


@pytest.mark.parametrize("kind,names", NORMALIZED)
def test_every_tokenizer_of_ours_reads_a_long_line_in_short_parts(kind, names):
    tokenizer = NORMALIZED[kind, names]
    bare, parts = parts_of(tokenizer, "\n", ONE_LINE, 100)
    assert max(map(len, parts)) < 300 and len(parts) > 50
    assert [i for ids in bare.encode(parts) for i in ids] == tokenizer.encode([ONE_LINE])[0]


@pytest.mark.parametrize(
    "kind", sorted(set(train_tokenizer.KINDS) - {"blanks", "unigram"})
)  # the other two read it as one word
def test_text_without_blanks_is_read_in_short_parts(kind):
    text = "今天很好。我们走，他昨天买了一本新书！" * 100
    tokenizer = train_tokenizer.train([text], kind, 600)
    bare, parts = parts_of(tokenizer, "\n", text, 100)
    assert max(map(len, parts)) < 220 and [i for ids in bare.encode(parts) for i in ids] == tokenizer.encode([text])[0]


def test_a_tokenizer_that_may_read_beyond_a_cut_is_given_whole_documents():
    foreign, text = json.loads(TRAINED["bpe"].json), "a line\n" * 20
    flags = {"id": 4, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False}
    for changed in ({}, {"lstrip": True}, {"rstrip": True}, {"content": "a line"}):
        foreign["added_tokens"] = [{**flags, **changed, "normalized": False, "special": True}]
        tokenizer = tokenize.Tokenizer(json.dumps(foreign))
        assert (len(parts_of(tokenizer, "\n", text, 5)[1]) > 1) == (not changed)
    replace = lambda pattern: {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}
    for kind in ("bpe", "words"):
        for pattern in ("a(?s:.*)b", r"\s+"):  # beyond a cut; and blanks by nothing, which joins the words beside them
            foreign = {**json.loads(TRAINED[kind].json), "normalizer": replace(pattern)}
            assert len(parts_of(tokenize.Tokenizer(json.dumps(foreign)), "\n", text, 5)[1]) == 1
    joining = json.loads(TRAINED["characters"].json)
    joining["model"]["fuse_unk"] = True  # unknown characters side by side are one token
    assert len(parts_of(tokenize.Tokenizer(json.dumps(joining)), "\n", text, 5)[1]) == 1
    pieces = list(tokens.pieces(Raw(Texts(["a line\n" * 20_000])), "train", "text", {}))
    assert len(pieces) == 3 and all(len(text) <= cuts.PIECE + 7 for text, _ in pieces)


def test_an_id_beyond_the_vocabulary_is_refused_before_it_is_written(home, characters):
    class Wrong:
        size, end, json = 6, 3, characters.json
        encode = staticmethod(characters.encode)

    with pytest.raises(
        UserError, match=r"data set some, split train: the tokenizer returns the id 8, .* \[0, 6\)"
    ) as e:
        written(home, ["ab."], Wrong())
    assert e.value.code == 3 and os.listdir(home / "cache/research/tokens") == ["some-name-v2.lock"]


def written(home, texts, tokenizer, name="some-name", **own):
    return tokens.token_file(name, tokenizer, Raw(Texts(texts)), "train", "text", **own)


def test_the_documents_stand_end_to_end_with_an_end_behind_each(home, characters):
    texts = ["ab", "", "b.a\n" * 3]
    found = written(home, texts, characters)
    expected = [[*ids, characters.end] for ids in characters.encode(texts)]
    assert found.at(np.arange(len(found))).tolist() == [i for ids in expected for i in ids]
    assert found.ends.tolist() == np.cumsum([len(ids) for ids in expected]).tolist()
    assert found.tokens.dtype == np.uint16 and found.at(np.zeros((2, 3), int)).shape == (2, 3)
    counts = found.counts(len(found), characters.size)
    assert counts.sum() == len(found) and counts[characters.end] == 3
    assert sorted(os.listdir(home / "cache/research/tokens")) == ["some-name-v2", "some-name-v2.lock"]


def test_documents_may_be_cut_into_parts_whose_ends_are_kept(home, characters):
    texts = ["ab\na\n\nb", "", "a"]  # a part without ids, and a document without parts
    found = written(home, texts, characters, cut=str.splitlines)
    ids = characters.encode(["abab", "a"])
    assert found.at(np.arange(len(found))).tolist() == ids[0] + ids[1]
    assert found.parts.tolist() == [2, 3, 4, 5] and found.ends.tolist() == [4, 4, 5]
    assert written(home, texts, characters, "whole").parts is None


def test_a_large_vocabulary_has_wider_ids(home):
    class Wide:
        size, end, json = 70_000, 69_999, TRAINED["characters"].json

        def encode(self, texts):
            return [[69_000 + len(text)] for text in texts]

    found = written(home, ["a", "bb"], Wide())
    assert found.at(np.arange(4)).tolist() == [69_001, 69_999, 69_002, 69_999] and found.tokens.dtype == np.uint32


def test_a_text_is_encoded_once_and_its_files_summed_once(home, monkeypatch):
    arguments = {"tokenizer": "characters", "max_len": 16}
    first = open_dataset("tiny_shakespeare", arguments)
    sums = {base: first.fingerprint(base) for base in first.examples}

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(tokenize.Tokenizer, "encode", never)
    monkeypatch.setattr(cache.hashlib, "file_digest", never)
    again = open_dataset("tiny_shakespeare", arguments)
    assert again.examples == first.examples
    assert {base: again.fingerprint(base) for base in again.examples} == sums


def test_a_file_that_changed_has_another_sum(home):
    path = home / "text"
    path.write_text("one")
    os.utime(path, (1, 1))
    one = cache.file_sum(path)
    assert cache.file_sum(path) == one and len(one) == 32
    path.write_text("two")
    os.utime(path, (1, 1))  # of the same size, and said to be of the same time
    assert cache.file_sum(path) != one


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == "short":
        content = content[:-2]
    elif how == "long":
        content += b"\0\0"
    elif how == "empty":
        content = b""
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["short", "long", "empty", "flipped", "gone"])
@pytest.mark.parametrize("file", ["tokens.bin", "ends.bin", "parts.bin", "index.json"])
def test_a_damaged_file_is_named(home, characters, file, how):
    written(home, ["ab.\n" * 50] * 3, characters, cut=str.splitlines)
    path = home / "cache/research/tokens/some-name-v2" / file
    if how == "gone":
        path.unlink()
    elif (file, how) == ("index.json", "flipped"):
        path.write_text("[]")
    elif (file, how) == ("index.json", "long"):
        path.write_text(path.read_text() + "}")
    else:
        spoil(path, how)
    with pytest.raises(UserError, match=f"some-name-v2/{file}: damaged: .*; delete its folder") as error:
        found = written(home, ["ab.\n" * 50] * 3, characters)
        found.at(np.arange(len(found)))
    assert error.value.code == 3


def test_each_stretch_is_checked_when_it_is_first_read(home, characters, monkeypatch):
    monkeypatch.setattr(tokens, "STRETCH", 16)
    written(home, ["ab" * 50], characters)
    path = home / "cache/research/tokens/some-name-v2/tokens.bin"
    spoil(path, "flipped")  # the ids of the fourth of seven stretches
    found = written(home, [], characters)
    assert found.at(np.arange(48)).tolist() == characters.encode(["ab" * 24])[0]
    with pytest.raises(UserError, match="ids 48 to 63 are not as written"):
        found.at(np.array([[2, 50]]))
    assert len(found.at(np.arange(64, 101))) == 37


def test_what_a_killed_process_left_is_not_taken_for_it(home, characters):
    left = home / "cache/research/tokens/some-name-v2.incomplete"
    left.mkdir(parents=True)
    (left / "tokens.bin").write_bytes(b"half")
    assert len(written(home, ["ab"], characters)) == 3 and not left.exists()


def _open_in_process(home, log):
    os.environ["XDG_CACHE_HOME"] = home

    class Counted(Texts):
        def __getitems__(self, records):
            with open(log, "a") as file:
                file.write("read\n")
            time.sleep(3)  # the other is there by then
            return super().__getitems__(records)

    tokenizer = train_tokenizer.train(["\n ab."], "characters", 100)
    assert len(tokens.token_file("both", tokenizer, Raw(Counted(["ab.\n" * 100_000])), "train", "text")) == 400_001


def test_two_processes_at_once_make_it_once(home):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_open_in_process, args=(str(home), str(home / "log"))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0] and (home / "log").read_text() == "read\n"


def test_a_place_that_cannot_be_written_is_named(home, characters):
    (home / "cache").write_text("a file")
    with pytest.raises(UserError, match="tokens/some-name-v2: cannot be written: .*XDG_CACHE_HOME") as error:
        written(home, ["ab"], characters)
    assert error.value.code == 5


def test_on_a_full_disk_nothing_is_left(home, characters, full_disk):
    full_disk(65536)
    with pytest.raises(UserError, match="tokens/some-name-v2: cannot be written: File too large") as error:
        written(home, ["ab" * 50_000], characters)
    assert error.value.code == 5 and os.listdir(home / "cache/research/tokens") == ["some-name-v2.lock"]


def test_damaged_records_are_named_and_nothing_is_left(home, characters):
    class Damaged(Texts):
        def __getitems__(self, records):
            raise RuntimeError("hash mismatch")

    with pytest.raises(
        UserError, match="data set some, split train, records 0 to 1: cannot .*: hash mismatch"
    ) as error:
        tokens.token_file("some-name", characters, Raw(Damaged(["a", "b"])), "train", "text")
    assert error.value.code == 3 and os.listdir(home / "cache/research/tokens") == ["some-name-v2.lock"]


@pytest.mark.parametrize(
    "end,tokenizer,normalize", [("\n", "bpe", ()), (" ", "unigram", ()), (" ", "words", ("strip_tags", "whitespace"))]
)
def test_the_resident_memory_of_encoding_does_not_grow_with_the_text(tmp_path, end, tokenizer, normalize):
    """A text four times as long, of one document, whose lines are short or which is one line, takes little more."""
    program = textwrap.dedent("""
        import json, os, re, sys
        os.environ["XDG_CACHE_HOME"] = sys.argv[2]
        from research.data import open_dataset
        # ru_maxrss is at first that of the process that started this one.
        peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024
        before = peak()
        data = open_dataset("text", {"folder": sys.argv[1], "max_len": 64, **json.loads(sys.argv[3])})
        data.open("train").stacked(__import__("numpy").arange(8))
        print(data.examples["train"], peak() - before)
    """)
    rng, found = np.random.default_rng(0), []
    words = ["".join(rng.choice(list("abcdefghijklmnop"), size)) for size in rng.integers(2, 10, 3000)]
    arguments = {"tokenizer": tokenizer, "vocabulary_size": 300, "normalize": normalize}
    for megabytes in (4, 16):
        path = tmp_path / f"{megabytes}.txt"
        drawn = rng.choice(words, megabytes * 150_000)
        path.write_text("".join(f"{word}{end if i % 10 == 9 else ' '}" for i, word in enumerate(drawn)))
        run = [sys.executable, "-c", program, str(path), str(tmp_path / "cache"), json.dumps(arguments)]
        found.append(tuple(map(int, subprocess.run(run, cwd=ROOT, check=True, capture_output=True).stdout.split())))
    (few, before), (many, after) = found
    assert many > 3.9 * few and after <= 1.5 * before, found


def test_the_documents_of_a_corpus_keep_their_line_ends_and_lose_a_byte_order_mark(home):
    (home / "a.txt").write_bytes(b"\xef\xbb\xbfgr\xc3\xbcn\n")
    (home / "b.txt").write_bytes(b"blau\r\n")
    assert [list(blocks) for blocks in Documents([home / "a.txt", home / "b.txt"]).documents()] == [
        ["gr\u00fcn\n"], ["blau\r\n"]
    ]  # fmt: skip


def folder_of(home, **files):
    for name, text in files.items():
        path = home / "mine" / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home / "mine"


def read_texts(dataset, split):
    return ["".join(blocks) for blocks in dataset.open(split).documents()]


def test_a_corpus_is_a_file_or_a_folder_of_them(home):
    folder = folder_of(home, b_txt="second", a__x_txt="first", **{".hidden": "no", ".git__x_txt": "no"})
    assert read_texts(corpus(folder), "train") == ["first", "second"] and dict(corpus(folder).examples) == {"train": 2}
    assert read_texts(corpus(folder / "b.txt"), "train") == ["second"]
    before = corpus(folder).fingerprint("train")
    (folder / "b.txt").rename(folder / "c.txt")
    assert corpus(folder).fingerprint("train") != before


def test_encoding_tells_how_far_it_is_by_bytes_where_one_file_may_be_all(home, characters, monkeypatch, capsys):
    monkeypatch.setattr(tokens, "BATCH", 1)
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr("research.log.time.monotonic", lambda: next(clock))
    (home / "one.txt").write_text("ab.\n" * 50_000)
    tokens.token_file("one", characters, Raw(Documents([home / "one.txt"])), "train", "text")
    assert capsys.readouterr().err.splitlines()[0] == "65540/200000 bytes encoded  0:06 left"
    written(home, ["ab", "a"], characters)
    assert capsys.readouterr().err.splitlines()[-1] == "2/2 documents encoded  0:00 left"


def test_a_corpus_s_own_splits_are_taken_and_its_unused_files_named(home):
    folder = folder_of(home, train__a_txt="one", train__b_txt="two", test_txt="three", notes_txt="no")
    (folder / "train.txt.gz").write_bytes(b"\x1f\x8b")
    found = corpus(folder)
    assert read_texts(found, "train") == ["one", "two"] and read_texts(found, "test") == ["three"]
    assert set(found.examples) == {"train", "test"}
    assert found.notes == (f"{folder}: unused files: notes.txt, train.txt.gz",)
    arguments = {"folder": str(folder), "tokenizer": "bytes", "vocabulary_size": 300, "max_len": 4}
    assert open_dataset("text", arguments).notes == found.notes
    alone = folder_of(home / "alone", valid_txt="one", a_txt="two")
    assert set(corpus(alone).examples) == {"train"} and corpus(alone).notes[0].endswith("train, also valid.txt")
    folder_of(home / "alone", dev_txt="three", val__b_txt="four")  # whatever their names, they are documents
    assert len(read_texts(corpus(alone), "train")) == 4


@pytest.mark.parametrize("name,split", [("valid", "validation"), ("val", "validation"), ("dev", "validation"),
                                        ("testing", "test")])  # fmt: skip
def test_the_usual_names_of_splits_are_known_and_two_for_one_split_are_an_error(home, name, split):
    folder = folder_of(home, training_txt="one", **{f"{name}_txt": "two"})
    found = corpus(folder)
    assert read_texts(found, split) == ["two"] and set(found.examples) == {"train", split} and found.notes == ()
    for other in (f"{name}.md", f"{split}.txt", name):  # a file, a synonym, a folder
        (folder / other).mkdir() if other == name else (folder / other).write_text("three")
        with pytest.raises(UserError, match=f"{other}.* both claim to be {split}|both claim to be {split}") as error:
            corpus(folder)
        assert error.value.code == 3 and f"{name}.txt" in str(error.value) and other in str(error.value)
        (folder / other).rmdir() if other == name else (folder / other).unlink()


@pytest.mark.parametrize(
    "make,code,part",
    [
        (lambda home: None, 2, "config.data.folder: needed"),
        (lambda home: home / "not there", 3, "does not exist"),
        (lambda home: folder_of(home, a_txt=""), 3, "holds no text"),
        (lambda home: folder_of(home, **{".a": "x"}), 3, "holds no text"),
        (lambda home: folder_of(home, train_txt="one", test_txt=""), 3, "test.txt holds no text"),
        (
            lambda home: folder_of(home, a_txt="a\0b" * 50),
            3,
            r"a.txt: byte 1 \(line 1\) is 0",
        ),
        (lambda home: folder_of(home, a_txt="too short"), 2, "config.data.max_len: 64; .*has but 9 tokens in train"),
    ],
)
def test_a_corpus_that_is_none_is_refused(home, make, code, part):
    with pytest.raises(UserError, match=part) as error:
        open_dataset("text", {"folder": (folder := make(home)) and str(folder), "tokenizer": "characters"})
    assert error.value.code == code


class Spoilt:
    """A document that is not UTF-8."""

    def __len__(self):
        return 1

    def __getitems__(self, records):
        return [{"text": b"abc def\n" * 200 + b"\xff" * 40}]


def test_windows_wait_for_no_processes_and_show_their_notes(home):
    dataset = open_dataset("tiny_shakespeare", {"tokenizer": "characters", "max_len": 16})
    spoilt = dataclasses.replace(from_tfds("tiny_shakespeare"), name="spoilt", open=lambda base: Spoilt())
    dataset = running(lambda: spoilt, "text", tokenizer=dataset.tokenizer, max_len=16)
    split = open_split(dataset, "train", "train", 0, workers=4)
    assert split.at_hand and split.notes() == [f"spoilt, split train: 1 {tokens.NOT_UTF8}"]
    assert next(train_batches(split, 0, 4, 0, 10))["targets"].shape == (4, 16)


@pytest.mark.parametrize("split,text,change", [
    ("train", "one two seven\nfour five\n", "its content has changed"),  # of as many tokens
    ("validation", "two five\n", "its content has changed"),
    ("train", "one two three\n", "it has 22 examples, before 38"),
    (None, "one two three\n", "it has 22 examples, before 38"),
])  # fmt: skip
def test_a_run_whose_data_have_changed_is_not_resumed(home, capsys, split, text, change):
    """Without files of its own, validation is part of train."""
    files = {"train_txt": "one two three\nfour five\n" * 50} | ({"validation_txt": "one five\n" * 60} if split else {})
    folder, run = folder_of(home, **files), home / "run"
    data = {"name": "text", "folder": folder, "tokenizer": "bytes", "vocabulary_size": 270, "max_len": 32}
    data |= {"batch_size": 8, "splits.test": "none", "splits.train": "train"}
    data["splits.validation"] = "validation" if split else "none"
    flags = [*(f"--config.data.{leaf}={value}" for leaf, value in data.items()), f"--workdir={run}"]
    command = ("train", "--config=configs/stdlib_gpt.py:tiny", *flags, "--config.train.steps=2")
    assert run_script(*command) == 0
    (run / "result.json").unlink()  # as in a run that was stopped
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (folder / f"{split or 'train'}.txt").write_text(text * (60 if split == "validation" else 50))
    capsys.readouterr()
    assert run_script(*command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    message = f"the split {split or 'train'} of text/mine differs from the one that this run was started with: {change}"
    assert message in line
    assert run_script("evaluate", f"--workdir={run}", f"--split={split or 'train'}") == 2
    if split:  # else the run's train is a slice that the shorter text does not have
        assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_on_a_corpus_of_ones_own(home, capsys):
    folder, run = folder_of(home, a_txt="one two three\nfour five\n" * 100, b_txt="six\n" * 50), home / "run"
    own = {"name": "text", "folder": folder, "vocabulary_size": 270, "max_len": 32}
    own |= {"splits.train": "train", "splits.validation": "none"}
    data = (f"--config.data.{leaf}={value}" for leaf, value in own.items())
    command = ("train", "--config=configs/stdlib_gpt.py:tiny", *data, f"--workdir={run}")
    assert run_script(*command) == 2 and "none: no test" in capsys.readouterr().err
    assert run_script(*command, "--config.data.splits.test=none") == 0
    start = json.loads((run / "manifest.json").read_text())[-1]["data"]
    assert start["name"] == "text/mine" and len(start["fingerprint"]["train"]) == 64
    assert run_script("generate", f"--workdir={run}", "--prompt=one ", "--tokens=8") == 0
