"""The loop: restore, step, evaluate, checkpoint, log. What a run leaves is its folder."""

import collections
import contextlib
import json
import math
import resource
import signal
import sys
import time

import jax
import numpy as np

from research import config as configs
from research import metrics, pictures, runs, sharding
from research.checkpoint import Checkpoints, warm_start
from research.data.batches import eval_batches, read, stack, train_batches
from research.data.order import step_examples
from research.errors import UserError
from research.log import Log
from research.randomness import run_key
from research.setup import prepare, resolve, summary
from research.train_step import eval_variables, make_eval_step, make_train_step

IN_FLIGHT = 8  # dispatches; a deeper queue of collectives deadlocks XLA's CPU devices


def train(config, workdir, *, file="", size="", devices=None):
    """Trains a config in a run folder, or goes on with what is there; returns what result.json holds.

    Args:
        config: complete; see research.config.
        file, size: where it came from, kept in config.json.
        devices: those to use; all of them, if not given.

    Raises:
        UserError: with the exit code of the scripts; 130 and 143 where a signal stopped it, the state saved.
    """
    began = time.monotonic()
    config, dataset, mesh = resolve(config, devices, runs.read_tokenizer(workdir))
    finished = runs.check(workdir, config)
    if finished is not None:
        return finished
    setup = prepare(config, dataset, mesh)
    if config.init_from is not None and not runs.is_begun(workdir):
        runs.check_tokenizer(config.init_from, dataset.tokenizer)
        variables = {"params": setup.abstract.params, **setup.abstract.model_state}
        warm_start(variables, config.init_from)  # raises where nothing matches, before anything is written
    in_memory = {base for split in setup.splits.values() if split.arrays is not None for base in split.arrays}
    data = runs.describe_data(setup.dataset, sorted(in_memory))
    with runs.claim(workdir, setup.config, file, size, data, setup.dataset.tokenizer) as folder, _signals() as stop:
        checkpoints = None
        try:
            checkpoints = Checkpoints(folder / "checkpoints", setup.config.checkpoint.keep)
            result = _train(setup, folder, checkpoints, stop, began)
            checkpoints.close()
        except Exception as error:
            code = getattr(error, "code", 1)
            status = "stopped" if code in (130, 143) else "diverged" if code == 6 else "failed"
            with contextlib.suppress(UserError):  # the first error is the one to show
                if checkpoints is not None:
                    checkpoints.close()
                runs.write_json(folder / "result.json", {"status": status, "reason": str(error)})
            if isinstance(error, OSError):
                raise UserError(5, f"{error.filename or folder}: cannot be written: {error.strerror}") from error
            raise
        runs.write_json(folder / "result.json", result)
    return result


def evaluate(setup, variables, role, eval_step=None):
    """Metrics of a split, each example counted once: {name: float}."""
    eval_step = eval_step or make_eval_step(setup.model, setup.task, setup.mesh)
    parts = setup.mesh.devices.size
    size = -(-min(setup.config.data.eval_batch_size, len(setup.splits[role])) // parts) * parts
    total, kept, pending = {}, collections.defaultdict(list), collections.deque()

    def fetch():
        nonlocal total
        mask, (sums, arrays) = pending.popleft()
        sums, arrays = jax.device_get((sums, arrays))
        total = metrics.add(total, sums)
        for name, array in arrays.items():
            kept[name].append(array[mask > 0])

    for batch in eval_batches(setup.splits[role], size, jax.process_index(), jax.process_count()):
        pending.append((batch["mask"], eval_step(variables, batch)))
        if len(pending) >= IN_FLIGHT:
            fetch()
    while pending:
        fetch()
    return metrics.means(total) | setup.task.score({name: np.concatenate(parts) for name, parts in kept.items()})


def _train(setup, folder, checkpoints, stop, began):
    times = setup.times
    restored = checkpoints.restore(setup.abstract)
    start = restored[0] if restored else 0
    log = Log(folder, runs.read_rows(folder), start, times["train"], setup.config.data.batch_size)
    try:
        for line in [*summary(setup.abstract.params), *_notes(setup, streamed=False)]:
            log.say(line)
        if restored:
            _, state, progress = restored
            log.say(f"going on from step {start} of {folder}")
        else:
            state, progress = _begin(setup, log), _no_progress()
        eval_step = make_eval_step(setup.model, setup.task, setup.mesh)
        state, progress = _steps(setup, state, progress, checkpoints, log, eval_step, stop, began)
        best = progress["best_step"]
        if best != progress["step"]:
            checkpoints.manager.wait_until_finished()
            state, _ = checkpoints.restore_step(best, setup.abstract)
        found = {"validation": progress["best"]}
        if "test" in setup.splits:
            found["test"] = evaluate(setup, eval_variables(state), "test", eval_step)
            log.row(best, "test", found["test"])
        for line in _notes(setup, streamed=True):
            log.say(line)
        seconds = max(progress["train_seconds"], 1e-9)
        return {
            "status": "finished",
            "step": progress["step"],
            "best_step": best,
            "metrics": found,
            "seconds": progress["seconds"] + time.monotonic() - began,
            "examples_per_second": progress["timed_examples"] / seconds,
            "first_step_seconds": progress["first_step_seconds"],
            "data_wait_fraction": progress["wait_seconds"] / seconds,
            "peak_memory_bytes": _peak_memory(),
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        }
    finally:
        log.close()


def _notes(setup, streamed):
    """What befell examples in reading: known at once of splits in memory, at the end of those that stream."""
    return [note for split in setup.splits.values() if (split.arrays is None) == streamed for note in split.notes()]


def _begin(setup, log):
    """The state at step 0, and what TensorBoard shows of config and data."""
    state = jax.jit(setup.init, out_shardings=sharding.replicated(setup.mesh))(run_key(setup.config.seed))
    if setup.config.init_from is not None:
        variables = {"params": state.params, **state.model_state}
        variables, matched, missed = warm_start(variables, setup.config.init_from)
        variables = sharding.place(variables, sharding.replicated(setup.mesh))
        log.say(f"init_from {setup.config.init_from}: {len(matched)} taken: {', '.join(matched)}")
        log.say(f"init_from {setup.config.init_from}: {len(missed)} not taken: {', '.join(missed) or '-'}")
        params = variables.pop("params")
        ema = None if state.ema is None else jax.tree.map(lambda x: x + 0, params)  # a copy: the state is donated
        state = state._replace(params=params, model_state=variables, ema=ema)
    text = json.dumps(configs.to_json(setup.config), indent=2)
    log.text("config", "\n".join(f"    {line}" for line in text.splitlines()))  # four spaces: Markdown's code
    split = setup.splits["train"]
    batch = read(split, step_examples(setup.config.seed, 0, min(64, len(split)), len(split)))
    if "image" in batch:
        log.image("train", pictures.grid(batch["image"], scale=max(1, 64 // batch["image"].shape[1])))
    return state


def _steps(setup, state, progress, checkpoints, log, eval_step, stop, began):
    """Trains from progress["step"] to the end, an early stop or a signal; returns state and progress."""
    config, times, size = setup.config, setup.times, setup.config.data.batch_size
    train_step = make_train_step(setup.model, setup.task, setup.optimizer, config, setup.mesh)
    step, pending, stacked = progress["step"], collections.deque(), config.train.steps_per_call > 1
    k = min(config.train.steps_per_call, times["eval"], times["train"])
    split, processes = setup.splits["train"], (jax.process_index(), jax.process_count())
    batches = train_batches(split, config.seed, size, step, times["train"], *processes)
    key = sharding.place(run_key(config.seed), sharding.replicated(setup.mesh))
    before, first, mark, timed_from = progress["seconds"], True, time.monotonic(), step

    while step < times["train"] and not progress["stopped_early"]:
        boundary = min(_next(step, times["eval"]), _next(step, times["checkpoint"]), times["train"])
        count = min(k, boundary - step)
        asked = time.monotonic()
        batch = stack([next(batches) for _ in range(count)], k) if stacked else next(batches)
        progress["wait_seconds"] += 0.0 if first else time.monotonic() - asked
        state, measured = train_step(state, batch, key, *((count,) if stacked else ()))
        pending.append((step, count, measured))
        step += count
        if first:
            jax.block_until_ready(measured)  # compiling is no part of the rates
            progress["first_step_seconds"] = progress["first_step_seconds"] or time.monotonic() - began
            first, mark, timed_from = False, time.monotonic(), step
        stopping = bool(stop)  # read once: a signal that comes later is seen a turn later
        while pending and (len(pending) >= IN_FLIGHT or step == boundary or stopping):
            done = pending[0][0] + pending[0][1]
            jax.block_until_ready(pending[0][2])
            if done > timed_from:
                log.rate = (done - timed_from) * size / (time.monotonic() - mark)
            _fetch(pending.popleft(), progress, log, config.log.every_steps)
        if step != boundary and not stopping:
            continue
        progress["step"] = step
        progress["train_seconds"] += time.monotonic() - mark
        progress["timed_examples"] += (step - timed_from) * size
        if step % times["eval"] == 0 or step == times["train"]:
            values = evaluate(setup, eval_variables(state), "validation", eval_step)
            log.row(step, "validation", values)
            _judge(values, progress, config)
        progress["seconds"] = before + time.monotonic() - began
        if (
            step % times["checkpoint"] == 0
            or step == times["train"]
            or step == progress["best_step"]
            or stopping
            or progress["stopped_early"]
        ):
            checkpoints.save(step, state, progress)
        if stopping:
            raise UserError(
                128 + stop[0],
                f"{log.path.parent}: stopped at step {step} by {signal.Signals(stop[0]).name}; "
                f"the state was saved, the same command goes on",
            )
        mark, timed_from = time.monotonic(), step
    progress["seconds"] = before
    return state, progress


def _fetch(dispatch, progress, log, every):
    """Metrics of a dispatch to the window that the next row sums up."""
    step, count, measured = dispatch
    measured = {name: np.reshape(np.stack(pair), (2, -1)) for name, pair in jax.device_get(measured).items()}
    for i in range(count):
        step += 1
        sums = {name: (float(pair[0, i]), float(pair[1, i])) for name, pair in measured.items()}
        for name in ("loss", "gradient_norm", "update_norm"):
            if not math.isfinite(sums[name][0]):
                raise UserError(
                    6,
                    f"{log.path.parent}: step {step}: {name} is {sums[name][0]}; a lower "
                    f"config.optimizer.learning_rate or a config.optimizer.clip_norm may help",
                )
        progress["window"] = metrics.add(progress["window"], sums)
        if step % every == 0 or step == log.total:
            log.row(step, "train", metrics.means(progress["window"]))
            progress["window"] = {}


def _judge(values, progress, config):
    """Whether an evaluation is the best so far, and whether to stop."""
    value = values[config.eval.metric]
    if metrics.is_better(value, (progress["best"] or {}).get(config.eval.metric), config.eval.direction):
        progress["best"], progress["best_step"] = values, progress["step"]
    elif progress["best"] is None:
        raise UserError(6, f"step {progress['step']}: validation {config.eval.metric} is {value}")
    watched = config.train.early_stopping.metric
    if watched is not None:
        if metrics.is_better(values[watched], progress["watched"], metrics.direction_of(watched)):
            progress["watched"], progress["patience"] = values[watched], 0
        else:
            progress["patience"] += 1
        progress["stopped_early"] = progress["patience"] >= config.train.early_stopping.patience


def _no_progress():
    """What the loop knows beside the state; saved with it, as JSON."""
    return {
        "step": 0, "best": None, "best_step": None, "watched": None, "patience": 0, "stopped_early": False,
        "window": {}, "seconds": 0.0, "train_seconds": 0.0, "timed_examples": 0, "wait_seconds": 0.0,
        "first_step_seconds": None,
    }  # fmt: skip


@contextlib.contextmanager
def _signals():
    """A list that a SIGINT or SIGTERM is put into, for the loop to find; a second one acts at once."""
    received = []

    def handler(number, frame):
        received.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    try:
        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are someone else's
        before = {}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _next(step, every):
    return (step // every + 1) * every


def _peak_memory():
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
