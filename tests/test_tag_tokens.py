"""Tags of words: where they stand, which phrases they make, what a run of them says."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import assert_same_numbers, make_config, make_setup, run_script

from research import loop, runs
from research.data import open_dataset, text
from research.data import tags as tag_data
from research.data.batches import open_split, read
from research.data.dataset import UNTAGGED
from research.errors import UserError
from research.evaluation import evaluate
from research.randomness import run_key
from research.tasks.tag_tokens import parsed, phrase_scores, phrases

MEMORY = 2**31
CASE = {
    "data__name": "wnut_17",
    "data__vocabulary_size": 60,
    "data__max_len": 20,
    "data__splits__train": "train",
    "data__splits__validation": "validation",
    "data__splits__test": "test",
    "task__name": "tag_tokens",
    "eval__metric": "f1",
    "eval__direction": "max",
    "model__name": "encoder",
    "model__head": "tags",
    "model__layers": 1,
    "model__heads": 2,
    "model__width": 32,
    "model__context": 20,
    "model__dropout": 0.0,
    "optimizer__name": "adam",
    "optimizer__learning_rate": 3e-3,
}


def words_of(base, n):
    examples = text.from_tfds("wnut_17").open(base).__getitems__(range(n))
    return [([word.decode() for word in e["tokens"]], list(map(int, e["tags"]))) for e in examples]


@pytest.mark.parametrize(
    "tags,expected",
    [
        ("O B-PER I-PER O", {(1, 3, "PER")}),
        ("B-PER B-PER I-PER", {(0, 1, "PER"), (1, 3, "PER")}),
        ("B-PER I-LOC I-LOC", {(0, 1, "PER"), (1, 3, "LOC")}),  # of another type: anew
        ("I-PER I-PER B-PER O I-LOC", {(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC")}),  # IOB1
        ("S-PER B-LOC E-LOC S-LOC O", {(0, 1, "PER"), (1, 3, "LOC"), (3, 4, "LOC")}),  # IOBES
        ("B-PER E-PER I-PER E-PER E-PER", {(0, 2, "PER"), (2, 4, "PER"), (4, 5, "PER")}),
        ("B-PER O B-PER", {(0, 1, "PER"), (2, 3, "PER")}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_phrases_are_those_of_conlleval(tags, expected):
    assert phrases(parsed(tags.split())) == expected


def test_scores_are_those_that_are_published():
    """The example of seqeval's README, which says 0.50; and one that begins right and goes on with another type."""
    true = ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    found = ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    rows = [(parsed(one.split()), parsed(other.split())) for one, other in zip(true, found)]
    assert phrase_scores(rows) == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert phrase_scores(rows[:1]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    more = [(parsed(["B-A", "O", "B-A"]), parsed(["B-A", "B-B", "I-A"]))]
    assert phrase_scores(more) == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8})
    assert phrase_scores([]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_scores_equal_seqevals_on_tags_of_any_order():
    peer = pytest.importorskip("seqeval.metrics", reason="seqeval: pip install -r requirements-bench.txt")
    rng, names = np.random.default_rng(0), ["O", "B-a", "I-a", "E-a", "S-a", "B-b", "I-b", "E-b"]
    true, found = ([[str(rng.choice(names)) for _ in range(n)] for n in range(1, 60)] for _ in range(2))
    found = [[t if rng.random() < 0.7 else f for t, f in zip(*rows)] for rows in zip(true, found)]
    ours = phrase_scores([(parsed(one), parsed(other)) for one, other in zip(true, found)])
    assert ours["f1"] == pytest.approx(peer.f1_score(true, found)) and 0.2 < ours["f1"] < 0.8
    assert ours["precision"] == pytest.approx(peer.precision_score(true, found))
    assert ours["recall"] == pytest.approx(peer.recall_score(true, found))


@pytest.mark.parametrize("kind", ["bert", "words", "bpe", "bytes"])
def test_a_words_tag_stands_at_its_first_piece(kind):
    dataset = open_dataset("wnut_17", {"tokenizer": kind, "vocabulary_size": 300, "max_len": 64})
    ids, rows = dataset.tokenizer, dataset.open("train").stacked(np.arange(32))
    assert dataset.classes == 13 and dataset.labels[:3] == ("O", "B-corporation", "I-corporation")
    for tokens, tags, (words, wanted) in zip(rows["tokens"], rows["tags"], words_of("train", 32)):
        places = np.flatnonzero(tags != UNTAGGED)
        assert tags[places].tolist() == wanted
        pieces = np.split(tokens, places)
        before, behind = ids.frame
        assert pieces[0].tolist() == before
        for word, piece in zip(words, pieces[1:]):
            if kind != "words":  # whose unknown words are lost
                assert ids.decode(piece).replace(" ", "") == (word.lower() if kind == "bert" else word)
        if kind in ("bpe", "bytes"):  # to which a blank before a word is a part of it
            assert ids.decode(tokens) == " ".join(words)
        n = int((tokens != ids.pad).sum())
        assert tokens[:n].tolist()[len(tokens[:n]) - len(behind) :] == behind


def test_words_without_room_are_cut_and_counted_and_one_without_a_piece_is_unknown():
    dataset = open_dataset("wnut_17", {"vocabulary_size": 60, "max_len": 8})
    ids, source = dataset.tokenizer, dataset.open("train")
    rows, lost = source.stacked(np.arange(32)), 0
    for tokens, tags, (words, wanted) in zip(rows["tokens"], rows["tags"], words_of("train", 32)):
        kept = tags[tags != UNTAGGED].tolist()
        assert kept == wanted[: len(kept)] and tokens[tokens != ids.pad][-1] == ids.end
        lost += len(words) - len(kept)
    assert lost > 0 and source.notes == {"words behind 8 tokens, which are not tagged": lost}
    ((row, places),) = tag_data.by_word(ids, [["met", "\u200b", "met"]], 8)
    (met,) = ids.encode(["met"])
    assert row == [ids.begin, *met, ids.unknown, *met, ids.end] and places == [1, 1 + len(met), 2 + len(met)]
    with pytest.raises(UserError, match="config.data.max_len: 2; a word .* at least 3 tokens") as error:
        open_dataset("wnut_17", {"vocabulary_size": 60, "max_len": 2})
    assert error.value.code == 2


@pytest.mark.parametrize(
    "example,message",
    [
        ({"tokens": [b"a", b"b"], "tags": [0, 13]}, r"wnut_17, split train, record 2: tag 13 is outside \[0, 13\)"),
        ({"tokens": [b"a", b"b"], "tags": [-1, 0]}, r"wnut_17, split train, record 2: tag -1 is outside \[0, 13\)"),
        (
            {"tokens": [b"a", b"b"], "tags": [0]},
            "split train, records 0 to 3: cannot be read: .*as many tags are wanted",
        ),
        ({"tokens": [b"a", b""], "tags": [0, 0]}, "split train, records 0 to 3: cannot be read: .*none of them empty"),
    ],
)
def test_tags_outside_the_set_or_not_one_a_word_are_refused(example, message, monkeypatch):
    raw, right = text.from_tfds("wnut_17"), {"tokens": [b"a"], "tags": [0]}

    class Spoilt:
        def __len__(self):
            return 4

        def __getitems__(self, records):
            return [example if i == 2 else right for i in records]

    own = {"open": lambda split: Spoilt(), "examples": {"train": 4}, "fingerprint": lambda split: "spoilt"}
    monkeypatch.setattr(tag_data, "from_tfds", lambda name: dataclasses.replace(raw, **own))
    dataset = dataclasses.replace(open_dataset("wnut_17", {"tokenizer": "characters"}), fingerprint=None)
    with pytest.raises(UserError, match=message) as error:
        open_split(dataset, "train", "train", MEMORY, 0)
    assert error.value.code == 3


def test_buckets_and_batches_change_no_score():
    whole = make_setup(**CASE)
    variables = {"params": jax.jit(whole.init)(run_key(1)).params}
    wanted = evaluate(whole, variables, "validation")
    assert 0 < wanted["accuracy"] < 1 and 0 < wanted["f1"] < 1 and wanted["precision"] != wanted["recall"]
    for more in ({"data__buckets": (12,)}, {"data__eval_batch_size": 7}):
        found = evaluate(make_setup(**CASE, **more), variables, "validation")
        assert found == pytest.approx(wanted, rel=1e-5)


def test_what_has_no_tag_counts_nothing():
    setup = make_setup(**CASE)
    variables = {"params": jax.jit(setup.init)(run_key(0)).params}
    batch = {**read(setup.splits["train"], np.arange(6)), "mask": np.array([1, 1, 1, 0, 1, 1], np.float32)}
    task = lambda batch: setup.task.loss(setup.model, variables, batch, None, False)[0]["loss"]
    loss, count = task(batch)
    assert count == sum((batch["tags"][i] >= 0).sum() for i in (0, 1, 2, 4, 5))
    one = [task({name: x[i : i + 1] for name, x in batch.items()}) for i in range(6)]
    assert_same_numbers(loss, sum(each for each, _ in one))
    assert one[3] == (0, 0)


def test_tags_are_learnt_and_told_from_the_command_line(tmp_path, capsys):
    result = loop.train(
        make_config(**CASE, train__steps=120, eval__every_steps=40), tmp_path / "run", devices=jax.devices()[:1]
    )
    assert result["metrics"]["test"]["f1"] > 0.9
    workdir, run = f"--workdir={tmp_path}/run", runs.load(tmp_path / "run")
    assert run_script("predict", workdir, "--split=test", f"--output={tmp_path}/all.jsonl") == 0
    rows = [json.loads(line)["words"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    named = lambda key: [parsed([word[key] for word in words]) for words in rows]
    assert phrase_scores(list(zip(named("label"), named("tag"))))["f1"] == result["metrics"]["test"]["f1"]
    capsys.readouterr()
    assert run_script("predict", workdir, "--text=yes , met  O'Hara again", f"--output={tmp_path}/1.jsonl") == 0
    (row,) = map(json.loads, (tmp_path / "1.jsonl").read_text().splitlines())
    assert [word["word"] for word in row["words"]] == ["yes", ",", "met", "O'Hara", "again"]
    assert [word["tag"] for word in row["words"]] == ["O", "O", "O", "B-person", "O"]
    assert "    O'Hara  B-person " in capsys.readouterr().out
    assert set(run.spec.labels) >= {word["tag"] for words in rows for word in words}
    for flags, part in [
        (["--text= "], "is empty"),
        (["--text=" + "met " * 40], "--text: 40 words; the run reads at most 20 tokens"),
        (["--text=a", "--second=b"], "predicts no classes"),
    ]:
        assert run_script("predict", workdir, *flags) == 2
        assert part in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"model__head": "label"}, "config.model.head: label; config.task.name tag_tokens wants tags"),
        ({"data__name": "glue/sst2"}, "config.task.name: tag_tokens wants tagged words; glue/sst2 has tokens, label"),
        ({"task__name": "classify_text"}, "config.model.head: tags; config.task.name classify_text wants label"),
    ],
)
def test_what_makes_no_run_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as error:
        make_setup(**{**CASE, "eval__metric": "loss", "eval__direction": "min", "data__splits__test": None, **changes})
    assert error.value.code == 2


@pytest.mark.parametrize("label", ["B", "B-", "-a", "X-a", "I_a", "BI-a", "o", "O-a", ""])
def test_names_that_are_no_tags_are_refused(label):
    with pytest.raises(UserError, match="wants tags named O, B-type and I-type; one is") as error:
        parsed(["O", label])
    assert error.value.code == 2
