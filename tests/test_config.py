"""Overrides, their checks, and the way to JSON and back."""

import importlib.util
import json

import pytest
from conftest import ROOT, make_config
from hypothesis import given, settings
from hypothesis import strategies as st

from research import config as configs
from research.config import NAMED
from research.data import DATASETS
from research.errors import UserError
from research.fields import FIELDS
from research.models import MODELS
from research.optimizers import OPTIMIZERS

CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))


def load(name, size="base"):
    return configs.load_file(f"{ROOT / 'configs' / name}:{size}")[0]


def refused(values, config=None):
    with pytest.raises(UserError) as error:
        configs.override(config or make_config(), values)
    assert error.value.code == 2
    return str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", ["base", "cpu", "tiny"])
def test_config_to_json_to_config_is_the_identity(name, size):
    config = load(name, size)
    data = configs.to_json(config)
    back = configs.from_json(json.loads(json.dumps(data)))
    assert configs.to_json(back) == data and configs.differences(back, config) == [] and back.is_locked


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tiny_keeps_its_promises(name):
    config = load(name, "tiny")
    assert config.data.batch_size % 8 == 0
    assert config.log.every_steps <= 5 and config.checkpoint.every_steps <= 10
    if name == "digits_cnn.py":
        assert config.model.dropout == 0 and not any(config.data.augment.values())
    with pytest.raises(UserError, match="base, cpu, tiny"):
        load(name, "huge")


@pytest.mark.parametrize("name", CONFIGS)
def test_no_config_imports_anything_but_what_configs_and_sweeps_are_made_with(name):
    lines = (ROOT / "configs" / name).read_text().splitlines()
    config, *rest = [line for line in lines if line.startswith(("import", "from"))]
    assert config == "from research.config import base, sized" and len(rest) <= 1
    assert all(line.startswith("from research.studies.sweep import ") for line in rest)


@pytest.mark.parametrize(
    "path,nearest",
    [
        ("optimizer.lerning_rate", "config.optimizer.learning_rate"),
        ("optimiser.learning_rate", "config.optimizer.learning_rate"),
        ("data.split.train", "config.data.splits.train"),
        ("train.epoch", "config.train.epochs"),
        ("model.layer", "config.model.layers"),
        ("sed", "config.seed"),
    ],
)
def test_an_unknown_key_names_the_nearest_by_its_full_path(path, nearest):
    assert refused({path: "1"}) == f"config.{path}: no such field; did you mean {nearest}?"


@pytest.mark.parametrize(
    "path,value,part",
    [
        ("data.batch_size", "many", "'many' is not int"),
        ("data.batch_size", "1.5", "not int"),
        ("data.batch_size", 1.5, "not int"),
        ("data.batch_size", True, "not int"),
        ("data.batch_size", "none", "not int"),
        ("data.batch_size", 0, "at least 1"),
        ("data.batch_size", -4, "at least 1"),
        ("optimizer.learning_rate", "nan", "not a finite number"),
        ("optimizer.learning_rate", float("inf"), "not a finite number"),
        ("optimizer.learning_rate", -0.1, "at least 0"),
        ("optimizer.learning_rate", "", "not float"),
        ("train.ema", 1.0, "below 1"),
        ("data.augment.flip", "yes", "not bool"),
        ("model.layers", 5, "not tuple of str"),
        ("train.parallel", "pmapp", "did you mean pmap?"),
        ("optimizer.schedule", "cosin", "did you mean cosine?"),
        ("optimizer.name", "adamm", "did you mean adam?"),
        ("model.name", "restnet", "did you mean resnet?"),
        ("data.name", "minst", "did you mean mnist?"),
        ("task.name", "classify", "classify_images"),
        ("model.name", 3, "known are"),
        ("optimizer", 3, "a section"),
        ("train.steps", 0, "at least 1"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(path, value, part):
    message = refused({path: value})
    assert message.startswith(f"config.{path}: ") and part in message


@pytest.mark.parametrize("model", ["recurrent_classifier", "recurrent_lm", "seq2seq"])
def test_a_recurrence_without_layers_is_refused(model):
    assert refused({"model.name": model, "model.layers": 0}).startswith("config.model.layers: 0 is out of bounds")


def test_names_are_set_first_and_bring_their_arguments_in_any_order():
    config = make_config(optimizer__momentum=0.9)
    for values in (
        {"optimizer.b1": "0.8", "optimizer.name": "adam"},
        {"optimizer.name": "adam", "optimizer.b1": "0.8"},
    ):
        changed = configs.override(config, values)
        assert changed.optimizer.b1 == 0.8 and changed.optimizer.b2 == 0.999
        assert "momentum" not in changed.optimizer
        assert changed.optimizer.learning_rate == config.optimizer.learning_rate
    assert "momentum" in refused({"optimizer.name": "adam", "optimizer.momentum": 0.9})


def test_setting_one_of_steps_and_epochs_clears_its_twin_and_both_are_refused():
    config = make_config()
    changed = configs.override(config, {"train.epochs": "2"})
    assert changed.train.epochs == 2.0 and changed.train.steps is None
    assert configs.override(changed, {"train.steps": 7}).train.epochs is None
    assert "give one of them" in refused({"train.steps": 3, "train.epochs": 3})
    assert "needs a length" in refused({"train.steps": "none"})
    assert configs.override(config, {"eval.every_steps": "none"}).eval.every_epochs == 1.0


def test_none_unsets_what_may_be_none():
    config = make_config(optimizer__clip_norm=1.0)
    assert configs.override(config, {"optimizer.clip_norm": "none"}).optimizer.clip_norm is None


def test_tuples_are_read_from_text():
    config = configs.override(make_config(), {"model.layers": "('conv4', 'dense8')"})
    assert config.model.layers == ("conv4", "dense8")
    config = configs.override(config, {"model.name": "mlp", "model.widths": "16,8"})
    assert config.model.widths == (16, 8)
    assert configs.override(config, {"model.widths": ""}).model.widths == ()


def test_an_older_config_that_lacks_a_key_gets_its_default():
    data = configs.to_json(make_config())
    del data["train"]["ema"], data["checkpoint"], data["optimizer"]["nesterov"]
    config = configs.from_json(data)
    assert config.train.ema is None and config.checkpoint.keep == 2 and config.optimizer.nesterov is False


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_numbers_survive_text_and_json(data):
    values = {
        "optimizer.learning_rate": data.draw(st.floats(0, 10)),
        "data.batch_size": data.draw(st.integers(1, 10**6)),
        "optimizer.clip_norm": data.draw(st.none() | st.floats(1e-9, 1e6)),
        "model.name": "mlp",
        "model.widths": tuple(data.draw(st.lists(st.integers(1, 9), max_size=4))),
        "train.parallel": data.draw(st.sampled_from(["jit", "pmap"])),
    }
    typed = configs.override(make_config(), values)
    text = lambda v: (
        "none"
        if v is None
        else ",".join(map(str, v))
        if isinstance(v, tuple)
        else repr(v)
        if isinstance(v, float)
        else str(v)
    )
    assert configs.differences(configs.override(make_config(), {k: text(v) for k, v in values.items()}), typed) == []
    assert configs.differences(configs.from_json(configs.to_json(typed)), typed) == []


@pytest.mark.parametrize("kind", ["optimizer", "model"])
def test_every_name_completes_with_all_its_arguments(kind):
    for name in {"optimizer": OPTIMIZERS, "model": MODELS}[kind]:
        config = configs.override(configs.base(), {f"{kind}.name": name, "train.steps": 1})
        assert configs.differences(configs.from_json(configs.to_json(config)), config) == []


@pytest.mark.parametrize(
    "values,devices,part",
    [
        ({"data.batch_size": 12}, 8, "12 is not divisible by 8 devices x 1 microbatches; the next that is: 16"),
        ({"train.microbatches": 3}, 1, "is not divisible by 1 devices x 3 microbatches"),
        ({"data.batch_size": 97}, 1, "is larger than config.data.splits.train 'train[:96]', which has 96 examples"),
        ({"optimizer.warmup_steps": 13}, 1, "config.optimizer.warmup_steps: 13 is 13 steps of warm-up in a run of 12"),
        ({"optimizer.warmup_epochs": 3}, 1, "18 steps of warm-up in a run of 12"),
        ({"model.classes": 3}, 1, "config.model.classes: 3, but digits has 10"),
        ({"data.batch_size": 15, "data.augment.mixup": 0.2}, 1, "mixup pairs neighbours"),
        ({"data.splits.test": "tset"}, 1, "config.data.splits.test: 'tset' is no split"),
    ],
)  # fmt: skip
def test_what_depends_on_data_and_devices_is_refused(values, devices, part):
    with pytest.raises(UserError) as error:
        configs.resolve(configs.override(make_config(), values), DATASETS["digits"](), devices)
    assert error.value.code == 2 and part in str(error.value)


def test_durations_round_up_to_whole_steps():
    cleared = {"train__steps": None, "eval__every_steps": None}
    config = make_config(train__epochs=2.5, data__batch_size=10, optimizer__warmup_epochs=0.25, **cleared)
    times = configs.durations(config, 96)
    assert (times["train"], times["warmup"], times["eval"]) == (24, 3, 10)


@pytest.mark.parametrize("text", ["configs/nothing.py", "configs", "nothing", ""])
def test_a_file_that_is_not_there_lists_those_that_are(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="configs/digits_cnn.py") as error:
        configs.load_file(text)
    assert error.value.code == 2


def test_describe_shows_each_leaf():
    text = "\n".join(configs.describe(make_config()))
    assert all(f"--config.{path}=" in text for path in FIELDS)


@pytest.mark.parametrize(
    "text,items",
    [
        ("(Conv_0|head)/.*=0.1,head{1,2}=frozen", ("(Conv_0|head)/.*=0.1", "head{1,2}=frozen")),
        ("[a,b]=2", ("[a,b]=2",)),
        ("(=0.1", ("(=0.1",)),
        ("('a=1', 'b=2')", ("a=1", "b=2")),
        ("", ()),
    ],
)
def test_regular_expressions_survive_as_elements_of_a_tuple(text, items):
    assert configs.override(make_config(), {"optimizer.rules": text}).optimizer.rules == items


@pytest.mark.parametrize(
    "body,part",
    [
        ("def get_config(size): return 1 / 0", "ZeroDivisionError"),
        ("def get_config(size", "SyntaxError"),
        ("x = 1", "get_config"),
        (
            "from research.config import base\ndef get_config(size):\n c = base()\n c.optimzer.x = 1\n return c",
            "optimzer",
        ),
        ("from research.config import base\ndef get_config(size):\n c = base()\n c.seed = 'x'\n return c", "TypeError"),
    ],
)
def test_a_broken_config_file_is_one_line(body, part, tmp_path):
    (tmp_path / "broken.py").write_text(body)
    with pytest.raises(UserError, match=part) as error:
        configs.load_file(tmp_path / "broken.py")
    assert error.value.code == 2


@pytest.mark.parametrize(
    "values,part",
    [
        ({"optimizer.schedule": "exponential"}, "config.optimizer.end_factor"),
        ({"seed": 2**63}, "at most 2147483647"),
        ({"train.steps": 10**20}, "config.train.steps"),
        ({"optimizer.clip_norm": 0.0}, "config.optimizer.clip_norm"),
        ({"optimizer.name": "adam", "optimizer.eps": -1}, "config.optimizer.eps"),
        ({"optimizer.boundary_factors": (2.0,)}, "config.optimizer.boundary_factors"),
        ({"optimizer.b1": 0.5}, "sgd has no b1; adam, adamw, lamb, lion would have it"),
    ],
)
def test_numbers_that_make_no_run_are_refused(values, part):
    assert part in refused(values)


# Options that stay though no config sets them to other than their default, each with its user.
NO_CONFIG_SETS = {
    # What every run has, as README's "Running" and "Three rungs" use it.
    "seed", "data.memory_limit_bytes", "data.workers", "train.parallel",
    "train.ema", "train.early_stopping.metric", "train.early_stopping.patience",
    "checkpoint.keep", "train.hang_seconds", "train.on_nonfinite", "train.nonfinite_limit", "train.debug_nans",
    "optimizer.rules", "optimizer.decay_steps",
    "optimizer.decay_epochs", "optimizer.boundaries_steps", "optimizer.boundaries_epochs",
    "optimizer.boundary_factors",
    # The published networks, whose parameters tests/test_models.py counts.
    "resnet.stem", "vgg.norm", "vgg.dense", "vgg.dropout",
    # What folders of others may have.
    "encoder.types", "encoder.unused_rows", "decoder.unused_rows",
    # Languages that 13a does not cut into words.
    "translate.bleu_tokenizer",
    # The header of multi30k_gru.
    "multi30k.reverse",
    # Sizes of the first comparison.
    "mlp.widths",
}  # fmt: skip
# A user's own files; read as wikitext2, glue/sst2 and xquad/en are; --config.task.name=cbow.
WITHOUT_CONFIG = {"parallel", "text", "sentences", "stdlib", "tiny_shakespeare", "glue/rte", "squad/v1.1", "cbow"}
OF_ALL = {
    "dtype",
    "classes",
    "vocabulary",
    "parts",
    "tokenizer",
    "min_count",
    "normalize",
}  # of the machine, the data, all text


def test_no_option_is_without_a_user():
    """Some config, size or sweep sets each option to other than its default; optimizers' are Optax's own."""
    known, used = set(FIELDS), set()
    for section, things in NAMED.items():
        known |= {f"{name}.{key}" for name, thing in things.items() for key in configs._signature(thing)
                  if section != "optimizer" and name not in WITHOUT_CONFIG and key not in OF_ALL}  # fmt: skip
    for path in sorted((ROOT / "configs").glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        base = module.get_config("base")
        sweeps = [values for name in vars(module) if name.startswith("sweep_") for values in getattr(module, name)()]
        for config in [base, *map(module.get_config, ("cpu", "tiny")), *(configs.override(base, v) for v in sweeps)]:
            fields = configs._fields({section: config[section].name for section in NAMED})
            for option, value in configs.leaves(config).items():
                if value != fields[option].default:
                    section, _, leaf = option.partition(".")
                    used.add(option if option in FIELDS else f"{config[section].name}.{leaf}")
    own = {name for name in known if name.split(".")[0] != "normed"}  # the tests' own model
    assert own - used - {f"{s}.name" for s in NAMED} == NO_CONFIG_SETS


@pytest.mark.parametrize(
    "metric,direction",
    [
        ("loss", "min"), ("masked_loss", "min"), ("perplexity", "min"), ("glue_sst2_bits_per_byte", "min"),
        ("accuracy", "max"), ("bleu", "max"), ("wnut_17_f1", "max"), ("precision", "max"),
    ],
)  # fmt: skip
def test_the_direction_of_a_known_metric_follows(metric, direction):
    config = make_config(eval__metric=metric)
    assert config.eval.direction == direction
    other = configs.override(config, {"eval.metric": "loss" if direction == "max" else "accuracy"})
    assert other.eval.direction == {"min": "max", "max": "min"}[direction]
    assert configs.override(config, {"eval.metric": metric, "seed": 1}).eval.direction == direction


@pytest.mark.parametrize("metric", ["wer", "glossy", "f", "lossy"])
def test_the_direction_of_an_unknown_metric_is_the_stated_one(metric):
    assert make_config(eval__metric=metric).eval.direction is None
    for stated in ("min", "max"):
        config = make_config(eval__metric=metric, eval__direction=stated)
        assert config.eval.direction == configs.override(config, {"eval.metric": metric}).eval.direction == stated
        assert configs.override(config, {"seed": 1}).eval.direction == stated
