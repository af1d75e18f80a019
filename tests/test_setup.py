"""What a user adds and has got wrong: one line that names field, file and line, before anything is written."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config, make_setup, run_script

from research import loop, runs
from research.data import DATASETS
from research.data.dataset import Dataset
from research.errors import UserError
from research.models import MODELS
from research.models.layers import head
from research.setup import absent_classes
from research.tasks import TASKS

LINE = rf"\({__file__}, line \d+\)"


class Maskless(nn.Module):
    classes: int | None = None

    @nn.compact
    def __call__(self, image, *, train=False):
        return head(self.classes, "float32")(image.reshape(image.shape[0], -1))


class Broken(nn.Module):
    classes: int | None = None

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):
        return head(self.classes, "float32")(image @ jnp.ones((3, 3)))


class Nameless(nn.Module):
    classes: int | None = None

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):
        x = image.reshape(image.shape[0], -1)
        return x @ self.param("w", nn.initializers.normal(), (x.shape[-1], self.classes))


@pytest.mark.parametrize(
    "model,line",
    [
        (Maskless, "config.model.name: own takes image, but config.task.name classify_images gives image, mask"),
        (Broken, rf"config.model.name: own: {__file__}, line \d+: TypeError: "),
        (Nameless, "config.model.name: the parameter w has no role"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(tmp_path, monkeypatch, model, line):
    monkeypatch.setitem(MODELS, "own", model)
    with pytest.raises(UserError, match=line) as error:
        loop.train(make_config(model__name="own"), tmp_path / "run")
    assert error.value.code == 2 and not (tmp_path / "run").exists()


def odd(name, change):
    """classify_images, one function of it changed."""
    build = TASKS["classify_images"]

    def task(spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)):
        good = build(spec, label_smoothing=label_smoothing, mean=mean, std=std)
        return good._replace(**{name: lambda *arguments: change(*getattr(good, name)(*arguments))})

    return task


def test_what_happened_to_a_split_is_reported_once():
    """Train and validation are of one base split, whose texts are cut alike."""
    notes = make_setup(model__name="recurrent_classifier", data__max_len=4).notes(streamed=False)
    assert any("texts cut to 4 tokens" in line for line in notes) and len(notes) == len(set(notes))


def test_pairs_of_texts_want_two_types():
    with pytest.raises(UserError, match="config.model.types: 1; config.task.name masked_lm reads pairs") as error:
        make_setup(model__name="encoder", model__types=1)
    assert error.value.code == 2


@pytest.mark.parametrize(
    "name,change,line",
    [
        ("loss", lambda t, m, s: ({"loss": t["loss"][0]}, m, s), rf"gives for loss what is of shape \[\] {LINE}"),
        ("loss", lambda t, m, s: (t, {"x": (jnp.ones(3), 1.0)}, s), rf"gives for x what .* \[3\], \[\] {LINE}"),
        ("loss", lambda t, m, s: (t, m), f"loss gives no terms, metrics, model_state {LINE}"),
        ("loss", lambda t, m, s: t["loss"], f"loss gives no terms, metrics, model_state {LINE}"),
        ("evaluate", lambda s, a: ({"loss": s["loss"][0] / 2}, a), rf"gives for loss what is of shape \[\] {LINE}"),
        ("evaluate", lambda s, a: s, f"evaluate gives no sums, arrays {LINE}"),
        ("evaluate", lambda s, a: s["missing"], rf"cnn: {__file__}, line \d+: KeyError: 'missing'"),
    ],
)  # fmt: skip
def test_a_task_whose_functions_give_something_else_is_one_line(tmp_path, monkeypatch, name, change, line):
    monkeypatch.setitem(TASKS, "own", odd(name, change))
    with pytest.raises(UserError, match=f"config.task.name: own.*{line}") as error:
        loop.train(make_config(task__name="own"), tmp_path / "run")
    assert error.value.code == 2 and not (tmp_path / "run").exists()


def stripes(n=96, shape=(8, 8, 1), classes=2, **more):
    """Blocks of one class: horizontal stripes, then vertical ones."""
    labels = np.arange(n) * classes // n
    lines = np.tile(np.arange(8) % 2 * 150, (8, 1)).astype(np.uint8)
    images = [(lines.T if label else lines).reshape(shape) for label in labels]
    sources = {split: [{"image": i, "label": int(x)} for i, x in zip(images, labels)] for split in ("train", "test")}
    features = {"image": (shape, np.dtype("uint8")), "label": ((), np.dtype("int32"))}
    return Dataset("stripes", features, {"train": n, "test": n}, sources.get, classes, **more)


def test_sorted_data_train_to_the_end_and_predict_without_names_of_classes(tmp_path, monkeypatch, capsys):
    """Without a random validation split the best step would be the one that is worst at the first class."""
    monkeypatch.setitem(DATASETS, "stripes", stripes)
    own = {"data__splits__train": "train", "data__splits__validation": None, "data__splits__test": "test"}
    result = loop.train(make_config(data__name="stripes", **own), tmp_path / "run")
    assert result["metrics"]["test"]["accuracy"] == result["metrics"]["validation"]["accuracy"] == 1
    assert runs.read_config(tmp_path / "run").data.splits.validation == "train_shuffled[87:96]"
    assert "warning" not in capsys.readouterr().err
    assert run_script("predict", f"--workdir={tmp_path}/run", "--split=test[:2]") == 0
    assert "(is 0)" in capsys.readouterr().out


def test_classes_of_train_that_validation_lacks_are_a_warning_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "stripes", stripes)
    own = {"data__splits__train": "train[:80]", "data__splits__validation": "train[80:]"}
    setup = make_setup(data__name="stripes", data__splits__test=None, **own)
    (line,) = absent_classes(setup)
    assert line == (
        "warning: config.data.splits.validation: train[80:] has no example of 1 of train's classes: 0; "
        "take parts of train_shuffled for both"
    )
    assert absent_classes(make_setup()) == []
    loop.train(setup.config, tmp_path / "run")
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    "dataset,code,line",
    [
        (
            lambda: stripes(shape=(8, 8)),
            3,
            r"data set stripes: images are declared as \(8, 8\); height, width and channels",
        ),
        (lambda: stripes(labels=("one",)), 3, "data set stripes: 1 labels for 2 classes"),
        (lambda: {}["missing"], 2, rf"config.data.name: own: {__file__}, line \d+: KeyError: 'missing'"),
        (lambda: Dataset("own"), 2, rf"config.data.name: own: {__file__}, line \d+: TypeError: .*missing 3 required"),
    ],
)
def test_a_data_set_that_cannot_be_is_one_line(tmp_path, monkeypatch, dataset, code, line):
    monkeypatch.setitem(DATASETS, "own", dataset)
    with pytest.raises(UserError, match=line) as error:
        loop.train(make_config(data__name="own"), tmp_path / "run")
    assert error.value.code == code and not (tmp_path / "run").exists()
