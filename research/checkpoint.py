"""Checkpoints: asynchronous, atomic, the newest few and the best. Every call of Orbax is here."""

import contextlib
import logging
import pathlib
import shutil
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from research.errors import UserError

FORMAT = 1
_WRITING = (OSError, ValueError, RuntimeError)  # a full disk is any of these to Orbax and TensorStore


class Checkpoints:
    """The folder checkpoints/ of a run. Each step holds `state` (a TrainState) and `progress` (JSON)."""

    def __init__(self, folder, keep=1):
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells each step of each save
        self.folder = pathlib.Path(folder).absolute()
        self.retention = _NewestAndBest(keep)
        options = ocp.CheckpointManagerOptions(preservation_policy=self.retention, enable_async_checkpointing=True)
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step, state, progress):
        """Begins to save; returns once the state is copied, so that its buffers may be donated.

        Raises:
            UserError: 5, where this or the save before it could not be written.
        """
        self.retention.best_step = progress["best_step"]
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            progress=ocp.args.JsonSave({"format": FORMAT, **progress, "sums": _sums(state)}),
        )
        try:
            self.manager.wait_until_finished()
            if step not in self.manager.all_steps() and not self.manager.save(step, args=arguments, force=True):
                raise UserError(5, f"{self.folder}: step {step} was not saved: a newer one is there")
        except _WRITING as error:
            raise UserError(5, f"{self.folder}: cannot be written: {error}") from error

    def steps(self):
        return sorted(self.manager.all_steps())

    def restore(self, abstract):
        """The newest step that can be trusted: (step, state, progress); None where there is none at all.

        Damaged steps that are newer than it are moved to damaged/ beside the folder, so that they will be saved again.

        Args:
            abstract: TrainState of ShapeDtypeStructs with the shardings to restore onto, of any number of devices.

        Raises:
            UserError: 4, where there are steps and none of them can be read.
        """
        bad = []
        for step in reversed(self.steps()):
            try:
                found = (step, *self.restore_step(step, abstract))
            except UserError as error:
                bad.append((step, str(error)))
                continue
            for damaged, reason in bad:
                logging.getLogger("research").warning("%s; going on from step %d", reason, step)
                self._set_aside(damaged)
            return found
        if bad:
            raise UserError(4, f"{self.folder}: no step can be trusted: {'; '.join(reason for _, reason in bad)}")
        return None

    def _set_aside(self, step):
        place = self.folder.parent / "damaged"
        place.mkdir(exist_ok=True)
        shutil.rmtree(place / str(step), ignore_errors=True)
        shutil.move(self.folder / str(step), place / str(step))
        self.manager.reload()

    def restore_step(self, step, abstract):
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        try:
            restored = self.manager.restore(step, args=arguments)
        except Exception as error:  # Orbax raises whatever its readers do
            raise UserError(4, f"{self.folder}, step {step}: {type(error).__name__}: {error}") from error
        self.verify(step, restored["state"], restored["progress"])
        return restored["state"], restored["progress"]

    def verify(self, step, state, progress):
        sums = progress.pop("sums", {})  # a checkpoint of before there were any has none
        for path, found in _sums(state).items():
            if sums.get(path, found) != found:
                raise UserError(4, f"{self.folder}, step {step}: damaged: {path} is not what was saved")

    def progress(self, step):
        return self.manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]

    def close(self):
        """Waits for the last save.

        Raises:
            UserError: 5, where it could not be written.
        """
        try:
            self.manager.wait_until_finished()
        except _WRITING as error:
            raise UserError(5, f"{self.folder}: cannot be written: {error}") from error
        finally:
            self.manager.close()


class _NewestAndBest:
    """Orbax's protocol for what stays. Its own BestN goes by metrics; the best here is what `progress` says."""

    def __init__(self, keep):
        self.newest = preservation_policy.LatestN(keep)
        self.best_step = None

    def should_preserve(self, checkpoints, *, context):
        newest = self.newest.should_preserve(checkpoints, context=context)
        return [kept or info.step == self.best_step for kept, info in zip(newest, checkpoints)]


def read_best(folder):
    """Variables of a run's best step as NumPy arrays, without knowing its model.

    Returns:
        step, {"params": ..., collection: ...}; params are the average where one was kept.

    Raises:
        UserError: 4, where there is no step that can be read.
    """
    place = pathlib.Path(folder) / "checkpoints"
    if not place.is_dir():
        raise UserError(4, f"{folder}: no checkpoints here")
    checkpoints = Checkpoints(place)
    bad = []
    try:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(4, f"{place}: no step here")
        best = _best_step(checkpoints, steps)
        for step in dict.fromkeys([*([best] if best in steps else []), *reversed(steps)]):
            try:
                return step, _read_variables(checkpoints, step)
            except Exception as error:  # Orbax raises whatever its readers do
                bad.append(f"step {step}: {type(error).__name__}: {error}")
        raise UserError(4, f"{place}: no step can be trusted: {'; '.join(bad)}")
    finally:
        checkpoints.close()


def _best_step(checkpoints, steps):
    """The best step by the newest progress that can be read."""
    for step in reversed(steps):
        with contextlib.suppress(Exception):  # a damaged one: the next older tells
            return checkpoints.progress(step)["best_step"]
    return None


def _read_variables(checkpoints, step):
    saved = checkpoints.manager.item_metadata(step)["state"]
    tree = getattr(saved, "tree", saved)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore())
    restored = checkpoints.manager.restore(step, args=arguments)
    state = {field: restored["state"].get(field) for field in ("params", "model_state", "ema")}
    checkpoints.verify(step, state, restored["progress"])
    params = state["params"] if state.get("ema") is None else state["ema"]
    return jax.tree.map(np.asarray, {"params": params, **(state["model_state"] or {})})


def _sums(state):
    """A check sum of each leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    text = lambda key: str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", ""))))
    name = lambda path: "/".join(map(text, path))
    return {name(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves}


def warm_start(variables, init_from):
    """Takes over another run's variables where path and shape agree.

    Args:
        variables: {"params": ..., collection: ...} of the new run.
        init_from: FOLDER, or FOLDER:PREFIX,PREFIX to take only parameters whose path begins with one of them.

    Returns:
        variables, the paths that matched, and those of the new run that did not, each with the reason.

    Raises:
        UserError: 2 where nothing matches, 4 where the run cannot be read.
    """
    folder, _, prefixes = init_from.partition(":")
    prefixes = tuple(prefix for prefix in prefixes.split(",") if prefix)
    _, source = read_best(folder)
    found = {path: value for path, value in _leaves(source)}
    matched, missed, leaves = [], [], []
    for path, value in _leaves(variables):
        bare = path.split("/", 1)[1]
        if prefixes and not bare.startswith(prefixes):
            reason = "not asked for"
        elif path not in found:
            reason = "not in the other run"
        elif found[path].shape != value.shape:
            reason = f"shape {found[path].shape} there, {value.shape} here"
        else:
            matched.append(path)
            leaves.append(found[path].astype(value.dtype))
            continue
        missed.append(f"{path}: {reason}")
        leaves.append(value)
    if not matched:
        raise UserError(2, f"config.init_from: nothing in {init_from} matches; {'; '.join(missed[:3])}")
    return jax.tree.unflatten(jax.tree.structure(variables), leaves), matched, missed


def _leaves(tree):
    return [("/".join(str(key.key) for key in path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
