"""Metrics of a split, each example counted once: what the loop and the scripts evaluate with."""

import collections
import time

import jax
import numpy as np

from research import metrics, sharding
from research.data.batches import eval_batches
from research.train_step import make_eval_step
from research.watchdog import alive

IN_FLIGHT = 8  # dispatches; a deeper queue of collectives deadlocks XLA's CPU devices
PATIENCE = 2.0  # seconds of dispatched work that a signal waits for, unless a single dispatch takes longer


def depth(seconds):
    """Returns how many dispatches may be in flight if each takes `seconds`; None if that is not known yet.

    With two or more, the device does not wait for the host. Dispatches of more than a second run one at a time, since
    the host's share of their time is small.
    """
    return 2 if seconds is None else max(1, min(IN_FLIGHT, int(PATIENCE / max(seconds, 1e-9))))


def evaluate(setup, variables, role, step=None):
    """Metrics of a split: {name: float}, all finite.

    Args:
        setup: research.setup.Setup, with the split `role`.
        variables: {"params": ..., collection: ...}; placed on the devices once, wherever they are.
        step: of the variables, for the error.

    Raises:
        UserError: 6, for a metric that is not finite.
    """
    eval_step, variables = make_eval_step(setup.model, setup.task, setup.mesh), on_devices(setup, variables)
    (found,) = accumulate(setup, role, lambda *rows: eval_step(variables, *rows))
    return finish(setup.task, found, role if step is None else f"step {step}, {role}")


def accumulate(setup, role, each, *, split=lambda tree: [tree], stop=()):
    """Sums over a whole split, and what is kept of each example, for one run or for several.

    Args:
        each: batch, numbers of its examples -> sums {name: (sum, count)}, arrays {name: [B, ...]}.
        split: what `each` gives -> that of each run.
        stop: looked at between batches: once there is something in it, what is left is not evaluated.

    Returns:
        [(sums, arrays {name: [N, ...]})] of the runs, for `finish`; None, where `stop` broke it off.
    """
    parts = setup.mesh.devices.size
    size = -(-min(setup.config.data.eval_batch_size, len(setup.splits[role])) // parts) * parts
    totals, kept, pending = collections.defaultdict(dict), collections.defaultdict(list), collections.deque()
    ends = []  # when each dispatch was fetched; the first may have waited for the compiler

    def fetch():
        mask, found = pending.popleft()
        for i, (sums, arrays) in enumerate(split(jax.device_get(found))):
            totals[i] = metrics.add(totals[i], sums)
            for name, array in arrays.items():
                kept[i, name].append(array[mask > 0])
        ends.append(time.monotonic())
        alive()

    for examples, batch in eval_batches(setup.splits[role], size, jax.process_index(), jax.process_count()):
        if stop:
            return None
        pending.append((batch["mask"], each(batch, examples)))
        while len(pending) >= depth((ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else None):
            fetch()
    while pending:
        fetch()
    arrays = lambda i: {name: np.concatenate(parts) for (j, name), parts in kept.items() if i == j}
    return [(totals[i], arrays(i)) for i in totals]


def finish(task, found, where):
    """Metrics, {name: float}, from the sums and arrays of a whole split.

    Args:
        where: what an error begins with.

    Raises:
        UserError: 6, for a metric that is not finite.
    """
    sums, arrays = found
    values = metrics.means(sums) | task.score(arrays)
    metrics.check_finite(values, where)
    return values


def on_devices(setup, variables):
    return jax.device_put(variables, sharding.replicated(setup.mesh))
