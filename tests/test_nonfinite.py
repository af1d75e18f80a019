"""Numbers that are not finite: a run halts, skips the update or goes back; the operation is named; memory runs out."""

import os
import pathlib
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_curve_is_whole, assert_same_bits, assert_same_numbers, make_config, make_setup, run_script

from research import loop, runs, sharding
from research.data.batches import stack, train_batches
from research.errors import UserError, out_of_memory
from research.models import MODELS
from research.models.layers import head
from research.randomness import run_key
from research.train_step import make_train_step


class Fragile(nn.Module):
    """Softmax regression on the pixels, with faults.

    large: the logits are nan once a weight is larger. pixels: they are nan for an image with this sum. log: they have
    the logarithm of a negative number. memory: they need an array that no machine holds.
    """

    large: float = 1e30
    pixels: int = -1
    fault: str = "none"
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):
        x = image.reshape(image.shape[0], -1)
        layer = head(self.classes, self.dtype)
        logits = layer(x)
        if self.fault == "log":
            logits = logits + jnp.log(-1 - jnp.square(x).sum())
        if self.fault == "memory" and train:
            logits = logits + jnp.sort(jnp.outer(*[jnp.broadcast_to(logits[0, 0], 2**29)] * 2), axis=0).sum()
        weight = jnp.abs(layer.variables["params"]["kernel"]).max()
        sums = jnp.round(x.sum(axis=1, keepdims=True) * 255)
        broken = (weight > self.large) | (sums == self.pixels) if train else False
        return jnp.where(broken, jnp.nan, logits)


@pytest.fixture(autouse=True)
def fragile(monkeypatch):
    monkeypatch.setitem(MODELS, "fragile", Fragile)


def train(workdir, **overrides):
    own = {"model__name": "fragile", "train__steps": 24, "eval__every_steps": 4, "log__every_steps": 1, **overrides}
    return loop.train(make_config(**own), workdir, devices=jax.devices()[:1])


@pytest.mark.parametrize("parallel,devices,k", [("jit", 1, 1), ("jit", 2, 2), ("pmap", 2, 1)])
def test_a_step_that_is_not_finite_is_skipped_and_changes_nothing_but_its_number(parallel, devices, k):
    own = {"model__name": "normed", "train__ema": 0.9, "optimizer__name": "adam", "train__parallel": parallel}
    states = {}
    for mode in ("halt", "skip"):
        setup = make_setup(devices, **own, train__steps_per_call=k, train__on_nonfinite=mode)
        step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
        state = jax.jit(setup.init, out_shardings=sharding.replicated(setup.mesh))(run_key(0))
        first, second = train_batches(setup.splits["train"], 0, 16, 0, 2)
        broken = {**second, "mask": np.full(16, np.nan, np.float32)}
        dispatches = [first, broken] if k == 1 else [stack([first, broken], 2, 0)]
        for batch in dispatches:
            before = jax.device_get(state)
            state, measured = step(state, {}, batch, run_key(0), *([2] if k > 1 else []))
        states[mode] = before, jax.device_get(state)
    last = lambda name: [float(np.reshape(x, -1)[-1]) for x in measured[name]]
    assert last("skipped") == [1, 1] and last("loss") == last("update_norm") == [0, 0]
    before, after = states["skip"]
    assert (
        after.step == 2
        and not np.isfinite(np.concatenate([x.ravel() for x in jax.tree.leaves(states["halt"][1])])).all()
    )
    if k == 1:
        assert_same_bits(after, before._replace(step=after.step))
        assert_same_numbers(before, states["halt"][0])
    else:  # the first of the two steps was done
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after)) and after.opt_state != before.opt_state


def broken_image():
    """The sum of the pixels of one training image, which no other one has."""
    images = make_setup().splits["train"].arrays["train"]["image"][:96]
    sums, counts = np.unique(images.reshape(96, -1).sum(axis=1, dtype=np.int64), return_counts=True)
    return int(sums[counts == 1][0])


def test_a_run_skips_the_steps_of_a_broken_example_and_counts_them(tmp_path, capsys):
    result = train(tmp_path, model__pixels=broken_image(), train__on_nonfinite="skip")
    rows = [row for row in runs.read_rows(tmp_path) if row["split"] == "train"]
    skipped = [row for row in rows if row["skipped"]]
    assert result["status"] == "finished" and len(skipped) == result["skipped"] == 4  # once an epoch of six steps
    assert all("loss" not in row and row["skipped"] == 1 for row in skipped) and len(rows) == 24
    with pytest.raises(UserError, match="loss is nan") as error:
        train(tmp_path / "halted", model__pixels=broken_image())
    assert error.value.code == 6
    with pytest.raises(UserError, match="the last 3 updates were not finite and were skipped; .* allows 2") as error:
        train(tmp_path / "all", model__large=0.0, train__on_nonfinite="skip", train__nonfinite_limit=2)
    assert error.value.code == 6 and runs.read_result(tmp_path / "all")["status"] == "diverged"


TOO_FAST = {"model__large": 1.2, "optimizer__learning_rate": 4.0, "train__on_nonfinite": "rollback"}
TOO_FAST |= {"train__nonfinite_limit": 10}


def test_a_run_goes_back_to_its_last_checkpoint_with_a_lower_rate(tmp_path, capsys):
    result = train(tmp_path / "a", **TOO_FAST)
    rows = [row for row in runs.read_rows(tmp_path / "a") if row["split"] == "train"]
    rates = sorted({row["learning_rate"] for row in rows}, reverse=True)
    assert (
        result["status"] == "finished" and result["rollbacks"] >= 2 and [row["step"] for row in rows] == [*range(1, 25)]
    )
    assert result["seconds"] < 600 and rates[-1] == 4.0 * 0.5 ** result["rollbacks"]
    said = capsys.readouterr().err
    assert (
        said.count("loss is nan") == result["rollbacks"]
        and "returning to step 8 with the learning rate times 0.125" in said
    )
    assert_curve_is_whole(tmp_path / "a")
    assert train(tmp_path / "b", **TOO_FAST)["metrics"] == result["metrics"]
    rows = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert rows[0] == rows[1]


def test_a_run_that_has_no_good_checkpoint_left_starts_again_with_a_lower_rate(tmp_path, capsys):
    """Of two checkpoints the newest gives nan, and the best has no moments to resume from."""
    result = train(tmp_path, **TOO_FAST, checkpoint__keep=1)
    said = [line.partition("; ")[2] for line in capsys.readouterr().err.splitlines() if "returning to step" in line]
    assert len(said) == result["rollbacks"] and "returning to step 0 with the learning rate times 0.125" in said
    assert_curve_is_whole(tmp_path)


@pytest.mark.parametrize("at", [2, 6, 8, 14])
def test_a_run_that_goes_back_is_resumed_bit_for_bit(tmp_path, at):
    def signalled(run, folder, steps):
        answer, sent = None, False
        while True:
            try:
                request = run.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, loop.Step) and request.step == at and not sent:
                os.kill(os.getpid(), signal.SIGTERM)
                sent = True
            try:
                answer = yield request
            except UserError as error:
                answer = run.throw(error)

    options = {"model__name": "fragile", "train__steps": 24, "eval__every_steps": 4, "log__every_steps": 1, **TOO_FAST}
    whole = train(tmp_path / "a", **TOO_FAST)
    with pytest.raises(UserError, match="stopped"):
        loop.train(make_config(**options), tmp_path / "b", devices=jax.devices()[:1], through=signalled)
    assert train(tmp_path / "b", **TOO_FAST)["metrics"] == whole["metrics"]
    rows = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert rows[0] == rows[1]


def test_a_run_that_goes_back_too_often_halts(tmp_path):
    with pytest.raises(UserError, match="loss is nan.*; still so after 2 rollbacks") as error:
        train(tmp_path, **{**TOO_FAST, "model__large": 0.0, "train__nonfinite_limit": 2})
    assert error.value.code == 6 and runs.read_result(tmp_path)["status"] == "diverged"


@pytest.mark.parametrize("k", [1, 3])
def test_the_operation_and_the_line_that_give_a_nan_are_named(tmp_path, k):
    lines = pathlib.Path(__file__).read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "jnp.log(" in text)
    with pytest.raises(
        UserError, match=f"step .*test_nonfinite.py, line {line}: nan generated by primitive: log"
    ) as error:
        train(tmp_path, model__fault="log", train__debug_nans=True, train__steps_per_call=k)
    assert error.value.code == 6


def test_a_run_without_nan_is_the_same_when_they_are_looked_for(tmp_path):
    found = [train(tmp_path / str(debug), train__debug_nans=debug)["metrics"]["test"] for debug in (False, True)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_memory_that_runs_out_is_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match="out of memory: Out of memory allocating .*config.data.batch_size") as error:
        train(tmp_path, model__fault="memory")
    assert error.value.code == 5 and runs.read_result(tmp_path)["reason"] == str(error.value)
    assert out_of_memory(MemoryError("Unable to allocate 8 EiB")).code == 5 and out_of_memory(ValueError("x")) is None


def test_what_one_program_cannot_do_is_refused_or_done_alone(capsys):
    from research.studies.population import likeness

    with pytest.raises(UserError, match="config.train.debug_nans: works with jit") as error:
        make_config(train__debug_nans=True, train__parallel="pmap")
    assert error.value.code == 2
    assert likeness(make_config(train__on_nonfinite="skip")) and not likeness(
        make_config(train__on_nonfinite="rollback")
    )
    assert not likeness(make_config(train__debug_nans=True))
    assert run_script("train", "--config=configs/digits_cnn.py:tiny", "--config.train.on_nonfinite=ignore") == 2
    assert "halt, skip, rollback" in capsys.readouterr().err
