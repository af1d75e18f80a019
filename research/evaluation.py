"""Metrics of a split, each example counted once: what the loop and the scripts evaluate with."""

import collections

import jax
import numpy as np

from research import metrics, sharding
from research.data.batches import eval_batches
from research.train_step import make_eval_step

IN_FLIGHT = 8  # dispatches; a deeper queue of collectives deadlocks XLA's CPU devices


def evaluate(setup, variables, role, eval_step=None, *, step=None, stop=()):
    """Metrics of a split: {name: float}, all finite.

    Args:
        setup: research.setup.Setup, with the split `role`.
        variables: {"params": ..., collection: ...}; placed on the devices once, wherever they are.
        eval_step: as make_eval_step gives it; made here, if not given.
        step: of the variables, for the error.
        stop: looked at between batches: once there is something in it, what is left is not evaluated.

    Returns:
        None, where `stop` broke it off.

    Raises:
        UserError: 6, for a metric that is not finite.
    """
    eval_step = eval_step or make_eval_step(setup.model, setup.task, setup.mesh)
    variables = jax.device_put(variables, sharding.replicated(setup.mesh))
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

    for examples, batch in eval_batches(setup.splits[role], size, jax.process_index(), jax.process_count()):
        if stop:
            return None
        pending.append((batch["mask"], eval_step(variables, batch, examples)))
        if len(pending) >= IN_FLIGHT:
            fetch()
    while pending:
        fetch()
    found = metrics.means(total) | setup.task.score({name: np.concatenate(parts) for name, parts in kept.items()})
    metrics.check_finite(found, role if step is None else f"step {step}, {role}")
    return found
