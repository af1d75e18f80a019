"""Sequence to sequence: fast paths equal slow ones, attention looks at what is there, translation by the script."""

import json
import math
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CASES, assert_same_bits, assert_same_numbers, make_config, run_script
from PIL import Image

from research import loop, runs
from research.data import train_tokenizer
from research.errors import UserError
from research.inference import translation
from research.models import seq2seq
from research.models.rnn import CELLS
from research.models.seq2seq import Seq2Seq, additive_scores
from research.tasks.translate import generate_from, is_equal, text_scores

RNG = np.random.default_rng(0)
SOURCE = RNG.integers(4, 9, (3, 6)) * (np.arange(6)[None] < [[6], [2], [4]])
TARGET = RNG.integers(4, 9, (3, 5)) * (np.arange(5)[None] < [[5], [3], [1]])
BEFORE = np.pad(TARGET[:, :-1], ((0, 0), (1, 0)), constant_values=2)
KINDS = [
    {"attention": "none"},
    {"attention": "additive"},
    {"attention": "multiplicative", "bidirectional": True, "layers": 2},
    {"attention": "additive", "input_feeding": True, "bidirectional": True, "layers": 2},
    {"attention": "multiplicative", "input_feeding": True, "tied": True},
]


def inputs(source=SOURCE, before=BEFORE, target=TARGET):
    return source, source != 0, before, target != 0


def build(**fields):
    model = Seq2Seq(**{"vocabulary": 9, "width": 8, "embedding": 8, "layers": 1, **fields})
    return model, model.init(jax.random.key(0), *inputs())


@partial(jax.jit, static_argnums=0)
def step_by_step(model, variables, source, before):
    memory, carry = model.apply(variables, source, source != 0, method="encode")
    found, looked = [], []
    for t in range(before.shape[1]):
        logits, weights, carry = model.apply(variables, memory, carry, before[:, t], method="decode")
        found.append(logits)
        looked.append(weights)
    return jnp.stack(found, axis=1), jnp.stack(looked, axis=1)


@partial(jax.jit, static_argnums=0, static_argnames="train")
def apply(model, variables, *inputs, **options):
    return model.apply(variables, *inputs, **options)


@pytest.mark.parametrize(
    "cell,fields",
    [*(("gru", fields) for fields in KINDS), *((cell, KINDS[2]) for cell in CELLS if cell != "gru")],
    ids=str,
)
def test_decoding_step_by_step_gives_the_logits_of_teacher_forcing(cell, fields):
    model, variables = build(cell=cell, **fields)
    logits = apply(model, variables, *inputs())
    one_by_one, _ = step_by_step(model, variables, SOURCE, BEFORE)
    real = TARGET != 0
    assert_same_numbers(logits[real], one_by_one[real])


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_a_padded_batch_equals_its_pairs_one_by_one(fields):
    model, variables = build(**fields)
    logits = model.apply(variables, *inputs())
    for i in range(3):
        s, t = int((SOURCE[i] != 0).sum()), int((TARGET[i] != 0).sum())
        alone = model.apply(variables, *inputs(*(x[i : i + 1, :n] for x, n in ((SOURCE, s), (BEFORE, t), (TARGET, t)))))
        assert_same_numbers(logits[i, :t], alone[0])


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_scheduled_sampling_at_rate_zero_is_teacher_forcing_and_at_one_its_own_output(fields):
    model, variables = build(**fields)
    rngs = {"dropout": jax.random.key(1)}
    forced = model.apply(variables, *inputs(), train=True, rngs=rngs)
    sample = lambda rate: model.apply(variables, *inputs(), train=True, sampling_rate=rate, rngs=rngs)
    real = TARGET != 0
    assert_same_numbers(sample(jnp.float32(0))[real], forced[real])  # a traced rate takes the slow road
    assert_same_bits(sample(0.0), forced)

    own = sample(jnp.float32(1))
    before = np.concatenate([BEFORE[:, :1], np.argmax(own, axis=-1)[:, :-1]], axis=1)
    expected, _ = step_by_step(model, variables, SOURCE, before)
    assert_same_numbers(own, expected)


@pytest.mark.parametrize("sampling_rate,places", [(0.0, 2), (0.5, 4)])  # gaps between layers; embedding and output too
def test_each_place_and_step_drops_by_a_key_of_its_own(monkeypatch, sampling_rate, places):
    keys, drop = [], seq2seq.drop

    def spy(key, x, rate):
        jax.debug.callback(lambda data: keys.append(tuple(data.tolist())), jax.random.key_data(key))
        return drop(key, x, rate)

    monkeypatch.setattr(seq2seq, "drop", spy)
    model, variables = build(layers=3, attention="additive", input_feeding=True, dropout=0.5)
    two = [x[:, :2] for x in inputs()]
    model.apply(variables, *two, train=True, sampling_rate=sampling_rate, rngs={"dropout": jax.random.key(1)})
    jax.effects_barrier()
    assert len(set(keys)) == len(keys) == 2 * places


@pytest.mark.parametrize("fields", KINDS[1:], ids=str)
def test_attention_rows_sum_to_one_over_the_real_source(fields):
    model, variables = build(**fields)
    _, weights = step_by_step(model, variables, SOURCE, BEFORE)
    real = np.broadcast_to((SOURCE != 0)[:, None], weights.shape)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    assert (np.asarray(weights)[~real] == 0).all() and (np.asarray(weights)[real] > 0).all()


def test_additive_scores_and_their_gradient_are_the_formulas():
    queries, keys, score = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((2, 7, 4), (2, 5, 4), (4,)))
    plain = lambda q, k, v: jnp.tanh(q[:, :, None] + k[:, None]) @ v
    weights = jnp.asarray(RNG.normal(size=(2, 7, 5)), jnp.float32)
    ours, theirs = (
        jax.value_and_grad(lambda *a: (f(*a) * weights).sum(), (0, 1, 2))(queries, keys, score)
        for f in (additive_scores, plain)
    )
    assert_same_numbers(ours, theirs)


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_the_future_does_not_reach_the_past_and_the_source_reaches_all(fields):
    model, variables = build(**fields)
    full = np.full((3, 5), 5)
    logits = lambda before, source=SOURCE: apply(model, variables, *inputs(source, before, full))
    before = logits(full)
    for t in range(5):
        changed = full.copy()
        changed[:, t] = 6
        after = logits(changed)
        assert_same_bits(after[:, :t], before[:, :t])
        assert (np.abs(after - before)[:, t:].max(axis=(0, 2)) > 0).all()
    other = SOURCE.copy()
    other[:, 0] = np.where(other[:, 0] == 5, 6, 5)
    assert (np.abs(logits(full, other) - before).max(axis=-1) > 0).all()


@pytest.mark.parametrize(
    "fields,part",
    [({"tied": True, "width": 4}, "config.model.embedding: 8 must be"), ({"input_feeding": True}, "no attention")],
)
def test_fields_that_contradict_each_other_are_refused(fields, part):
    with pytest.raises(UserError, match=part) as error:
        build(**fields)
    assert error.value.code == 2


def test_parameter_count_is_the_one_worked_by_hand():
    def count(**fields):
        model = Seq2Seq(vocabulary=100, width=128, embedding=128, layers=2, **fields)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs()))
        return sum(x.size for x in jax.tree.leaves(shapes))

    layer = 2 * 128 * 384 + 384 + 128  # W, U, b and n's d
    head = 128 * 100 + 100
    assert count() == 2 * 100 * 128 + 4 * layer + head
    additive = 128 * 128 + 256 * 128 + 128 * 128 + 128  # keys, outputs, queries, score
    assert count(attention="additive") == count() + additive


def test_nothing_equals_a_target_that_is_cut_or_has_an_unknown_token():
    ids = SimpleNamespace(pad=0, unknown=1, end=3)
    target = np.array([[5, 6, 3, 0], [5, 6, 7, 8], [5, 1, 3, 0], [5, 6, 3, 0]])
    found = np.array([[5, 6, 3, 0, 0], [5, 6, 7, 8, 0], [5, 1, 3, 0, 0], [5, 6, 7, 3, 0]])
    assert is_equal(found, target, ids).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_hypotheses_of_a_beam_look_at_their_own_source_and_score_as_the_model_does(fields):
    """The memory is shared by a source's hypotheses: as many rows of it as there are sources, not as hypotheses."""
    model, variables = build(**fields)
    variables = jax.tree.map(lambda x: 3 * x, variables)  # or all sources would be translated alike
    ids = SimpleNamespace(pad=0, unknown=1, begin=2, end=3)
    search = jax.jit(lambda source: generate_from(model, variables, source, 5, ids, beam_size=3, length_penalty=1.0))
    tokens, scores = search(SOURCE)
    assert len({row.tobytes() for row in np.asarray(tokens[:, 0])}) > 1
    for i in range(len(SOURCE)):
        alone, own = search(SOURCE[i : i + 1])
        assert np.array_equal(tokens[i], alone[0])
        assert_same_numbers(scores[i], own[0], 1e-5)
        best = np.asarray(tokens[i, :1])
        before = np.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=ids.begin)
        logits = model.apply(variables, SOURCE[i : i + 1], SOURCE[i : i + 1] != 0, before, best != 0)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), best[..., None], axis=-1)[..., 0]
        assert float(scores[i, 0]) == pytest.approx(float((picked * (best != 0)).sum() / (best != 0).sum()), rel=1e-4)


def test_bleu_is_the_formula_and_tells_the_translation_from_its_reference():
    """Papineni et al. 2002: the brevity penalty by the translation's length, precisions of its n-grams."""
    texts = "a b c d e f g h", "a b c d e f"  # what the one has beyond the other is its end
    tokenizer = train_tokenizer.train(texts, "words", 50)
    long, short = tokenizer.encode(texts)
    as_bytes = lambda text: np.frombuffer(text.encode(), np.uint8)[None]
    scores = lambda ids, reference: text_scores(tokenizer, np.array([ids]), as_bytes(reference))
    assert scores(short, texts[0])["bleu"] == pytest.approx(100 * math.exp(1 - 8 / 6))
    assert scores(long, texts[1])["bleu"] == pytest.approx(100 * (6 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** (1 / 4))
    # Popovic 2015: F of n-grams of 1 to 6 characters, blanks left out, recall counting twice as much as precision.
    recall = np.mean([(7 - n) / (9 - n) for n in range(1, 7)])
    assert scores(short, texts[0])["chrf"] == pytest.approx(100 * 5 * recall / (4 + recall))
    assert scores(long, texts[1])["chrf"] == pytest.approx(100 * 5 * recall / (4 * recall + 1))


@pytest.mark.parametrize("kind", train_tokenizer.KINDS)
def test_blanks_alone_are_an_empty_text_to_every_tokenizer(kind):
    tokenizer = train_tokenizer.train(["a film", "of two \t words"] * 4, kind, 300)
    run = SimpleNamespace(tokenizer=tokenizer)
    assert translation.encode(run, ["a film"], ["one"]) == tokenizer.encode(["a film"])
    for text in ("", " ", "\t \n", "\u00a0\u2003"):
        with pytest.raises(UserError, match="two: .* is empty") as error:
            translation.encode(run, ["a film", text], ["one", "two"])
        assert error.value.code == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has not learnt much: what the scripts do with it is the same."""
    folder = tmp_path_factory.mktemp("seq2seq") / "run"
    loop.train(
        make_config(**CASES["seq2seq"], model__name="seq2seq", task__beam_size=2), folder, devices=jax.devices()[:1]
    )
    return folder


def test_translate_prints_one_line_a_text_and_the_same_for_one_and_for_many(run, tmp_path, capsys):
    (tmp_path / "sums.txt").write_text("1+2\n34+5\n66+7\n")
    assert (
        run_script("translate", f"--workdir={run}", f"--file={tmp_path}/sums.txt", f"--output={tmp_path}/o.jsonl") == 0
    )
    together = capsys.readouterr().out.splitlines()
    alone = []
    for one in ("1+2", "34+5", "66+7"):
        assert run_script("translate", f"--workdir={run}", f"--text={one}") == 0
        alone += capsys.readouterr().out.splitlines()
    assert alone == together and len(together) == 3
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == ["1+2", "34+5", "66+7"]
    assert [row["translations"][0]["text"] for row in rows] == together


def test_nbest_are_different_and_fall_in_score(run, capsys):
    assert run_script("translate", f"--workdir={run}", "--text=1+2", "--beam_size=4", "--nbest=3") == 0
    scores, texts = zip(*(line.split("  ", 1) for line in capsys.readouterr().out.splitlines()))
    assert len(set(texts)) == 3 and sorted(map(float, scores), reverse=True) == list(map(float, scores))


def test_the_picture_of_attention_is_drawn_and_its_rows_sum_to_one(run, tmp_path):
    assert run_script("translate", f"--workdir={run}", "--text=12+3", f"--attention={tmp_path}/a.png") == 0
    assert Image.open(tmp_path / "a.png").size[0] > 200
    loaded = runs.load(run)
    ((best, *_),) = translation.translate(loaded, ["12+3"], ["--text"])
    weights, source, target = translation.attention(loaded, "12+3", best.tokens)
    assert weights.shape == (len(target), len(source)) == (len(best.tokens), 5)
    assert source[:4] == ["1", "2", "+", "3"]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_a_run_is_evaluated_and_translated_by_the_tokenizer_that_it_keeps(run, tmp_path, capsys):
    loaded = runs.load(run)
    assert loaded.tokenizer.json == (run / "tokenizer.json").read_text()
    assert run_script("evaluate", f"--workdir={run}", "--split=validation", f"--output={tmp_path}/m.json") == 0
    found = runs.read_json(tmp_path / "m.json")["metrics"]
    assert found == pytest.approx(loaded.result["metrics"]["validation"])
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


WRONG = [
    (["--text="], "is empty"),
    (["--text=äöü"], "no token of it is in the run's vocabulary"),
    (["--text=123+456"], "7 tokens and an end; the run reads at most 6"),
    (["--text=1+2", "--beam_size=0"], "--beam_size: 0"),
    (["--text=1+2", "--beam_size=99"], "from 1 to the vocabulary's 15 tokens"),
    (["--text=1+2", "--beam_size=2", "--nbest=3"], "--nbest: 3"),
    (["--text=1+2", "--nbest=0"], "--nbest: 0"),
    (["--text=1+2", "--length_penalty=-1"], "--length_penalty"),
    (["--text=1+2", "--length_penalty=nan"], "--length_penalty"),
    (["--text=1+2", "--file=x"], "not both"),
    ([], "give --text or --file"),
    (["--file=F", "--attention=a.png"], "--attention"),
]


@pytest.mark.parametrize("flags,part", WRONG, ids=str)
def test_what_cannot_be_translated_is_one_line(run, flags, part, capsys):
    assert run_script("translate", f"--workdir={run}", *flags) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and part in line and captured.out == ""


def test_a_file_has_a_translation_per_line_and_is_refused_unless_it_is_utf8(run, tmp_path, capsys):
    (tmp_path / "sums.txt").write_bytes(b"\xef\xbb\xbf1+2\r\n1+\r2\n3+\x0c4\n")
    assert run_script("translate", f"--workdir={run}", f"--file={tmp_path}/sums.txt") == 0
    lines = capsys.readouterr().out.splitlines()
    assert run_script("translate", f"--workdir={run}", "--text=1+2") == 0
    assert len(lines) == 3 and lines[0] == capsys.readouterr().out.strip()
    (tmp_path / "sums.txt").write_bytes(b"1+2\n1\xff+2\n")
    assert run_script("translate", f"--workdir={run}", f"--file={tmp_path}/sums.txt") == 3
    assert "sums.txt: byte 5 (line 2) is not UTF-8" in capsys.readouterr().err
    (tmp_path / "sums.txt").write_bytes(b"1+2\n\n")
    assert run_script("translate", f"--workdir={run}", f"--file={tmp_path}/sums.txt") == 2
    assert "sums.txt, line 2: '' is empty" in capsys.readouterr().err
    (tmp_path / "sums.txt").write_bytes(b"")
    for file in ("sums.txt", "nowhere.txt"):
        assert run_script("translate", f"--workdir={run}", f"--file={tmp_path}/{file}") == 3


@pytest.mark.parametrize("content", [None, "{", "another"])
def test_a_tokenizer_that_is_not_the_runs_is_refused(run, content, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "tokenizer.json"
    path.unlink() if content is None else path.write_text(
        train_tokenizer.train(["1+23"], "characters", 50).json if content == "another" else content
    )
    for script, flags in [("translate", ["--text=1+2"]), ("evaluate", [])]:
        assert run_script(script, f"--workdir={tmp_path}/run", *flags) == 3
        assert "tokenizer.json" in capsys.readouterr().err


@pytest.mark.parametrize("beam_size", [0, 99])
def test_a_beam_that_cannot_be_is_refused_before_anything_is_written(beam_size, tmp_path):
    case = {**CASES["seq2seq"], "model__name": "seq2seq", "data__splits__test": None}
    with pytest.raises(UserError, match="config.task.beam_size") as error:
        loop.train(make_config(**case, task__beam_size=beam_size), tmp_path / "run")
    assert error.value.code == 2 and not (tmp_path / "run").exists()
