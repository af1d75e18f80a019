"""Updates as their papers say, schedules at their edges, decay, clipping and rules."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_numbers, make_config, make_setup

from research import config as configs
from research.errors import UserError
from research.optimizers import OPTIMIZERS, make_optimizer, make_schedule, path_of, roles
from research.studies.population import NUMBERS

PARAMS = {"layer": {"kernel": jnp.full((3, 2), 0.5), "bias": jnp.full((2,), 0.5)}, "norm": {"scale": jnp.ones(2)}}
GRADIENTS = jax.tree.map(lambda p: jnp.linspace(-1, 2, p.size, dtype=jnp.float32).reshape(p.shape), PARAMS)


def optimizer(steps=10, **overrides):
    config = make_config(**{"train__steps": steps, **{f"optimizer__{key}": value for key, value in overrides.items()}})
    return make_optimizer(config.optimizer, configs.arguments("optimizer", config), configs.durations(config, 96))


def updates(made, steps=1, params=PARAMS, gradients=GRADIENTS):
    state, found = made.init(params), []
    for _ in range(steps):
        update, state = made.update(gradients, state, params)
        found.append(update)
    return found


def scalar(name, gradients, start=2.0, **arguments):
    """Parameter after each of some updates of a float64 kernel of one element, decay on."""
    with jax.enable_x64(True):
        made = optimizer(name=name, learning_rate=0.1, weight_decay=0.01, **arguments)
        params = {"kernel": jnp.asarray([[start]], jnp.float64)}
        state, values = made.init(params), []
        for g in gradients:
            update, state = made.update({"kernel": jnp.asarray([[g]], jnp.float64)}, state, params)
            params = jax.tree.map(jnp.add, params, update)
            values.append(float(params["kernel"][0, 0]))
        return values


def by_hand(name, gradients, p=2.0, rate=0.1, decay=0.01):
    values, m, v, t = [], 0.0, 0.0, 0
    for g in gradients:
        t += 1
        if name in ("sgd", "adam", "rmsprop", "adagrad"):
            g = g + decay * p
        if name == "sgd":  # Sutskever et al. 2013, momentum 0.9, Nesterov
            m = 0.9 * m + g
            p -= rate * (g + 0.9 * m)
        elif name in ("adam", "adamw", "lamb"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            eps = 1e-6 if name == "lamb" else 1e-8
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
            step += 0 if name == "adam" else decay * p
            p -= rate * step * (abs(p) / abs(step) if name == "lamb" else 1)
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g * g
            p -= rate * g / np.sqrt(v + 1e-8)
        elif name == "adagrad":
            v = (v or 0.1) + g * g
            p -= rate * g / np.sqrt(v + 1e-7)
        elif name == "lion":
            p -= rate * (np.sign(0.9 * m + 0.1 * g) + decay * p)
            m = 0.99 * m + 0.01 * g
        values.append(p)
    return values


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "lamb"])
def test_three_updates_equal_those_worked_by_hand(name):
    arguments = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    gradients = [0.5, -1.5, 0.25]
    assert scalar(name, gradients, **arguments) == pytest.approx(
        by_hand(name, gradients), rel=1e-6
    )  # the rate is float32


def test_muon_orthogonalises_kernels_and_convolutions_alone():
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4)}, "conv": {"kernel": jnp.ones((3, 3, 2, 8))}}
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    (update,) = updates(optimizer(name="muon", learning_rate=1.0), 1, params, gradients)
    for kernel in (update["dense"]["kernel"], update["conv"]["kernel"].reshape(18, 8)):
        singular = np.linalg.svd(np.asarray(kernel), compute_uv=False)
        assert singular.min() > 0.5 and singular.max() < 1.5  # of Gaussian gradients they differ by more
    # Adam's first step has the size of the rate whatever the gradient's; with Nesterov 1 + 0.9 / 1.9 of it.
    expected = -jnp.sign(gradients["dense"]["bias"]) * (0.9 * 0.1 / (1 - 0.9**2) + 1)
    assert_same_numbers(update["dense"]["bias"], expected, 1e-5)


@pytest.mark.parametrize("model", [pytest.param("seq2seq", marks=pytest.mark.slow), "recurrent_lm", "glove"])
def test_every_kernel_of_a_recurrent_model_is_decayed_and_muons(model):
    """None is passed over for its name: layer0_kernel, bridge0_0_kernel, attention_key_kernel, logits_kernel."""
    data = {} if model != "glove" else {"data__name": "wikitext2_cooccurrences", "task__name": "glove",
                                        "data__splits__validation": "train[96:127]", "data__splits__test": None,
                                        "data__min_count": 1, "model__width": 4, "eval__metric": "loss"}  # fmt: skip
    params = jax.tree.map(
        lambda x: jnp.asarray(np.random.default_rng(0).normal(size=x.shape), jnp.float32),
        make_setup(model__name=model, **data).abstract.params,
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    for name in ("sgd", "adamw", "muon"):
        (decayed,) = updates(optimizer(name=name, weight_decay=0.1), 1, params, zeros)
        moved = jax.tree.map(lambda update: bool(np.any(update)), decayed)
        assert moved == jax.tree.map(lambda role: role == "kernel", roles(params))
    (update,) = updates(optimizer(name="muon", learning_rate=1.0), 1, params, params)
    for (path, role), x in zip(jax.tree_util.tree_leaves_with_path(roles(params)), jax.tree.leaves(update)):
        if role == "kernel" and path_of(path) not in ("head_kernel", "logits_kernel"):
            assert np.linalg.svd(np.asarray(x).reshape(-1, x.shape[-1]), compute_uv=False).max() < 1.5 * max(
                1, (x.shape[-1] / np.prod(x.shape[:-1])) ** 0.5
            )
        else:
            assert np.allclose(np.abs(x[np.asarray(x) != 0]), 1 + 0.9 * 0.1 / (1 - 0.9**2), rtol=0.01)  # Adam's


def test_adafactor_keeps_row_and_column_sums_alone():
    params = {"kernel": jnp.ones((256, 128))}
    made = optimizer(name="adafactor", learning_rate=0.1)
    elements = sum(x.size for x in jax.tree.leaves(made.init(params)))
    assert elements < 1000
    (update,) = updates(made, 1, params, {"kernel": jnp.ones((256, 128))})
    assert np.allclose(update["kernel"], -0.1, rtol=1e-3)  # rate x RMS of the parameter (1) x sign


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_touches_kernels_alone(name):
    plain, decayed = (updates(optimizer(name=name, weight_decay=decay), 2) for decay in (0.0, 0.1))
    for a, b in zip(plain, decayed):
        assert_same_bits(b["layer"]["bias"], a["layer"]["bias"])
        assert_same_bits(b["norm"], a["norm"])
        assert not np.array_equal(a["layer"]["kernel"], b["layer"]["kernel"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_and_decay_may_be_traced_numbers(name):
    config = make_config(optimizer__name=name, optimizer__weight_decay=0.1)
    times = configs.durations(config, 96)

    def first(rate, decay):
        section = {**config.optimizer.to_dict(), "learning_rate": rate, "weight_decay": decay}
        made = make_optimizer(section, configs.arguments("optimizer", config), times)
        return made.update(GRADIENTS, made.init(PARAMS), PARAMS)[0]

    both = jax.vmap(first)(jnp.asarray([0.1, 0.01]), jnp.asarray([0.1, 0.2]))
    assert_same_numbers(jax.tree.map(lambda x: x[1], both), first(0.01, 0.2))


def test_clipping_bounds_the_norm_and_is_the_identity_below_it():
    (free,) = updates(optimizer(name="sgd", learning_rate=1.0))
    norm = float(jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(free))))
    (clipped,) = updates(optimizer(name="sgd", learning_rate=1.0, clip_norm=norm / 2))
    assert_same_numbers(clipped, jax.tree.map(lambda x: x / 2, free))
    (same,) = updates(optimizer(name="sgd", learning_rate=1.0, clip_norm=norm * 1.01))
    assert_same_bits(same, free)


def factors(steps, at, **overrides):
    config = make_config(train__steps=steps, **{f"optimizer__{key}": value for key, value in overrides.items()})
    factor = make_schedule(config.optimizer, configs.durations(config, 96))
    return [float(factor(jnp.int32(step))) for step in at]


@pytest.mark.parametrize(
    "schedule,options,expected",  # at 0, half of the warm-up, its end, half of the rest, the last step's end, beyond
    [
        ("constant", {}, [0.2, 0.6, 1, 1, 1, 1]),
        ("linear", {"end_factor": 0.1}, [0.2, 0.6, 1, 0.55, 0.1, 0.1]),
        ("cosine", {"end_factor": 0.1}, [0.2, 0.6, 1, 0.55, 0.1, 0.1]),
        ("cosine", {}, [0.2, 0.6, 1, 0.5, 0, 0]),
        ("exponential", {"end_factor": 0.25}, [0.2, 0.6, 1, 0.5, 0.25, 0.0625]),
        ("exponential", {"end_factor": 0.5, "decay_steps": 4}, [0.2, 0.6, 1, 0.25, 0.0625, 0.5**8]),
        ("piecewise", {"boundaries_steps": (12, 20), "boundary_factors": (0.5, 0.1)}, [0.2, 0.6, 1, 0.5, 0.1, 0.1]),
        ("piecewise", {"boundaries_steps": (2, 12), "boundary_factors": (0.5, 0.1)}, [0.2, 0.3, 0.5, 0.1, 0.1, 0.1]),
        ("wsd", {"decay_steps": 16}, [0.2, 0.6, 1, 0.5, 0, 0]),
        ("wsd", {"decay_steps": 4}, [0.2, 0.6, 1, 1, 0, 0]),
    ],
)
def test_schedules_at_their_edges(schedule, options, expected):
    at = [0, 2, 4, 12, 20, 36]
    assert factors(20, at, schedule=schedule, warmup_steps=4, **options) == pytest.approx(expected, abs=1e-6)


def test_without_warmup_the_first_step_has_the_peak():
    assert factors(10, [0, 1], schedule="constant") == [1, 1]


def test_durations_in_epochs_are_those_in_steps():
    in_steps = factors(12, range(13), schedule="wsd", warmup_steps=3, decay_steps=6)
    assert factors(12, range(13), schedule="wsd", warmup_epochs=0.5, decay_epochs=1.0) == in_steps


@pytest.mark.parametrize("rule", ["layer", "layer=", "layer=x", "layer=-1", "(=0.5", "layer=nan", "layer=inf"])
def test_a_malformed_rule_is_refused(rule):
    with pytest.raises(UserError, match="config.optimizer.rules") as error:
        optimizer(rules=(rule,))
    assert error.value.code == 2


def test_a_rule_that_matches_nothing_is_refused_and_the_paths_are_listed():
    with pytest.raises(UserError, match="'nowhere' matches no parameter; the parameters are layer/bias, layer/kernel"):
        optimizer(rules=("nowhere=0.5",)).init(PARAMS)


@pytest.mark.parametrize("rules", [(".*=frozen",), ("layer=0", "norm=frozen")])
def test_rules_that_freeze_everything_are_refused(rules):
    with pytest.raises(UserError, match="config.optimizer.rules: they freeze all of layer/bias, layer/kernel") as error:
        optimizer(rules=rules).init(PARAMS)
    assert error.value.code == 2


def test_a_parameter_whose_name_says_no_role_is_refused():
    for name in ("w", "kernels", "mykernel"):
        with pytest.raises(UserError, match=f"the parameter layer/{name} has no role") as error:
            roles({"layer": {name: jnp.ones(2)}})
        assert error.value.code == 2


def test_the_first_rule_that_matches_counts_and_frozen_has_no_moments():
    made = optimizer(name="adam", rules=("layer/bias=0.5", "layer=frozen"))
    (update,) = updates(made)
    (free,) = updates(optimizer(name="adam"))
    assert_same_numbers(update["layer"]["bias"], free["layer"]["bias"] / 2)
    assert not np.any(update["layer"]["kernel"])
    assert not any(x.shape == (3, 2) for x in jax.tree.leaves(made.init(PARAMS)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_numbers_may_be_arrays_over_which_it_is_vmapped(name):
    """As a population does it: the same updates as those of each number alone."""
    fields = inspect.signature(OPTIMIZERS[name]).parameters.values()
    own = [p.name for p in fields if p.kind is p.KEYWORD_ONLY and p.name in NUMBERS]
    values = {"learning_rate": (0.1, 0.02), "weight_decay": (0.0, 0.3), **dict.fromkeys(own, (0.5, 0.8))}
    config = make_config(**{f"optimizer__{key}": value for key, (value, _) in {"name": (name, 0), **values}.items()})
    times = configs.durations(config, 96)

    def three(numbers):
        settings = configs.as_mapping(config, {f"optimizer.{key}": value for key, value in numbers.items()})
        made = make_optimizer(settings["optimizer"], configs.arguments("optimizer", settings), times)
        return updates(made, steps=3)

    found = jax.vmap(three)({key: jnp.asarray(pair, jnp.float32) for key, pair in values.items()})
    for i in range(2):
        alone = three({key: pair[i] for key, pair in values.items()})
        assert_same_numbers(jax.tree.map(lambda x: x[i], found), alone, 1e-5)


def test_weight_decay_shrinks_the_roles_that_it_is_told():
    params = {"embedding": jnp.ones((2, 2)), "head_kernel": jnp.ones((2, 2)), "norm_scale": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for given, expected in (((), {}), (("kernel",), {"head_kernel"}), (("kernel", "embedding", "scale"), set(params))):
        (update,) = updates(optimizer(name="adamw", weight_decay=0.1, decayed=given), 1, params, zeros)
        for name in ("adamw", "muon"):
            (update,) = updates(optimizer(name=name, weight_decay=0.1, decayed=given), 1, params, zeros)
            assert {name for name, x in update.items() if np.any(x)} == set(expected)


def test_a_role_that_is_unknown_is_refused():
    with pytest.raises(UserError, match="config.optimizer.decayed: 'kernels' is unknown.*did you mean kernel") as error:
        optimizer(decayed=("kernels",))
    assert error.value.code == 2


def test_output_layers_and_embeddings_are_not_muons():
    """Jordan's parameter groups: hidden matrices alone."""
    names = ("embedding", "head_kernel", "part_head_kernel", "logits_kernel", "next_kernel", "qkv_kernel")
    params = {name: jnp.diag(jnp.array([1.0, 100.0])) for name in names} | {"head": {"kernel": jnp.eye(2)}}
    state = optimizer(name="muon").init(params)
    momenta = [state for state in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "ns_coeffs"))
               if hasattr(state, "ns_coeffs")]  # fmt: skip
    assert [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(momenta[0].mu)] == ["qkv_kernel"]
