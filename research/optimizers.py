"""Optimizers, all of Optax: one of OPTIMIZERS, a schedule, clipping, decay and rules, from one config section.

Learning rate, weight decay, momentum and betas are only ever used in arithmetic, so that they may be traced arrays.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.errors import UserError


class Optimizer(NamedTuple):
    init: Callable  # params -> opt_state
    update: Callable  # gradients, opt_state, params -> updates, opt_state
    learning_rate: Callable  # step, int32[] -> float32[]: the rate of that step's update


def make_optimizer(settings, arguments, times):
    """clip -> the named optimizer with decay on kernels -> rules.

    Args:
        settings: the section `optimizer` or any mapping like it; numbers may be arrays.
        arguments: of the named optimizer alone, {name: value}.
        times: durations in steps, as research.config.durations gives them.
    """
    factor = make_schedule(settings, times)

    def learning_rate(step):
        return jnp.asarray(settings["learning_rate"] * factor(step), jnp.float32)

    decayed = partial(is_decayed, decayed=settings["decayed"])
    core = OPTIMIZERS[settings["name"]](learning_rate, settings["weight_decay"], decayed, **arguments)
    if settings["clip_norm"] is not None:
        core = optax.chain(optax.clip_by_global_norm(settings["clip_norm"]), core)
    rules = [_parse_rule(rule) for rule in settings["rules"]]
    if not rules:
        return _layer_by_layer(core.init, core.update, learning_rate)

    def labels(params):
        return jax.tree.map(lambda factor: "trained" if factor else "frozen", rule_factors(params, rules))

    # A frozen parameter has no moments, is not decayed, and is no part of the norm that is clipped.
    transform = optax.partition({"trained": core, "frozen": optax.set_to_zero()}, labels)

    def update(gradients, opt_state, params):
        updates, opt_state = transform.update(gradients, opt_state, params)
        return jax.tree.map(lambda u, factor: u * factor, updates, rule_factors(params, rules)), opt_state

    return _layer_by_layer(transform.init, update, learning_rate)


def scaled(optimizer, factor):
    """Returns the Optimizer with its learning rate, and so its updates and its decay, times a factor."""

    def update(gradients, opt_state, params):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return jax.tree.map(lambda u: factor * u, updates), opt_state

    return Optimizer(optimizer.init, update, lambda step: factor * optimizer.learning_rate(step))


def _layer_by_layer(init, update, learning_rate):
    """The Optimizer that sees each layer by itself where a model has them stacked: norms, axes and rules are a layer's
    own, and the numbers those of the model that is not stacked."""

    def update_each(gradients, opt_state, params):
        updates, opt_state = update(unstacked(gradients), opt_state, unstacked(params))
        return stacked_like(updates, params), opt_state

    return Optimizer(lambda params: init(unstacked(params)), update_each, learning_rate)


# Schedules: builders of step -> factor in [0, 1], where step counts from the end of the warm-up: negative within it.


def constant(settings, steps, times):
    return lambda step: 1.0


def linear(settings, steps, times):
    return lambda step: 1 - (1 - settings["end_factor"]) * jnp.clip(step / steps, 0, 1)


def cosine(settings, steps, times):
    """Loshchilov and Hutter 2017, equation 5 (arXiv:1608.03983), without restarts."""

    def factor(step):
        return (
            settings["end_factor"]
            + (1 - settings["end_factor"]) * (1 + jnp.cos(jnp.pi * jnp.clip(step / steps, 0, 1))) / 2
        )

    return factor


def exponential(settings, steps, times):
    """end_factor ** (step / decay): multiplied by end_factor every `decay` steps, once in the run if not given."""
    decay = steps if times["decay"] is None else times["decay"]
    return lambda step: jnp.power(jnp.float32(settings["end_factor"]), jnp.maximum(step, 0) / max(1, decay))


def piecewise(settings, steps, times):
    """boundary_factors[i] from step boundaries[i] of the run on, 1 before the first."""
    edges = jnp.asarray(times["boundaries"], jnp.float32) - times["warmup"]
    factors = jnp.asarray((1.0, *settings["boundary_factors"]), jnp.float32)
    return lambda step: factors[jnp.sum(step >= edges)]


def wsd(settings, steps, times):
    """Warm-up, stable, decay: 1, then linear to end_factor over the last `decay` steps (a fifth, if not given).

    Hu et al. 2024, section 4 (arXiv:2404.06395); a linear decay as Haegele et al. 2024 (arXiv:2405.18392).
    """
    decay = max(1, steps // 5 if times["decay"] is None else times["decay"])
    return lambda step: 1 - (1 - settings["end_factor"]) * jnp.clip((step - (steps - decay)) / decay, 0, 1)


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "piecewise": piecewise,
    "wsd": wsd,
}


def make_schedule(settings, times):
    """step -> factor of the learning rate: (step + 1) / (warmup + 1) up to `warmup`, then the schedule's.

    The first update is not lost to a rate of zero, and the peak is reached at step `warmup` exactly.
    """
    warmup = times["warmup"]
    after = SCHEDULES[settings["schedule"]](settings, max(1, times["train"] - warmup), times)

    def factor(step):
        return jnp.minimum((step + 1) / (warmup + 1), 1.0) * after((step - warmup).astype(jnp.float32))

    return factor


# Optimizers: (learning-rate schedule, weight decay, mask, Optax's own arguments) -> GradientTransformation. Those that
# Optax gives no decay of their own take it as an L2 term of the gradient, as PyTorch's do.


def sgd(rate, decay, mask, *, momentum: float | None = None, nesterov: bool = False):
    return optax.chain(optax.add_decayed_weights(decay, mask), optax.sgd(rate, momentum, nesterov))


def adam(rate, decay, mask, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
    """Kingma and Ba 2015, algorithm 1 (arXiv:1412.6980)."""
    return optax.chain(optax.add_decayed_weights(decay, mask), optax.adam(rate, b1, b2, eps))


def adamw(rate, decay, mask, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
    """Loshchilov and Hutter 2019, algorithm 2 (arXiv:1711.05101); the decay is times the learning rate."""
    return optax.adamw(rate, b1, b2, eps, weight_decay=decay, mask=mask)


def rmsprop(
    rate,
    decay_weights,
    mask,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
):
    return optax.chain(
        optax.add_decayed_weights(decay_weights, mask),
        optax.rmsprop(rate, decay, eps, centered=centered, momentum=momentum, nesterov=nesterov),
    )


def adagrad(rate, decay, mask, *, initial_accumulator_value: float = 0.1, eps: float = 1e-7):
    """Duchi et al. 2011."""
    return optax.chain(optax.add_decayed_weights(decay, mask), optax.adagrad(rate, initial_accumulator_value, eps))


def lion(rate, decay, mask, *, b1: float = 0.9, b2: float = 0.99):
    """Chen et al. 2023, program 1 (arXiv:2302.06675)."""
    return optax.lion(rate, b1, b2, weight_decay=decay, mask=mask)


def lamb(rate, decay, mask, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6):
    """You et al. 2020, algorithm 2 (arXiv:1904.00962)."""
    return optax.lamb(rate, b1, b2, eps, weight_decay=decay, mask=mask)


def adafactor(
    rate,
    decay,
    mask,
    *,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
):
    """Shazeer and Stern 2018 (arXiv:1804.04235). The decay is Optax's: not times the learning rate."""
    return optax.adafactor(
        rate,
        min_dim_size_to_factor,
        decay_rate,
        0,
        multiply_by_parameter_scale,
        clipping_threshold,
        momentum,
        weight_decay_rate=decay,
        weight_decay_mask=mask,
    )


def muon(
    rate,
    decay,
    mask,
    *,
    ns_steps: int = 5,
    beta: float = 0.95,
    nesterov: bool = True,
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
):
    """Jordan et al. 2024: hidden kernels by Muon, as matrices from all their axes but the last to the last; else Adam.

    "Else" are embeddings, biases, scales, and the output layers, as in Jordan's own parameter groups.
    """
    from optax import contrib

    def matrices(params):
        axes = lambda kernel: contrib.MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), (kernel.ndim - 1,))
        hidden = lambda path, role, p: axes(p) if role == "kernel" and not is_output(path) else None
        return jax.tree_util.tree_map_with_path(hidden, roles(params), params)

    core = contrib.muon(
        1.0,
        ns_steps=ns_steps,
        beta=beta,
        nesterov=nesterov,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        muon_weight_dimension_numbers=matrices,
    )
    # Optax's own decay of the parameters that Adam moves has no mask.
    decayed = optax.add_decayed_weights(decay, mask)
    return optax.chain(core, optax.scale(-1.0), decayed, optax.scale_by_learning_rate(rate))


OPTIMIZERS = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "lion": lion,
    "lamb": lamb,
    "adafactor": adafactor,
    "muon": muon,
}


ROLES = ("kernel", "embedding", "bias", "scale")


def roles(params):
    """What each parameter is, one of ROLES: its name is the role, or ends with _ and the role.

    A kernel is a matrix, its last axis the outputs and all others the inputs. Decay, Muon and whatever else treats
    parameters by their kind goes by this.

    Raises:
        UserError: 2, for a name that says no role.
    """

    def role(path, _):
        name = path_of(path).split("/")[-1]
        for role in ROLES:
            if name == role or name.endswith(f"_{role}"):
                return role
        raise UserError(
            2,
            f"config.model.name: the parameter {path_of(path)} has no role; let its name be or end with _ and one of "
            f"{', '.join(ROLES)}: kernels are decayed, and are Muon's",
        )

    return jax.tree_util.tree_map_with_path(role, params)


OUTPUT = re.compile(r"(?:^|[/_])(?:head|logits|next)[/_]kernel$")


def is_output(path):
    """Returns whether a kernel, by its key path, gives the model's outputs: head/kernel, PART_head_kernel, ..."""
    return OUTPUT.search(path_of(path)) is not None


def is_decayed(params, decayed=("kernel",)):
    """Returns for each parameter whether its role is one of `decayed`."""
    return jax.tree.map(lambda role: role in decayed, roles(params))


def rule_factors(params, rules):
    """For each parameter the factor of the first rule that its path matches: 0 is frozen, 1 where none matches.

    Raises:
        UserError: 2, for a rule that matches no parameter, or rules that leave none to be trained.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in rules:
        if not any(pattern.search(path) for path in paths):
            raise UserError(
                2,
                f"config.optimizer.rules: {pattern.pattern!r} matches no parameter; "
                f"the parameters are {', '.join(paths)}",
            )

    def factor(path, _):
        return next((value for pattern, value in rules if pattern.search(path_of(path))), 1.0)

    factors = jax.tree_util.tree_map_with_path(factor, params)
    if not any(jax.tree.leaves(factors)):
        raise UserError(2, f"config.optimizer.rules: they freeze all of {', '.join(paths)}: nothing would be trained")
    return factors


STACKED = "blocks"  # what a model calls layers whose parameters it has stacked along a first axis


def unstacked(params):
    """{"blocks": {name: [L, ...]}} -> {"block0": {name: [...]}, "block1": ...}; whatever else as it is."""
    if not isinstance(params, Mapping):
        return params
    result = {name: unstacked(value) for name, value in params.items() if name != STACKED}
    for name, i in _layers(params):
        result[name] = jax.tree.map(lambda leaf: _shaped(lambda x: x[i], leaf), params[STACKED])
    return result


def stacked_like(params, like):
    """What `unstacked` has taken apart, put together where `like` has it stacked."""
    if not isinstance(like, Mapping):
        return params
    result = {name: stacked_like(params[name], value) for name, value in like.items() if name != STACKED}
    if each := [params[name] for name, _ in _layers(like)]:
        result[STACKED] = jax.tree.map(lambda *leaves: _shaped(lambda *x: jnp.stack(x), *leaves), *each)
    return result


def _layers(params):
    """[(name, number)] of the layers that a tree has stacked."""
    leaves = jax.tree.leaves(params.get(STACKED, {}))
    return [(f"{STACKED[:-1]}{i}", i) for i in range(leaves[0].shape[0] if leaves else 0)]


def _shaped(function, *leaves):
    """function(*leaves), or its shape where the leaves are shapes."""
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    return jax.eval_shape(function, *leaves) if shapes else function(*leaves)


def path_of(path):
    """A key path of jax.tree_util as text: Conv_0/kernel."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _parse_rule(rule):
    pattern, equals, factor = rule.rpartition("=")
    try:
        value = 0.0 if factor == "frozen" else float(factor)
        if not equals or not 0 <= value < float("inf"):
            raise ValueError(factor)
        return re.compile(pattern), value
    except (ValueError, re.error):
        raise UserError(
            2, f"config.optimizer.rules: {rule!r} is not regex=factor, as Dense_1/.*=0.1, or regex=frozen"
        ) from None
