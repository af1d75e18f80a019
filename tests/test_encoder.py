"""The encoder: what reaches what, padding, heads, BERT's counts, stacked layers; BERT's numbers are in test_bert.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_numbers

from research.errors import UserError
from research.models import attention, encoder, transformer
from research.models.encoder import HEADS, Encoder
from research.optimizers import is_decayed, unstacked
from research.randomness import run_key
from research.tasks.task import check_head

RNG = np.random.default_rng(0)
SMALL = {"layers": 2, "heads": 2, "width": 8, "context": 10, "vocabulary": 11, "classes": 3}
MODERN = {"norm_first": True, "positions": "rotary", "norm": "rms", "activation": "swiglu"}
FORMS = {"bert": {}, "modern": MODERN}


def tokens(B=2, T=10, V=11):
    return jnp.asarray(RNG.integers(0, V, (B, T)), jnp.int32)


def made(**fields):
    """A small encoder and its parameters, none of them where it begins."""
    model = Encoder(**{**SMALL, **fields})
    params = jax.jit(model.init)(run_key(0), tokens())["params"]
    return model, jax.tree.map(lambda x: x + 0.3 * jnp.asarray(RNG.normal(size=x.shape), x.dtype), params)


@pytest.fixture(params=FORMS, scope="module")
def form(request):
    return made(head="pretraining", **FORMS[request.param])


def test_every_token_reaches_every_other_and_none_that_is_padding_does(form):
    model, params = form
    told = jax.jit(lambda x, mask: model.apply({"params": params}, x, mask)["masked"])
    x, mask = tokens(1), jnp.asarray([[1] * 8 + [0] * 2])
    before = told(x, mask)
    for t in range(10):
        after = told(x.at[0, t].set((x[0, t] + 1) % 11), mask)
        assert np.all(np.any(before != after, axis=-1)[0, :8]) if t < 8 else np.array_equal(before[0, :8], after[0, :8])


def test_padding_changes_nothing(form):
    model, params = form
    x, mask = tokens(2, 7), jnp.ones((2, 7), jnp.int32)
    told = jax.jit(lambda *given: model.apply({"params": params}, *given))
    padded = told(jnp.pad(x, ((0, 0), (0, 3))), jnp.pad(mask, ((0, 0), (0, 3))))
    alone = told(x)
    assert_same_numbers((padded["masked"][:, :7], padded["next"]), (alone["masked"], alone["next"]))
    assert_same_numbers(told(x, mask), alone)


def test_places_that_are_told_equal_telling_all_and_choosing_them(form):
    model, params = form
    x, places = tokens(), jnp.asarray([[3, 0, 9], [5, 5, 1]])
    score = lambda params, places, pick: jnp.sin(pick(model.apply({"params": params}, x, places=places)["masked"]))
    choose = lambda y: jnp.take_along_axis(y, places[..., None], axis=1)
    some = jax.jit(jax.value_and_grad(lambda params: score(params, places, lambda y: y).sum()))(params)
    whole = jax.jit(jax.value_and_grad(lambda params: score(params, None, choose).sum()))(params)
    assert_same_numbers(some, whole)


def test_parts_and_places_matter_and_by_default_are_the_first_part_and_the_place_in_the_row():
    model, params = made(head="none")
    x, told = tokens(), lambda **own: model.apply({"params": params}, x, **own)
    zeros = jnp.zeros_like(x)
    assert_same_bits(told(), told(types=zeros, positions=jnp.arange(10)[None]))
    assert not np.allclose(told(), told(types=zeros.at[:, 5:].set(1)))
    assert not np.allclose(told(), told(positions=jnp.arange(10)[None, ::-1]))


def test_the_norm_is_before_or_behind():
    """So that at the start what is read of an encoder has mean 0 and variance 1 in either form."""
    for norm_first in (False, True):
        model = Encoder(**{**SMALL, "width": 64}, norm_first=norm_first, head="none")
        states, variables = jax.jit(lambda: model.init_with_output(jax.random.key(0), tokens()))()
        assert np.abs(states.mean(axis=-1)).max() < 1e-5 and np.abs(states.var(axis=-1) - 1).max() < 1e-4
        assert ("last_norm_scale" in variables["params"]) == norm_first


def test_a_rotary_encoder_sees_distances_alone():
    model, params = made(head="none", **MODERN)
    x, places = tokens(), jnp.arange(10)[None]
    moved = model.apply({"params": params}, x, positions=places + 17)
    assert_same_numbers(moved, model.apply({"params": params}, x), 1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_tells_what_it_says_and_reads_every_parameter(head):
    parts = ("a:label:3", "b:tags:3", "c:span:2") if head == "several" else ()
    model, params = made(head=head, layers=1, dropout=0.0, parts=parts)
    x, types = tokens(), jnp.asarray([[0] * 5 + [1] * 5] * 2)
    shapes = {"masked": (2, 10, 11), "next": (2, 2), "label": (2, 3), "tags": (2, 10, 3), "span": (2, 10, 2),
              "states": (2, 10, 8), "pooled": (2, 8), "a": (2, 3), "b": (2, 10, 3), "c": (2, 10, 2)}  # fmt: skip
    found, told = (
        jax.eval_shape(lambda: model.apply({"params": params}, x, types=types)),
        HEADS[head] or ("a", "b", "c"),
    )
    found = found if len(told) > 1 else {told[0]: found}
    assert {name: y.shape for name, y in found.items()} == {name: shapes[name] for name in told}
    score = lambda params: sum(
        jnp.sin(y).sum() for y in jax.tree.leaves(model.apply({"params": params}, x, types=types, train=True))
    )
    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(score))(params)):
        assert np.abs(gradient).max() > 1e-4, jax.tree_util.keystr(path)


@pytest.mark.parametrize("fields, other", [({}, (False, True)), ({**MODERN, "head": "label"}, (True, False))])
def test_stacked_layers_and_rematerialised_ones_train_with_the_same_numbers(fields, other):
    x, mask = tokens(), jnp.asarray([[1] * 10, [1] * 6 + [0] * 4])

    def trained(scan, remat):
        model = Encoder(**{**SMALL, "dropout": 0.2, **fields}, scan=scan, remat=remat)
        params = jax.jit(model.init)(run_key(0), x)["params"]
        own = {"train": True, "rngs": {"dropout": jax.random.key(1)}}
        score = lambda params: jnp.square(model.apply({"params": params}, x, mask, **own)).mean()
        loss, gradient = jax.jit(jax.value_and_grad(score))(params)
        return loss, unstacked(gradient)

    assert_same_numbers(trained(*other), trained(False, False))


def test_dropout_is_drawn_by_a_key_of_its_own_wherever_it_is(monkeypatch):
    model, params = made(head="label", dropout=0.5)
    run = lambda key: model.apply({"params": params}, tokens(), train=True, rngs={"dropout": jax.random.key(key)})
    keys = []
    for module in (attention, encoder, transformer):
        monkeypatch.setattr(module, "drop", lambda key, x, rate: keys.append(jax.random.key_data(key).tobytes()) or x)
    run(0)
    assert len(keys) == len(set(keys)) == 2 + 2 * 3  # embedding, what is classified; weights and both halves of a layer


@pytest.mark.parametrize(
    "layers,heads,width,head,expected",
    [
        (12, 12, 768, "pooled", 109_482_240),
        (12, 12, 768, "pretraining", 110_106_428),
        (24, 16, 1024, "pooled", 335_141_888),
    ],
)
def test_parameter_count_is_berts(layers, heads, width, head, expected):
    model = Encoder(layers=layers, heads=heads, width=width, head=head, vocabulary=30_522)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


def test_what_is_decayed_are_the_kernels():
    params = jax.eval_shape(lambda: Encoder(**SMALL, head="pretraining").init(jax.random.key(0), tokens()))["params"]
    decayed = {name for name, value in is_decayed(params).items() if value is True}
    assert decayed == {"pooler_kernel", "transform_kernel", "next_kernel"}


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"heads": 3}, "config.model.heads: 3 does not divide config.model.width 8; it may be one of 1, 2, 4, 8"),
        ({"context": 9}, "config.model.context: 9 positions; 10 tokens are read"),
        ({"head": "tokens"}, "config.model.head: 'tokens' is unknown; known are label, masked, next, none, pooled"),
        ({"head": "tags", "classes": None}, "config.model.head: tags wants config.model.classes; the data have none"),
        ({"positions": "rotary", "heads": 8}, "8 heads of width 1: rotary wants an even one"),
        ({"norm": "batch"}, "config.model.norm: 'batch' is unknown; known are layer, rms"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(lambda: Encoder(**{**SMALL, **fields}).init(jax.random.key(0), tokens()))
    assert error.value.code == 2


def test_what_sees_the_tokens_to_come_is_not_asked_for_them():
    with pytest.raises(UserError, match="config.model.head: masked; config.task.name next_token wants tokens"):
        check_head(Encoder(**SMALL), "tokens", "next_token")
