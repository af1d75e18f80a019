"""Checkpoints: asynchronous, atomic, the newest few and the best. Every call of Orbax is here."""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from research.errors import UserError
from research.stderr import warn

FORMAT = 3  # 1 averaged the parameters alone, and had no sum of its progress; 2 had no rows, and is not resumed
SMALL = 2**26  # bytes of a state that is saved in half the time as NumPy's arrays, for one more copy in memory
_WRITING = (OSError, ValueError, RuntimeError)  # a full disk is any of these to Orbax and TensorStore


class Checkpoints:
    """The folder checkpoints/ of a run. Each step holds `state` (a TrainState) and `progress` (JSON).

    The best step, once it is not among the newest, holds `evaluation` in place of `state`: the variables that
    evaluation reads, without moments. No run resumes from it.

    `progress` holds a sum of each leaf of the state and one of itself: what is read is what was saved, or an error.
    """

    def __init__(self, folder, keep=1):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs each save, and a traceback per error
        self.folder = pathlib.Path(folder).absolute()
        self.retention, self.keep = _NewestAndBest(keep), keep
        options = ocp.CheckpointManagerOptions(preservation_policy=self.retention, enable_async_checkpointing=True)
        # Named here, or a manager that has saved nothing yet cannot tell what a step holds.
        trees = {name: ocp.PyTreeCheckpointHandler() for name in ("state", "evaluation")}
        handlers = trees | {"progress": ocp.JsonCheckpointHandler()}
        self.manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def save(self, step, state, progress):
        """Begins to save; returns once the state is copied, so that its buffers may be donated.

        A step that is there already is replaced: its evaluation was broken off, and has been made since.

        Raises:
            UserError: 5, where this or the save before it could not be written.
        """
        self.retention.best_step = progress["best_step"]
        if sum(leaf.nbytes for leaf in jax.tree.leaves(state)) <= SMALL:
            state = jax.device_get(state)  # Orbax copies NumPy's arrays before it returns
        progress = {"format": FORMAT, **progress, "sums": _sums(state)}
        items = {
            "state": ocp.args.PyTreeSave(state),
            "progress": ocp.args.JsonSave({**progress, "sum": _sum(progress)}),
        }
        try:
            self.manager.wait_until_finished()
            # If Orbax fails to create the folder of the step, its threads wait for it for minutes.
            probe = self.folder / ".probe"
            probe.mkdir(exist_ok=True)
            probe.rmdir()
            if step in self.manager.all_steps():
                self.manager.delete(step)
            self._reduce(progress["best_step"], newest=sorted([*self.steps(), step])[-self.keep :])
            if not self.manager.save(step, args=ocp.args.Composite(**items), force=True):
                raise UserError(5, f"{self.folder}: step {step} was not saved: a newer one is there")
        except _WRITING as error:
            raise self._not_written(error) from error

    def _reduce(self, best, newest):
        """Replaces the state of the best step by the variables that evaluation reads, unless it is among the newest.

        Orbax renames a complete `evaluation` into place; then `state` is renamed out of it. A process that is killed at
        any moment leaves a step that can be read.
        """
        if best is None or best in newest or best not in self.steps():
            return
        place, removed = self.folder / str(best), self.folder.parent / ".removed"
        shutil.rmtree(removed, ignore_errors=True)
        try:
            if self._is_complete(best):
                ocp.PyTreeCheckpointer().save(place / "evaluation", self._evaluation(best))
        except UserError as error:  # damaged since it was saved
            warn(error)
            return
        if (place / "state").is_dir():
            os.replace(place / "state", removed)
            shutil.rmtree(removed)

    def _is_complete(self, step):
        """Returns whether a run can resume from a step."""
        return not (self.folder / str(step) / "evaluation").is_dir()

    def steps(self):
        return sorted(self.manager.all_steps())

    def restore(self, abstract, at_most=None):
        """The newest step that can be trusted: (step, state, progress); None where there is none at all.

        Damaged steps are moved to damaged/ beside the folder, so that they will be saved again. Where the best step is
        among them, the one that is restored takes its place, if it was evaluated.

        Args:
            abstract: TrainState of ShapeDtypeStructs with the shardings to restore onto, of any number of devices.
            at_most: for a rollback, the newest step to consider. Steps that an uninterrupted run would have saved, too,
                are preferred.

        Raises:
            UserError: 4, where there are steps and none of them can be read.
        """
        bad, steps = [], self.steps()
        if at_most is not None:
            self.wait()
            steps = [step for step in self.steps() if step <= at_most and self._is_complete(step)]
            steps.sort(key=lambda step: (self.progress(step)["scheduled"], step))
        for step in filter(self._is_complete, reversed(steps)):
            try:
                progress = self.progress(step)
                if "rows" not in progress:
                    raise UserError(
                        4, f"{self.folder}, step {step}: has format 2, which cannot be resumed; use another --workdir"
                    )
                state = self._read(step, abstract, ocp.checkpoint_utils.construct_restore_args(abstract), progress)
            except UserError as error:
                bad.append((step, str(error)))
                continue
            for damaged, reason in bad:
                warn(f"{reason}; going on from step {step}")
                self._set_aside(damaged)
            return step, state, self._with_a_best_that_is_there(step, progress)
        if steps:
            reasons = "; ".join(reason for _, reason in bad) or f"step {steps[-1]} has no state to resume from"
            raise UserError(4, f"{self.folder}: no step can be trusted: {reasons}")
        return None

    def _with_a_best_that_is_there(self, step, progress):
        best = progress["best_step"]
        if best in (None, step):
            return progress
        try:
            self.variables(best)
            return progress
        except UserError as error:
            found = step if progress["validation"] else None
            known = "unknown" if found is None else f"step {found}"
            warn(f"{error}; going on from step {step}, the best is now {known}")
            if best in self.steps():
                self._set_aside(best)
            return {**progress, "best": progress["validation"], "best_step": found}

    def discard_after(self, step):
        """Deletes all later steps, after a rollback to this one."""
        for other in self.steps():
            if other > step:
                self.manager.delete(other)

    def _set_aside(self, step):
        place = self.folder.parent / "damaged"
        place.mkdir(exist_ok=True)
        shutil.rmtree(place / str(step), ignore_errors=True)
        shutil.move(self.folder / str(step), place / str(step))
        self.manager.reload()

    def variables(self, step, sharding=None):
        """What evaluation reads of a step, {"params": ..., collection: ...}: the average where one was kept.

        Neither moments nor, beside an average, the parameters themselves are read.

        Args:
            sharding: to restore onto, of any number of devices; NumPy arrays on the host, if not given.

        Raises:
            UserError: 4.
        """
        state = self._evaluation(step, sharding)
        return state["ema"] if "ema" in state else {"params": state["params"], **state.get("model_state", {})}

    def _evaluation(self, step, sharding=None):
        """The fields of a step's TrainState that evaluation reads, verified: {"ema"} or {"params", "model_state"}."""
        progress, item = self.progress(step), "state" if self._is_complete(step) else "evaluation"
        with self._trusted(step):
            tree = self.manager.item_metadata(step)[item].tree
            fields = ("params", "model_state") if tree.get("ema") is None else ("ema",)
            shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
            # An empty collection is no leaf: Orbax does not find it in a part.
            target = {field: jax.tree.map(shape, tree[field]) for field in fields if tree.get(field)}
        arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), target)
        if sharding is not None:
            arguments = ocp.checkpoint_utils.construct_restore_args(target)
        return self._read(step, target, arguments, progress, item)

    def _read(self, step, target, arguments, progress, item="state"):
        """The part of a step's item that `target` asks for, verified."""
        with self._trusted(step):
            restore = ocp.args.PyTreeRestore(target, arguments, partial_restore=isinstance(target, dict))
            state = self.manager.restore(step, args=ocp.args.Composite(**{item: restore}))[item]
            for path, found in _sums(state).items():
                if progress["sums"].get(path) != found:
                    raise ValueError(f"damaged: {path} is not what was saved")
        return state

    def progress(self, step):
        """What the loop knew at a step, verified.

        Raises:
            UserError: 4.
        """
        self.wait()
        with self._trusted(step):
            for path in (self.folder / str(step)).rglob("*"):
                if not path.is_file() and not path.is_dir():  # Orbax would wait for the writer of a pipe
                    raise ValueError(f"damaged: {path.name} is not a file")
            found = self.manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
            if found["format"] not in (2, FORMAT):
                raise ValueError(f"of format {found['format']}; this code reads {FORMAT}")
            if found.pop("sum") != _sum(found) or found["step"] != step:
                raise ValueError("damaged: progress is not what was saved")
        return found

    @contextlib.contextmanager
    def _trusted(self, step):
        """Whatever is raised within becomes the error that names the step."""
        try:
            yield
        except Exception as error:  # Orbax raises whatever its readers do
            what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            raise UserError(4, f"{self.folder}, step {step}: {what}") from error

    def wait(self):
        """Waits for the last save.

        Raises:
            UserError: 5, where it could not be written.
        """
        try:
            self.manager.wait_until_finished()
        except _WRITING as error:
            raise self._not_written(error) from error

    def close(self):
        """Waits for the last save and closes Orbax's manager.

        Raises:
            UserError: 5, where it could not be written.
        """
        try:
            self.manager.wait_until_finished()
            self.manager.close()
        except _WRITING as error:
            with contextlib.suppress(*_WRITING):  # Orbax raises the error once per item
                self.manager.close()
            raise self._not_written(error) from error

    def _not_written(self, error):
        return UserError(5, f"{self.folder}: cannot be written: {_reason(error)}")


class _NewestAndBest:
    """Orbax's protocol for what stays. Its own BestN goes by metrics; the best here is what `progress` says."""

    def __init__(self, keep):
        self.newest = preservation_policy.LatestN(keep)
        self.best_step = None

    def should_preserve(self, checkpoints, *, context):
        newest = self.newest.should_preserve(checkpoints, context=context)
        return [kept or info.step == self.best_step for kept, info in zip(newest, checkpoints)]


def read_best(folder):
    """Variables of a run's best step, without knowing its model: the newest step's, before any evaluation.

    Returns:
        step, {"params": ..., collection: ...} on this process's first device; params are the average where one was
        kept. A step that is damaged is passed over with a warning that names it and the one that is read.

    Raises:
        UserError: 4, where there is no step that can be read.
    """
    place = pathlib.Path(folder) / "checkpoints"
    if not place.is_dir():
        raise UserError(4, f"{folder}: no checkpoints here")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    checkpoints, bad = Checkpoints(place), {}
    try:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(4, f"{place}: no step here")
        for step in dict.fromkeys([*_best_step(checkpoints, steps, bad), *reversed(steps)]):
            try:
                variables = checkpoints.variables(step, here)
            except UserError as error:
                bad[step] = str(error)
                continue
            for reason in bad.values():
                warn(f"{reason}; step {step} is read in its place")
            return step, variables
        raise UserError(4, f"{place}: no step can be trusted: {'; '.join(bad.values())}")
    finally:
        checkpoints.close()


def _best_step(checkpoints, steps, bad):
    """[the best step] by the newest progress that can be trusted, or []; `bad` gets those that cannot."""
    for step in reversed(steps):
        try:
            best = checkpoints.progress(step)["best_step"]
            return [] if best is None else [best]
        except UserError as error:
            bad[step] = str(error)
    return []


def _reason(error):
    """Returns the operating system's message of a failed write, or else the start of the error's text."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]


def _sum(progress):
    return zlib.crc32(json.dumps(progress, sort_keys=True).encode())


def _sums(state):
    """A check sum of each leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    text = lambda key: str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", ""))))
    name = lambda path: "/".join(map(text, path))
    return {name(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves}
