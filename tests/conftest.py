"""Eight CPU devices, strict shapes, warnings as errors, one compile cache, and small data sets in TFDS's own form."""

import os
import pathlib
import sys

os.environ["XLA_FLAGS"] = ""  # conftest decides; scripts in processes of their own get what a test gives them
ROOT = pathlib.Path(__file__).parent.parent
CACHE = ROOT / ".pytest_cache"
SHARED = ROOT.parent / "shared"
# Kept under a name of its own: workers of pytest-xdist start with the environment that is changed below.
REAL_DATA = pathlib.Path(
    os.environ.setdefault("REAL_TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR") or str(SHARED / "tfds"))
)
os.environ["HOME"] = str(CACHE / "home")  # digits prepare themselves there, not in the user's home
os.environ["XDG_CACHE_HOME"] = str(CACHE / "cache")
os.environ["TFDS_DATA_DIR"] = str(CACHE / "tfds")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "compiled"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()

from research import config as configs  # noqa: E402
from research.data import prepare  # noqa: E402
from research.models import MODELS  # noqa: E402
from research.models.layers import Conv, Dropout, Norm, head  # noqa: E402
from research.setup import prepare as prepare_run  # noqa: E402
from research.setup import resolve  # noqa: E402


def small_images(name):
    """256 training and 64 test images that can be told apart, in place of a data set's own: same shape, same labels."""
    recipe = prepare.RECIPES[name]

    def examples(members):
        splits = {}
        for split, n in (("train", 256), ("test", 64)):
            rng = np.random.default_rng(len(split))
            labels = np.arange(n) % len(recipe.labels)
            images = rng.integers(0, 60, (n, *recipe.shape), np.uint8)
            for image, label in zip(images, labels):
                image[2 * label : 2 * label + 4, 4:20] += 150
            splits[split] = [(i, image, int(label)) for i, (image, label) in enumerate(zip(images, labels))]
        return splits

    return recipe._replace(archives=(), examples=examples)


for _name in ("mnist", "fashion_mnist", "cifar10"):  # idempotent, and safe for two processes at once
    prepare.prepare(small_images(_name), CACHE / "tfds")


@pytest.fixture
def real_data(monkeypatch):
    """TFDS_DATA_DIR with the real data sets, where they are."""
    if not (REAL_DATA / "mnist").is_dir():
        pytest.skip(f"no data sets in {REAL_DATA}: set TFDS_DATA_DIR")
    monkeypatch.setenv("TFDS_DATA_DIR", str(REAL_DATA))


class Normed(nn.Module):
    """The smallest model with batch statistics and dropout: where a property needs them, a ResNet takes a minute."""

    width: int = 4
    dropout: float = 0.0
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):
        x = Conv(self.width, stride=2, bias=False, dtype=self.dtype)(image)
        x = nn.relu(Norm("batch", self.dtype)(x, mask, train=train))
        x = Dropout(self.dropout)(x.reshape(x.shape[0], -1), train=train)
        return head(self.classes, self.dtype)(x)


MODELS["normed"] = Normed

SMALL = {
    "data.name": "digits",
    "data.batch_size": 16,
    "data.eval_batch_size": 16,
    "data.splits.train": "train[:96]",
    "data.splits.validation": "train[96:127]",
    "data.splits.test": "test[:21]",
    "model.name": "cnn",
    "model.layers": ("conv4", "pool2", "dense8"),
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "train.steps": 12,
    "eval.every_steps": 4,
    "log.every_steps": 3,
}


def make_config(**overrides):
    """A config that trains in a second: SMALL, with overrides written as model__name="mlp"."""
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    values = {**SMALL, **given}
    if "model.name" in given:
        values = {key: value for key, value in values.items() if not key.startswith("model.") or key in given}
    return configs.override(configs.base(), values)


def make_setup(devices=1, **overrides):
    """A Setup of make_config on the first `devices` of the eight."""
    return prepare_run(*resolve(make_config(**overrides), jax.devices()[:devices]))


def assert_same_bits(a, b):
    a, b = jax.device_get((a, b))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y), path


def assert_same_numbers(a, b, tolerance=1e-6):
    """On each leaf max|a - b| <= tolerance * global_norm(b)."""
    a, b = jax.device_get((a, b))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    norm = np.sqrt(sum(np.square(np.asarray(y, np.float64)).sum() for y in jax.tree.leaves(b)))
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)):
        assert np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)), initial=0) <= tolerance * norm, (
            path
        )


def run_script(module, *arguments):
    """The script in this process: its exit code."""
    import importlib

    from experiments import command

    script = importlib.import_module(f"experiments.{module}")
    before, sys.argv = sys.argv, [module, *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            command.run(script.make_parser, script.main)
    finally:
        sys.argv = before
    return ended.value.code
