"""A population: each member is, number for number, the run that it would have been alone."""

import dataclasses
import functools
import math
import signal
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CASES, ROOT, make_config
from hypothesis import given
from hypothesis import strategies as st

from research import config as configs
from research import loop, program, runs
from research.errors import UserError
from research.log import Log
from research.models import MODELS
from research.models.layers import head
from research.program import Evaluate, Place, Step
from research.studies import population
from research.studies.sweep import Trial
from research.tasks import TASKS

ONE = jax.devices()[:1]
SHORT = {"train__steps": 4, "eval__every_steps": 2, "log__every_steps": 1}
MLP = {"model__name": "mlp", "model__widths": (8,)}


def members(folder, points, **own):
    """[(config, workdir)], a member for each of the points."""
    return [(make_config(**own, **point), folder / f"member{i}") for i, point in enumerate(points)]


def alone(folder, points, **own):
    for config, place in members(folder, points, **own):
        loop.train(config, place, devices=ONE)
    return [place for _, place in members(folder, points, **own)]


def together(folder, points, form="vmap", devices=ONE, **own):
    """The members' folders, and the results."""
    given = members(folder, points, **own)
    return [place for _, place in given], population.train(given, devices=devices, form=form)


def assert_same_runs(wanted, found, tolerance=1e-5):
    """The same rows and results but for times, the same steps kept, the same parameters at the best of them."""
    for a, b in zip(wanted, found, strict=True):
        rows, others = runs.read_rows(a), runs.read_rows(b)
        assert [(row["step"], row["split"]) for row in rows] == [(row["step"], row["split"]) for row in others]
        for row, other in zip(rows, others):
            numbers, others_numbers = ({k: v for k, v in r.items() if k != "split"} for r in (row, other))
            assert numbers == pytest.approx(others_numbers, rel=tolerance, abs=tolerance / 10), (a, row["step"])
        steps = lambda place: sorted(int(path.name) for path in (place / "checkpoints").iterdir())
        assert steps(a) == steps(b)
        result, other = (runs.read_json(place / "result.json") for place in (a, b))
        assert result.keys() == other.keys() and result["status"] == other["status"]
        if result["status"] == "finished":
            assert (result["step"], result["best_step"]) == (other["step"], other["best_step"])
            x, y = runs.load(a), runs.load(b)
            for p, q in zip(jax.tree.leaves(x.variables), jax.tree.leaves(y.variables), strict=True):
                assert p.shape == q.shape and np.allclose(p, q, rtol=1e-4, atol=1e-5)


FAMILIES = {  # what differs beside the seed
    "mlp": {"model__dropout": 0.3, "optimizer__learning_rate": 0.2},
    "normed": {"train__ema": 0.5},
    "cnn": {"task__label_smoothing": 0.2},
    "seq2seq": {},
    "recurrent_classifier": {},
    "recurrent_lm": {},
    "decoder": {"model__dropout": 0.2},
    "encoder": {},
}
USUAL = {"model__dropout": 0.1, "train__ema": 0.9, "task__label_smoothing": 0.1}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("decoder", "seq2seq") else name for name in FAMILIES],
)
def test_members_equal_lone_runs(name, tmp_path):
    other = FAMILIES[name]
    points = [{"seed": 1, **{key: USUAL[key] for key in other if key in USUAL}}, {"seed": 2, **other}]
    own = {**CASES.get(name, {}), **SHORT, "model__name": name}
    own |= {"train__on_nonfinite": "skip"} if name == "normed" else {}
    form = "map" if name in ("cnn", "recurrent_classifier") else "vmap"
    found, results = together(tmp_path / "together", points, form, **own)
    assert [result["status"] for result in results] == ["finished", "finished"]
    assert_same_runs(alone(tmp_path / "alone", points, **own), found)
    starts = runs.read_json(found[0] / "manifest.json")
    assert starts[0]["together"] == 2


@pytest.mark.parametrize("name", ["text_word2vec", "text_glove"])
def test_word_vectors_of_a_population_equal_lone_ones(name, tmp_path):
    config, _, _ = configs.load_file(f"{ROOT}/configs/{name}.py:tiny")
    seeds = [configs.override(config, {"seed": seed, "train.epochs": 1, "eval.every_epochs": 1}) for seed in (1, 2)]
    places = {kind: [tmp_path / f"{kind}{i}" for i in range(2)] for kind in ("alone", "together")}
    for one, place in zip(seeds, places["alone"]):
        loop.train(one, place, devices=ONE)
    results = population.train(list(zip(seeds, places["together"])), devices=ONE, form="vmap")
    assert [result["status"] for result in results] == ["finished", "finished"]
    assert_same_runs(places["alone"], places["together"])


@pytest.mark.parametrize("form", population.FORMS)
def test_members_that_diverge_or_stop_early_leave_the_others_alone(form, tmp_path, monkeypatch):
    """One diverges, one stops early, one trains on in dispatches of several steps; each program is traced once."""
    traces, build = {"loss": [], "evaluate": []}, TASKS["classify_images"]

    @functools.wraps(build)  # its arguments are the config's fields
    def counting(spec, **arguments):
        task = build(spec, **arguments)

        def count(name):
            def counted(*arguments):
                traces[name].append(1)
                return getattr(task, name)(*arguments)

            return counted

        return task._replace(loss=count("loss"), evaluate=count("evaluate"))

    points = [{"optimizer__learning_rate": rate} for rate in (1e38, 1e-12, 0.1)]
    own = {
        **MLP,
        "train__early_stopping__metric": "accuracy",
        "train__early_stopping__patience": 1,
        "train__steps_per_call": 3,
    }
    wanted = []
    for config, place in members(tmp_path / "alone", points, **own):
        try:
            loop.train(config, place, devices=ONE)
        except UserError as error:
            assert error.code == 6
        wanted.append(place)
    monkeypatch.setitem(TASKS, "classify_images", counting)
    short = {"train__steps": 3, "eval__every_steps": 3}
    _, results = together(tmp_path / "short", points[1:] * 2, form, **own, **short)
    once = {name: len(calls) for name, calls in traces.items()}
    [calls.clear() for calls in traces.values()]
    found, results = together(tmp_path / "together", points, form, **own)
    assert {name: len(calls) for name, calls in traces.items()} == once, "traced anew once a member had ended"
    assert [getattr(result, "code", None) for result in results] == [6, None, None]
    assert results[1]["step"] == 8 and results[2]["step"] == 12
    assert_same_runs(wanted, found)


def stop_at(step, monkeypatch):
    """SIGTERM once a first member has logged this step; what follows is not stopped."""
    row, sent = Log.row, []

    def row_then_signal(self, at, split, values):
        row(self, at, split, values)
        if at == step and split == "train" and not sent:
            sent.append(1)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Log, "row", row_then_signal)


def test_a_stopped_population_goes_on_together_or_a_member_alone(tmp_path, monkeypatch):
    points = [{"seed": seed} for seed in range(3)]
    own = {**MLP, "checkpoint__every_steps": 2}
    wanted = alone(tmp_path / "alone", points, **own)
    with monkeypatch.context() as patched:
        stop_at(6, patched)
        found, results = together(tmp_path / "together", points, **own)
    assert [result.code for result in results] == [143] * 3
    assert all(runs.read_json(place / "result.json")["status"] == "stopped" for place in found)
    config, place = members(tmp_path / "together", points, **own)[1]
    assert loop.train(config, place, devices=ONE)["status"] == "finished"
    assert_same_runs(wanted[1:2], found[1:2])
    _, results = together(tmp_path / "together", points, **own)
    assert [result["status"] for result in results] == ["finished"] * 3
    assert_same_runs(wanted, found)


@pytest.mark.parametrize("form", population.FORMS)
def test_members_go_on_from_unequal_steps(form, tmp_path, monkeypatch):
    points = [{"seed": seed} for seed in range(2)]
    own = {**MLP, "checkpoint__every_steps": 2}
    wanted = alone(tmp_path / "alone", points, **own)
    for (config, place), at in zip(members(tmp_path / "together", points, **own), (3, 9)):
        with monkeypatch.context() as patched, pytest.raises(UserError):
            stop_at(at, patched)
            loop.train(config, place, devices=ONE)
    found, results = together(tmp_path / "together", points, form, **own)
    assert [result["status"] for result in results] == ["finished"] * 2
    assert_same_runs(wanted, found)


def test_a_population_over_two_devices_is_the_same(tmp_path):
    points = [{"seed": seed} for seed in range(3)]  # which two devices do not divide
    began = time.monotonic()
    one, results = together(tmp_path / "one", points, **MLP, **SHORT)
    assert sum(result["seconds"] for result in results) <= time.monotonic() - began  # which they share
    two, _ = together(tmp_path / "two", points, devices=jax.devices()[:2], **MLP, **SHORT)
    assert_same_runs(one, two)


@pytest.mark.parametrize("faster", population.FORMS)
def test_the_faster_form_is_taken_and_known_the_next_time(faster, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    points, seconds = [{"seed": 0}, {"seed": 1}], []

    def timed(step, state, own):
        seconds.append(1.0 if len(seconds) == population.FORMS.index(faster) else 2.0)
        return seconds[-1]

    made, make_step = [], population.make_step
    monkeypatch.setattr(population, "make_step", lambda setup, form: made.append(form) or make_step(setup, form))
    monkeypatch.setattr(population, "timed", timed)
    for again in range(2):
        _, results = together(tmp_path / str(again), points, None, **MLP, **SHORT)
        assert [result["status"] for result in results] == ["finished", "finished"]
        assert f"2 runs by {faster}\n" in capsys.readouterr().err
    assert len(seconds) == 2 and made == [*population.FORMS, faster]  # both the first time, and each traced once
    (kept,) = (tmp_path / "cache" / "research" / "forms").iterdir()
    assert runs.read_json(kept)["form"] == faster
    together(tmp_path / "three", [*points, {"seed": 2}], None, **MLP, **SHORT)
    assert len(seconds) == 4  # three members are another program


def test_timing_a_step_leaves_the_state_alone():
    step = jax.jit(lambda state, amount: (state + amount, state * 2), donate_argnums=0)
    state = jnp.arange(3.0)
    assert 0 <= population.timed(step, state, (1.0,)) < 1
    assert np.array_equal(state, np.arange(3.0))


def test_evaluation_has_each_members_own_numbers(tmp_path, monkeypatch):
    build = TASKS["classify_images"]

    @functools.wraps(build)
    def telling(spec, **arguments):
        task = build(spec, **arguments)

        def evaluate(*given):
            sums, arrays = task.evaluate(*given)
            return {**sums, "smoothing": (jnp.float32(arguments["label_smoothing"]), jnp.float32(1))}, arrays

        return task._replace(evaluate=evaluate)

    monkeypatch.setitem(TASKS, "classify_images", telling)
    points = [{"task__label_smoothing": value} for value in (0.0, 0.25)]
    _, results = together(tmp_path, points, **MLP, **SHORT)
    assert [result["metrics"]["test"]["smoothing"] for result in results] == [0.0, 0.25]


def test_those_that_are_behind_catch_up_and_then_all_ask_together():
    def run(start, end, due=False):
        yield Place(start)
        if due:
            assert (yield Evaluate(start, "validation")) == start
        for step in range(start, end):
            assert (yield Step(step, 1, None)) == step
        assert (yield Evaluate(end, "test")) == math.inf
        return end

    asked = []

    def answer(requests):
        ((order, kind),) = {(program._order(request)[0], type(request)) for request in requests.values()}
        asked.append((order, sorted(requests)) if kind is not Evaluate else (order, sorted(requests), "evaluated"))
        return dict.fromkeys(requests, order)

    assert program.drive([run(2, 4, due=True), run(0, 4), run(3, 4), run(0, 1)], answer) == [4, 4, 4, 1]
    steps = [(0, [1, 3]), (1, [1]), (2, [0], "evaluated"), (2, [0, 1]), (3, [0, 1, 2])]
    assert asked == [(-2, [0, 1, 2, 3]), *steps, (math.inf, [0, 1, 2, 3], "evaluated")]


def test_what_goes_wrong_in_an_answer_is_raised_in_the_runs_that_asked():
    def run(steps):
        for step in range(steps):
            try:
                yield Step(step, 1, None)
            except ValueError as error:
                return f"saw {error}"
        return "done"

    def answer(requests):
        if any(request.step == 1 for request in requests.values()):
            raise ValueError("no room")
        return dict.fromkeys(requests)

    assert program.drive([run(1), run(3), run(2)], answer) == ["done", "saw no room", "saw no room"]


def test_a_model_that_asks_for_the_value_of_a_number_is_trained_alone(tmp_path, monkeypatch, capsys):
    class Asking(nn.Module):
        dropout: float = 0.0
        classes: int | None = None
        dtype: str = "float32"

        @nn.compact
        def __call__(self, image, mask=None, *, train=False):
            x = image.reshape(image.shape[0], -1)
            return head(self.classes, self.dtype)(x / 2 if self.dropout > 0.1 else x)

    monkeypatch.setitem(MODELS, "asking", Asking)
    points = [{"model__dropout": rate} for rate in (0.1, 0.2)]
    _, results = together(tmp_path, points, model__name="asking", **SHORT)
    assert results is None and "TracerBoolConversionError" in capsys.readouterr().err
    assert not (tmp_path / "member0").exists()


def test_only_runs_that_differ_in_numbers_alone_are_alike():
    config = make_config()
    same = [
        {"seed": 3},
        {"optimizer__learning_rate": 0.5},
        {"model__dropout": 0.5},
        {"optimizer__weight_decay": 0.5, "task__label_smoothing": 0.5},
    ]
    for point in same:
        assert population.likeness(make_config(**point)) == population.likeness(config), point
    others = [
        {"data__batch_size": 32},
        {"train__ema": 0.9},  # none, against a number: another program
        {"optimizer__momentum": 0.9},
        {"optimizer__name": "adam"},
        {"train__steps": 6},
        {"model__layers": ("conv4", "dense4")},
    ]
    for point in others:
        assert population.likeness(make_config(**point)) != population.likeness(config), point
    momentum = [population.likeness(make_config(optimizer__momentum=value)) for value in (0.5, 0.9)]
    assert momentum[0] == momentum[1]
    assert population.likeness(make_config(train__parallel="pmap")) is None
    text = {**CASES["recurrent_classifier"], "model__name": "recurrent_classifier", "data__buckets": (6, 12)}
    assert population.likeness(make_config(**text)) is None


@given(st.lists(st.sampled_from(["a", "b", "none"]), max_size=40), st.integers(1, 9))
def test_groups_have_each_trial_once_and_are_even(kinds, most):
    @dataclasses.dataclass
    class Stub:
        kind: str

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(population, "likeness", lambda config: None if config.kind == "none" else config.kind)
        trials = [Trial(str(i), {}, Stub(kind)) for i, kind in enumerate(kinds)]
        groups = population.grouped(trials, most)
    assert sorted(int(trial.name) for group in groups for trial in group) == list(range(len(kinds)))
    for kind in ("a", "b"):
        sizes = [len(group) for group in groups if group[0].config.kind == kind]
        assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)
        assert all(trial.config.kind == group[0].config.kind for group in groups for trial in group)
    assert all(len(group) == 1 for group in groups if group[0].config.kind == "none")
