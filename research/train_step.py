"""The train step: from state, batch and key to the next state and what was measured. Everything trains through it.

    loss = sum over terms of weight * sum / count

with sums and counts over all microbatches and devices. The counts are known before the backward pass, so that gradients
are only ever added: masks may be as uneven as they like, and the numbers do not depend on how a batch is cut.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.experimental import checkify

from research import sharding
from research.backend import traced_for
from research.errors import UserError, place_of
from research.randomness import fold, fold_each, run_key


class TrainState(NamedTuple):
    step: jax.Array  # int32[], updates done so far
    params: Any  # float32, whatever the model computes in
    opt_state: Any
    model_state: Any  # {collection: ...} that the model changes itself, as batch statistics; {} where none
    ema: Any  # averages {"params": ..., collection: ...}, which evaluation then reads; None where off


def make_init(model, task, spec, settings, optimizer):
    """key -> TrainState at step 0; pure, for jit or eval_shape."""

    def init(key):
        inputs = {name: jnp.zeros(x.shape, x.dtype) for name, x in task.inputs(spec, settings).items()}
        variables = model.init({"params": fold(key, "init")}, **inputs, train=False)
        params = variables.pop("params")
        ema = None if settings["train"]["ema"] is None else jax.tree.map(jnp.copy, {"params": params, **variables})
        return TrainState(jnp.int32(0), params, optimizer.init(params), variables, ema)

    return init


def make_train_step(model, task, optimizer, settings, mesh):
    """step(state, constants, batch, key) -> (state, metrics), compiled over the mesh by jit or pmap.

    Args:
        settings: a config or any mapping that has its section `train`; numbers may be arrays.

    Args of step:
        state: TrainState, donated; the same unstacked one in both modes.
        constants: {collection: ...} that model and task read beside the state, and nothing changes; {} for most.
        batch: {name: array[B, ...]}, mask float32[B, ...] among them; B over all devices.
        key: the run's; the step folds in its own number.
        count: with steps_per_call = k > 1 only, int, and batch is then [k, B, ...]: the first `count` are steps.

    Returns of step:
        metrics: {name: (sum, count)} float32[], of the parameters before the update; [k] with k > 1, zeros from
        `count` on.
    """
    devices, k, pmapped = (
        mesh.devices.size,
        settings["train"]["steps_per_call"],
        settings["train"]["parallel"] == "pmap",
    )
    update = make_update(model, task, optimizer, settings, axis=sharding.AXIS if pmapped else None)
    function, debug = update if k == 1 else partial(run_steps, update), settings["train"]["debug_nans"]
    if debug:
        function = checkify.checkify(function, errors=checkify.nan_checks)
    function = traced_for(mesh, function)
    batch_axis = 0 if k == 1 else 1
    scalars = (None,) * (1 if k == 1 else 2)  # the key, and the count
    whole, cut = sharding.replicated(mesh), sharding.split(mesh, batch_axis)
    if pmapped:
        axes = {"in_axes": (None, None, batch_axis, *scalars), "out_axes": None}
        compiled = jax.pmap(function, sharding.AXIS, **axes, donate_argnums=0, devices=list(mesh.devices.flat))
    else:
        shardings = {"in_shardings": (whole, whole, cut, *(whole for _ in scalars)), "out_shardings": whole}
        compiled = jax.jit(function, **shardings, donate_argnums=0)

    def shards(x):  # [..., B, ...] -> [..., devices, B / devices, ...]
        own = devices // jax.process_count()
        return x.reshape(*x.shape[:batch_axis], own, x.shape[batch_axis] // own, *x.shape[batch_axis + 1 :])

    def step(state, constants, batch, key, *count):
        if pmapped:
            batch = jax.tree.map(shards, batch)
        batch = sharding.place(batch, cut)
        found = compiled(state, constants, batch, key, *(sharding.place(np.int32(n), whole) for n in count))
        return _without_nan(*found) if debug else found

    return step


def _without_nan(error, found):
    """Returns the outputs of a step under checkify if no nan occurred in it; waits for the device.

    Raises:
        UserError: 6, naming the operation and the line of the model's code.
    """
    if error.get() is not None:
        raised = error.get_exception()
        trace = raised.traceback_info.as_python_traceback()
        raise UserError(6, f"step {found[0].step}: {place_of(trace)}{str(raised).splitlines()[0]}")
    return found


def make_gradients(model, task, settings, axis):
    """gradients(state, constants, batch, key) -> gradient of the loss, sums of terms and metrics, model_state.

    Sums are over everything. `axis` names the map it runs in, None under jit; the key is the step's.
    """
    parts = settings["train"]["microbatches"]
    over_devices = (lambda tree: tree) if axis is None else partial(lax.psum, axis_name=axis)

    def gradients(state, constants, batch, key):
        def losses(params, model_state, part, keys):
            variables = {"params": params, **model_state, **constants}
            terms, metrics, after = task.loss(model, variables, part, keys, True)
            return terms, metrics, {name: after[name] for name in model_state}  # constants stay as they are

        def objective(params, model_state, part, keys, counts):
            terms, metrics, model_state = losses(params, model_state, part, keys)
            return _loss(terms, counts, task.weights), ({**terms, **metrics}, model_state)

        shard = 0 if axis is None else lax.axis_index(axis)
        examples = example_keys(key, shard, batch["mask"].shape[0])
        if task.augment is not None:
            batch = task.augment(examples, batch)
        batches = jax.tree.map(partial(_deal, parts=parts), (batch, examples))

        def keys(i, examples):
            return {"dropout": fold(key, "dropout", i, shard), "augment": examples}

        def count(i, part, examples):
            # Counts depend on no parameter: the compiler drops the forward pass of this call.
            terms, _, _ = losses(state.params, state.model_state, part, keys(i, examples))
            return {name: count for name, (_, count) in terms.items()}

        def backward(model_state, i, part, examples, counts):
            gradient = jax.grad(objective, has_aux=True)
            gradient, (sums, model_state) = gradient(state.params, model_state, part, keys(i, examples), counts)
            return gradient, sums, model_state

        if parts == 1:
            part = jax.tree.map(lambda x: x[0], batches)
            counts = over_devices(count(0, *part))
            gradient, sums, model_state = backward(state.model_state, 0, *part, counts)
        else:
            indexed = (jnp.arange(parts), *batches)
            counts = over_devices(_total(lax.map(lambda part: count(*part), indexed)))

            def add(carry, part):
                total, model_state = carry
                gradient, sums, model_state = backward(model_state, *part, counts)
                return (jax.tree.map(jnp.add, total, gradient), model_state), sums

            zeros = jax.tree.map(jnp.zeros_like, state.params)
            (gradient, model_state), sums = lax.scan(add, (zeros, state.model_state), indexed)
            sums = _total(sums)
        gradient, sums = over_devices((gradient, sums))
        if "loss" not in counts:  # several terms, each logged by its name, and their sum
            sums["loss"] = (_loss({name: sums[name] for name in counts}, counts, task.weights), jnp.float32(1))
        return gradient, sums, model_state

    return gradients


def make_update(model, task, optimizer, settings, axis):
    """update(state, constants, batch, key) -> state, metrics: one step, pure; `axis` as for the gradients."""
    gradients, decay = make_gradients(model, task, settings, axis), settings["train"]["ema"]

    def update(state, constants, batch, key):
        gradient, sums, model_state = gradients(state, constants, batch, fold(key, "step", state.step))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:  # of batch statistics too: those of the parameters are not those of their average
            ema = jax.tree.map(partial(_averaged, decay), ema, {"params": params, **model_state})
        measured = {
            "gradient_norm": optax.tree.norm(gradient),
            "parameter_norm": optax.tree.norm(state.params),
            "update_norm": optax.tree.norm(updates),
            "learning_rate": optimizer.learning_rate(state.step),
        }
        metrics = {**sums, **{name: (value, jnp.float32(1)) for name, value in measured.items()}}
        new = TrainState(state.step + 1, params, opt_state, model_state, ema)
        return skip_nonfinite(state, new, metrics) if settings["train"]["on_nonfinite"] == "skip" else (new, metrics)

    return update


def skip_nonfinite(state, new, metrics):
    """Returns the new state and its metrics; the old state, if the loss, the gradient or the update is not finite.

    The step is counted in any case. A skipped step counts towards no metric except `skipped`.
    """
    numbers = jnp.stack([metrics[name][0] for name in ("loss", "gradient_norm", "update_norm")])
    finite = jnp.isfinite(numbers).all()
    kept = jax.tree.map(partial(jnp.where, finite), new, state)._replace(step=new.step)
    metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), metrics)
    return kept, {**metrics, "skipped": (jnp.float32(~finite), jnp.float32(1))}


def make_eval_step(model, task, mesh):
    """evaluate(variables, batch, examples) -> sums {name: (sum, count)}, arrays {name: [B, ...]}; over the mesh.

    `examples` are the rows' numbers in their split, int32[B]: what is drawn for a row follows from its own.

    Each device works on its own rows to the end: a loop that ends when all its rows are done, as generation has, asks
    no other device. (XLA's CPU devices deadlock on a collective in each of its turns.)
    """
    whole, cut = sharding.replicated(mesh), sharding.split(mesh)

    def evaluate(variables, batch, examples):
        sums, arrays = task.evaluate(model, variables, batch, eval_keys(examples))
        return lax.psum(sums, sharding.AXIS), arrays

    specs = {"in_specs": (whole.spec, cut.spec, cut.spec), "out_specs": (whole.spec, cut.spec)}
    function = jax.shard_map(evaluate, mesh=mesh, check_vma=False, **specs)
    compiled = jax.jit(traced_for(mesh, function), in_shardings=(whole, cut, cut), out_shardings=whole)
    return lambda variables, *rows: compiled(variables, *sharding.place(rows, cut))


def example_keys(key, shard, rows):
    """A key for each row of a shard by its place in the global batch: key[rows]."""
    return fold_each(key, "example", shard * rows + jnp.arange(rows))


def eval_keys(examples):
    """The keys of Task.evaluate, from the numbers of examples in their split alone."""
    return {"augment": fold_each(run_key(0), "evaluation", examples)}


def eval_variables(state, constants):
    """What evaluation reads: the averages where they are kept, and what nothing trains."""
    own = {"params": state.params, **state.model_state} if state.ema is None else state.ema
    return {**own, **constants}


def run_steps(update, state, constants, batches, key, count):
    """The first `count` of k steps in one program; metrics of each, [k]."""
    one = lambda i: jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), batches)
    shapes = jax.eval_shape(lambda: update(state, constants, one(0), key)[1])
    steps = jax.tree.leaves(batches)[0].shape[0]
    metrics = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), shapes)

    def body(i, carry):
        state, metrics = carry
        state, new = update(state, constants, one(i), key)
        return state, jax.tree.map(lambda all, x: all.at[i].set(x), metrics, new)

    return lax.fori_loop(0, count, body, (state, metrics))


def _loss(terms, counts, weights):
    """Sum over the terms of weight * sum / count; a count of 0 makes a term 0, and its gradient too."""
    mean = lambda name, s: jnp.where(counts[name] > 0, s / jnp.maximum(counts[name], 1e-30), 0.0)
    return sum(weights.get(name, 1.0) * mean(name, s) for name, (s, _) in terms.items())


def _averaged(decay, average, new):
    """An exponential moving average; of a counter or another integer the new value."""
    return average + (1 - decay) * (new - average) if jnp.issubdtype(new.dtype, jnp.inexact) else new


def _deal(x, parts):
    """[B, ...] -> [parts, B / parts, ...]; part i has rows i, i + parts, ...: the same on any number of devices."""
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _total(tree):
    return jax.tree.map(lambda x: x.sum(axis=0), tree)
