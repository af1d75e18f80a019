"""Models: counts of the papers, own convolutions equal to XLA's, statistics over what the mask shows."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits, assert_same_numbers
from jax import lax

from research.errors import UserError
from research.models import MODELS
from research.models.cnn import CNN
from research.models.convolution import convolve, max_pool
from research.models.layers import ONE_HOT_LIMIT, Dropout, batch_statistics, embed
from research.models.resnet import ResNet
from research.models.vgg import VGG
from research.optimizers import path_of, roles

RNG = np.random.default_rng(0)


def count(model, shape):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


MNIST = ("conv32", "pool2", "conv64", "pool2", "conv64", "dense64")
CIFAR = ("conv32", "pool2", "conv64", "pool2", "dense64")


@pytest.mark.parametrize(
    "model,shape,expected",
    [
        (CNN(MNIST, classes=10), (28, 28, 1), 320 + 18496 + 36928 + 36928 + 650),
        (CNN(CIFAR, classes=10), (32, 32, 3), 896 + 18496 + 147520 + 650),
        (VGG(11, norm="none", dense=(4096, 4096), classes=1000), (224, 224, 3), 132_863_336),
        (VGG(16, norm="none", dense=(4096, 4096), classes=1000), (224, 224, 3), 138_357_544),
        (VGG(19, norm="none", dense=(4096, 4096), classes=1000), (224, 224, 3), 143_667_240),
        (VGG(16, classes=10), (32, 32, 3), 14_728_266),
        (ResNet(18, stem="large", classes=1000), (224, 224, 3), 11_689_512),
        (ResNet(34, stem="large", classes=1000), (224, 224, 3), 21_797_672),
        (ResNet(50, stem="large", classes=1000), (224, 224, 3), 25_557_032),
        (ResNet(18, classes=10), (32, 32, 3), 11_173_962),
        (ResNet(18, norm="group", classes=10), (32, 32, 3), 11_173_962),
    ],
)
def test_parameter_count_is_the_papers(model, shape, expected):
    assert count(model, shape) == expected


ZEROS, ONES = jnp.zeros((1, 4), int), jnp.ones((1, 4))
PAIR = {"source": ZEROS, "source_mask": ONES, "before": ZEROS, "mask": ONES}
TOKENS, IMAGE = {"tokens": ZEROS, "mask": ONES}, {"image": jnp.zeros((1, 32, 32, 3))}
OF_ROLE = {  # model: its fields, its inputs, and the parameters of each role
    "cnn": ({"classes": 2, "layers": ("conv2", "dense3")}, IMAGE,
            {"kernel": "Conv_0/kernel Dense_0/kernel head/kernel", "bias": "Conv_0/bias Dense_0/bias head/bias"}),
    "decoder": (
        {"vocabulary": 9, "layers": 1, "heads": 2, "width": 4, "context": 4, "tied": False}, TOKENS,
        {"kernel": "block0/attention_out_kernel block0/mlp_in_kernel block0/mlp_out_kernel block0/qkv_kernel "
                   "head_kernel",
         "embedding": "embedding position_embedding",
         "scale": "block0/attention_norm_scale block0/mlp_norm_scale norm_scale",
         "bias": "block0/attention_norm_bias block0/attention_out_bias block0/mlp_in_bias block0/mlp_norm_bias "
                 "block0/mlp_out_bias block0/qkv_bias norm_bias"}),
    "encoder": (
        {"vocabulary": 9, "layers": 1, "heads": 2, "width": 4, "context": 4, "head": "pretraining"}, TOKENS,
        {"kernel": "block0/attention_out_kernel block0/mlp_in_kernel block0/mlp_out_kernel block0/qkv_kernel "
                   "next_kernel pooler_kernel transform_kernel",
         "embedding": "embedding position_embedding type_embedding",
         "scale": "block0/attention_norm_scale block0/mlp_norm_scale embedding_norm_scale transform_norm_scale",
         "bias": "block0/attention_norm_bias block0/attention_out_bias block0/mlp_in_bias block0/mlp_norm_bias "
                 "block0/mlp_out_bias block0/qkv_bias embedding_norm_bias masked_bias next_bias pooler_bias "
                 "transform_bias transform_norm_bias"}),
    "glove": ({"vocabulary": 9}, {"row": jnp.zeros(1, int), "column": jnp.zeros(1, int)},
              {"embedding": "input_embedding output_embedding", "bias": "input_bias output_bias"}),
    "mlp": ({"classes": 2, "widths": (3,)}, IMAGE,
            {"kernel": "Dense_0/kernel head/kernel", "bias": "Dense_0/bias head/bias"}),
    "normed": ({"classes": 2}, IMAGE,
               {"kernel": "Conv_0/kernel head/kernel", "scale": "Norm_0/scale", "bias": "Norm_0/bias head/bias"}),
    "recurrent_classifier": (
        {"vocabulary": 9, "classes": 2, "bidirectional": False}, TOKENS,
        {"embedding": "embedding", "kernel": "head/kernel rnn/layer0_kernel rnn/layer0_recurrent_kernel",
         "bias": "head/bias rnn/layer0_bias"}),
    "recurrent_lm": (
        {"vocabulary": 9, "layers": 1, "cell": "gru"}, TOKENS,
        {"embedding": "embedding", "kernel": "head_kernel rnn/layer0_kernel rnn/layer0_recurrent_kernel",
         "bias": "head_bias rnn/layer0_bias rnn/layer0_recurrent_bias"}),
    "resnet": ({"classes": 2, "depth": 10, "width": 2}, IMAGE, None),
    "seq2seq": (
        {"vocabulary": 9, "layers": 1, "attention": "additive", "bidirectional": True}, PAIR,
        {"embedding": "source_embedding target_embedding",
         "kernel": "attention_key_kernel attention_output_kernel attention_query_kernel attention_score_kernel "
                   "bridge0_0_kernel decoder/layer0_kernel decoder/layer0_recurrent_kernel "
                   "encoder/layer0_backward_kernel encoder/layer0_backward_recurrent_kernel encoder/layer0_kernel "
                   "encoder/layer0_recurrent_kernel logits_kernel",
         "bias": "decoder/layer0_bias decoder/layer0_recurrent_bias encoder/layer0_backward_bias "
                 "encoder/layer0_backward_recurrent_bias encoder/layer0_bias encoder/layer0_recurrent_bias "
                 "logits_bias"}),
    "vgg": ({"classes": 2, "depth": 11, "width": 2, "dense": (3,)}, IMAGE, None),
    "word_vectors": ({"vocabulary": 9}, {"words": jnp.zeros((1, 8), int), "noise": jnp.zeros((1, 1, 4), int)},
                     {"embedding": "input_embedding output_embedding"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_role_of_every_parameter_of_every_model(name):
    fields, inputs, expected = OF_ROLE[name]
    params = jax.eval_shape(lambda: MODELS[name](**fields).init(jax.random.key(0), **inputs))["params"]
    found = {}
    for path, role in jax.tree_util.tree_leaves_with_path(roles(params)):
        found.setdefault(role, []).append(path_of(path))
    if expected is None:  # many, and all of the same three kinds of layer
        own = {role: sorted({path.split("/")[-1] for path in paths}) for role, paths in found.items()}
        assert own == {role: [role] for role in ("kernel", "scale", "bias")}
        layers = {re.sub(r"_?\d+$", "", path.split("/")[-2]) for path in found["scale"]}
        assert layers <= {"Norm", "norm", "norm_shortcut"}
    else:
        assert {role: " ".join(paths) for role, paths in found.items()} == expected
    for path, kernel in jax.tree_util.tree_leaves_with_path(params):
        assert kernel.ndim >= 2 or path_of(path) not in found.get("kernel", ())


def plain(x, kernel, stride, padding):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("channels,side", [(1, 9), (3, 8), (9, 7)])
def test_convolution_and_its_gradients_equal_xlas(padding, stride, size, channels, side):
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=(2, side, side + 1, channels)))
        kernel = jnp.asarray(RNG.normal(size=(size, size, channels, 4)))
        weights = jnp.asarray(RNG.normal(size=plain(x, kernel, stride, padding).shape))
        score = lambda f: lambda x, kernel: (f(x, kernel, stride, padding) * weights).sum()
        ours, theirs = jax.jit(  # in one program: op by op it takes seven times as long to compile
            lambda *given: [jax.value_and_grad(score(f), (0, 1))(*given) for f in (convolve, plain)]
        )(x, kernel)
        assert_same_numbers(ours, theirs, 1e-12)


@pytest.mark.parametrize("size,side", [(2, 8), (2, 7), (3, 8), (1, 4), (12, 13), (17, 17)])
def test_max_pool_and_its_gradient_equal_xlas_ties_too(size, side):
    x = jnp.asarray(RNG.integers(0, 3, (2, side, side, 3)), jnp.float32)  # many ties
    x = x.at[0, size - 1, size - 1].set(9.0)  # in the last place of a window
    window = (1, size, size, 1)
    theirs = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    weights = jnp.asarray(RNG.normal(size=theirs(x).shape), jnp.float32)
    score = lambda f: jax.value_and_grad(lambda x: (f(x) * weights).sum())(x)
    assert_same_bits(score(lambda x: max_pool(x, size)), score(theirs))


def test_a_bfloat16_convolution_rounds_its_sum_once():
    x, kernel = RNG.normal(size=(2, 9, 9, 16)), RNG.normal(size=(5, 5, 16, 4))
    x, kernel = (jnp.asarray(value, jnp.bfloat16) for value in (x, kernel))
    exact = convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, "SAME")
    assert np.mean(convolve(x, kernel, 1, "SAME") == exact.astype(jnp.bfloat16)) > 0.99  # 0.4 if rows are rounded


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_float32_whatever_the_model_computes_in(name):
    if name in ("word_vectors", "glove", "normed"):
        pytest.skip("it has no dtype")
    fields, inputs, _ = OF_ROLE[name]
    model = MODELS[name](**fields, dtype="bfloat16")
    found = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), **inputs)[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def test_max_pool_does_not_hide_a_nan():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    assert np.isnan(max_pool(x, 2)).sum() == 1


def test_pooling_before_the_activation_is_pooling_after_it():
    model = CNN(("conv4", "pool2", "conv4x2"), classes=3)
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 1)), jnp.float32)
    params = model.init(jax.random.key(0), x)["params"]
    act = jax.nn.relu
    wide = lambda b: b.reshape(1, 1, 1, -1)
    y = act(plain(x, params["Conv_0"]["kernel"], 1, "VALID") + wide(params["Conv_0"]["bias"]))
    y = max_pool(y, 2)
    y = act(plain(y, params["Conv_1"]["kernel"], 1, "VALID") + wide(params["Conv_1"]["bias"]))
    expected = y.reshape(2, -1) @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)
    assert_same_numbers(model.apply({"params": params}, x), expected)


@pytest.mark.parametrize("layers", [("conv",), ("conv0",), ("pool2x2",), ("dense-3",), ("conf32",), ("conv32 ",)])
def test_what_is_no_layer_is_refused(layers):
    with pytest.raises(UserError, match="is no layer") as error:
        count(CNN(layers, classes=2), (8, 8, 1))
    assert error.value.code == 2


@pytest.mark.parametrize("layers", [("pool9",), ("conv4x9",), ("dense4", "conv4"), ("dense4", "pool2")])
def test_a_layer_without_room_is_refused(layers):
    with pytest.raises(UserError, match="has no room: what reaches it is (8x8|flat)"):
        count(CNN(layers, classes=2), (8, 8, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "vgg", "depth": 12},
        {"name": "resnet", "depth": 17},
        {"name": "resnet", "stem": "tiny"},
        {"name": "vgg", "norm": "layer"},
        {"name": "cnn", "padding": "same"},
    ],
)
def test_an_unknown_choice_lists_the_known(fields):
    fields = dict(fields)
    model = MODELS[fields.pop("name")](classes=2, **fields)
    with pytest.raises(UserError, match="known are") as error:
        count(model, (32, 32, 3))
    assert error.value.code == 2


def test_batch_statistics_are_those_of_unmasked_examples():
    x = jnp.asarray(RNG.normal(2, 3, (6, 4, 4, 5)), jnp.float32)
    mask = jnp.asarray([1, 0, 1, 1, 0, 0], jnp.float32)
    number, mean, variance = batch_statistics(x, mask)
    real = np.asarray(x, np.float64)[[0, 2, 3]].reshape(-1, 5)
    assert number == 48
    assert_same_numbers(mean, real.mean(axis=0))
    assert_same_numbers(variance, real.var(axis=0), 3e-6)
    number, mean, variance = batch_statistics(x.at[1].set(jnp.nan), mask * 0)
    assert number == 0 and not np.any(mean) and not np.any(variance)


def test_dropout_keeps_the_mean_and_takes_a_traced_rate():
    x = jnp.ones((200, 50))
    drop = lambda rate: Dropout(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    several = jax.vmap(drop)(jnp.asarray([0.0, 0.25, 0.5]))
    assert_same_bits(several[0], x)
    for i, rate in ((1, 0.25), (2, 0.5)):
        assert_same_bits(several[i], drop(rate))
        assert float((several[i] == 0).mean()) == pytest.approx(rate, abs=0.02)
        assert float(several[i].mean()) == pytest.approx(1, abs=0.03)
    assert_same_bits(Dropout(0.5).apply({}, x, train=False), x)


@pytest.mark.parametrize("rows", [ONE_HOT_LIMIT, ONE_HOT_LIMIT + 1])
def test_embedding_and_its_gradient_are_those_of_the_rows_for_tables_of_numpy_too(rows):
    table, ids = RNG.normal(size=(rows, 3)).astype(np.float32), np.array([[0, rows - 1], [5, 5]])
    assert_same_numbers(jax.jit(lambda ids: embed(table, ids))(ids), table[ids])
    weights = RNG.normal(size=(2, 2, 3)).astype(np.float32)
    expected = np.zeros_like(table)
    np.add.at(expected, ids, weights)
    assert_same_numbers(jax.grad(lambda table: (embed(table, ids) * weights).sum())(table), expected)


def test_an_embedding_is_looked_up_by_a_product_on_a_cpu_alone(monkeypatch):
    """Elsewhere a product rounds by default: no look-up is exact then."""
    table, ids = jnp.zeros((ONE_HOT_LIMIT, 4)), jnp.zeros(3, int)
    lookup = lambda: str(jax.make_jaxpr(lambda ids: embed(table, ids))(ids))
    assert "dot_general" in lookup() and "gather" not in lookup()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "gather" in lookup() and "dot_general" not in lookup()
