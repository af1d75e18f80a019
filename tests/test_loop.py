"""A run from start to result: exact evaluation, exact resume, best and last, what is left in the folder."""

import json
import math
import os
import shutil
import signal
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import assert_curve_is_whole, assert_same_bits, assert_same_numbers, make_config, make_setup

from research import evaluation, loop, manifest, runs
from research.checkpoint import Checkpoints
from research.errors import UserError
from research.evaluation import evaluate
from research.log import Log
from research.program import Evaluate, Place, Step
from research.progress import judge, no_progress
from research.randomness import run_key
from research.setup import prepare, resolve
from research.tasks import TASKS
from research.train_step import eval_variables

EVERYTHING = {
    "model__name": "normed",
    "model__dropout": 0.3,
    "optimizer__name": "adam",
    "optimizer__schedule": "cosine",
    "optimizer__warmup_steps": 3,
    "data__augment__crop_padding": 1,
    "train__ema": 0.9,
}


def final_state(workdir, config, devices=1):
    """Step, state and progress of the newest checkpoint."""
    setup = prepare(*resolve(config, jax.devices()[:devices]))
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        return checkpoints.restore(setup.abstract)
    finally:
        checkpoints.close()


def train(workdir, devices=1, **overrides):
    return loop.train(make_config(**overrides), workdir, devices=jax.devices()[:devices])


def stop_at(step, monkeypatch):
    """Sends this process a real SIGTERM when the row of that step is logged."""
    row = Log.row

    def row_then_signal(self, at, split, values):
        row(self, at, split, values)
        if at == step and split == "train":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Log, "row", row_then_signal)


@pytest.mark.smoke
@pytest.mark.parametrize("parallel,devices,k", [("jit", 1, 1), ("jit", 1, 3), ("pmap", 2, 1)])
def test_resumed_run_equals_unbroken_run(tmp_path, monkeypatch, parallel, devices, k):
    options = {**EVERYTHING, "train__parallel": parallel, "train__steps_per_call": k, "log__every_steps": 2}
    unbroken = train(tmp_path / "a", devices, **options)
    with monkeypatch.context() as patched:
        stop_at(6, patched)  # after an evaluation, between two, inside a window: wherever the signal is seen
        with pytest.raises(UserError, match="stopped at step") as stopped:
            train(tmp_path / "b", devices, **options)
    assert stopped.value.code == 143
    assert runs.read_json(tmp_path / "b" / "result.json")["status"] == "stopped"
    resumed = train(tmp_path / "b", devices, **options)

    config = make_config(**options)
    a, b = (final_state(tmp_path / name, config, devices) for name in "ab")
    assert a[0] == b[0] == 12
    assert_same_bits(b[1], a[1])
    assert (tmp_path / "b" / "metrics.jsonl").read_bytes() == (tmp_path / "a" / "metrics.jsonl").read_bytes()
    assert resumed["metrics"] == unbroken["metrics"] and resumed["best_step"] == unbroken["best_step"]
    assert_curve_is_whole(tmp_path / "b")


@pytest.mark.parametrize("seconds,most,deep", [(3.0, 1, 1), (0.5, 4, 1), (0.01, 5, 8)])
def test_a_signal_waits_for_one_long_dispatch_or_two_seconds_of_short_ones(tmp_path, monkeypatch, seconds, most, deep):
    """Of steps that take `seconds` by a clock that goes on with each of them, as far as the device has come."""
    clock, counts, in_flight = [0.0], [], []

    def through(run, folder, steps):
        answer, done = None, []
        while True:
            try:
                request = run.send(answer)
            except StopIteration as end:
                return end.value
            answer = yield request
            if isinstance(request, Step):
                counts.append(request.count)
                done.append(False)
                in_flight.append(done.count(False))
                answer = partial(waited, answer, done, len(done) - 1, request.count)

    def waited(wait, done, number, count):
        if not done[number]:
            clock[0] += seconds * count
        done[number] = True
        return wait()

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    config = make_config(train__steps=60, train__steps_per_call=5, eval__every_steps=60)
    loop.train(config, tmp_path, through=through)
    assert sum(counts) == 60 and counts[0] == 1
    assert max(counts) == most and max(in_flight[4:]) == deep  # the rate is known after some


@pytest.mark.parametrize("seconds,deep", [(3.0, 1), (0.5, 4), (0.01, 8)])
def test_an_evaluation_has_as_many_dispatches_in_flight_as_a_signal_may_wait_for(monkeypatch, seconds, deep):
    setup, clock, in_flight, waiting = make_setup(data__eval_batch_size=1), [0.0], [], []

    def each(batch, examples):
        waiting.append(batch)
        in_flight.append(len(waiting))
        return {"loss": (1.0, 1.0)}, {}

    def split(found):
        waiting.pop()
        clock[0] += seconds
        return [found]

    monkeypatch.setattr(evaluation, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    ((sums, _),) = evaluation.accumulate(setup, "validation", each, split=split)
    assert sums["loss"] == (31.0, 31.0) and max(in_flight[6:]) == deep  # the rate is known after some


@pytest.mark.parametrize("at", [("validation", 8), ("validation", 12), ("test", 12)], ids=str)
def test_a_signal_in_an_evaluation_saves_and_goes_on_to_the_same_bits(tmp_path, monkeypatch, at):
    options = {"data__eval_batch_size": 4, "train__early_stopping__metric": "loss", "checkpoint__keep": 1}
    unbroken = train(tmp_path / "a", **options)
    calls, batches = [], evaluation.eval_batches

    def signal_in_the_middle(split, size, *processes):
        calls.append("test" if split.text.startswith("test") else "validation")
        for i, batch in enumerate(batches(split, size, *processes)):
            if i == 2 and (calls[-1], 4 * calls.count("validation")) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            assert i < 4 or (calls[-1], 4 * calls.count("validation")) != at, "the rest was evaluated"
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "eval_batches", signal_in_the_middle)
        with pytest.raises(UserError, match=f"stopped at step {at[1]} ") as stopped:
            train(tmp_path / "b", **options)
    assert stopped.value.code == 143
    assert final_state(tmp_path / "b", make_config(**options))[0] == at[1]
    assert train(tmp_path / "b", **options)["metrics"] == unbroken["metrics"]
    assert (tmp_path / "b" / "metrics.jsonl").read_bytes() == (tmp_path / "a" / "metrics.jsonl").read_bytes()
    a, b = (final_state(tmp_path / name, make_config(**options)) for name in "ab")
    assert_same_bits(b[1], a[1])
    same = ("best", "best_step", "patience", "watched", "due", "step")
    assert [b[2][name] for name in same] == [a[2][name] for name in same]


def one_run_and_one_stopped_at_step_10(folder, monkeypatch):
    """Trains a, and b of the same config until a signal; returns the config's options."""
    options = {"log__every_steps": 1, "train__steps": 20, "eval__every_steps": 10}
    train(folder / "a", **options)
    with monkeypatch.context() as patched:
        stop_at(8, patched)
        with pytest.raises(UserError, match="stopped at step 10"):
            train(folder / "b", **options)
    return options


@pytest.mark.parametrize("change", [
    lambda text: None,  # removed
    lambda text: "",
    lambda text: text[: len(text) // 3],
    lambda text: "\0" * len(text),
    lambda text: text.replace("loss", "cost", 1),
    lambda text: "".join(text.splitlines(keepends=True)[1:]),
    lambda text: text.replace("\n", '\n{"step": "7", "split": "train"}\n', 1),
    lambda text: "\udcff" + text,
])  # fmt: skip
def test_rows_that_were_changed_before_a_resume_are_restored(tmp_path, monkeypatch, capsys, change):
    options = one_run_and_one_stopped_at_step_10(tmp_path, monkeypatch)
    path = tmp_path / "b" / "metrics.jsonl"
    changed = change(path.read_text())
    path.unlink() if changed is None else path.write_text(changed, errors="surrogateescape")
    found = path.read_bytes() if path.exists() else b""
    train(tmp_path / "b", **options)
    assert path.read_bytes() == (tmp_path / "a" / "metrics.jsonl").read_bytes()
    said = capsys.readouterr().err
    assert f"{path}: differs from the rows in the checkpoint of step 10; they were restored" in said
    assert not found or (tmp_path / "b" / "damaged" / "metrics.jsonl").read_bytes() == found
    assert "they were restored" in (tmp_path / "b" / "log.txt").read_text()


def test_rows_beyond_the_checkpoint_are_made_again_whatever_they_are(tmp_path, monkeypatch, capsys):
    options = one_run_and_one_stopped_at_step_10(tmp_path, monkeypatch)
    path = tmp_path / "b" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 11, "split": "train", "loss": 0.5}\n{"step": 12, "spl')
    train(tmp_path / "b", **options)
    assert path.read_bytes() == (tmp_path / "a" / "metrics.jsonl").read_bytes()
    assert "restored" not in capsys.readouterr().err and not (tmp_path / "b" / "damaged").exists()


def test_a_resumed_run_may_change_what_changes_no_number(tmp_path, monkeypatch):
    options = one_run_and_one_stopped_at_step_10(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="holds the run of another config: config.train.ema"):
        train(tmp_path / "b", **options, train__ema=0.5, train__hang_seconds=None)
    changed = {"data__workers": 3, "data__memory_limit_bytes": 10**8, "train__hang_seconds": None}
    train(tmp_path / "b", **options, **changed)
    rows = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert rows[0] == rows[1] and runs.read_config(tmp_path / "b").data.workers == 3


@pytest.mark.parametrize("at", [6, 12])  # before a checkpoint, and before the row of the test split
def test_rows_that_are_deleted_while_a_run_goes_on_are_written_again(tmp_path, at, capsys):
    def deleting(run, folder, steps):
        answer = None
        while True:
            try:
                request = run.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Step | Evaluate) and request.step == at:
                (folder / "metrics.jsonl").unlink(missing_ok=True)
            answer = yield request

    loop.train(make_config(), tmp_path / "a", devices=jax.devices()[:1])
    loop.train(make_config(), tmp_path / "b", devices=jax.devices()[:1], through=deleting)
    rows, expected = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in "ba")
    assert rows == expected and "its rows were restored" in capsys.readouterr().err


def test_a_full_disk_leaves_the_rows_as_they_are(tmp_path, full_disk):
    rows = "".join(json.dumps({"step": step, "split": "train", "loss": 0.5}) + "\n" for step in range(2000))
    (tmp_path / "metrics.jsonl").write_text(rows)
    full_disk(8192)
    with pytest.raises(UserError, match="metrics.jsonl: cannot be written: File too large") as error:
        runs.restore_rows(tmp_path, 1990, rows[: len(rows) // 2])
    assert error.value.code == 5 and (tmp_path / "metrics.jsonl").read_text() == rows
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "before,after", [(("pmap", 8), ("jit", 1)), (("jit", 1), ("pmap", 8)), (("jit", 8), ("jit", 2))]
)
def test_a_checkpoint_goes_on_with_other_devices_in_the_other_mode(tmp_path, monkeypatch, before, after):
    options = {"model__name": "normed", "train__ema": 0.9}
    train(tmp_path / "whole", **options)
    with monkeypatch.context() as patched:
        stop_at(6, patched)
        with pytest.raises(UserError):
            train(tmp_path / "run", before[1], train__parallel=before[0], **options)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    saved["config"]["train"]["parallel"] = after[0]
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    train(tmp_path / "run", after[1], train__parallel=after[0], **options)

    _, expected, _ = final_state(tmp_path / "whole", make_config(**options))
    _, found, _ = final_state(tmp_path / "run", make_config(**options))
    assert_same_numbers(found, expected)


def test_the_same_command_twice_gives_the_same_bits_and_a_finished_run_its_result(tmp_path):
    first = train(tmp_path / "a", **EVERYTHING)
    second = train(tmp_path / "b", **EVERYTHING)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    assert first["metrics"] == second["metrics"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert train(tmp_path / "a", **EVERYTHING) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before


@pytest.mark.parametrize("devices", [1, 8])
def test_n_examples_are_counted_n_times_at_any_batch_size(devices):
    setup = make_setup(devices, data__splits__validation="train[96:127]")  # 31
    state = jax.jit(setup.init)(run_key(0))
    variables = jax.device_get(eval_variables(state, {}))
    images = setup.splits["validation"]
    logits = setup.model.apply(variables, images.arrays["train"]["image"][96:127] / np.float32(255))
    labels = images.arrays["train"]["label"][96:127]
    accuracy = float(np.mean(np.asarray(np.argmax(logits, axis=-1) == labels), dtype=np.float64))
    losses = -jax.nn.log_softmax(logits)[np.arange(31), labels]
    for size in (1, 2, 7, 30, 31, 32, 100):
        found = evaluate(setup._replace(config=make_config(data__eval_batch_size=size)), variables, "validation")
        assert found["accuracy"] == pytest.approx(accuracy, rel=1e-12)
        assert found["loss"] == pytest.approx(float(losses.mean()), rel=1e-6)


def test_one_trace_for_a_whole_run(tmp_path, monkeypatch):
    traces = {"loss": [], "evaluate": []}
    build = TASKS["classify_images"]

    def counting(
        spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)
    ):
        task = build(spec, label_smoothing=label_smoothing, mean=mean, std=std)
        count = lambda name: lambda *arguments: (traces[name].append(1), getattr(task, name)(*arguments))[1]
        return task._replace(loss=count("loss"), evaluate=count("evaluate"))

    monkeypatch.setitem(TASKS, "classify_images", counting)
    train(tmp_path / "short", train__steps=1, eval__every_steps=1)
    once = {name: len(calls) for name, calls in traces.items()}
    [calls.clear() for calls in traces.values()]
    train(tmp_path / "long", train__steps=12, eval__every_steps=2, checkpoint__every_steps=3)
    assert {name: len(calls) for name, calls in traces.items()} == once


def test_best_and_newest_are_kept_and_test_is_read_with_the_best(tmp_path):
    result = train(tmp_path, optimizer__learning_rate=0.5, train__steps=20, eval__every_steps=2, checkpoint__keep=2)
    rows = [row for row in runs.read_rows(tmp_path) if row["split"] == "validation"]
    best = max(rows, key=lambda row: (row["accuracy"], -row["step"]))
    assert result["best_step"] == best["step"]
    assert result["metrics"]["validation"] == {key: best[key] for key in ("accuracy", "loss", "top5_accuracy")}
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {18, 20} | {best["step"]}
    run = runs.load(tmp_path)
    assert run.step == best["step"]
    setup = make_setup()
    assert evaluate(setup, run.variables, "test") == pytest.approx(result["metrics"]["test"])


def test_rows_are_once_each_and_sum_up_their_window(tmp_path):
    train(tmp_path / "a", log__every_steps=5)
    train(tmp_path / "b", log__every_steps=1)
    rows, single = runs.read_rows(tmp_path / "a"), runs.read_rows(tmp_path / "b")
    keys = [(row["step"], row["split"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert [step for step, split in keys if split == "train"] == [5, 10, 12]
    assert [step for step, split in keys if split == "validation"] == [4, 8, 12]
    losses = [row["loss"] for row in single if row["split"] == "train"]
    windows = [row["loss"] for row in rows if row["split"] == "train"]
    expected = [np.mean(losses[0:5]), np.mean(losses[5:10]), np.mean(losses[10:12])]
    assert windows == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_run_equals_the_run_in_memory(tmp_path, workers):
    train(tmp_path / "memory", **EVERYTHING)
    train(tmp_path / "stream", **EVERYTHING, data__memory_limit_bytes=0, data__workers=workers)
    assert (tmp_path / "stream" / "metrics.jsonl").read_bytes() == (tmp_path / "memory" / "metrics.jsonl").read_bytes()


def test_early_stopping_ends_after_its_patience_and_stays_ended(tmp_path):
    options = {
        "optimizer__learning_rate": 0.0,  # nothing ever improves
        "train__steps": 40,
        "eval__every_steps": 4,
        "train__early_stopping__metric": "loss",
        "train__early_stopping__patience": 2,
    }
    result = train(tmp_path, **options)
    assert result["step"] == 12 and result["best_step"] == 4
    (tmp_path / "result.json").unlink()
    assert train(tmp_path, **options)["step"] == 12


def with_error_rates(monkeypatch, rates):
    """classify_images that also scores `wer`: the next of `rates` in each evaluation."""
    build, left = TASKS["classify_images"], iter(rates)

    def odd(spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)):
        return build(spec, label_smoothing=label_smoothing, mean=mean, std=std)._replace(
            score=lambda arrays: {"wer": next(left, 1.0)}
        )

    monkeypatch.setitem(TASKS, "classify_images", odd)


def test_a_metric_of_unknown_direction_is_judged_and_watched_by_the_stated_one(tmp_path, monkeypatch):
    options = {"eval__metric": "wer", "train__early_stopping__metric": "wer", "train__early_stopping__patience": 2}
    options |= {"train__steps": 24, "data__splits__test": None}
    with_error_rates(monkeypatch, [0.0])
    with pytest.raises(UserError, match="config.eval.direction: needed, since wer is not known"):
        train(tmp_path, **options)
    with_error_rates(monkeypatch, [0.0])
    with pytest.raises(UserError, match="early_stopping.metric: wer is not known .* watch config.eval.metric"):
        train(tmp_path, **{**options, "eval__metric": "loss"})
    assert not list(tmp_path.iterdir())
    with_error_rates(monkeypatch, [0.0, 0.5, 0.4, 0.3, 0.35, 0.33])  # the first is read while the task is checked
    result = train(tmp_path, **options, eval__direction="min")
    assert result["best_step"] == 12 and result["step"] == 20  # two evaluations without a lower one


def test_a_metric_towards_which_no_example_counts_is_named(tmp_path):
    progress, values = no_progress(), {"loss": 1.0}
    watched = {"eval__metric": "loss", "train__early_stopping__metric": "accuracy"}
    for options in ({"eval__metric": "accuracy"}, watched):
        with pytest.raises(UserError, match="metric: no example of .*validation counts towards accuracy") as error:
            judge(values, progress, make_config(**options))
        assert error.value.code == 3


@pytest.mark.parametrize("split,name", [("validation", "nan"), ("test", "nan"), ("validation", "perplexity")])
def test_a_metric_that_is_not_finite_is_divergence_and_the_last_good_state_stays(tmp_path, monkeypatch, split, name):
    build, evaluated = TASKS["classify_images"], []

    def odd(spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)):
        task = build(spec, label_smoothing=label_smoothing, mean=mean, std=std)

        def score(arrays):
            evaluated.append(1)
            wanted = 1 + (2 if split == "validation" else 3)  # one more: what setup asks for the names
            return {"nan": math.nan if len(evaluated) == wanted and name == "nan" else 1.0}

        def evaluate(model, variables, batch, keys):
            sums, arrays = task.evaluate(model, variables, batch, keys)
            return {
                **sums,
                "perplexity": (sums["loss"][1] * (710.0 if name == "perplexity" else 1.0), sums["loss"][1]),
            }, arrays

        return task._replace(score=score, evaluate=evaluate)

    monkeypatch.setitem(TASKS, "classify_images", odd)
    step = 8 if (split, name) == ("validation", "nan") else 4  # the first evaluation is the best
    with pytest.raises(UserError, match=rf"step {step}, {split}: {name} is (nan|inf)") as error:
        train(tmp_path, train__steps=8, log__every_steps=8)
    assert error.value.code == 6
    result = runs.read_json(tmp_path / "result.json")
    assert result["status"] == "diverged" and name in result["reason"]
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*"))
    assert kept == {("validation", "nan"): [4], ("test", "nan"): [4, 8], ("validation", "perplexity"): []}[split, name]


def test_not_finite_ends_with_the_step_and_the_quantity(tmp_path):
    with pytest.raises(UserError, match=r"step \d+: (loss|gradient_norm|update_norm) is (nan|inf)") as error:
        train(tmp_path, optimizer__learning_rate=1e30)
    assert error.value.code == 6
    result = runs.read_json(tmp_path / "result.json")
    assert result["status"] == "diverged" and "step" in result["reason"]


def test_another_config_in_the_same_folder_is_refused_with_the_paths(tmp_path):
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"config.optimizer.learning_rate 0.1 there, 0.2 here; config.seed 0 there, 5 here"
    ) as error:
        train(tmp_path, seed=5, optimizer__learning_rate=0.2)
    assert error.value.code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("seed", [0, 1])
def test_a_folder_is_looked_at_again_under_its_lock(tmp_path, monkeypatch, seed):
    """Another process makes the run of this or another config between the first look and the lock."""
    prepare, made = loop.prepare, []

    def slow(*arguments):
        if not made:
            made.append(None)
            made[0] = train(tmp_path, seed=0)
        return prepare(*arguments)

    monkeypatch.setattr(loop, "prepare", slow)
    if seed == 0:
        assert train(tmp_path, seed=0) == made[0]
        assert len(runs.read_json(tmp_path / "manifest.json")) == 1
        return
    with pytest.raises(UserError, match="holds the run of another config: config.seed 0 there, 1 here") as error:
        train(tmp_path, seed=1)
    assert error.value.code == 2 and runs.read_config(tmp_path).seed == 0
    assert runs.read_json(tmp_path / "result.json") == made[0]


def test_a_run_whose_checkpoints_are_gone_says_that_it_begins_again(tmp_path, capsys):
    first = train(tmp_path)
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints")
    assert train(tmp_path)["metrics"] == first["metrics"]
    said = "has rows up to step 12, but there is no checkpoint: beginning again at step 0"
    assert said in capsys.readouterr().err


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        lock.write("123 on elsewhere")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="123 on elsewhere") as error:
            train(tmp_path)
    assert error.value.code == 7


def test_a_run_whose_lock_file_was_deleted_is_still_locked(tmp_path):
    with runs.lock(tmp_path):
        (tmp_path / "lock").unlink()
        with pytest.raises(UserError, match="being written by process unknown") as error:
            train(tmp_path)
    assert error.value.code == 7 and [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert train(tmp_path)["status"] == "finished"


def test_a_lock_is_any_bytes_and_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lock").write_bytes(b"\xff\xfe\n123" * 1000)
    with runs.lock(tmp_path / "a"):
        (tmp_path / "a" / "lock").write_bytes(b"\xff\xfe\n123" * 1000)
        with (
            pytest.raises(UserError, match="being written by process \ufffd\ufffd 123") as error,
            runs.lock(tmp_path / "a"),
        ):
            pass
    assert error.value.code == 7 and len(str(error.value)) < 300
    (tmp_path / "b" / "lock").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written: Is a directory") as error, runs.lock(tmp_path / "b"):
        pass
    assert error.value.code == 5


def test_a_signal_before_the_first_step_says_that_nothing_was_saved(tmp_path):
    def signalled(run, folder, steps):
        request = run.send(None)
        assert isinstance(request, Place)
        signal.raise_signal(signal.SIGTERM)
        run.send((yield request))

    with pytest.raises(UserError, match="stopped by SIGTERM before its first step; nothing was saved") as error:
        loop.train(make_config(), tmp_path / "b", devices=jax.devices()[:1], through=signalled)
    assert error.value.code == 143 and not list((tmp_path / "b" / "checkpoints").iterdir())
    assert runs.read_result(tmp_path / "b")["status"] == "stopped"
    assert train(tmp_path / "b")["metrics"] == train(tmp_path / "a")["metrics"]


def test_a_read_only_folder_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    with pytest.raises(UserError, match="cannot be|can be written") as error:
        train(folder)
    assert error.value.code == 5 and not list(folder.iterdir())


def test_the_newest_step_that_can_be_read_is_taken_and_none_is_an_error(tmp_path):
    options = {"train__steps": 8, "checkpoint__every_steps": 4}
    whole = train(tmp_path, **options)
    (tmp_path / "result.json").unlink()
    for path in (tmp_path / "checkpoints" / "8" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    step, _, progress = final_state(tmp_path, make_config(**options))
    assert step == progress["step"] == 4
    assert train(tmp_path, **options)["metrics"] == whole["metrics"]  # and step 8 is made again
    assert runs.load(tmp_path).step == whole["best_step"] and final_state(tmp_path, make_config(**options))[0] == 8
    assert (tmp_path / "damaged" / "8").is_dir()  # set aside, not lost
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    for path in (tmp_path / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match="no step can be trusted.*step 4") as error:
        train(tmp_path, **options)
    assert error.value.code == 4 and whole["step"] == 8


def test_a_flipped_byte_is_refused_and_the_step_before_used(tmp_path):
    options = {"train__steps": 8, "checkpoint__every_steps": 4}
    train(tmp_path, **options)
    blob = max((tmp_path / "checkpoints" / "8" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    assert final_state(tmp_path, make_config(**options))[0] == 4


def test_warm_start_takes_what_matches_and_lists_the_rest(tmp_path, capsys):
    train(tmp_path / "a")
    _, state, _ = final_state(tmp_path / "a", make_config())
    taken = runs.load(tmp_path / "a").variables["params"]
    other = {"model__layers": ("conv4", "pool2", "dense12"), "train__steps": 1, "optimizer__learning_rate": 0.0}
    with pytest.raises(
        UserError, match=r"config.model.layers: .*'dense12'\), but .*'dense8'\) there.*leave it out"
    ) as error:
        train(tmp_path / "b", init_from=str(tmp_path / "a"), **other)
    assert error.value.code == 2 and not (tmp_path / "b").exists()
    train(tmp_path / "b", init_from=f"{tmp_path / 'a'}:Conv_0", **other)
    assert "2 parameters copied\n" in capsys.readouterr().err
    found = runs.load(tmp_path / "b").variables["params"]
    assert_same_bits(found["Conv_0"], taken["Conv_0"])
    train(tmp_path / "c", init_from=f"{tmp_path / 'a'}:head", train__steps=1, optimizer__learning_rate=0.0)
    found = runs.load(tmp_path / "c").variables["params"]
    assert_same_bits(found["head"], taken["head"])
    assert not np.array_equal(found["Conv_0"]["kernel"], taken["Conv_0"]["kernel"])
    for prefix, fields, message in (
        ("nowhere", {}, "nothing here is called nowhere"),
        ("Conv_0,Dense_0", other, r"config.init_from: params/Dense_0/bias: shape \(8,\) there, \(12,\) here"),
    ):
        with pytest.raises(UserError, match=message) as error:
            train(tmp_path / "d", init_from=f"{tmp_path / 'a'}:{prefix}", **{"train__steps": 1, **fields})
        assert error.value.code == 2 and not (tmp_path / "d").exists()


def test_a_machine_without_git_trains_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train(tmp_path / "run", train__steps=1)["status"] == "finished"
    assert runs.read_json(tmp_path / "run" / "manifest.json")[0]["commit"] is None


def test_a_folder_left_before_its_config_was_whole_is_taken(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "config.jsonabc123").write_text("{")
    assert train(tmp_path, train__steps=1)["status"] == "finished"
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="not empty, and no run folder"):
        train(tmp_path, train__steps=1)


def test_result_and_manifest_tell_what_a_later_tool_reads(tmp_path):
    result = train(tmp_path, devices=2)
    assert result == runs.read_json(tmp_path / "result.json")
    assert set(result) == {
        "status", "step", "best_step", "metrics", "seconds", "examples_per_second", "first_step_seconds",
        "data_wait_fraction", "peak_memory_bytes", "parameters",
    }  # fmt: skip
    assert result["status"] == "finished" and result["step"] == 12
    assert 0 <= result["data_wait_fraction"] < 1 and result["peak_memory_bytes"] > 1e7
    params = runs.load(tmp_path).variables["params"]
    assert result["parameters"] == sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    (start,) = runs.read_json(tmp_path / "manifest.json")
    kept = "command commit uncommitted versions machine gflops together devices data"
    assert set(start) == set(kept.split())
    assert len(start["data"]["fingerprint"]["train"]) == 64
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    "info,kind",
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu sse4_2 avx avx2 avx512f avx512_bf16\n", "AMD EPYC, AVX-512"),
        ("model name\t: AMD EPYC\nflags\t\t: fpu sse4_2 avx avx2\n", "AMD EPYC, AVX2"),
        ("processor\t: 0\nFeatures\t: fp asimd sve\n", "SVE"),
    ],
)
def test_a_machine_is_labelled_by_its_widest_vectors_too(info, kind, monkeypatch):
    monkeypatch.setattr(manifest.platform, "processor", lambda: "")
    assert manifest.processor(info) == kind


def test_the_rate_of_products_is_in_the_manifest_and_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured, measure = [], manifest._gflops
    monkeypatch.setattr(manifest, "_gflops", lambda *given: measured.append(given) or measure(*given[:2], 0.01))
    for _ in range(2):
        manifest.matmul_gflops.cache_clear()
        found = manifest.entry({})["gflops"]
        assert set(found) == {"float32", "bfloat16"} and all(rate > 0.1 for rate in found.values())
    assert len(measured) == 2  # one of each, and then from the cache
    manifest.matmul_gflops.cache_clear()


def test_bfloat16_on_a_cpu_that_is_slower_at_it_is_said_once(tmp_path, monkeypatch, capsys):
    rates = {"float32": 390.0, "bfloat16": 150.0}
    monkeypatch.setattr(manifest, "matmul_gflops", lambda: rates)
    train(tmp_path / "slow", model__dtype="bfloat16")
    warning = "config.model.dtype: bfloat16 is slower than float32 on this machine: 150 and 390 GFLOP/s"
    assert capsys.readouterr().err.count(warning) == 1
    train(tmp_path / "wide", model__dtype="float32")
    rates["bfloat16"] = 400.0
    train(tmp_path / "fast", model__dtype="bfloat16")
    assert "slower than float32" not in capsys.readouterr().err
