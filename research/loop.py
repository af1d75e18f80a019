"""The loop: restore, step, evaluate, checkpoint, log. What a run leaves is its folder.

A run is a generator: what it wants of the devices it yields (research.program), so that many runs can share a program.
"""

import collections
import contextlib
import json
import time

import jax

from research import config as configs
from research import manifest, pictures, runs, sharding, signals
from research.checkpoint import Checkpoints
from research.data.batches import make_next_batch, read
from research.data.order import step_examples
from research.errors import UserError, out_of_memory
from research.evaluation import PATIENCE, depth, finish
from research.log import Log
from research.program import Evaluate, Place, Read, Step, drive, of_one_run, peak_memory
from research.progress import judge, no_progress, record
from research.setup import absent_classes, prepare, resolve, summary
from research.stderr import kept, lasting_stderr
from research.warm_start import initial_state, start_from
from research.watchdog import alive, watched

RATE_CUT = 0.5  # of the learning rate, at each rollback


def train(config, workdir, *, file="", size="", devices=None, through=None):
    """Trains a config in a run folder, or goes on with what is there; returns what result.json holds.

    Args:
        config: complete; see research.config.
        file, size: where it came from, kept in config.json.
        devices: those to use; all of them, if not given.
        through: (run, its folder, its steps) -> a run that passes its requests on and may end it by a UserError of 0.

    Raises:
        UserError: with the exit code of the scripts; 130 and 143 where a signal stopped it, the state saved.
    """
    began = time.monotonic()
    config, dataset, mesh = resolve(config, devices, runs.read_tokenizer(workdir))
    finished = runs.check(workdir, config, dataset)
    if finished is not None:
        return finished
    setup = prepare_run(config, dataset, mesh, workdir)
    with signals.caught() as stop, lasting_stderr():
        own = run(setup, workdir, stop, began, file, size)
        own = through(own, workdir, setup.times["train"]) if through else own
        (result,) = drive([own], of_one_run(setup, stop))
    if isinstance(result, Exception):
        raise result
    return result


def prepare_run(config, dataset, mesh, workdir):
    """What `resolve` returns -> Setup of a run, every check of it passed; nothing is compiled or written.

    Raises:
        UserError: 2, 3 or 4.
    """
    setup = prepare(config, dataset, mesh)
    if config.init_from is not None and not runs.is_begun(workdir):
        start_from(config, dataset, setup.model, {"params": setup.abstract.params, **setup.abstract.model_state})
    return setup


def run(setup, workdir, stop, began, file, size, *, label="", together=1):
    """A run as a generator of the requests of research.program; returns what result.json holds.

    Args:
        setup: of prepare_run.
        stop: a list; the run saves its state and stops once there is a signal in it.
        began: time.monotonic() of its start.
        label: what its lines on stderr begin with.
        together: how many runs the program answers, which share its time.

    Raises:
        UserError: as train.
    """
    at_hand = setup.dataset.bases(split.text for split in setup.splits.values() if split.at_hand)
    data = manifest.describe_data(setup.dataset, at_hand)
    with runs.lock(workdir) as folder:
        # Looked at again under the lock: another process may have been here since.
        finished = runs.check(workdir, setup.config, setup.dataset)
        if finished is not None:
            return finished
        runs.begin(folder, setup.config, file, size, data, setup.dataset.tokenizer, together)
        fail = lambda reason: _write_end(folder, "failed", reason)
        with kept(folder / "log.txt"), watched(folder, setup.config.train.hang_seconds, fail):
            return (yield from _into(folder, setup, stop, began, together, label))


def _into(folder, setup, stop, began, together, label):
    """Trains in a folder that is locked and has a config; writes result.json, also for an error."""
    checkpoints = None
    try:
        checkpoints = Checkpoints(folder / "checkpoints", setup.config.checkpoint.keep)
        result = yield from _train(setup, folder, checkpoints, stop, began, together, label)
        checkpoints.close()
    except Exception as raised:
        error = out_of_memory(raised) or raised
        if isinstance(raised, OSError):
            error = UserError(5, f"{raised.filename or folder}: cannot be written: {raised.strerror}")
        code = getattr(error, "code", 1)
        status = {0: "pruned", 6: "diverged", 130: "stopped", 143: "stopped"}.get(code, "failed")
        with contextlib.suppress(UserError):  # the first error is the one to show
            if checkpoints is not None:
                checkpoints.close()
        with contextlib.suppress(UserError):
            _write_end(folder, status, str(error))
        if error is raised:
            raise
        raise error from raised
    runs.write_json(folder / "result.json", result)
    return result


def _write_end(folder, status, reason):
    runs.write_json(folder / "result.json", {"status": status, "reason": reason})


def _train(setup, folder, checkpoints, stop, began, together, label):
    times = setup.times
    restored = checkpoints.restore(setup.abstract)
    progress = restored[2] if restored else no_progress()
    lost = runs.restore_rows(folder, progress["step"], progress["rows"])
    log = Log(folder, progress["step"], times["train"], setup.config.data.batch_size, progress["rows"], label=label)
    try:
        notes = [*absent_classes(setup), *manifest.slow_dtype(setup.config, setup.mesh.devices.flat)]
        for line in [*summary(setup.abstract.params), *lost, *notes, *setup.notes(streamed=False)]:
            log.say(line)
        if restored:
            log.say(f"going on from step {progress['step']} of {folder}")
        yield Place(restored[1] if restored else _begin(setup, log), RATE_CUT ** progress["rollbacks"])
        del restored  # or its state would stay beside the best one below
        progress = yield from _finite_steps(setup, progress, checkpoints, log, stop, began, together)
        best, variables = progress["best_step"], None
        if best != progress["step"]:
            yield Place(None)  # first: a run that fills its device has no room for a second state
            checkpoints.wait()  # the last save holds it, too
            variables = {**checkpoints.variables(best, sharding.replicated(setup.mesh)), **setup.constants}
        found = {"validation": progress["best"]}
        if "test" in setup.splits:
            found["test"] = yield from _evaluate(setup, best, "test", variables)
            if found["test"] is None:
                raise signals.stopped(stop, folder, progress["step"])
            log.row(best, "test", found["test"])
        log.rows()
        for line in setup.notes(streamed=True):
            log.say(line)
        seconds = max(progress["train_seconds"], 1e-9)
        return {
            "status": "finished",
            "step": progress["step"],
            "best_step": best,
            "metrics": found,
            "seconds": progress["seconds"] + (time.monotonic() - began) / together,
            "examples_per_second": progress["timed_examples"] / seconds,
            "first_step_seconds": progress["first_step_seconds"],
            "data_wait_fraction": progress["wait_seconds"] / seconds,
            "peak_memory_bytes": peak_memory(),
            "parameters": sum(x.size for x in jax.tree.leaves(setup.abstract.params)),
            **{name: progress[name] for name in ("skipped", "rollbacks") if progress[name]},
        }
    finally:
        log.close()


def _begin(setup, log):
    """Returns the state at step 0; writes the config and training images to TensorBoard."""
    state, says = initial_state(setup)
    for line in says:
        log.say(line)
    log.code("config", json.dumps(configs.to_json(setup.config), indent=2))
    split = setup.splits["train"]
    batch = read(split, step_examples(setup.config.seed, 0, min(64, len(split)), len(split)))
    if "image" in batch:
        log.image("train", pictures.grid(batch["image"], scale=max(1, 64 // batch["image"].shape[1])))
    return state


def _finite_steps(setup, progress, checkpoints, log, stop, began, together):
    """Runs `_steps`. With train.on_nonfinite=rollback, a non-finite number returns the run to its last good checkpoint
    with a lower learning rate."""
    config, seconds = setup.config, progress["seconds"]
    while True:
        try:
            return (yield from _steps(setup, progress, checkpoints, log, stop, began, together))
        except UserError as error:
            rollbacks = progress["rollbacks"] + 1
            if error.code != 6 or config.train.on_nonfinite != "rollback":
                raise
            if rollbacks > config.train.nonfinite_limit:
                raise UserError(6, f"{error}; still so after {rollbacks - 1} rollbacks") from error
            yield Place(None)  # the device may not hold a second state
            _, state, progress = checkpoints.restore(setup.abstract, progress["good"]) or (0, None, no_progress())
            progress |= {"rollbacks": rollbacks, "seconds": seconds}
            checkpoints.discard_after(progress["step"])
            log.go_back(progress["step"], progress["rows"])
            rate = RATE_CUT**rollbacks
            what = str(error).partition(";")[0]
            log.say(f"{what}; returning to step {progress['step']} with the learning rate times {rate:g}")
            yield Place(state or _begin(setup, log), rate)
            del state


def _steps(setup, progress, checkpoints, log, stop, began, together):
    """Trains from progress["step"] to the end, an early stop or a signal; returns progress."""
    config, times, start, before = setup.config, setup.times, progress["step"], progress["seconds"]
    k = min(config.train.steps_per_call, times["eval"], times["train"])
    own = (config.seed, config.data.batch_size, start, times["train"], jax.process_index(), jax.process_count())
    next_batch = make_next_batch(setup.splits["train"], k, config.train.steps_per_call > 1, *own)
    new = False  # whether there is anything that no checkpoint holds
    while True:
        step = progress["step"]
        if progress["due"]:
            values = yield from _evaluate(setup, step, "validation")
            if values is not None:
                log.row(step, "validation", values)
                judge(values, progress, config)
                new = True
        progress["seconds"] = before + (time.monotonic() - began) / together
        stopping = bool(stop)  # read once: a signal that comes later is seen a turn later
        over = step >= times["train"] or progress["stopped_early"]
        if new and (step % times["checkpoint"] == 0 or step == progress["best_step"] or stopping or over):
            progress["scheduled"] = step % times["checkpoint"] == 0 or step == progress["best_step"] or over
            progress["rows"] = log.rows()
            checkpoints.save(step, (yield Read()), progress)
            new = False
        if stopping:
            raise signals.stopped(stop, log.path.parent, step)
        if over:
            progress["seconds"] = before
            return progress
        boundary = min(_next(step, times["eval"]), _next(step, times["checkpoint"]), times["train"])
        first = began if step == start else None
        yield from _to(boundary, setup, progress, next_batch, log, stop, first, together)
        reached = progress["step"]
        if reached > step:
            progress["due"] = reached % times["eval"] == 0 or reached == times["train"]
            progress["validation"], new = None, True


def _evaluate(setup, step, role, variables=None):
    """Metrics of a split; None, where a signal broke it off."""
    found = yield Evaluate(step, role, variables)
    return None if found is None else finish(setup.task, found, f"step {step}, {role}")


def _to(boundary, setup, progress, next_batch, log, stop, began, together):
    """Trains to a step, or to where a signal comes before it, and logs what it fetches.

    `began` is the start of the process if its first step is among these: rates exclude compiling. A run that does not
    share its program dispatches no more steps than a signal should wait for; runs that share one keep in step.
    """
    config, size = setup.config, setup.config.data.batch_size
    step, pending, mark, timed_from = progress["step"], collections.deque(), time.monotonic(), progress["step"]

    def fetch():
        at, count, wait = pending.popleft()
        measured = wait()
        if at + count > timed_from:
            log.rate = (at + count - timed_from) * size / (time.monotonic() - mark)
        record(at, count, measured, progress, log, config)
        alive()

    while step < boundary and not stop:
        asked = time.monotonic()
        most = max(1, int(PATIENCE * log.rate / size)) if together == 1 else boundary
        count, batch = next_batch(min(boundary - step, most))
        waited = time.monotonic() - asked
        wait = yield Step(step, count, batch)
        pending.append((step, count, wait))
        step += count
        if began is not None:
            wait()
            progress["first_step_seconds"] = progress["first_step_seconds"] or time.monotonic() - began
            began, mark, timed_from, waited = None, time.monotonic(), step, 0.0
        progress["wait_seconds"] += waited
        while len(pending) >= depth(count * size / log.rate if log.rate else None):
            fetch()
    while pending:
        fetch()
    progress["step"] = step
    progress["train_seconds"] += time.monotonic() - mark
    progress["timed_examples"] += (step - timed_from) * size


def _next(step, every):
    return (step // every + 1) * every
