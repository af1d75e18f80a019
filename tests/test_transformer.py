"""The decoder and its layers: attention beside its formula, causality, packing, stacked layers, GPT-2's own numbers."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED, assert_same_bits, assert_same_numbers
from flax import linen as nn

from research.errors import UserError
from research.models import attention, decoder, transformer
from research.models.attention import QUERIES, attend
from research.models.decoder import Decoder
from research.models.encoder import Encoder
from research.models.layers import product
from research.models.transformer import gelu, gelu_tanh, layer_norm, rms_norm, rotary, sinusoidal
from research.optimizers import OPTIMIZERS, is_decayed, make_optimizer, stacked_like, unstacked
from research.randomness import run_key

RNG = np.random.default_rng(0)
SMALL = {"layers": 3, "heads": 4, "width": 16, "context": 12, "vocabulary": 11}
MODERN = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False, "kv_heads": 2, "tied": False}


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def tokens(B=2, T=12, V=11):
    return jnp.asarray(RNG.integers(0, V, (B, T)), jnp.int32)


def plain_attention(q, k, v, visible, kept=None):
    """By the formula, head by head."""
    kept = jnp.ones((1, q.shape[1], 1, 1)) if kept is None else kept
    heads = []
    for h in range(q.shape[1]):
        g = h // (q.shape[1] // k.shape[1])
        scores = jnp.einsum("btk,bsk->bts", q[:, h], k[:, g]) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf))
        heads.append(jnp.einsum("bts,bsk->btk", weights * (kept[:, h]), v[:, g]))
    return jnp.stack(heads, axis=1)


@pytest.mark.parametrize("T", [6, 2 * QUERIES])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("hidden", ["none", "padding", "segments"])
def test_attention_and_its_gradients_are_those_of_the_formula(T, causal, heads, hidden):
    with jax.enable_x64(True):
        q, k, v, weight = normal(2, 4, T, 4), normal(2, heads, T, 4), normal(2, heads, T, 4), normal(2, 4, T, 4)
        mask = segments = None
        visible = jnp.tril(jnp.ones((1, T, T), bool)) if causal else jnp.ones((1, T, T), bool)
        if hidden == "padding":
            mask = jnp.asarray(np.arange(T)[None] < np.array([[T], [T - 2]]))
            visible = visible & mask[:, None]
        if hidden == "segments":
            segments = jnp.asarray(np.arange(T)[None] // np.array([[T // 3], [T // 2]]))
            visible = visible & (segments[:, :, None] == segments[:, None, :])
        ours = partial(attend, causal=causal, mask=mask, segments=segments)
        theirs = partial(plain_attention, visible=visible)
        score = lambda f: jax.jit(jax.value_and_grad(lambda *x: (f(*x) * weight).sum(), (0, 1, 2)))
        both = [score(f)(q, k, v) for f in (ours, theirs)]
        assert_same_numbers(*both, 1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("hidden", ["none", "padding", "segments"])
def test_the_kernels_of_other_devices_are_asked_for_the_same(causal, hidden, monkeypatch):
    q, k, v = (jnp.asarray(RNG.normal(size=(2, heads, 6, 4)), jnp.float32) for heads in (4, 2, 2))
    own = {"causal": causal}
    if hidden == "padding":
        own["mask"] = jnp.asarray([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    if hidden == "segments":
        own["segments"] = jnp.asarray([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 2]])
    expected, asked = attend(q, k, v, **own), []
    kernel = jax.nn.dot_product_attention
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *x, **own: asked.append(own) or kernel(*x, **own))
    assert_same_numbers(attend(q, k, v, **own), expected)
    assert asked[0]["is_causal"] == causal and asked[0]["implementation"] is None


def test_dropout_of_attention_is_of_the_weights_and_has_the_formulas_gradient():
    with jax.enable_x64(True):
        q, k, v, weight = (normal(2, 2, 6, 4) for _ in range(4))
        own = {"causal": True, "dropout": 0.5, "key": jax.random.key(3)}
        ones = jnp.broadcast_to(jnp.eye(6), (2, 2, 6, 6))  # with these values the outputs are the weights
        kept = (attend(q, k, ones, **own) / attend(q, k, ones, causal=True)).at[..., 0].get()
        assert set(np.unique(np.round(kept, 6))) == {0.0, 2.0}
        kept = jnp.nan_to_num(attend(q, k, ones, **own) / attend(q, k, ones, causal=True))
        theirs = partial(plain_attention, visible=jnp.tril(jnp.ones((1, 6, 6), bool)), kept=kept)
        score = lambda f: jax.value_and_grad(lambda *x: (f(*x) * weight).sum(), (0, 1, 2))(q, k, v)
        assert_same_numbers(score(partial(attend, **own)), score(theirs), 1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_that_sees_nothing_has_no_gradient_and_the_others_keep_theirs(causal):
    mask = jnp.array([[0, 0, 0], [0, 1, 1]])  # nothing is seen by the first text, and if causal by a first query
    q, k, v, weight = (normal(2, 1, 3, 2) for _ in range(4))
    sees = jnp.array([[0, 0, 0], [not causal, 1, 1]])[:, None, :, None]
    score = lambda weight: lambda *x: (attend(*x, causal=causal, mask=mask) * weight).sum()
    value, gradient = jax.value_and_grad(score(weight), (0, 1, 2))(q, k, v)
    assert np.isfinite(value)
    assert_same_numbers(gradient, jax.grad(score(weight * sees), (0, 1, 2))(q, k, v))
    assert not np.any(gradient[0] * (1 - sees)) and all(not np.any(x[0]) and np.any(x[1]) for x in gradient)


SELF = "plain causal padding_mask causal_and_padding grouped_heads grouped_heads_causal multi_query"


@pytest.mark.parametrize("case", [*SELF.split(), "cross", "causal_rectangular"])
def test_attention_is_pytorchs(case):
    file = SHARED / "fixtures" / "torch" / "attention.npz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    found = {name.split(".")[-1]: value for name, value in np.load(file).items() if name.startswith(f"sdpa.{case}.")}
    mask = found.get("mask")
    mask = None if mask is None else mask[:, 0, -1]  # [B, S]: the last query sees all that is no padding
    y = attend(found["q"], found["k"], found["v"], causal="causal" in case, mask=mask)
    wrong = np.abs(y - found["output"])
    if case == "causal_and_padding":  # there what is padding looks at itself
        wrong = wrong[:, :, mask.all(axis=0)]
    assert np.max(wrong) < 1e-5


@pytest.mark.parametrize("ours,approximate", [(gelu, False), (gelu_tanh, True)])
def test_gelu_and_its_derivative(ours, approximate):
    with jax.enable_x64(True):
        x = jnp.linspace(-6, 6, 101)
        theirs = partial(jax.nn.gelu, approximate=approximate)
        assert_same_numbers(ours(x), theirs(x), 1e-12)
        derivative = lambda f: jax.grad(lambda x: (f(x) * jnp.sin(x)).sum())(x)
        assert_same_numbers(derivative(ours), derivative(theirs), 1e-12)


@pytest.mark.parametrize("ours,module", [(layer_norm, nn.LayerNorm), (rms_norm, nn.RMSNorm)])
def test_norms_and_their_gradients_are_linens(ours, module):
    with jax.enable_x64(True):
        x, scale, weight = normal(2, 5, 8) + 3, normal(8), normal(2, 5, 8)
        theirs = module(epsilon=1e-5, param_dtype=jnp.float64)
        score = lambda f: jax.value_and_grad(lambda x, s: (f(x, s) * weight).sum(), (0, 1))(x, scale)
        variables = theirs.init(jax.random.key(0), x)["params"]
        expected = score(lambda x, s: theirs.apply({"params": {**variables, "scale": s}}, x))
        assert_same_numbers(score(ours), expected, 1e-12)
        assert_same_numbers(ours(x, scale, scale), ours(x, scale) + scale.reshape(1, 1, -1), 1e-12)


def test_a_rotary_score_depends_on_the_distance_alone():
    q, k = jnp.asarray(np.random.default_rng(1).normal(size=(2, 1, 1, 1, 8)))  # by any, the two may be nearly equal
    at = lambda x, position: rotary(x, jnp.full((1, 1), position))
    score = lambda t, s: float((at(q, t) * at(k, s)).sum())
    assert score(7, 3) == pytest.approx(score(24, 20), rel=1e-5) != pytest.approx(score(7, 4), rel=1e-3)
    assert_same_bits(at(q, 0), q)


def test_sinusoidal_positions_are_the_papers():
    found = np.asarray(sinusoidal(jnp.arange(5), 6))
    for position in range(5):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert found[position, [i, 3 + i]] == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 6), (2, 4, 5)])
def test_a_product_of_bfloat16_is_the_float32_product_of_rounded_factors_and_so_is_its_gradient(shape):
    x, kernel = (
        jnp.asarray(RNG.normal(size=shape), jnp.float32),
        jnp.asarray(RNG.normal(size=(shape[-1], 3)), jnp.float32),
    )
    weight = jnp.asarray(RNG.normal(size=(*shape[:-1], 3)), jnp.float32)
    rounded = lambda x: np.asarray(x.astype(jnp.bfloat16), np.float64)
    score = lambda x, kernel: (product(x, kernel, None, "bfloat16") * weight).sum()
    y, (dx, dkernel) = product(x, kernel, None, "bfloat16"), jax.jit(jax.grad(score, (0, 1)))(x, kernel)
    assert y.dtype == dx.dtype == dkernel.dtype == jnp.float32
    assert_same_numbers(y, rounded(x) @ rounded(kernel))
    assert_same_numbers(dx, rounded(weight) @ rounded(kernel).T)
    flat = lambda x: rounded(x).reshape(-1, x.shape[-1])
    assert_same_numbers(dkernel, flat(x).T @ flat(weight))


def test_a_product_and_its_gradient_are_plain():
    with jax.enable_x64(True):
        x, kernel, bias, weight = normal(2, 3, 4), normal(4, 5), normal(5), normal(2, 3, 5)
        plain = lambda x, kernel, bias: x @ kernel + bias.reshape(1, 1, -1)
        score = lambda f: jax.value_and_grad(lambda *x: (f(*x) * weight).sum(), (0, 1, 2))(x, kernel, bias)
        assert_same_numbers(score(product), score(plain), 1e-12)


FORMS = {"gpt2": {}, "modern": MODERN, "sinusoidal": {"positions": "sinusoidal", "activation": "gelu", "scan": True}}


@pytest.fixture(params=FORMS, scope="module")
def form(request):
    """A small decoder and its parameters, biases and scales not where they begin."""
    model = Decoder(**SMALL, **FORMS[request.param])
    params = jax.jit(model.init)(run_key(0), tokens())["params"]
    return model, jax.tree.map(lambda x: x + 0.1 * jnp.asarray(RNG.normal(size=x.shape), x.dtype), params)


def test_the_future_does_not_reach_the_past_and_the_past_reaches_the_future(form):
    model, params = form
    logits = jax.jit(lambda x: model.apply({"params": params}, x))
    x = tokens(1)
    before = np.asarray(logits(x))
    for t in range(12):
        after = np.asarray(logits(x.at[0, t].set((x[0, t] + 1) % 11)))
        assert np.array_equal(before[0, :t], after[0, :t])
        assert np.all(np.any(before[0, t:] != after[0, t:], axis=-1))


def test_packed_documents_are_read_as_if_each_were_alone(form):
    model, params = form
    logits = jax.jit(lambda x, **own: model.apply({"params": params}, x, **own))
    first, second = tokens(1, 5), tokens(1, 7)
    segments = jnp.asarray([[0] * 5 + [1] * 7])
    positions = jnp.asarray([[*range(5), *range(7)]])
    packed = logits(jnp.concatenate([first, second], axis=1), positions=positions, segments=segments)
    assert_same_numbers(packed, jnp.concatenate([logits(first), logits(second)], axis=1))


def test_padding_at_the_end_changes_nothing(form):
    model, params = form
    x = tokens(1, 7)
    padded, logits = jnp.pad(x, ((0, 0), (0, 5))), jax.jit(lambda x: model.apply({"params": params}, x))
    assert_same_numbers(logits(padded)[:, :7], logits(x))


def gradients(model, params, x, **own):
    score = lambda params: jnp.square(model.apply({"params": params}, x, train=True, **own)).mean()
    return jax.jit(jax.value_and_grad(score))(params)


@pytest.mark.parametrize("fields, other", [({}, (True, True)), (MODERN, (False, True))])
def test_stacked_layers_and_rematerialised_ones_begin_and_train_with_the_same_numbers(fields, other):
    """Blocks that are computed twice and not stacked are tests/test_encoder.py's."""
    x, rngs = tokens(), {"dropout": jax.random.key(1)}
    forms = {
        (remat, scan): Decoder(**{**SMALL, "layers": 2}, **fields, dropout=0.2, remat=remat, scan=scan)
        for remat, scan in ((False, False), other)
    }
    params = {form: jax.jit(model.init)(run_key(0), x)["params"] for form, model in forms.items()}
    assert_same_numbers(unstacked(params[other]), params[False, False])
    assert "blocks" in params[other] and "blocks" not in params[False, False]
    loss, gradient = gradients(forms[other], params[other], x, rngs=rngs)
    assert_same_numbers((loss, unstacked(gradient)), gradients(forms[False, False], params[False, False], x, rngs=rngs))
    assert_same_bits(stacked_like(unstacked(params[other]), params[other]), params[other])


def test_rematerialised_blocks_are_computed_again():
    x = tokens()
    count = lambda remat: str(
        jax.make_jaxpr(jax.grad(lambda p: Decoder(**SMALL, remat=remat).apply({"params": p}, x, train=True).sum()))(
            jax.jit(Decoder(**SMALL).init)(run_key(0), x)["params"]
        )
    ).count(" tanh ")
    assert (count(False), count(True)) == (3, 6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_stacked_layers_as_it_moves_them_alone(name):
    rules = ("block1/.*_kernel=frozen", "block0/mlp=0.5")
    small = {**SMALL, "layers": 2}
    whole = jax.jit(Decoder(**small).init)(run_key(0), tokens())["params"]
    gradient = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), x.dtype), whole)
    like = jax.eval_shape(lambda: Decoder(**small, scan=True).init(jax.random.key(0), tokens()))["params"]
    settings = {
        "name": name,
        "learning_rate": 0.1,
        "schedule": "constant",
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "decayed": ("kernel",),
        "rules": rules,
    }
    optimizer = make_optimizer(settings, {}, {"train": 10, "warmup": 0})

    def moved(params, gradient):
        opt_state = optimizer.init(params)
        for _ in range(2):
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return params

    stacked = jax.jit(moved)(stacked_like(whole, like), stacked_like(gradient, like))
    alone = jax.jit(moved)(whole, gradient)
    assert_same_numbers(unstacked(stacked), alone)
    assert np.array_equal(alone["block1"]["qkv_kernel"], whole["block1"]["qkv_kernel"])
    assert not np.array_equal(alone["block0"]["qkv_kernel"], whole["block0"]["qkv_kernel"])


def test_what_is_decayed_of_stacked_layers_is_what_is_of_single_ones():
    params = jax.eval_shape(lambda: Decoder(**SMALL, scan=True).init(jax.random.key(0), tokens()))["params"]
    decayed = {name for name, value in is_decayed(params)["blocks"].items() if value}
    assert decayed == {"qkv_kernel", "attention_out_kernel", "mlp_in_kernel", "mlp_out_kernel"}


@pytest.mark.parametrize(
    "layers,heads,width,expected",
    [
        (12, 12, 768, 124_439_808),
        (24, 16, 1024, 354_823_168),
        (36, 20, 1280, 774_030_080),
        (48, 25, 1600, 1_557_611_200),
    ],
)
@pytest.mark.parametrize("scan", [False, True])
def test_parameter_count_is_gpt2s(layers, heads, width, expected, scan):
    model = Decoder(layers=layers, heads=heads, width=width, vocabulary=50_257, scan=scan)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


def test_projections_into_the_residual_begin_smaller():
    model = Decoder(layers=8, heads=2, width=64, vocabulary=300, context=64, scan=True)
    params = unstacked(jax.jit(model.init)(run_key(0), tokens())["params"])
    std = {name: float(value.std()) for name, value in params["block3"].items() if name.endswith("kernel")}
    small = 0.02 / 16**0.5
    expected = {"qkv_kernel": 0.02, "attention_out_kernel": small, "mlp_in_kernel": 0.02, "mlp_out_kernel": small}
    assert std == pytest.approx(expected, rel=0.05)
    assert float(params["embedding"].std()) == pytest.approx(0.02, rel=0.05)
    assert not np.array_equal(params["block3"]["qkv_kernel"], params["block4"]["qkv_kernel"])


def test_the_logits_are_the_features_times_the_head(form):
    model, params = form
    x = tokens()
    y, kernel, bias = model.apply({"params": params}, x, method="features")
    assert bias is None
    assert_same_numbers(y @ kernel, model.apply({"params": params}, x))


def test_dropout_is_drawn_for_each_layer_by_itself(monkeypatch):
    model = Decoder(**{**SMALL, "layers": 2}, dropout=0.5)
    x = tokens()
    params = jax.jit(model.init)(run_key(0), x)["params"]
    run = lambda key: model.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(key)})
    assert_same_bits(run(0), run(0))
    assert not np.array_equal(run(0), run(1))
    keys = []
    for module in (attention, decoder, transformer):
        monkeypatch.setattr(module, "drop", lambda key, x, rate: keys.append(jax.random.key_data(key).tobytes()) or x)
    run(0)
    assert len(keys) == len(set(keys)) == 1 + 2 * 3  # the embedding; weights and both halves of each layer


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"heads": 3}, "config.model.heads: 3 does not divide config.model.width 16; it may be one of 1, 2, 4, 8, 16"),
        ({"kv_heads": 3}, "config.model.kv_heads: 3 does not divide config.model.heads 4; it may be one of 1, 2, 4"),
        ({"kv_heads": 0}, "config.model.kv_heads: 0 does not divide"),
        ({"heads": 16, "positions": "rotary"}, "config.model.heads: 16 heads of width 1: rotary wants an even one"),
        ({"context": 11}, "config.model.context: 11 positions; 12 tokens are read"),
        ({"positions": "rotatory"}, "config.model.positions: 'rotatory' is unknown.*did you mean rotary"),
        ({"norm": "batch"}, "config.model.norm: 'batch' is unknown; known are layer, rms"),
        ({"activation": "relu"}, "config.model.activation: 'relu' is unknown; known are gelu, gelu_tanh, swiglu"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(lambda: Decoder(**{**SMALL, **fields}).init(jax.random.key(0), tokens()))
    assert error.value.code == 2


@pytest.mark.parametrize("model", [Decoder, Encoder])
def test_positions_beyond_the_table_are_refused_and_not_clamped(model):
    short, x = model(**{**SMALL, "context": 8}), tokens()
    given = {"positions": jnp.tile(jnp.arange(6), 2)[None]}  # two packed documents of 6 tokens
    wrong = {"positions": jnp.arange(12)[None]}
    apply = lambda fields, **own: jax.eval_shape(
        lambda: short.clone(**fields).init(jax.random.key(0), x, **own)  # constants are known while they are traced
    )
    apply({}, **given)
    for fields in ({"positions": "rotary"}, {"positions": "sinusoidal"}, {"positions": "none"}):
        apply(fields, **wrong)
    with pytest.raises(UserError, match="config.model.context: 8 positions; 12 tokens are read; set it to 12 or more"):
        apply({}, **wrong)
    with pytest.raises(UserError, match="config.model.context: 8 positions; 12 tokens are read"):
        jax.eval_shape(lambda given: short.init(jax.random.key(0), x, positions=given), given["positions"])


def gpt2_parameters(folder):
    """A checkpoint of Hugging Face's GPT-2 in this decoder's names."""
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    weights = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            start, stop = (8 + size + at for at in entry["data_offsets"])
            weights[name.removeprefix("transformer.")] = np.frombuffer(data[start:stop], "<f4").reshape(entry["shape"])
    names = {"ln_1.weight": "attention_norm_scale", "ln_1.bias": "attention_norm_bias",
             "attn.c_attn.weight": "qkv_kernel", "attn.c_attn.bias": "qkv_bias",
             "attn.c_proj.weight": "attention_out_kernel",
             "attn.c_proj.bias": "attention_out_bias", "ln_2.weight": "mlp_norm_scale", "ln_2.bias": "mlp_norm_bias",
             "mlp.c_fc.weight": "mlp_in_kernel", "mlp.c_fc.bias": "mlp_in_bias", "mlp.c_proj.weight": "mlp_out_kernel",
             "mlp.c_proj.bias": "mlp_out_bias"}  # fmt: skip
    blocks = {f"block{i}": {ours: weights[f"h.{i}.{name}"] for name, ours in names.items()} for i in range(2)}
    return {**blocks, "embedding": weights["wte.weight"], "position_embedding": weights["wpe.weight"],
            "norm_scale": weights["ln_f.weight"], "norm_bias": weights["ln_f.bias"]}  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_logits_are_gpt2s(side):
    folder = SHARED / "fixtures" / "hf" / "gpt2-tiny"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    expected = {
        name.split(".", 1)[-1]: value for name, value in np.load(folder / "expected.npz").items() if side in name
    }
    model = Decoder(layers=2, heads=4, width=64, context=64, vocabulary=600)
    ids, mask = expected["input_ids"], expected["attention_mask"]
    logits = model.apply(
        {"params": gpt2_parameters(folder)}, ids, positions=expected["position_ids"], segments=jnp.asarray(mask)
    )
    assert np.max(np.abs(np.asarray(logits) - expected["logits"])[mask == 1]) < 1e-4
