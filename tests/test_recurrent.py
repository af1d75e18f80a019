"""Recurrent networks on tokens: what they see, what their metrics say, what a run of them predicts."""

import json
import math

import jax
import numpy as np
import pytest
from conftest import CASES, assert_same_bits, assert_same_numbers, make_config, make_setup, run_script

from research import loop, runs
from research.data.batches import read
from research.evaluation import evaluate
from research.models.recurrent import RecurrentClassifier, RecurrentLM
from research.randomness import run_key

RNG = np.random.default_rng(0)
LENGTHS = np.array([6, 1, 4])
TOKENS = RNG.integers(4, 9, (3, 6)) * (np.arange(6)[None] < LENGTHS[:, None])


def build(model):
    variables = jax.jit(model.init)(run_key(0), TOKENS, TOKENS != 0)
    return jax.jit(lambda tokens: model.apply(variables, tokens, tokens != 0))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_no_class(bidirectional):
    logits = build(RecurrentClassifier(width=8, embedding=8, bidirectional=bidirectional, vocabulary=9, classes=3))
    for row, n, expected in zip(TOKENS, LENGTHS, logits(TOKENS)):
        assert_same_numbers(logits(row[None, :n])[0], expected)


def test_every_token_of_a_text_reaches_its_class():
    logits = build(RecurrentClassifier(width=64, embedding=8, vocabulary=9, classes=3))
    before = logits(TOKENS[:1])
    for t in range(6):
        changed = TOKENS[:1].copy()
        changed[0, t] = 4 if changed[0, t] != 4 else 5
        assert np.any(np.asarray(logits(changed)) != before), t


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_sees_the_past_and_not_the_future(tied):
    logits = build(RecurrentLM(width=8, embedding=8, layers=2, tied=tied, vocabulary=9))
    full = np.full((1, 6), 5)
    before = logits(full)
    for t in range(6):
        changed = full.copy()
        changed[0, t] = 6
        after = logits(changed)
        assert_same_bits(after[:, :t], before[:, :t])
        assert (np.abs(after - before)[0, t:].max(axis=-1) > 0).all()


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_perplexity_and_bits_a_byte_are_those_of_the_whole_text(tokenizer):
    setup = make_setup(model__name="recurrent_lm", data__tokenizer=tokenizer, data__vocabulary_size=300,
                       data__context=4, data__splits__validation="validation")  # fmt: skip
    variables = {"params": jax.jit(setup.init)(run_key(0)).params}
    found = evaluate(setup, variables, "validation")

    rows = read(setup.splits["validation"], np.arange(len(setup.splits["validation"])))
    nats = -np.asarray(setup.task.predict(setup.model, variables, rows)["log_probabilities"], np.float64)
    scored = rows["targets"] != 0
    text = setup.dataset.tokenizer.decode(rows["targets"][scored])
    assert found["loss"] == pytest.approx(nats[scored].mean(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats[scored].mean()), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats[scored].sum() / math.log(2) / len(text.encode()), rel=1e-5)


def test_a_text_and_a_split_are_classified_from_the_command_line(tmp_path, capsys):
    case = {**CASES["recurrent_classifier"], "model__name": "recurrent_classifier"}
    loop.train(make_config(**case, train__steps=24), tmp_path / "run", devices=jax.devices()[:1])
    workdir = f"--workdir={tmp_path}/run"
    raw = runs.load(tmp_path / "run")
    text = raw.tokenizer.decode(raw.tokenizer.encode([" ".join(raw.tokenizer.vocabulary[4:7])])[0])
    assert run_script("predict", workdir, f"--text={text}", f"--output={tmp_path}/one.jsonl") == 0
    (row,) = map(json.loads, (tmp_path / "one.jsonl").read_text().splitlines())
    assert row["input"] == text and sum(c["probability"] for c in row["top"]) == pytest.approx(1)
    assert run_script("predict", workdir, "--split=validation", f"--output={tmp_path}/all.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    right = np.mean([row["top"][0]["class"] == row["label"] for row in rows])
    assert right == pytest.approx(raw.result["metrics"]["validation"]["accuracy"])
    capsys.readouterr()
    for flags, part in [
        (["--text="], "is empty"),
        (["--text= \t\u00a0"], "is empty"),
        (["--text=äöü ßßß"], "no token of it"),
        (["--text=\udcff\udcfe"], "no token of it"),  # bytes of the command line that are no UTF-8
        ([f"--text={text * 9}"], "reads at most 12"),
        (["picture.png"], "image files"),
    ]:
        assert run_script("predict", workdir, *flags) == 2
        assert part in capsys.readouterr().err
    assert run_script("translate", workdir, "--text=x") == 2
    assert "its task is classify_text" in capsys.readouterr().err


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["recurrent_classifier", "encoder"])
def test_a_text_run_resumes_to_the_same_bits(name, tmp_path, monkeypatch):
    from test_loop import stop_at

    from research.errors import UserError

    own = {"data__buckets": (6,), "data__augment__word_dropout": 0.2} if name == "recurrent_classifier" else {}
    options = {**CASES[name], "model__name": name, "model__dropout": 0.3, **own}
    train = lambda name: loop.train(make_config(**options), tmp_path / name, devices=jax.devices()[:1])
    whole = train("whole")
    with monkeypatch.context() as patched:
        stop_at(6, patched)
        with pytest.raises(UserError, match="stopped at step"):
            train("run")
    assert train("run")["metrics"] == whole["metrics"]
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert_same_bits(runs.load(tmp_path / "run").variables, runs.load(tmp_path / "whole").variables)
