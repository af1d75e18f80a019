"""Invariants of the step: the same numbers however a batch is cut, the same bits from the same key."""

import importlib
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_numbers, make_setup

from research import config as configs
from research import randomness, sharding
from research.data.batches import stack, train_batches
from research.errors import UserError
from research.models import MODELS
from research.models.layers import head
from research.optimizers import make_optimizer
from research.randomness import draw, fold, fold_each, run_key
from research.tasks import TASKS
from research.train_step import eval_variables, make_train_step, make_update

UNEVEN = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1], np.float32)  # shards of 8 devices: some empty
NORM = {"model__name": "normed"}
TEXT = ("seq2seq", "recurrent_classifier", "recurrent_lm", "decoder", "encoder")
VECTORS = ("word_vectors", "glove")  # no softmax: tests/test_word_vectors.py


def batches_of(setup, steps, mask=UNEVEN, first=0):
    size = setup.config.data.batch_size
    split = train_batches(setup.splits["train"], 0, size, first, first + steps)
    return [{**batch, "mask": mask if size == len(mask) else batch["mask"]} for batch in split]


def start(setup, seed=0):
    state = jax.jit(setup.init, out_shardings=sharding.replicated(setup.mesh))(run_key(seed))
    return state, make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)


def train(steps=2, devices=1, seed=0, mask=UNEVEN, edit=lambda batch: batch, **overrides):
    """State and metrics of the last step, on the host."""
    setup = make_setup(devices, **overrides)
    state, step = start(setup, seed)
    for batch in batches_of(setup, steps, mask):
        state, metrics = step(state, {}, edit(batch), run_key(seed))
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def alone():
    """Two steps on one device, batch norm and EMA on, mixup and crops too."""
    return train(**NORM, train__ema=0.9, data__augment__mixup=0.4, data__augment__crop_padding=1)


@pytest.mark.smoke
@pytest.mark.parametrize("devices,parallel", [(2, "jit"), (8, "jit"), (8, "pmap"), (1, "pmap")])
def test_n_devices_train_as_one_with_batch_norm_and_uneven_masks(alone, devices, parallel):
    augment = {"data__augment__mixup": 0.4, "data__augment__crop_padding": 1}
    found = train(devices=devices, train__parallel=parallel, **NORM, train__ema=0.9, **augment)

    assert_same_numbers(found, alone)


@pytest.mark.parametrize("devices", [2, 8])
def test_dropout_draws_the_same_bits_over_devices_under_jit(devices):
    dropout = {"model__name": "mlp", "model__widths": (16,), "model__dropout": 0.5}

    assert_same_numbers(train(devices=devices, **dropout), train(**dropout))


@pytest.mark.parametrize("parallel,devices", [("jit", 1), ("jit", 2), ("pmap", 2)])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_equal_full_batch_for_uneven_masks(parts, parallel, devices):
    mask = UNEVEN.copy()
    mask[1::parts] = 0  # one microbatch is all padding

    found = train(devices=devices, mask=mask, train__microbatches=parts, train__parallel=parallel)

    assert_same_numbers(found, train(mask=mask))


@pytest.mark.parametrize("name", TEXT)
def test_text_trains_the_same_over_devices_modes_and_microbatches(name):
    alone = train(model__name=name)  # sequences of unequal length, some of them padding

    assert_same_numbers(train(devices=8, model__name=name), alone)
    assert_same_numbers(train(devices=2, model__name=name, train__parallel="pmap", train__microbatches=4), alone)


@pytest.mark.parametrize("name", TEXT)
def test_what_the_mask_hides_of_text_changes_nothing(name):
    def spoil(batch):
        hidden = batch["mask"] == 0
        return {
            field: np.where(hidden.reshape(-1, *[1] * (x.ndim - 1)), x.dtype.type(1), x) if field != "mask" else x
            for field, x in batch.items()
        }

    assert_same_bits(train(edit=spoil, model__name=name), train(model__name=name))


@pytest.mark.parametrize("parallel,devices,parts", [("jit", 1, 2), ("pmap", 4, 2), ("jit", 4, 1)])
def test_a_loss_of_two_terms_with_counts_of_their_own_is_cut_exactly(parallel, devices, parts):
    def run(devices, **overrides):
        setup = make_setup(devices, **overrides)

        def loss(model, variables, batch, keys, train):
            halves = [batch["mask"] * (batch["label"] < 4), batch["mask"] * (batch["label"] >= 4)]  # of unequal count
            found = [setup.task.loss(model, variables, {**batch, "mask": mask}, keys, train) for mask in halves]
            return {"few": found[0][0]["loss"], "many": found[1][0]["loss"]}, {}, found[0][2]

        state, _ = start(setup)
        step = make_train_step(setup.model, setup.task._replace(loss=loss), setup.optimizer, setup.config, setup.mesh)
        return jax.device_get(step(state, {}, batches_of(setup, 1)[0], run_key(0)))

    alone, found = run(1), run(devices, train__microbatches=parts, train__parallel=parallel)
    assert_same_numbers(found, alone)
    few, many, loss = (found[1][name] for name in ("few", "many", "loss"))
    assert few[1] != many[1] and few[1] + many[1] == UNEVEN.sum()
    assert loss[0] / loss[1] == pytest.approx(few[0] / few[1] + many[0] / many[1], rel=1e-6)


def test_microbatches_with_batch_norm_are_the_same_ones_on_any_number_of_devices():
    alone = train(steps=1, train__microbatches=2, **NORM)

    assert_same_numbers(train(steps=1, devices=4, train__microbatches=2, **NORM), alone)
    assert_same_numbers(train(steps=1, devices=4, train__microbatches=2, train__parallel="pmap", **NORM), alone)


@pytest.mark.smoke
@pytest.mark.parametrize("parallel,devices", [("jit", 2), ("pmap", 2)])
def test_k_steps_a_call_equal_k_calls(parallel, devices):
    single = make_setup(devices, train__parallel=parallel)
    several = make_setup(devices, train__parallel=parallel, train__steps_per_call=3)
    (state, step), (other, steps) = start(single), start(several)
    batches = batches_of(single, 5)
    measured = []
    for batch in batches:
        state, metrics = step(state, {}, batch, run_key(0))
        measured.append(metrics)
    for first, count in ((0, 3), (3, 2)):  # the second call stops inside its three
        chosen = (batches[first:] + batches[-1:])[:3]
        stacked = {name: np.stack([batch[name] for batch in chosen]) for name in chosen[0]}
        other, metrics = steps(other, {}, stacked, run_key(0), count)
        for i in range(count):
            assert_same_numbers(jax.tree.map(lambda x: x[i], metrics), measured[first + i])
    assert int(other.step) == 5
    assert_same_numbers(other, state)


@pytest.mark.parametrize("partitionable", [True, False])
def test_what_a_run_draws_is_what_jax_draws(partitionable):
    def draws(key, draw):
        given, each = [fold(key, "some", i) for i in range(8)], fold_each(key, "each", jnp.arange(3))
        shapes = [(), (1,), (5, 3, 7), (2, 0), (129,)]
        many = [draw(jax.random.normal, given[i], shape) for i, shape in enumerate(shapes)]
        widths = [draw(jax.random.bits, given[5], (6, 5), dtype) for dtype in ("uint8", "uint16", "uint32")]
        more = [draw(jax.random.randint, given[6], (7,), 0, 10), draw(jax.random.permutation, given[7], 8)]
        apart = jax.vmap(lambda key: draw(jax.random.truncated_normal, key, -2, 2, (4, 5)))(each)
        return [*many, *widths, *more, apart]

    by_jax = lambda function, *arguments: function(*arguments)
    with jax.threefry_partitionable(partitionable):
        ours, theirs = (jax.jit(partial(draws, draw=f))(jax.random.key(3)) for f in (draw, by_jax))
    assert_same_bits(ours, theirs)
    for shape, own in [((2**16, 2**16 - 1), True), ((2**16, 2**16), False)]:  # the counter has 32 bits
        lowered = jax.jit(partial(draw, jax.random.bits, shape=shape)).lower(run_key(3))  # JAX's own has a loop
        assert own == ("while" not in lowered.as_text())


def test_keys_of_a_run_are_jaxs_own_whatever_its_default_is():
    assert_same_bits(jax.random.key_data(run_key(3)), jax.random.key_data(jax.random.key(3)))
    both = jnp.where(jnp.arange(2) > 0, fold(run_key(0), "some"), jax.random.key(1))
    assert both.dtype == jax.random.key(0).dtype
    with jax.default_prng_impl("rbg"):
        assert jax.random.key_impl(run_key(3)) == "threefry2x32"


def test_keys_and_draws_survive_a_reload_of_the_module():
    key, before = run_key(3), draw(jax.random.normal, run_key(3), (4,))
    again = importlib.reload(randomness)
    assert_same_bits(again.draw(jax.random.normal, key, (4,)), before)
    assert jnp.stack([key, again.run_key(3)]).dtype == key.dtype


def test_same_seed_gives_the_same_bits_and_another_seed_another_step():
    dropout = {"model__name": "mlp", "model__widths": (16,), "model__dropout": 0.5, "data__augment__cutout": 3}

    first = train(**dropout)

    assert_same_bits(train(**dropout), first)
    other, _ = train(seed=1, **dropout)
    assert not np.array_equal(other.params["Dense_0"]["kernel"], first[0].params["Dense_0"]["kernel"])


@pytest.mark.parametrize("noise", [{"model__dropout": 0.5}, {"data__augment__cutout": 3}])
def test_another_step_draws_other_numbers(noise):
    setup = make_setup(model__name="mlp", model__widths=(16,), optimizer__learning_rate=0.0, **noise)
    state, step = start(setup)
    batch, losses = batches_of(setup, 1)[0], set()
    for _ in range(4):
        state, metrics = step(state, {}, batch, run_key(0))
        losses.add(float(metrics["loss"][0]))
    assert len(losses) == 4


def test_what_the_mask_hides_changes_nothing():
    def spoil(batch):
        rng = np.random.default_rng(0)
        hidden = batch["mask"] == 0
        image = np.where(hidden[:, None, None, None], rng.integers(0, 255, batch["image"].shape), batch["image"])
        return {**batch, "image": image.astype(np.uint8), "label": np.where(hidden, 9 - batch["label"], batch["label"])}

    options = {**NORM, "data__augment__mixup": 0.4}

    assert_same_bits(train(edit=spoil, **options), train(**options))


@pytest.fixture(scope="module", params=[name for name in MODELS if name not in VECTORS])
def model(request):
    """Name, initial parameters, and the state and losses of up to 200 steps on one batch."""
    name = request.param
    rate = 2e-2 if name in TEXT and name not in ("decoder", "encoder") else 5e-3
    setup = make_setup(model__name=name, optimizer__name="adam", optimizer__learning_rate=rate)
    state, step = start(setup)
    initial, second = jax.device_get(state.params), None
    batch, losses = batches_of(setup, 1, np.ones(16, np.float32))[0], []
    if name in ("recurrent_lm", "decoder"):  # texts that begin alike and go on otherwise cannot be told apart
        batch["tokens"][:, 0] = 4 + np.arange(16)
    for i in range(200):
        state, metrics = step(state, {}, batch, run_key(0))
        if name == "encoder":  # what is masked follows from the step: the same each time
            state = state._replace(step=jax.device_put(np.int32(0), state.step.sharding))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
        second = jax.device_get(state.params) if i == 1 else second
        if losses[-1] < 0.01:
            break
    outcomes = (setup.dataset.classes or setup.dataset.vocabulary) * (2 if name == "encoder" else 1)  # and which pair
    return name, initial, second, losses, outcomes


def test_every_parameter_receives_gradient_and_moves(model):
    name, before, after, *_ = model
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after)):
        if name == "vgg" and "Conv" in str(path) and "bias" in str(path):
            continue  # a bias before batch normalisation has no effect: its gradient is rounding
        assert np.any(np.asarray(new) != old), path


def test_loss_at_the_start_is_log_classes(model):
    *_, losses, outcomes = model
    assert losses[0] == pytest.approx(np.log(outcomes), rel=0.05)


def test_one_batch_is_learnt_by_heart(model):
    assert model[-2][-1] < 0.01


def test_frozen_parameters_stand_still_and_factors_scale_updates():
    frozen = make_setup(optimizer__rules=("Conv_0/.*=frozen", "Dense_0/kernel=0.5"), optimizer__weight_decay=0.1)
    free = make_setup(optimizer__weight_decay=0.1)
    (state, step), (other, free_step) = start(frozen), start(free)
    before = jax.device_get(state.params)
    batch = batches_of(frozen, 1)[0]
    (after, _), (all_free, _) = step(state, {}, batch, run_key(0)), free_step(other, {}, batch, run_key(0))

    assert_same_bits(after.params["Conv_0"], before["Conv_0"])
    half = jax.tree.map(lambda a, b: (a + b) / 2, before["Dense_0"]["kernel"], all_free.params["Dense_0"]["kernel"])
    assert_same_numbers(after.params["Dense_0"]["kernel"], half)
    assert_same_bits(after.params["head"], all_free.params["head"])


def test_ema_is_the_average_and_evaluation_reads_it():
    setup = make_setup(train__ema=0.75, model__name="normed")
    state, step = start(setup)
    own = lambda state: jax.device_get({"params": state.params, **state.model_state})
    expected = own(state)
    for batch in batches_of(setup, 3):
        state, _ = step(state, {}, batch, run_key(0))
        expected = jax.tree.map(lambda average, new: 0.75 * average + 0.25 * new, expected, own(state))
    assert_same_numbers(state.ema, expected)  # batch statistics too
    assert_same_bits(eval_variables(state, {}), state.ema)


def test_bfloat16_computes_and_float32_accumulates():
    setup = make_setup(**NORM, model__dtype="bfloat16", optimizer__name="adam")
    seen = {}

    def loss(model, variables, batch, keys, train):
        terms, metrics, model_state = setup.task.loss(model, variables, batch, keys, train)
        jaxpr = jax.make_jaxpr(lambda x: model.apply(variables, x, train=False))(jnp.zeros((1, 8, 8, 1)))
        seen["logits"], seen["bfloat16"] = jaxpr.out_avals[0].dtype, str(jaxpr).count("bf16")
        return terms, metrics, model_state

    state = jax.jit(setup.init)(run_key(0))
    step = make_train_step(setup.model, setup.task._replace(loss=loss), setup.optimizer, setup.config, setup.mesh)
    state, metrics = step(state, {}, batches_of(setup, 1)[0], run_key(0))
    assert seen["logits"] == jnp.float32 and seen["bfloat16"] > 5
    floats = [x for x in jax.tree.leaves((state, metrics)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}


def two_terms(setup, **weights):
    """The task with the loss as the term `one`, and the same again as `other`."""

    def loss(model, variables, batch, keys, train):
        terms, metrics, model_state = setup.task.loss(model, variables, batch, keys, train)
        return {"one": terms["loss"], "other": terms["loss"]}, metrics, model_state

    return setup.task._replace(loss=loss, weights=weights)


def test_terms_count_by_their_weights_and_by_one_where_none_is_named():
    setup = make_setup()
    moved = {}
    for name, task in (
        ("plain", setup.task),
        ("both", two_terms(setup)),
        ("weighted", two_terms(setup, one=0.25, other=jnp.float32(0.5))),
    ):
        state, _ = start(setup)
        before = jax.device_get(state.params)
        step = make_train_step(setup.model, task, setup.optimizer, setup.config, setup.mesh)
        state, metrics = step(state, {}, batches_of(setup, 1)[0], run_key(0))
        moved[name] = jax.tree.map(lambda a, b: np.asarray(b) - a, before, state.params)
        moved[f"{name} loss"] = float(metrics["loss"][0] / metrics["loss"][1])
    assert_same_numbers(moved["both"], jax.tree.map(lambda x: 2 * x, moved["plain"]), 1e-5)
    assert_same_numbers(moved["weighted"], jax.tree.map(lambda x: 0.75 * x, moved["plain"]), 1e-5)
    assert moved["weighted loss"] == pytest.approx(0.75 * moved["plain loss"])


def test_a_weight_of_a_term_that_is_none_is_refused(monkeypatch):
    build = TASKS["classify_images"]

    def weighted(spec, *, label_smoothing: float = 0.0):
        return build(spec, label_smoothing=label_smoothing)._replace(weights={"los": 0.5})

    monkeypatch.setitem(TASKS, "weighted", weighted)
    with pytest.raises(UserError, match="config.task.weights: there is no term los; the terms are loss") as error:
        make_setup(task__name="weighted")
    assert error.value.code == 2


class Shifted(nn.Module):
    """Reads a collection that nothing trains, and tries to change it."""

    classes: int | None = None

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):
        shift = self.variable("teacher", "shift", jnp.zeros, (10,))
        logits = head(self.classes, "float32")(image.reshape(image.shape[0], -1)) + shift.value.reshape(1, -1)
        if train and not self.is_initializing():
            shift.value = shift.value + 1
        return logits


@pytest.mark.parametrize("parallel,devices,k", [("jit", 1, 1), ("jit", 2, 2), ("pmap", 2, 1), ("pmap", 2, 2)])
def test_constants_are_read_and_neither_changed_donated_averaged_nor_saved(monkeypatch, parallel, devices, k):
    monkeypatch.setitem(MODELS, "shifted", Shifted)
    options = {"train__parallel": parallel, "train__steps_per_call": k, "train__ema": 0.9}
    setup = make_setup(devices, model__name="shifted", **options)
    whole = sharding.replicated(setup.mesh)
    found = {}
    for shift in (0.0, 3.0):
        state = jax.jit(setup.init, out_shardings=whole)(run_key(0))
        state = state._replace(model_state={}, ema={"params": state.ema["params"]})
        constants = sharding.place({"teacher": {"shift": shift * jnp.arange(10.0)}}, whole)
        step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
        batch = batches_of(setup, 1)[0]
        batch = batch if k == 1 else stack([batch] * k, k, setup.dataset.pad)
        for _ in range(2):
            state, metrics = step(state, constants, batch, run_key(0), *((k,) if k > 1 else ()))
        assert not constants["teacher"]["shift"].is_deleted()
        assert_same_bits(constants["teacher"]["shift"], shift * jnp.arange(10.0))
        assert state.model_state == {} and set(state.ema) == {"params"}
        found[shift] = jax.device_get(state.params)
        logits = setup.model.apply(eval_variables(state, constants), jnp.zeros((1, 8, 8, 1)))
        assert float(logits[0, 9] - logits[0, 0]) > 20 * (shift > 0) - 1
    assert not np.array_equal(found[0.0]["head"]["bias"], found[3.0]["head"]["bias"])


def test_settings_may_be_plain_mappings_of_traced_numbers():
    """So that runs that differ in numbers are one program: ConfigDict refuses tracers."""
    setup = make_setup(train__ema=0.5, optimizer__name="adamw")
    state, batch = jax.jit(setup.init)(run_key(0)), batches_of(setup, 1)[0]
    arguments = configs.arguments("optimizer", setup.config)

    def after(rate, ema):
        settings = setup.config.to_dict()
        settings["optimizer"]["learning_rate"], settings["train"]["ema"] = rate, ema
        optimizer = make_optimizer(settings["optimizer"], arguments, setup.times)
        update = make_update(setup.model, setup.task, optimizer, settings, axis=None)
        return update(state, {}, batch, run_key(0))[0].ema

    many = jax.jit(jax.vmap(after))(jnp.asarray([0.1, 0.01]), jnp.asarray([0.9, 0.5]))
    for i, (rate, ema) in enumerate([(0.1, 0.9), (0.01, 0.5)]):
        assert_same_numbers(jax.tree.map(lambda x: x[i], many), jax.jit(after)(rate, ema))


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_one_trace_and_no_transfer_unasked(parallel):
    setup = make_setup(2, train__parallel=parallel)
    traces = []

    def loss(*arguments):
        traces.append(1)
        return setup.task.loss(*arguments)

    state = jax.jit(setup.init, out_shardings=sharding.replicated(setup.mesh))(run_key(0))
    step = make_train_step(setup.model, setup.task._replace(loss=loss), setup.optimizer, setup.config, setup.mesh)
    key = sharding.place(run_key(0), sharding.replicated(setup.mesh))
    first, *rest = batches_of(setup, 4)
    state, _ = step(state, {}, first, key)
    traced = len(traces)
    with jax.transfer_guard("disallow"):
        for batch in rest:
            state, metrics = step(state, {}, batch, key)
    assert len(traces) == traced
    assert int(state.step) == 4


def test_norms_and_rate_are_what_they_say():
    setup = make_setup(optimizer__learning_rate=0.25)
    state, step = start(setup)
    before = jax.device_get(state.params)
    state, metrics = step(state, {}, batches_of(setup, 1)[0], run_key(0))
    norm = lambda tree: np.sqrt(sum(np.square(np.asarray(x)).sum() for x in jax.tree.leaves(tree)))
    update = jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, before)
    assert float(metrics["learning_rate"][0]) == 0.25
    assert float(metrics["parameter_norm"][0]) == pytest.approx(norm(before), rel=1e-6)
    assert float(metrics["update_norm"][0]) == pytest.approx(norm(update), rel=1e-5)
    assert float(metrics["gradient_norm"][0]) == pytest.approx(norm(update) / 0.25, rel=1e-5)
