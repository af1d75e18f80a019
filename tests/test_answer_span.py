"""Questions and what answers them: windows, losses, the best stretch, SQuAD's scores, what is predicted."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED, assert_same_numbers, make_config, make_setup, run_script

from research import loop, pretrained, runs
from research.data import open_dataset, text
from research.data.batches import open_split, read
from research.data.questions import OUTSIDE, questions, xquad
from research.errors import UserError
from research.evaluation import evaluate
from research.randomness import run_key
from research.tasks.answer_span import answer_scores, best_span, span_losses, span_scores

MEMORY = 2**31
QA = SHARED / "fixtures" / "hf" / "bert-tiny-qa"
DATA = {"vocabulary_size": 100, "max_len": 24, "stride": 5, "question_len": 8}
CASE = {
    "data__name": "xquad/en",
    **{f"data__{name}": value for name, value in DATA.items()},
    "data__splits__train": "train",
    "data__splits__validation": "validation",
    "data__splits__test": "test",
    "task__name": "answer_span",
    "task__longest": 6,
    "eval__metric": "f1",
    "eval__direction": "max",
    "model__name": "encoder",
    "model__head": "span",
    "model__layers": 1,
    "model__heads": 2,
    "model__width": 32,
    "model__context": 24,
    "model__dropout": 0.0,
}


@pytest.fixture(scope="module")
def dataset():
    return open_dataset("xquad/en", DATA)


def asked(base):
    """The questions of a split as they are."""
    raw = xquad()
    source = raw.open(base)
    return source.__getitems__(list(range(len(source))))


def test_articles_are_whole_in_one_split_and_every_question_is_in_one():
    titles = {base: {example["title"] for example in asked(base)} for base in ("train", "validation", "test")}
    assert {base: len(found) for base, found in titles.items()} == {"train": 12, "validation": 4, "test": 4}
    assert len(set().union(*titles.values())) == 20
    ids = [example["id"] for base in titles for example in asked(base)]
    assert len(ids) == len(set(ids)) == len(text.from_tfds("xquad/en").open("test"))


@pytest.mark.parametrize("base", ["train", "validation", "test"])
def test_windows_hold_every_token_of_a_text_and_the_answer_where_they_hold_all_of_it(dataset, base):
    source, ids = dataset.open(base), dataset.tokenizer
    rows, examples, offset = source.stacked(np.arange(len(source))), asked(base), 0
    first = rows["question"][0]
    assert first == {"train": 0, "validation": 48, "test": 64}[base] and dataset.examples[base] == len(source)
    for number, example in enumerate(examples):
        question, context = (example[name].decode() for name in ("question", "context"))
        (answer, at) = example["answers"]["text"][0].decode(), example["answers"]["answer_start"][0]
        ((whole, spans),) = ids.encode_spans([context])
        (words,) = ids.encode([question])
        words = words[: DATA["question_len"]]
        seen = np.zeros(len(whole), int)
        mine = np.flatnonzero(rows["question"] == first + number)
        for window, i in enumerate(mine):
            tokens, types, places = rows["tokens"][i], rows["types"][i], rows["spans"][i]
            inside = np.flatnonzero(places[:, 0] != OUTSIDE)
            start = window * DATA["stride"]
            assert tokens[: len(words) + 2].tolist() == [ids.begin, *words, ids.end]
            assert tokens[inside].tolist() == whole[start : start + len(inside)] and inside[0] == len(words) + 2
            assert tokens[inside[-1] + 1] == ids.end and (tokens[inside[-1] + 2 :] == ids.pad).all()
            assert types.tolist() == [0] * inside[0] + [1] * (len(inside) + 1) + [0] * (len(types) - inside[-1] - 2)
            seen[start : start + len(inside)] += 1
            stretch = bytes(rows["text"][i])
            for place, (low, high) in zip(inside, spans[start : start + len(inside)]):
                assert stretch[places[place, 0] : places[place, 1]].decode() == context[low:high]
            holding = [j for j, (low, high) in enumerate(spans) if high > at and low < at + len(answer)]
            if start <= holding[0] and holding[-1] < start + len(inside):
                found = stretch[places[rows["first"][i], 0] : places[rows["last"][i], 1]].decode()
                assert found == answer and rows["first"][i] > 0
            else:
                assert rows["first"][i] == rows["last"][i] == 0
            given = bytes(rows["answers"][i]).rstrip(b"\0").decode().split("\0")
            assert given == [one.decode() for one in example["answers"]["text"]]
        assert seen.all() and len(mine) > 1 and (rows["question"][mine] == first + number).all()
        offset += len(mine)
    assert offset == len(source)


def test_no_window_is_needless():
    wide = open_dataset("xquad/en", {**DATA, "max_len": 60, "stride": 40})
    assert wide.examples["train"] == len(asked("train"))


def spoilt(example):
    raw = xquad()
    good = {"question": b"Who?", "context": b"Anna met Bert", "answers": {"text": [b"Anna"], "answer_start": [0]}}

    class Spoilt:
        def __len__(self):
            return 4

        def __getitems__(self, records):
            return [{**good, **example} if i == 2 else good for i in records]

    own = {"open": lambda split: Spoilt(), "examples": {"train": 4}, "fingerprint": lambda split: repr(example)}
    return lambda: dataclasses.replace(raw, **own)


@pytest.mark.parametrize(
    "texts,starts,message",
    [
        (["Berta"], [9], "the answer 'Berta' is not in its context at 9"),
        (["Anna"], [1], "the answer 'Anna' is not in its context at 1"),
        (["Anna"], [-13], "the answer 'Anna' is not in its context at -13"),
        ([""], [0], "the answer '' is not in its context at 0"),
        (["Anna", "x"], [0, 0], "the answer 'x' is not in its context at 0"),
        ([], [], "it has no answer"),
        (["\u200b"], [0], "it has no context"),
    ],
)
def test_an_answer_that_is_not_in_its_context_is_refused(texts, starts, message):
    example = {"answers": {"text": [text.encode() for text in texts], "answer_start": starts}}
    example |= {"context": b"\xe2\x80\x8b"} if "context" in message and "answer" not in message else {}
    with pytest.raises(UserError, match=f"data set xquad/en, split train, record 2: {message}") as error:
        questions(spoilt(example), **DATA)
    assert error.value.code == 3


def test_an_answer_without_a_token_is_counted():
    example = {"context": b"Anna \xe2\x80\x8b met", "answers": {"text": [b"\xe2\x80\x8b"], "answer_start": [5]}}
    source = questions(spoilt(example), **DATA).open("train")
    rows = source.stacked(np.arange(4))
    assert source.notes == {"answers without a token": 1}
    assert rows["first"].tolist()[2] == 0 < rows["first"].min(where=np.arange(4) != 2, initial=9)


@pytest.mark.parametrize("stride,max_len,fits", [(0, 24, "1 to 13"), (14, 24, "1 to 13"), (1, 11, "none does")])
def test_windows_that_leave_tokens_out_are_refused(stride, max_len, fits):
    with pytest.raises(UserError, match=f"config.data.stride: {stride}; with max_len {max_len} .* {fits}") as error:
        open_dataset("xquad/en", {**DATA, "stride": stride, "max_len": max_len})
    assert error.value.code == 2


@pytest.mark.skipif(not QA.is_dir(), reason=f"no {QA}: it comes with the data, not with the code")
def test_losses_are_those_of_bert():
    stored = dict(np.load(QA / "expected.npz"))
    model, variables = pretrained.load(QA)
    names = ("input_ids", "attention_mask", "token_type_ids")
    logits = pretrained.logits(model, variables, {name: stored[name] for name in names})
    for suffix in ("", "_partly_outside"):
        first, last = (jnp.asarray(stored[f"{name}_positions{suffix}"]) for name in ("start", "end"))
        # Theirs tells padding, too.
        found = span_losses(logits["start"], logits["end"], first, last, jnp.ones(logits["start"].shape, bool))
        means = [(losses * counts).sum() / counts.sum() for losses, counts in found]
        assert sum(means) / 2 == pytest.approx(float(stored[f"loss{suffix}"]), abs=1e-4)
    assert found[0][1].sum() == len(first) - 1


def test_padding_changes_no_loss():
    rng = np.random.default_rng(0)
    start, end = jnp.asarray(rng.normal(size=(2, 3, 7)), jnp.float32)
    first, last, seen = jnp.asarray([0, 2, 4]), jnp.asarray([0, 3, 4]), jnp.ones((3, 7), bool)
    wide = lambda x, fill: jnp.pad(x, ((0, 0), (0, 5)), constant_values=fill)
    found = span_losses(wide(start, 9.0), wide(end, jnp.nan), first, last, wide(seen, False))
    assert_same_numbers(found, span_losses(start, end, first, last, seen))


@pytest.mark.parametrize("longest", [1, 3, 50])
def test_the_best_stretch_is_that_of_all_which_are_allowed(longest):
    rng = np.random.default_rng(longest)
    start, end = rng.normal(size=(2, 20, 9)).astype(np.float32)
    inside = np.zeros((20, 9), bool)
    for row in inside:
        low = int(rng.integers(8))
        row[low : int(rng.integers(low + 1, 10))] = True
    first, last, score = map(np.asarray, best_span(jnp.asarray(start), jnp.asarray(end), jnp.asarray(inside), longest))
    table = np.asarray(span_scores(jnp.asarray(start), jnp.asarray(end), jnp.asarray(inside), longest))
    for row in range(20):
        allowed = {
            (i, j): start[row, i] + end[row, j]
            for i in range(9)
            for j in range(i, min(9, i + longest))
            if inside[row, i] and inside[row, j]
        }
        assert (first[row], last[row]) == max(allowed, key=allowed.get)
        assert score[row] == pytest.approx(max(allowed.values()))
        assert np.isfinite(table[row]).sum() == len(allowed)


def test_scores_are_those_of_squads_script():
    """The example of Hugging Face's card of this metric: 66.67 and 66.67; and what its rules say of other texts."""
    rows = [("1976", ["1976"]), ("Beyonce", ["Beyoncé and Bruno Mars"]), ("climate change", ["climate change"])]
    assert np.mean([answer_scores(*row) for row in rows], axis=0) == pytest.approx([2 / 3, 2 / 3])
    assert answer_scores("1999", ["1976"]) == (0, 0)
    assert answer_scores("The  red-haired, Turban!", ["redhaired turban"]) == (1, 1)
    assert answer_scores("an apple", ["theapple", "Apple"]) == (1, 1)  # the best of several
    assert answer_scores("in New York City", ["New York"]) == (0, pytest.approx(2 * 2 / (4 + 2)))
    assert answer_scores("New York New York", ["New York New York City"]) == (0, pytest.approx(8 / 9))
    assert answer_scores("York York", ["New York"]) == (0, pytest.approx(0.5))  # a word counts as often as both have it
    assert answer_scores("the", ["a"]) == (1, 0)  # nothing is left of either


def test_a_question_is_answered_by_its_surest_window_and_evaluated_once(dataset):
    setup = make_setup(**CASE)
    variables = {"params": jax.jit(setup.init)(run_key(3)).params}
    found = evaluate(setup, variables, "validation")
    split = setup.splits["validation"]
    batch = {**read(split, np.arange(len(split))), "mask": np.ones(len(split), np.float32)}
    table = np.asarray(setup.task.predict(setup.model, variables, batch)["spans"])
    scores = []
    for number in np.unique(batch["question"]):
        mine = np.flatnonzero(batch["question"] == number)
        flat = table[mine].argmax()
        i, first, more = np.unravel_index(flat, table[mine].shape)
        low, high = batch["spans"][mine[i], first, 0], batch["spans"][mine[i], first + more, 1]
        answers = bytes(batch["answers"][mine[0]]).rstrip(b"\0").decode().split("\0")
        scores.append(answer_scores(bytes(batch["text"][mine[i]][low:high]).decode().strip(), answers))
    assert len(scores) == 16 and 0 < np.mean(scores, axis=0)[1] < 1
    assert (found["exact_match"], found["f1"]) == pytest.approx(tuple(np.mean(scores, axis=0)))
    again = evaluate(make_setup(**CASE, data__eval_batch_size=7), variables, "validation")
    assert again == pytest.approx(found, rel=1e-5)
    assert found["loss"] == pytest.approx((found["start_loss"] + found["end_loss"]) / 2, rel=1e-5)


def test_answers_are_told_from_the_command_line(tmp_path, capsys):
    result = loop.train(make_config(**CASE), tmp_path / "run", devices=jax.devices()[:1])
    workdir, run = f"--workdir={tmp_path}/run", runs.load(tmp_path / "run")
    assert run_script("predict", workdir, "--split=test", "--top=2", f"--output={tmp_path}/all.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    scores = [answer_scores(row["top"][0]["answer"], row["label"].split(" | ")) for row in rows]
    assert len(rows) == 16 and all(len(row["top"]) == 2 for row in rows)
    assert np.mean(scores, axis=0) == pytest.approx([result["metrics"]["test"][name] for name in ("exact_match", "f1")])
    example = asked("test")[0]
    question, context = (example[name].decode() for name in ("question", "context"))
    flags = [f"--question={question}", f"--text={context}", "--top=1000", f"--output={tmp_path}/one.jsonl"]
    assert run_script("predict", workdir, *flags) == 0
    (row,) = map(json.loads, (tmp_path / "one.jsonl").read_text().splitlines())
    same = rows[[row["input"] for row in rows].index(question.lower())]["top"]
    assert row["input"] == question and [one["answer"] for one in row["top"][:2]] == [one["answer"] for one in same]
    for one, other in zip(row["top"], same):
        assert one["probability"] == pytest.approx(other["probability"])
    assert 0.5 < sum(one["probability"] for one in row["top"]) <= 1 + 1e-6 and "label" not in row
    assert all(one["answer"] in context for one in row["top"]) and run.tokenizer is not None
    capsys.readouterr()
    for flags, part in [
        (["--text=a"], "--text: the run answers a question of it: give --question"),
        (["--question=a"], "give image files, or --text"),
        (["--text= ", "--question=a"], "--text: ' ' is empty"),
        (["--text=Anna", "--question= "], "--question: ' ' is empty"),
        (["--split=test", "--question=a"], "--question: goes with a text"),
    ]:
        assert run_script("predict", workdir, *flags) == 2
        assert part in capsys.readouterr().err


def test_one_batch_of_questions_is_learnt_by_heart():
    from research.train_step import make_train_step

    setup = make_setup(2, **{**CASE, "optimizer__name": "adam", "optimizer__learning_rate": 3e-3})
    step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    batch = {**read(setup.splits["train"], np.arange(8)), "mask": np.ones(8, np.float32)}
    state = jax.jit(setup.init)(run_key(0))
    for _ in range(120):
        state, metrics = step(state, {}, batch, jax.random.key(0))
    total, count = metrics["accuracy"]
    assert total == count == 8


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"model__head": "tags"}, "config.model.head: tags"),
        ({"task__longest": 0}, "config.task.longest: 0: at least 1"),
        ({"model__context": 20}, "config.model.context: 20"),
        ({"task__name": "tag_tokens"}, "config.task.name: tag_tokens wants tagged words; xquad/en has"),
    ],
)
def test_what_makes_no_run_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as error:
        given = {**CASE, "data__splits__test": None, **changes}
        left = "task__longest" if "task__name" in changes else ""
        make_setup(**{name: value for name, value in given.items() if name != left})
    assert error.value.code == 2


def test_a_task_on_other_data_is_refused():
    from research.tasks import TASKS

    with pytest.raises(
        UserError, match="answer_span wants questions and their answers; glue/sst2 has tokens, lab"
    ) as e:
        TASKS["answer_span"](open_dataset("glue/sst2", {}))
    assert e.value.code == 2


def test_streamed_windows_are_those_in_memory(dataset):
    kept, streamed = (open_split(dataset, "train", "train", limit, 0) for limit in (MEMORY, 0))
    places = np.array([0, 1, 50, 7])
    for field, x in read(kept, places).items():
        np.testing.assert_array_equal(read(streamed, places)[field], x)
