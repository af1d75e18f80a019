"""Recurrent layers: PyTorch's numbers, exact gradients, padding that changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED, assert_same_bits, assert_same_numbers
from jax.test_util import check_grads

from research.errors import UserError
from research.models.rnn import CELLS, Recurrent, step
from research.pretrained.torch_rnn import from_torch, to_torch
from research.randomness import run_key

RNG = np.random.default_rng(0)
LENGTHS = np.array([7, 1, 4, 6])
X = RNG.normal(size=(4, 7, 5)).astype(np.float32)
MASK = (np.arange(7)[None] < LENGTHS[:, None]).astype(np.float32)


def layers(cell, **fields):
    model = Recurrent(inputs=5, width=6, cell=cell, **fields)
    variables = jax.jit(model.init)(run_key(0), X, MASK)
    # Biases are zeros at the start: an exchange of two of them would not be seen.
    leaves, tree = jax.tree.flatten(variables)
    return model, jax.tree.unflatten(tree, [x + 0.1 * RNG.normal(size=x.shape).astype(x.dtype) for x in leaves])


@pytest.fixture(params=CELLS)
def torch_fixture(request):
    path = SHARED / "fixtures" / "torch" / f"{request.param}.npz"
    if not path.is_file():
        pytest.skip(f"no {path}: it comes with the data, not with the code")
    return request.param, np.load(path)


@pytest.mark.parametrize("case", ["layers1_uni", "layers1_bi", "layers2_uni", "layers2_bi"])
def test_outputs_states_and_gradients_are_pytorchs(torch_fixture, case):
    cell, stored = torch_fixture
    part = lambda name: {
        key.removeprefix(f"{case}.{name}."): stored[key] for key in stored.files if key.startswith(f"{case}.{name}.")
    }
    x, lengths = stored[f"{case}.inputs"], stored[f"{case}.lengths"]
    model = Recurrent(5, 6, layers=int(case[6]), cell=cell, bidirectional=case.endswith("bi"))
    mask = np.arange(x.shape[1])[None] < lengths[:, None]
    params = from_torch(part("weight"), cell)

    def by_torch(states):  # [layer] of (h, c) [B, H * directions] -> [layers * directions, B, H] of each
        split = lambda s: np.split(np.asarray(s), model.directions, axis=-1)
        return [np.concatenate([split(layer[j]) for layer in states]) for j in range(CELLS[cell].states)]

    outputs, last = model.apply({"params": params}, x, mask)
    names = ["h_n", "c_n"][: CELLS[cell].states]
    np.testing.assert_allclose(outputs, stored[f"{case}.output"], atol=1e-5)
    for name, found in zip(names, by_torch(last)):
        np.testing.assert_allclose(found, stored[f"{case}.{name}"], atol=1e-5)

    def ours(states):  # the other way
        layer = lambda s, i: np.concatenate(s[i * model.directions : (i + 1) * model.directions], axis=-1)
        return [tuple(layer(s, i) for s in states) for i in range(model.layers)]

    given = ours([stored[f"{case}.{name}"] for name in ("h0", "c0")[: CELLS[cell].states]])
    outputs, last = model.apply({"params": params}, x, mask, given)
    np.testing.assert_allclose(outputs, stored[f"{case}.with_state.output"], atol=1e-5)
    for name, found in zip(names, by_torch(last)):
        np.testing.assert_allclose(found, stored[f"{case}.with_state.{name}"], atol=1e-5)

    def loss(params, x):
        outputs, last = model.apply({"params": params}, x, mask)
        total = (outputs * stored[f"{case}.loss_weight_output"]).sum()
        for j, name in enumerate(("h", "c")[: CELLS[cell].states]):
            for i, weights in enumerate(ours([stored[f"{case}.loss_weight_{name}"]])):
                total += (last[i][j] * weights[0]).sum()
        return total

    value, (to_params, to_x) = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
    np.testing.assert_allclose(value, stored[f"{case}.loss"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_x, stored[f"{case}.grad.inputs"], atol=5e-5)
    theirs = part("grad")
    for name, gradient in to_torch(to_params, cell).items():
        if not name.startswith("bias_hh"):  # of the two biases ours has one, and its gradient is that of either
            np.testing.assert_allclose(gradient, theirs[name], atol=5e-5, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_by_finite_differences(cell, bidirectional):
    with jax.enable_x64(True):
        model, variables = layers(cell, layers=2, bidirectional=bidirectional, dtype="float64")
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        initial = [tuple(jnp.asarray(RNG.normal(size=s.shape)) for s in layer) for layer in model.initial(4)]

        def score(variables, x, initial):
            outputs, last = model.apply(variables, x, MASK, initial)
            return jnp.square(outputs).sum() + sum(jnp.sin(s).sum() for layer in last for s in layer)

        given = variables, jnp.asarray(X, jnp.float64), initial
        check_grads(jax.jit(score), given, 1, ["rev"], atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_batch_equals_its_sequences_one_by_one(cell, bidirectional):
    model, variables = layers(cell, layers=2, bidirectional=bidirectional)
    apply = jax.jit(model.apply)
    outputs, last = apply(variables, X, MASK)
    for i, n in enumerate(LENGTHS):
        alone, final = apply(variables, X[i : i + 1, :n], MASK[i : i + 1, :n])
        assert_same_numbers(outputs[i, :n], alone[0])
        assert not np.any(outputs[i, n:])
        assert_same_numbers(jax.tree.map(lambda s: s[i], last), jax.tree.map(lambda s: s[0], final))


@pytest.mark.parametrize("cell", CELLS)
def test_what_the_mask_hides_changes_nothing(cell):
    model, variables = layers(cell, bidirectional=True)
    score = lambda variables, x: jnp.square(model.apply(variables, x, MASK)[0]).sum()
    spoilt = np.where(MASK[..., None] > 0, X, 1e6)
    assert_same_bits(jax.grad(score)(variables, spoilt), jax.grad(score)(variables, X))


@pytest.mark.parametrize("cell", CELLS)
def test_the_future_does_not_reach_the_past_and_the_past_does_reach_the_future(cell):
    model, variables = layers(cell)
    before, _ = model.apply(variables, X, np.ones((4, 7)))
    for t in range(7):
        changed = X.copy()
        changed[:, t] += 1
        after, _ = model.apply(variables, changed, np.ones((4, 7)))
        assert_same_bits(after[:, :t], before[:, :t])
        assert (np.abs(after - before)[:, t:].max(axis=(0, 2)) > 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_steps_one_by_one_equal_the_scan(cell):
    model, variables = layers(cell, layers=2)
    outputs, last = model.apply(variables, X, np.ones((4, 7)))
    bound = model.bind(variables)
    states, found = model.initial(4), []
    for t in range(7):
        y, states = step(cell, bound.weights, states, X[:, t])
        found.append(y)
    assert_same_numbers((jnp.stack(found, axis=1), states), (outputs, last))


@pytest.mark.parametrize("cell", CELLS)
def test_weights_go_to_pytorch_and_come_back(cell):
    _, variables = layers(cell, layers=2, bidirectional=True)
    params = jax.device_get(variables["params"])
    assert_same_bits(from_torch(to_torch(params, cell), cell), params)
    weights = to_torch(params, cell)
    for spoilt, part in [
        ({name: x for name, x in weights.items() if name != "bias_ih_l1"}, "bias_ih_l1 is missing"),
        ({**weights, "weight_ih_l0": weights["weight_ih_l0"].T}, "shapes"),
        ({**weights, "proj": weights["bias_ih_l0"]}, "proj"),
        ({}, "none"),
    ]:
        with pytest.raises(UserError, match=part) as error:
            from_torch(spoilt, cell)
        assert error.value.code == 3
