"""Several tasks at once: how a mixture of data sets is drawn, and that each task is what it is alone."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, assert_same_bits, assert_same_numbers, make_config, make_setup, run_script

from research import loop, pretrained, runs
from research.data import open_dataset
from research.data.batches import absent_parts, eval_batches, example_bytes, open_split, read, train_batches
from research.errors import UserError
from research.evaluation import evaluate
from research.inference.part import part_of as run_of_part
from research.models.encoder import Encoder
from research.randomness import run_key
from research.tasks.several import TASK_OF, heads
from research.train_step import make_train_step

MEMORY = 2**31
MODEL = {
    "model__name": "encoder",
    "model__layers": 1,
    "model__heads": 2,
    "model__width": 32,
    "model__context": 32,
    "model__dropout": 0.0,
}
DATA = {"vocabulary_size": 300, "max_len": 32}
CASE = {
    "data__name": "mixture",
    "data__parts": ("glue/sst2", "newsgroups20"),
    "data__train": ("train[:64]", "train[:96]"),
    "data__validation": ("train[64:96]", "train[96:]"),
    "data__test": ("validation", "test"),
    **{f"data__{name}": value for name, value in DATA.items()},
    "data__splits__train": "train",
    "data__splits__validation": "validation",
    "data__splits__test": "test",
    "task__name": "several",
    "eval__metric": "loss",
    "eval__direction": "min",
    **MODEL,
    "model__head": "several",
}
ALL = {
    **CASE,
    "data__parts": ("glue/rte", "wnut_17", "xquad/en"),
    "data__train": ("train[:40]", "train[:40]", "train"),
    "data__validation": (),
    "data__test": ("none", "test", "test"),
    "data__max_len": 128,
    "model__context": 128,
}


def mixture_of(case):
    """The arguments of a case's data set."""
    own = {name.removeprefix("data__"): value for name, value in case.items() if name.startswith("data__")}
    return {name: value for name, value in own.items() if name != "name" and not name.startswith("splits")}


def mixed(**arguments):
    return open_dataset("mixture", {**mixture_of(CASE), **arguments})


def part_of(setup, params, name):
    """The model, the task and the parameters of one part alone, as a run of it would have them."""
    spec = setup.dataset.parts[name]
    kind = next(head.split(":")[1] for head in heads(setup.dataset) if head.startswith(f"{name}:"))
    model = setup.model.clone(head=kind, classes=spec.classes, parts=())
    others = tuple(f"{other}_" for other in setup.dataset.parts if other != name)
    own = {key.replace(f"{name}_", ""): x for key, x in params.items() if not key.startswith(others)}
    return model, TASK_OF[kind](spec), own


def rows_of(setup, batch, name):
    """The rows of a batch that are out of a part, as that part has them."""
    here = batch["part"] == list(setup.dataset.parts).index(name)
    spec = setup.dataset.parts[name]
    own = {field: batch[field if field in batch else f"{name}_{field}"][here] for field in spec.features}
    return {**own, "mask": batch["mask"][here]}


@pytest.fixture(scope="module")
def setup():
    return make_setup(**CASE)


@pytest.fixture(scope="module")
def params(setup):
    params, drawn = jax.jit(setup.init)(run_key(0)).params, np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.05 * jnp.asarray(drawn.normal(size=x.shape), x.dtype), params)


@pytest.mark.parametrize("rates", [(), (0.7, 0.3), (1.0, 9.0)])
def test_an_epoch_has_each_example_at_least_once_and_parts_by_their_rates(rates):
    dataset = mixed(rates=rates)
    rows = dataset.open("train").stacked(np.arange(dataset.examples["train"]))
    counts = np.bincount(rows["part"])
    if rates:
        shares = np.array(rates) / sum(rates)
        np.testing.assert_allclose(counts / counts.sum(), shares, atol=0.5 / counts.sum())
        assert (counts >= [64, 96]).all() and (counts == [64, 96]).any()
    else:
        assert counts.tolist() == [64, 96]
    for number, (name, part) in enumerate(dataset.parts.items()):
        own = part.open("train").stacked(np.arange([64, 96][number]))
        here = rows["part"] == number
        met = [tuple(row) for row in np.column_stack([rows["tokens"][here], rows[f"{name}_label"][here]]).tolist()]
        wanted = [tuple(row) for row in np.column_stack([own["tokens"], own["label"]]).tolist()]
        assert set(met) == set(wanted)
        other = [field for field in rows if field.endswith("_label") and not field.startswith(name)]
        assert not any(rows[field][here].any() for field in other)
    assert 0 < rows["part"][:20].sum() < 20  # a stretch of it is out of both
    again = mixed(rates=rates)
    assert again.fingerprint("train") == dataset.fingerprint("train") != mixed(rates=(2.0, 1.0)).fingerprint("train")


@pytest.mark.parametrize("role", ["train", "validation"])
def test_parts_that_stream_give_the_batches_of_parts_in_memory(role):
    dataset = mixed(rates=(0.7, 0.3))
    held, streamed = (open_split(dataset, role, role, limit, 2) for limit in (MEMORY, 0))
    assert held.at_hand and not streamed.at_hand and held.sources[role].at_hand
    assert_same_bits(list(eval_batches(held, 16)), list(eval_batches(streamed, 16)))
    if role == "train":
        assert_same_bits(*(list(train_batches(split, 3, 8, 5, 9)) for split in (held, streamed)))
    with pytest.raises(UserError, match="config.data.buckets: mixture does not fit config.data.memory_limit_bytes 0"):
        open_split(mixed(buckets=(8,)), role, role, 0, 0)


def test_an_epoch_that_repeats_a_part_holds_its_examples_once():
    dataset = mixed(rates=(0.99, 0.01))
    one_each = sum(part.examples["train"] * example_bytes(part) for part in dataset.parts.values())
    split = open_split(dataset, "train", "train", one_each, 0)
    assert len(split) == 9600 and split.at_hand and split.arrays is None
    source = split.sources["train"]
    assert source.part.nbytes + source.records.nbytes == 8 * len(split)
    sizes = [len(next(iter(part.arrays["train"].values()))) for part in source.splits.values()]
    assert sizes == [part.examples["train"] for part in dataset.parts.values()]


def test_a_metric_of_a_part_without_validation_is_refused_before_training():
    options = {**CASE, "data__validation": ("train[64:96]", "none")}
    for own in ({"eval__metric": "newsgroups20_accuracy", "eval__direction": "max"},
                {"train__early_stopping__metric": "newsgroups20_loss"}):  # fmt: skip
        with pytest.raises(
            UserError, match="metric: newsgroups20_.*: no example of validation is from newsgroups20"
        ) as e:
            make_setup(**{**options, **own})
        assert e.value.code == 2
    setup = make_setup(**{**options, "eval__metric": "glue_sst2_accuracy", "eval__direction": "max"})
    assert absent_parts(setup.splits["validation"]) == ["newsgroups20"] and absent_parts(setup.splits["train"]) == []


def test_a_part_without_examples_has_no_score():
    options = {**CASE, **ALL, "data__validation": ("train[40:60]", "none", "validation"), "eval__metric": "loss"}
    setup = make_setup(**options)
    rows = {"part": np.array([0, 2]), "wnut_17_tags": np.full((2, 3), -1), "wnut_17_found": np.zeros((2, 3), int)}
    rows |= {f"xquad_en_{name}": np.zeros(2, int) for name in ("question", "begin", "stop", "score")}
    rows |= {f"xquad_en_{name}": np.zeros((2, 3), np.uint8) for name in ("text", "answers")}
    assert set(setup.task.score(rows)) == {"xquad_en_exact_match", "xquad_en_f1"}


def test_a_batch_follows_from_seed_and_step_and_draws_the_parts_at_their_rates():
    split = open_split(mixed(rates=(0.75, 0.25)), "train", "train", MEMORY, 0)
    batches = list(train_batches(split, 3, 8, 0, 60))
    (jump,) = train_batches(split, 3, 8, 41, 42)
    assert_same_bits(jump, batches[41])
    assert (next(train_batches(split, 4, 8, 0, 1))["tokens"] != batches[0]["tokens"]).any()
    drawn = np.concatenate([batch["part"] for batch in batches])
    assert (drawn == 0).mean() == pytest.approx(0.75, abs=0.02)
    assert len({int((batch["part"] == 0).sum()) for batch in batches}) > 2


def test_other_splits_hold_each_example_of_each_part_once():
    dataset = mixed(rates=(0.9, 0.1), test=("none", "test"))
    assert dataset.examples == {"train": 960, "validation": 32 + 32, "test": 48}
    rows = dataset.open("validation").stacked(np.arange(64))
    assert np.bincount(rows["part"]).tolist() == [32, 32] and len(np.unique(rows["tokens"], axis=0)) > 50
    carved = open_dataset("mixture", {"parts": ("newsgroups20",), **DATA})
    assert carved.examples == {"train": 116, "validation": 12, "test": 48}


def test_a_tokenizer_is_trained_on_the_text_of_all_parts(tmp_path):
    own = {"tokenizer": "words", "vocabulary_size": 5000}
    words = [open_dataset(name, {**DATA, **own}).tokenizer.vocabulary for name in ("glue/sst2", "newsgroups20")]
    both = mixed(**own).tokenizer
    assert set(words[0]) | set(words[1]) == set(both.vocabulary) and set(words[0]) - set(words[1])
    (tmp_path / "own.json").write_text(both.json)
    assert mixed(tokenizer=str(tmp_path / "own.json")).tokenizer.digest == both.digest
    one = open_dataset("mixture", {"parts": ("glue/sst2",), **DATA, "test": ("validation",)})
    assert one.tokenizer.digest == open_dataset("glue/sst2", {**DATA, "tokenizer": "bert"}).tokenizer.digest


def test_gradients_are_the_weighted_sum_of_those_of_each_task_alone(setup, params):
    batch = {**read(setup.splits["train"], np.arange(24)), "mask": np.ones(24, np.float32)}
    batch["mask"][3] = 0
    weighted = make_setup(**CASE, task__weights=("newsgroups20=0.25",)).task

    @jax.jit
    def together(params):
        terms, _, _ = weighted.loss(setup.model, {"params": params}, batch, None, False)
        assert set(terms) == set(weighted.weights) == {"glue_sst2_loss", "newsgroups20_loss"}
        return sum(weighted.weights[name] * total / count for name, (total, count) in terms.items())

    value, found = jax.value_and_grad(together)(params)
    sums, expected = 0.0, jax.tree.map(np.zeros_like, jax.device_get(params))
    for name, weight in (("glue_sst2", 1.0), ("newsgroups20", 0.25)):
        model, task, own = part_of(setup, params, name)
        rows = rows_of(setup, batch, name)

        def alone(own):
            total, count = task.loss(model, {"params": own}, rows, None, False)[0]["loss"]
            return total / count

        loss, gradients = jax.value_and_grad(jax.jit(alone))(own)
        sums += weight * loss
        for key, x in jax.device_get(gradients).items():
            key = f"{name}_{key}" if key.startswith("head_") else key
            expected[key] = jax.tree.map(lambda a, b: a + weight * b, expected[key], x)
    assert value == pytest.approx(float(sums), rel=1e-5)
    assert_same_numbers(found, expected)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(jax.device_get(found)))


def test_weights_are_those_of_the_parts_and_in_a_part_its_tasks(setup):
    assert setup.task.weights == {"glue_sst2_loss": 1, "newsgroups20_loss": 1}
    other = make_setup(**ALL, task__weights=("xquad_en=0.25", "wnut_17=2"))
    spans = {"xquad_en_start_loss": 0.125, "xquad_en_end_loss": 0.125}
    assert other.task.weights == {"glue_rte_loss": 1, "wnut_17_loss": 2, **spans}


@pytest.mark.parametrize("case", [CASE, ALL], ids=["two", "three"])
def test_an_evaluation_has_the_metrics_that_each_task_has_alone(case):
    setup = make_setup(**case)
    drawn = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.1 * jnp.asarray(drawn.normal(size=x.shape), x.dtype),
                          jax.jit(setup.init)(run_key(0)).params)  # fmt: skip
    found = evaluate(setup, {"params": params}, "validation")
    wanted = {}
    for name, part in setup.dataset.parts.items():
        model, task, own = part_of(setup, params, name)
        text = {"glue_sst2": "train[64:96]", "newsgroups20": "train[96:]"}.get(name, "validation")
        split = open_split(part, text, "validation", MEMORY, 0)
        alone = setup._replace(dataset=part, splits={"validation": split}, model=model, task=task)
        wanted |= {f"{name}_{key}": x for key, x in evaluate(alone, {"params": own}, "validation").items()}
    assert set(found) == {*wanted, "loss"} and len(wanted) == {2: 5, 3: 2 + 5 + 5}[len(setup.dataset.parts)]
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    if case is CASE:  # as many examples of both
        losses = [wanted["glue_sst2_loss"], wanted["newsgroups20_loss"]]
        assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5) and losses[0] != losses[1]
    again = evaluate(make_setup(**case, data__eval_batch_size=7), {"params": params}, "validation")
    assert again == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_one_task_alone_is_that_task(tmp_path):
    own = {"train__steps": 8, "eval__every_steps": 4, "log__every_steps": 2, "train__ema": None}
    one = {"data__parts": ("glue/sst2",), "data__train": ("train[:64]",), "data__validation": ("train[64:96]",),
           "data__test": ("validation",)}  # fmt: skip
    loop.train(make_config(**{**CASE, **one, **own}), tmp_path / "mixture", devices=jax.devices()[:1])
    alone = {"data__name": "glue/sst2", "data__tokenizer": "bert", **{f"data__{k}": v for k, v in DATA.items()}}
    splits = {"train": "train[:64]", "validation": "train[64:96]", "test": "validation"}
    alone |= {f"data__splits__{role}": split for role, split in splits.items()}
    alone |= {"task__name": "classify_text", **MODEL, "model__head": "label"}
    alone |= {"eval__metric": "loss", "eval__direction": "min", **own}
    loop.train(make_config(**alone), tmp_path / "alone", devices=jax.devices()[:1])
    first, second = (runs.load(tmp_path / name) for name in ("mixture", "alone"))
    renamed = {key.replace("glue_sst2_", ""): x for key, x in first.variables["params"].items()}
    assert_same_numbers(renamed, dict(second.variables["params"]))
    assert len(first.metrics()) == len(second.metrics()) > 5
    for row, other in zip(first.metrics(), second.metrics()):
        assert row.pop("split") == other.pop("split")
        shared = {name.replace("glue_sst2_", ""): value for name, value in row.items()}
        assert {name: shared.get(name) for name in other} == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    "devices,overrides", [(2, {}), (2, {"train__parallel": "pmap"}), (1, {"train__microbatches": 4})]
)
def test_devices_and_microbatches_change_no_number(devices, overrides, setup, params):
    batch = {**read(setup.splits["train"], np.arange(16)), "mask": np.ones(16, np.float32)}

    def stepped(setup):
        step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
        state = jax.jit(setup.init)(run_key(0))._replace(params=jax.tree.map(jnp.array, params))
        return step(state, {}, batch, run_key(0))[0].params

    assert_same_numbers(stepped(make_setup(devices, **CASE, **overrides)), stepped(make_setup(**CASE)))


def test_several_steps_a_call_on_batches_of_several_lengths_change_no_number(tmp_path):
    """Fields of two and three dimensions are cut, and filled up, as the tokens are, and others stay whole."""
    own = {"optimizer__learning_rate": 0.1, "train__steps": 4, "eval__every_steps": 4, "log__every_steps": 1}
    own |= {"data__buckets": (24, 48)}
    for steps in (1, 3):
        config = make_config(**{**ALL, **own}, train__steps_per_call=steps)
        loop.train(config, tmp_path / str(steps), devices=jax.devices()[:1])
    one, three = (runs.load(tmp_path / str(steps)) for steps in (1, 3))
    assert_same_numbers(three.variables, one.variables)
    shapes = {field: shape[0] for field, (shape, _) in one.spec.features.items() if shape}
    split = open_split(open_dataset("mixture", {**mixture_of(ALL), "buckets": (24, 48)}), "train", "train", MEMORY, 0)
    sizes = set()
    for batch in train_batches(split, 0, 8, 0, 12):
        T = batch["tokens"].shape[1]
        sizes.add(T)
        long = {field for field, x in batch.items() if x.ndim > 1 and x.shape[1] == T and T < 128}
        assert T == 128 or long == {"tokens", "types", "wnut_17_tags", "xquad_en_spans"}
        assert batch["xquad_en_text"].shape[1] == shapes["xquad_en_text"]
    assert len(sizes) > 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "run"
    own = {"optimizer__name": "adam", "optimizer__learning_rate": 3e-3, "train__steps": 30, "eval__every_steps": 15}
    loop.train(make_config(**CASE, **own, data__buckets=(16,)), folder, devices=jax.devices()[:1])
    return folder


def test_a_run_is_asked_by_its_parts(run, tmp_path, capsys):
    result = runs.load(run).result["metrics"]["test"]
    for part in ("glue/sst2", "newsgroups20"):
        flags = [f"--workdir={run}", f"--part={part}", f"--output={tmp_path}/rows.jsonl"]
        assert run_script("predict", *flags, "--split=test", "--top=1") == 0
        rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
        right = np.mean([row["top"][0]["class"] == row["label"] for row in rows])
        assert right == pytest.approx(result[f"{part.replace('/', '_')}_accuracy"])
        assert run_script("predict", *flags, "--text=the film is very funny") == 0
    assert (
        run_script("predict", f"--workdir={run}", "--part=glue_sst2", "--split=test[:2]") == 3
    )  # its labels are hidden
    capsys.readouterr()
    for flags, code, message in [
        (["--text=a film"], 2, "--part: needed"),
        (["--text=a film", "--part=mnist"], 2, "has no part mnist; it has glue_sst2, newsgroups20"),
    ]:
        assert run_script("predict", f"--workdir={run}", *flags) == code
        assert message in capsys.readouterr().err


def test_a_part_goes_out_as_a_model_of_its_own(run, tmp_path):
    whole = runs.load(run)
    one = run_of_part(whole, "newsgroups20")
    pretrained.save(tmp_path / "one", one.model, one.variables, one.tokenizer)
    model, variables = pretrained.load(tmp_path / "one")
    assert isinstance(model, Encoder) and (model.head, model.classes) == ("label", 20)
    tokens = np.array([[2, 30, 40, 3]])
    found = pretrained.logits(model, variables, {"input_ids": tokens})
    assert_same_numbers(found, whole.model.apply(whole.variables, jnp.asarray(tokens))["newsgroups20"])
    with pytest.raises(UserError, match="config.model.head: 'several'; BERT has") as error:
        pretrained.save(tmp_path / "both", whole.model, whole.variables)
    assert error.value.code == 2 and not (tmp_path / "both").exists()


OWN = {"data__train": (), "data__validation": (), "data__test": ()}  # each part's own


@pytest.mark.parametrize(
    "config,lines",
    [
        ("ner_bert", r"0: tokens: .*\n0: tags: (O alone|\S+:B-\S+.*)\n1: tokens"),
        ("qa_bert", r"0: tokens: .* \| .*\n0: answer: (not in this window|\S+.*)\n1: tokens"),
        ("several_bert", r"\d+: tokens: .*\n\d+: part: newsgroups20\n\d+: label: \w+\.\S+\n"),
        ("several_bert", r"\d+: tokens: .*\n\d+: part: glue_sst2\n\d+: label: (positive|negative)\n"),
    ],
)
def test_what_is_right_is_shown_beside_a_text(config, lines, capsys):
    path = ROOT / "configs" / f"{config}.py:tiny"
    for step in range(4):  # a batch of short texts is out of one part
        assert run_script("show_data", f"--config={path}", "--examples=8", f"--step={step}") == 0
    assert re.search(lines, capsys.readouterr().out)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"data__parts": ()}, "config.data.parts: none; names of data sets are wanted, each once"),
        ({"data__parts": ("glue/sst2", "glue/sst2")}, "config.data.parts: glue/sst2, glue/sst2; names of data sets"),
        ({"data__parts": ("glue/sst2", "newsgroup20")}, "config.data.parts: 'newsgroup20' is unknown; .*newsgroups20"),
        ({"data__parts": ("glue/sst2", "digits")}, "config.data.parts: digits is no data set of texts"),
        ({"data__rates": (0.5,)}, "config.data.rates: 1 for the 2 parts of config.data.parts"),
        ({"data__test": ("test",)}, "config.data.test: 1 for the 2 parts"),
        ({"data__rates": (0.5, 0.0)}, "config.data.rates: .*each is more than 0"),
        ({"data__train": ("train[:64]", "none")}, "config.data.train: .*each part has some"),
        ({"data__train": ("train[:64]", "trian")}, "config.data.train: newsgroups20: 'trian' is no split"),
        ({"data__validation": ("none", "none")}, "config.data.validation: .*some part has one"),
        ({"data__buckets": (64,)}, "config.data.buckets: .*at most max_len 32"),
        ({"task__weights": ("sst2=0.5",)}, "config.task.weights: there is no part sst2; the parts are glue_sst2, news"),
        ({"task__weights": ("glue_sst2",)}, "config.task.weights: 'glue_sst2'; a term=weight"),
        ({"model__head": "label"}, "config.model.head: label"),
        ({"model__parts": ("a:label:2",)}, "config.model.parts: .*but mixture has"),
        ({"data__parts": ("glue/sst2", "wikitext2_sentences"), **OWN},
         "config.data.parts: wikitext2 has .*; labels, tags or answers are wanted"),
        ({"data__parts": ("glue/sst2", "multi30k"), **OWN},
         "config.data.parts: multi30k has .*labels, tags or answers are wanted"),
    ],
)  # fmt: skip
def test_what_makes_no_mixture_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as error:
        make_setup(**{**CASE, **changes})
    assert error.value.code == 2


def test_one_data_set_has_no_parts():
    with pytest.raises(UserError, match="config.task.name: several wants parts; glue/sst2 has none") as error:
        make_setup(**{"data__name": "glue/sst2", "data__splits__test": None, "task__name": "several", **MODEL})
    assert error.value.code == 2
    alone = {"data__name": "glue/sst2", "data__splits__test": None, "task__name": "classify_text", **MODEL}
    with pytest.raises(UserError, match="config.model.head: several wants the parts of a mixture") as error:
        make_setup(**alone, model__head="several")
    assert error.value.code == 2
