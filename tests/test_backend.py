"""Kernels are chosen by the devices of the mesh, and those of GPU and TPU can be traced and lowered without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_setup
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from research.data.batches import read
from research.models.attention import attend
from research.models.decoder import Decoder
from research.models.encoder import Encoder
from research.models.layers import product
from research.randomness import draw, run_key
from research.studies.population import make_step
from research.train_step import make_eval_step, make_train_step

LOWERED = {"gpu": "cuda", "tpu": "tpu"}
T, WIDTH = 256, 64
HIDDEN = {
    "nothing": {},
    "padding": {"mask": np.ones((2, T), np.int32)},
    "segments": {"segments": np.zeros((2, T), np.int32)},
    "both": {"mask": np.ones((2, T), np.int32), "segments": np.zeros((2, T), np.int32)},
}


@pytest.fixture(params=LOWERED)
def platform(request, monkeypatch):
    """Traces are for a GPU or TPU; JAX asks no cuDNN for its version."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)
    return request.param


def lowered(platform, function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(LOWERED[platform],)).as_text()


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_attention_and_its_gradient_lower_for_every_mask(platform, hidden, causal, dropped):
    x = jax.ShapeDtypeStruct((2, 4, T, WIDTH), jnp.float32)
    own = {"dropout": 0.1, "key": jax.random.key(0)} if dropped else {}
    score = lambda q, k, v: attend(q, k, v, causal=causal, dtype="bfloat16", **HIDDEN[hidden], **own).sum()
    text = lowered(platform, jax.grad(score, (0, 1, 2)), x, x, x)
    assert ("cudnn" in text) == (platform == "gpu" and not dropped)
    assert "bf16" in text


@pytest.mark.parametrize("kind", [Encoder, Decoder])
def test_the_gradient_of_a_bfloat16_transformer_lowers(platform, kind):
    model = kind(layers=1, heads=2, width=64, context=T, vocabulary=50, dtype="bfloat16", dropout=0.1)
    x = jnp.zeros((2, T), jnp.int32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    for train in (False, True):
        rngs = {"dropout": jax.random.key(0)} if train else {}
        score = lambda variables: model.apply(variables, x, x + 1, train=train, rngs=rngs).sum()
        assert ("cudnn" in lowered(platform, jax.grad(score), variables)) == (platform == "gpu" and not train)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_dropout_multiplies_in_bfloat16_and_keeps_no_weights(platform, causal):
    x = jax.ShapeDtypeStruct((2, 4, T, WIDTH), jnp.float32)
    own = {"causal": causal, "dtype": "bfloat16", "dropout": 0.1, "key": jax.random.key(0)}
    kept = jax.eval_shape(lambda *x: jax.vjp(lambda *x: attend(*x, **own), *x)[1], x, x, x)
    assert max(leaf.size for leaf in jax.tree.leaves(kept)) <= x.size
    dots = [line for line in lowered(platform, lambda *x: attend(*x, **own), x, x, x).splitlines() if "dot_gen" in line]
    assert dots and all("xbf16>" in line for line in dots)


def test_attention_of_other_devices_gives_the_numbers_of_a_cpu(monkeypatch):
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 4, 6, 8)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
    for own in ({"mask": mask}, {"mask": mask, "dropout": 0.5, "key": jax.random.key(1)}):
        score = lambda *x: jnp.square(attend(*x, causal=True, **own)).sum()
        found = []
        for backend in ("cpu", "gpu"):
            with monkeypatch.context() as patch:
                patch.setattr(jax, "default_backend", lambda: backend)
                found.append(jax.value_and_grad(score, (0, 1, 2))(q, k, v))
        for a, b in zip(*map(jax.tree.leaves, found)):
            assert np.allclose(a, b, atol=1e-5)


def test_the_gradient_of_a_bias_is_a_product_on_a_cpu_alone(platform, monkeypatch):
    """Elsewhere a product rounds its factors to bfloat16 or TF32, which a sum does not."""
    x, kernel, bias = jnp.ones((64, 8)), jnp.ones((8, 4)), jnp.ones(4)
    of_bias = lambda bias: product(x, kernel, bias).sum()
    dots = lambda: str(jax.make_jaxpr(lambda bias: jax.grad(of_bias)(bias))(bias)).count("dot_general")
    elsewhere = dots()
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert dots() == elsewhere + 1


def test_draws_are_written_out_on_a_cpu_alone(platform, monkeypatch):
    text = lambda: str(jax.make_jaxpr(lambda key: draw(jax.random.bits, key, (8,)))(run_key(0)))
    assert "written out" not in text()
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert "written out" in text()
    monkeypatch.setenv("RESEARCH_KERNELS", "reference")
    assert "written out" not in text()


def programs(setup):
    """Yields (name, function, arguments) of all that a run compiles."""
    batch = {**read(setup.splits["train"], list(range(8))), "mask": np.ones(8, np.float32)}
    variables = {"params": setup.abstract.params, **setup.abstract.model_state}
    yield "init", setup.init, (run_key(0),)
    step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    yield "step", step, (setup.abstract, {}, batch, run_key(0))
    evaluate = make_eval_step(setup.model, setup.task, setup.mesh)
    yield "evaluation", evaluate, (variables, batch, np.arange(8, dtype=np.int32))
    one = jax.tree.map(lambda x: x[None], (jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), setup.abstract), batch))
    own = (one[0], {}, one[1], jnp.stack([run_key(0)]), {}, np.ones(1, bool))
    yield "population", make_step(setup, "map"), own


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_kernels_follow_the_devices_of_the_mesh_and_not_jaxs_default(parallel, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")  # a host with a TPU that trains on its CPU
    setup = make_setup(model__name="decoder", train__parallel=parallel)
    for name, function, arguments in programs(setup):
        jaxpr = str(jax.make_jaxpr(function)(*arguments))
        assert ("written out" if name == "init" else "optimization_barrier") in jaxpr, name
