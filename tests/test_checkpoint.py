"""What was saved is read, on any devices, or refused: never another step in silence, never more than is wanted."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import CASES, ROOT, assert_same_bits, make_config, make_setup

from research import checkpoint, loop, runs
from research.checkpoint import Checkpoints, read_best
from research.errors import UserError
from research.evaluation import evaluate
from research.inference import prediction
from research.optimizers import unstacked
from research.randomness import run_key
from research.setup import prepare_evaluation
from research.tasks import TASKS
from research.warm_start import copy_matching

# The first evaluation is the best, and step 8 neither the best nor the newest: a wrong step has other numbers.
FIRST = {"eval__metric": "cost", "eval__direction": "max"}
OPTIONS = {"model__name": "normed", "train__ema": 0.9, **FIRST}


@pytest.fixture(scope="module", autouse=True)
def cost():
    """Makes classify_images report its loss as `cost` too, a metric of unknown direction."""
    build = TASKS["classify_images"]

    def with_cost(
        spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)
    ):
        task = build(spec, label_smoothing=label_smoothing, mean=mean, std=std)

        def evaluate(*given):
            sums, arrays = task.evaluate(*given)
            return {**sums, "cost": sums["loss"]}, arrays

        return task._replace(evaluate=evaluate)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TASKS, "classify_images", with_cost)
        yield


def train(folder, devices=1, **overrides):
    return loop.train(make_config(**{**OPTIONS, **overrides}), folder, devices=jax.devices()[:devices])


READ = """
import json, sys
from research import runs
from research.evaluation import evaluate
from research.setup import prepare_evaluation
for folder in sys.argv[1:]:
    run = runs.load(folder)
    setup = prepare_evaluation(run.config, "validation")
    print(json.dumps([setup.mesh.devices.size, run.step, evaluate(setup, run.variables, "validation")]))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs on several numbers of devices in both modes: {folder: result}."""
    place = tmp_path_factory.mktemp("devices")
    kinds = [("jit", 1), ("jit", 4), ("pmap", 8), ("pmap", 2)]
    own = {"model__name": "cnn", "model__layers": ("conv4", "dense8")}  # known to any process
    return {f"{place}/{mode}{n}": train(place / f"{mode}{n}", n, train__parallel=mode, **own) for mode, n in kinds}


@pytest.mark.parametrize("devices", [1, 3])
def test_a_run_of_any_devices_is_read_alike_on_any_others(trained, devices):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", READ, *trained], env={**os.environ, **flags}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for line, result in zip(done.stdout.splitlines(), trained.values(), strict=True):
        n, step, metrics = json.loads(line)
        assert n == devices and step == result["best_step"] == 4
        metrics["cost"] = metrics["loss"]  # which that process does not report
        assert metrics == pytest.approx(result["metrics"]["validation"], rel=1e-6)
    assert "in its place" not in done.stderr


def test_a_run_of_other_devices_is_read_here(trained):
    for folder, result in trained.items():
        run = runs.load(folder)
        assert run.step == 4
        setup = prepare_evaluation(run.config, "validation")
        assert setup.mesh.devices.size == 8
        found = evaluate(setup, run.variables, "validation")
        assert found == pytest.approx(result["metrics"]["validation"], rel=1e-6)
        _, matched, missed = copy_matching(run.variables, read_best(folder)[1])
        assert matched and not missed


def test_evaluation_reads_the_average_alone_and_never_the_moments(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    train(tmp_path / "ema", optimizer__name="adam")
    train(tmp_path / "plain", optimizer__name="adam", train__ema=None)
    asked, restore = [], ocp.CheckpointManager.restore

    def spy(self, step, args):
        asked.extend(
            name for item in ("state", "evaluation") if item in args.keys() for name in sorted(args[item].item)
        )
        return restore(self, step, args=args)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", spy)
    read_best(tmp_path / "ema")
    assert asked == ["ema"]
    read_best(tmp_path / "plain")
    assert asked[1:] == ["model_state", "params"]


@pytest.mark.parametrize("ema", [0.9, None])
def test_a_best_step_that_is_not_among_the_newest_keeps_what_evaluation_reads_alone(tmp_path, ema):
    first = train(tmp_path, optimizer__name="adam", train__ema=ema, checkpoint__keep=1)
    assert first["best_step"] == 4
    kept = {path.name: path for path in (tmp_path / "checkpoints").iterdir()}
    bytes_of = lambda path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert set(kept) == {"4", "12"} and bytes_of(kept["4"]) < 0.6 * bytes_of(kept["12"])
    assert (kept["4"] / "evaluation").is_dir() and not (kept["4"] / "state").exists()
    run = runs.load(tmp_path)
    found = evaluate(prepare_evaluation(run.config, "validation"), run.variables, "validation")
    assert run.step == 4 and found == pytest.approx(first["metrics"]["validation"], rel=1e-6)
    (tmp_path / "result.json").unlink()
    assert train(tmp_path, optimizer__name="adam", train__ema=ema, checkpoint__keep=1)["metrics"] == first["metrics"]
    shutil.rmtree(kept["12"])  # what is left can be evaluated and not resumed
    (tmp_path / "result.json").unlink()
    with pytest.raises(UserError, match="no step can be trusted: step 4 has no state to resume from") as error:
        train(tmp_path, optimizer__name="adam", train__ema=ema, checkpoint__keep=1)
    assert error.value.code == 4 and runs.load(tmp_path).step == 4


@pytest.mark.parametrize("killed", ["before it renames", "after it renames"])
def test_a_process_killed_while_it_reduces_the_best_step_loses_nothing(tmp_path, monkeypatch, killed):
    rename, remove = os.replace, shutil.rmtree
    with monkeypatch.context() as patched:
        if killed == "before it renames":
            patched.setattr(checkpoint.os, "replace", lambda a, b: str(b).endswith(".removed") or rename(a, b))
        patched.setattr(shutil, "rmtree", lambda path, **own: str(path).endswith(".removed") or remove(path, **own))
        train(tmp_path, checkpoint__keep=1)
    assert (tmp_path / "checkpoints" / "4" / "state").is_dir() == (killed == "before it renames")
    assert (tmp_path / ".removed").is_dir() == (killed == "after it renames")
    assert runs.load(tmp_path).step == 4
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "12")  # as if it had been killed then, after step 8
    with pytest.raises(UserError, match="step 4 has no state to resume from"):
        train(tmp_path, checkpoint__keep=1)


def test_small_states_and_large_ones_are_saved_and_read_alike(tmp_path, monkeypatch):
    """By the size they are saved in one of two ways; here both of the same state."""
    saved, save = [], checkpoint.ocp.args.PyTreeSave
    monkeypatch.setattr(checkpoint.ocp.args, "PyTreeSave", lambda state: saved.append(type(state.step)) or save(state))
    train(tmp_path / "small", train__steps=8)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "SMALL", 0)
        train(tmp_path / "large", train__steps=8)
    assert set(saved[: len(saved) // 2]) == {np.ndarray} and np.ndarray not in saved[len(saved) // 2 :]
    places = [tmp_path / name for name in ("small", "large")]
    assert_same_bits(*(runs.load(place).variables for place in places))
    kinds = [Checkpoints(place / "checkpoints") for place in places]
    setup = make_setup(**OPTIONS)
    states = [kept.restore(setup.abstract)[1] for kept in kinds]
    assert_same_bits(*states)
    [kept.close() for kept in kinds]


def test_the_final_state_is_freed_before_the_best_is_read(tmp_path, monkeypatch):
    width, read, alive = 251, Checkpoints.variables, []
    kernels = lambda: sum(x.shape == (64, width) for x in jax.live_arrays())

    def spy(self, step, sharding=None):
        alive.append(kernels())
        return read(self, step, sharding)

    monkeypatch.setattr(Checkpoints, "variables", spy)
    options = {"model__name": "mlp", "model__widths": (width,), "optimizer__name": "adam", "train__ema": 0.9}
    first = train(tmp_path, **options)
    assert first["best_step"] == 4 and alive == [0]
    (tmp_path / "result.json").unlink()  # a run that goes on at its very end
    assert train(tmp_path, **options)["metrics"] == first["metrics"] and alive[-1] == 0


def test_variables_of_a_run_are_on_a_device_and_stay_there(tmp_path):
    train(tmp_path)
    run = runs.load(tmp_path)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(run.variables))
    setup = make_setup(8, **OPTIONS)
    rows = list(prediction.read_split(run, "test"))
    with jax.transfer_guard_host_to_device("disallow"):
        evaluate(setup, run.variables, "validation")
        assert len(list(prediction.top_classes(run, rows, 3))) == 21


# Of this state nearly all is one kernel, stored as it is: a bit in the middle of the file is one of its numbers.
ONE_KERNEL = {"model__name": "mlp", "model__widths": (251,), "train__ema": None}
ONE_KERNEL |= {"eval__metric": "loss", "eval__direction": None}


def flip(folder, step):
    """One bit of the largest file of a step's state."""
    place = folder / "checkpoints" / str(step)
    blob = max([*place.rglob("state/**/d/*"), *place.rglob("evaluation/**/d/*")], key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)


def rewrite(folder, step, name, value):
    """One entry of a step's progress."""
    (path,) = (folder / "checkpoints" / str(step) / "progress").glob("metadata")
    content = json.loads(path.read_text())
    assert content[name] != value
    path.write_text(json.dumps({**content, name: value}))


def test_a_damaged_best_step_is_said_and_the_newest_good_one_takes_its_place(tmp_path, capsys):
    options = {**ONE_KERNEL, **FIRST}
    assert train(tmp_path, **options)["best_step"] == 4
    flip(tmp_path, 4)
    assert runs.load(tmp_path).step == 12
    said = capsys.readouterr().err
    assert "step 4: damaged" in said and "step 12 is read in its place" in said
    (tmp_path / "result.json").unlink()
    again = train(tmp_path, **options)  # to the end, not into the error that the best step would raise there
    said = capsys.readouterr().err
    assert "step 4: damaged" in said and "going on from step 12, the best is now step 12" in said
    assert again["best_step"] == 12 and (tmp_path / "checkpoints" / "12").is_dir()
    assert (tmp_path / "damaged" / "4").is_dir() and not (tmp_path / "checkpoints" / "4").exists()


def test_after_a_damaged_step_the_best_names_a_step_that_is_there(tmp_path, capsys):
    """Step 12 is the newest and the best, so that the best before it, 8, is gone; then 12 is damaged."""
    options = {**ONE_KERNEL, "checkpoint__every_steps": 2, "checkpoint__keep": 2}
    first = train(tmp_path, **options)
    assert first["best_step"] == 12 and {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"10", "12"}
    flip(tmp_path, 12)
    (tmp_path / "result.json").unlink()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, _, progress = checkpoints.restore(make_setup(**{**OPTIONS, **options}).abstract)
    checkpoints.close()
    assert step == 10 and progress["best_step"] is None
    said = capsys.readouterr().err
    assert "step 12: damaged" in said and "going on from step 10, the best is now unknown" in said
    assert train(tmp_path, **options)["metrics"] == first["metrics"]  # step 12 is made again


def test_a_step_of_the_format_without_rows_can_be_evaluated_and_not_resumed(tmp_path):
    first = train(tmp_path, **ONE_KERNEL)
    for step in (4, 8, 12):
        for path in (tmp_path / "checkpoints" / str(step) / "progress").glob("metadata"):
            content = json.loads(path.read_text())
            del content["rows"], content["sum"]
            content["format"] = 2
            path.write_text(json.dumps({**content, "sum": checkpoint._sum(content)}))
    assert runs.load(tmp_path).step == first["best_step"]
    (tmp_path / "result.json").unlink()
    with pytest.raises(UserError, match="has format 2, which cannot be resumed") as error:
        train(tmp_path, **ONE_KERNEL)
    assert error.value.code == 4


@pytest.mark.parametrize("name,value", [("step", 96), ("best_step", 8), ("stopped_early", True), ("patience", 3)])
def test_a_changed_progress_is_not_trusted(tmp_path, name, value, capsys):
    first = train(tmp_path)
    rewrite(tmp_path, 12, name, value)
    (tmp_path / "result.json").unlink()
    assert train(tmp_path)["metrics"] == first["metrics"]
    assert "step 12: damaged: progress is not what was saved; going on from step 8" in capsys.readouterr().err


def test_a_step_under_another_number_is_not_trusted(tmp_path):
    train(tmp_path)
    (tmp_path / "checkpoints" / "12").rename(tmp_path / "checkpoints" / "20")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="step 20: damaged: progress") as error:
        checkpoints.progress(20)
    checkpoints.close()
    assert error.value.code == 4


def test_a_prefix_of_init_from_is_a_whole_name(tmp_path):
    other = {"model__name": "cnn", "train__ema": None, "train__steps": 1, "eval__every_steps": 1}
    layers = ("conv2x1",) * 11
    train(tmp_path, **other, model__layers=layers)
    variables = {"params": make_setup(**{**OPTIONS, **other, "model__layers": layers}).abstract.params}
    _, source = read_best(tmp_path)
    _, matched, missed = copy_matching(variables, source, ("Conv_1", "head/bias"))
    assert matched == ["params/Conv_1/bias", "params/Conv_1/kernel", "params/head/bias"]
    assert missed["params/Conv_10/kernel"] == "not requested"
    with pytest.raises(UserError, match="nothing here is called Conv_11; did you mean Conv_1") as error:
        copy_matching(variables, source, ("Conv_1", "Conv_11"))
    assert error.value.code == 2


@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_init_from_goes_between_stacked_layers_and_single_ones(tmp_path, scan):
    own = {"model__name": "decoder", "train__steps": 1, "eval__every_steps": 1}
    loop.train(make_config(**{**CASES["decoder"], **own, "model__scan": scan}), tmp_path)
    _, source = read_best(tmp_path)
    like = make_setup(model__name="decoder", model__scan=not scan)
    drawn = {"params": jax.jit(like.init)(run_key(1)).params}
    variables, matched, missed = copy_matching(drawn, source)
    assert ("blocks" in variables["params"]) == (not scan) and not missed
    assert_same_bits(unstacked(variables["params"]), unstacked(source["params"]))
    part, matched, _ = copy_matching(drawn, source, ("block1",))
    assert len(matched) == 12 and all(path.startswith("params/block1/") for path in matched)
    assert_same_bits(unstacked(part["params"])["block0"], unstacked(drawn["params"])["block0"])
    assert_same_bits(unstacked(part["params"])["block1"], unstacked(source["params"])["block1"])
