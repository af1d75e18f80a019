"""Texts and pairs of texts, read whole and told apart: how they are cut, what is learnt of them, what is predicted."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import make_config, make_setup, run_script

from research import loop, pretrained, runs
from research.data import open_dataset, text
from research.data.batches import eval_batches, open_split
from research.errors import UserError
from research.pretrained import layout
from research.randomness import run_key

MEMORY = 2**31
PAIRS = {
    "data__name": "glue/rte",
    "data__tokenizer": "bert",
    "data__vocabulary_size": 120,
    "data__max_len": 24,
    "data__splits__train": "train",
    "data__splits__validation": "validation",
    "data__splits__test": None,
    "task__name": "classify_text",
    "model__name": "encoder",
    "model__head": "label",
    "model__layers": 1,
    "model__heads": 2,
    "model__width": 32,
    "model__context": 24,
    "model__dropout": 0.0,
}


def raw_pairs(n):
    examples = text.from_tfds("glue/rte").open("train").__getitems__(range(n))
    return [(e["sentence1"].decode(), e["sentence2"].decode(), int(e["label"])) for e in examples]


@pytest.mark.parametrize("kind", ["bert", "words"])
@pytest.mark.parametrize("max_len", [40, 12])
def test_a_pair_is_joined_with_its_marks_and_the_longer_text_is_cut(kind, max_len):
    dataset = open_dataset("glue/rte", {"tokenizer": kind, "vocabulary_size": 120, "max_len": max_len})
    ids, source = dataset.tokenizer, dataset.open("train")
    rows, cut = source.stacked(np.arange(32)), 0
    for tokens, types, label, (first, second, true) in zip(rows["tokens"], rows["types"], rows["label"], raw_pairs(32)):
        one, two = ids.encode([first, second])
        n = int((tokens != ids.pad).sum())
        before = [ids.begin] if kind == "bert" else []
        marks = len(before) + 2
        kept = [min(len(one), max(len(two), max_len - marks - len(two))), len(two)]
        assert sum(kept) + marks <= max_len  # here the second is short, and never cut
        assert tokens[:n].tolist() == [*before, *one[: kept[0]], ids.end, *two, ids.end] and n <= max_len
        assert types.tolist() == [0] * (len(before) + kept[0] + 1) + [1] * (len(two) + 1) + [0] * (max_len - n)
        assert label == true
        cut += len(one) > kept[0]
    assert (cut > 0) == (max_len == 12)
    assert source.notes == ({f"texts cut to {max_len} tokens": cut} if cut else {})


@pytest.mark.parametrize("kind", ["bert", "words"])
def test_one_text_that_is_cut_keeps_its_marks_but_for_the_end_of_a_tokenizer_of_ours(kind):
    dataset = open_dataset("newsgroups20", {"tokenizer": kind, "vocabulary_size": 200, "max_len": 16})
    ids, texts = dataset.tokenizer, text.from_tfds("newsgroups20").open("train").__getitems__(range(8))
    rows = dataset.open("train").stacked(np.arange(8))["tokens"]
    for row, example in zip(rows, texts):
        (whole,) = ids.encode([example["text"].decode()])
        wanted = [ids.begin, *whole[:14], ids.end] if kind == "bert" else whole[:16]
        assert len(whole) > 16 and row.tolist() == wanted


def test_a_pair_with_an_empty_text_is_counted_and_a_length_without_room_for_one_refused(monkeypatch):
    raw = text.from_tfds("glue/rte")

    class Spoilt:
        def __len__(self):
            return 8

        def __getitems__(self, records):
            return [{"sentence1": b"a dog", "sentence2": b" " if i % 4 else b"a cat", "label": 0} for i in records]

    own = {"open": lambda split: Spoilt(), "examples": {"train": 8}, "fingerprint": lambda split: "empty"}
    monkeypatch.setattr(text, "from_tfds", lambda name: dataclasses.replace(raw, **own))
    source = open_dataset("glue/rte", {"tokenizer": "words", "max_len": 8}).open("train")
    source.stacked(np.arange(8))
    assert source.notes == {"pairs with an empty text": 6}
    with pytest.raises(UserError, match="config.data.max_len: 3; a pair takes at least 4 tokens") as error:
        open_dataset("glue/rte", {"tokenizer": "words", "max_len": 3})
    assert error.value.code == 2


def test_a_bucket_cuts_all_that_has_a_value_a_token():
    own = {"tokenizer": "bert", "vocabulary_size": 120, "max_len": 40}
    whole = open_split(open_dataset("glue/rte", own), "validation", "validation", MEMORY, 0).arrays["validation"]
    lengths = (whole["tokens"] != 0).sum(axis=1)
    short, long = int(lengths.min()), int(lengths.max())
    assert short < long < 40
    split = open_split(open_dataset("glue/rte", {**own, "buckets": (short, long)}), "validation", "", MEMORY, 0)
    shapes = set()
    for numbers, batch in eval_batches(split, 4):
        shapes.add(batch["tokens"].shape)
        for field in ("tokens", "types"):
            size = batch[field].shape[1]
            np.testing.assert_array_equal(batch[field], whole[field][numbers][:, :size])
            assert batch["tokens"].shape == batch[field].shape and not whole["types"][numbers][:, size:].any()
    assert shapes == {(4, short), (4, long)}


def test_pairs_are_told_from_the_command_line(tmp_path, capsys):
    result = loop.train(make_config(**PAIRS), tmp_path / "run", devices=jax.devices()[:1])
    workdir, run = f"--workdir={tmp_path}/run", runs.load(tmp_path / "run")
    assert run_script("predict", workdir, "--split=validation", f"--output={tmp_path}/all.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    right = np.mean([row["top"][0]["class"] == row["label"] for row in rows])
    assert right == pytest.approx(result["metrics"]["validation"]["accuracy"])
    first, second, label = next(pair for pair in raw_pairs(9) if pair[2] == 0)
    assert run_script("predict", workdir, f"--text={first}", f"--second={second}", f"--output={tmp_path}/1.jsonl") == 0
    (row,) = map(json.loads, (tmp_path / "1.jsonl").read_text().splitlines())
    assert row["input"] == f"{first} | {second}" and {c["class"] for c in row["top"]} == set(run.spec.labels)
    ids = run.tokenizer
    tokens, types = ids.join(*ids.encode([first, second]))
    batch = {"tokens": np.array([tokens], np.int32), "types": np.array([types], np.int32)}
    logits = run.model.apply(run.variables, batch["tokens"], types=batch["types"])
    assert np.abs(logits - run.model.apply(run.variables, batch["tokens"])).max() > 1e-5  # which text is which matters
    wanted = jax.nn.softmax(logits)[0]
    assert {c["class"]: c["probability"] for c in row["top"]} == pytest.approx(
        dict(zip(run.spec.labels, wanted.tolist()))
    )
    capsys.readouterr()
    for flags, part in [
        ([f"--text={first}"], "--text: the run reads pairs of texts: give --second"),
        (["--split=validation", f"--second={first}"], "--second: goes with a text: give --text"),
        ([f"--text={first}", "--second= "], "--second: ' ' is empty"),
        ([f"--text={first}", f"--second={second * 9}"], "the run reads at most 24"),
    ]:
        assert run_script("predict", workdir, *flags) == 2
        assert part in capsys.readouterr().err


def test_a_model_that_knows_no_pairs_and_a_text_longer_than_the_positions_are_refused():
    with pytest.raises(
        UserError, match="recurrent_classifier takes tokens, mask, but .* gives tokens, mask, types"
    ) as e:
        make_setup(**{key: value for key, value in PAIRS.items() if not key.startswith("model")},
                   model__name="recurrent_classifier", model__width=8, model__embedding=8)  # fmt: skip
    assert e.value.code == 2
    with pytest.raises(UserError, match="config.model.context: 16") as error:
        make_setup(**{**PAIRS, "model__context": 16})
    assert error.value.code == 2


def test_names_of_labels_go_out_and_in_and_a_head_of_another_order_is_refused(tmp_path, capsys):
    own = {"data__tokenizer": "bert", "data__vocabulary_size": 120, "data__max_len": 24, "data__splits__test": None}
    own |= {name: value for name, value in PAIRS.items() if name.startswith(("task", "model"))}
    case = {"data__name": "glue/sst2", **own, "train__steps": 2, "eval__every_steps": 2}
    case |= {"eval__metric": "accuracy", "eval__direction": "max"}
    setup = make_setup(**case)
    variables, ids = {"params": jax.jit(setup.init)(run_key(0)).params}, setup.dataset.tokenizer
    for name, labels in {"same": ("negative", "positive"), "turned": ("positive", "negative"), "other": ("a", "b"),
                         "none": ()}.items():  # fmt: skip
        pretrained.save(tmp_path / name, setup.model, variables, ids, labels)
        assert pretrained.labels(tmp_path / name) == labels
        start = {"init_from": f"hf:{tmp_path / name}", "data__tokenizer": f"hf:{tmp_path / name}"}
        run = lambda: loop.train(make_config(**{**case, **start}), tmp_path / "run" / name, devices=jax.devices()[:1])
        if name == "turned":
            message = (
                "config.init_from: its head predicts the classes in another order: positive, negative there, negative"
            )
            with pytest.raises(UserError, match=message) as error:
                run()
            assert error.value.code == 2 and not (tmp_path / "run" / name).exists()
            continue
        run()
        said = capsys.readouterr().err
        assert "head_kernel" in said
        assert ("its head predicted a, b; the classes here are negative, positive" in said) == (name == "other")
    start["init_from"] = f"hf:{tmp_path / 'turned'}:block0,embedding"  # which takes no head
    loop.train(make_config(**{**case, **start}), tmp_path / "run" / "part", devices=jax.devices()[:1])
    with pytest.raises(UserError, match="3 names of labels; the model has 2 classes") as error:
        pretrained.save(tmp_path / "more", setup.model, variables, ids, ("a", "b", "c"))
    assert error.value.code == 2 and not (tmp_path / "more").exists()


UNNAMED = (None, [], "x", {"0": "a", "1": "a"}, {"0": 1}, {"x": "a"}, {"0": "LABEL_0", "1": "LABEL_1"})


@pytest.mark.parametrize("named", UNNAMED)
def test_what_names_no_label_is_none(named):
    assert layout.labels_of({"id2label": named}) == ()
