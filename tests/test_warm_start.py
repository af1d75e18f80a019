"""A run that starts from other weights has their model's form, or ends before anything is written."""

import argparse

import jax
import pytest
from conftest import CASES, SHARED, make_config

from experiments import command
from research import config as configs
from research import loop, pretrained, runs
from research.errors import UserError
from research.models import MODELS
from research.studies.sweep import trials_of
from research.warm_start import adopt

BERT = SHARED / "fixtures" / "hf" / "bert-tiny-pretraining"  # 2 layers of width 64, 4 heads, learned positions
OTHER = {"data__name": "newsgroups20", "data__max_len": 24, "data__batch_size": 8, "task__name": "classify_text",
         "model__name": "encoder", "model__head": "label", "model__layers": 3, "model__heads": 2, "model__width": 32,
         "model__positions": "rotary", "model__norm_first": True, "model__dropout": 0.0, "train__steps": 2,
         "data__splits__validation": "train[:16]", "data__splits__test": None}  # fmt: skip
needs_fixtures = pytest.mark.skipif(not BERT.is_dir(), reason=f"no {BERT}: it comes with the data, not with the code")


def other(init_from=f"hf:{BERT}", **fields):
    """A config of another form than BERT's, that is to start from it."""
    return make_config(**OTHER, init_from=init_from, data__tokenizer=f"hf:{BERT}", **fields)


@needs_fixtures
def test_the_fields_of_the_model_are_those_of_the_weights_and_the_rest_are_the_runs_own():
    model = pretrained.load(BERT)[0]
    found = adopt(other(), {}).model
    for field in ("layers", "heads", "width", "hidden", "context", "types", "positions", "norm_first", "activation"):
        assert found[field] == getattr(model, field), field
    assert (found.head, found.dropout, found.classes) == ("label", 0.0, None)
    assert adopt(other(f"hf:{BERT}:block0"), {}) == other(f"hf:{BERT}:block0")  # of a part, the run's form stays
    assert adopt(make_config(), {}) == make_config()
    images = make_config(init_from=f"hf:{BERT}")
    assert adopt(images, {}) == images  # a model of another type: nothing will match


@needs_fixtures
@pytest.mark.parametrize(
    "field,value", [("width", 32), ("layers", 3), ("heads", 2), ("positions", "rotary"), ("activation", "gelu_tanh"),
                    ("norm", "rms"), ("context", 32)]
)  # fmt: skip
def test_a_field_that_the_user_sets_otherwise_is_named_and_nothing_is_written(tmp_path, field, value):
    config = adopt(configs.override(other(), {f"model.{field}": value}), {f"model.{field}"})
    assert config.model[field] == value
    with pytest.raises(UserError, match=f"config.model.{field}: {value!r}, but .* there: the weights of hf:") as error:
        loop.train(config, tmp_path / "run", devices=jax.devices()[:1])
    assert error.value.code == 2 and not (tmp_path / "run").exists()
    same = getattr(pretrained.load(BERT)[0], field)
    assert adopt(configs.override(other(), {f"model.{field}": same}), {f"model.{field}"}) == adopt(other(), {})


@needs_fixtures
def test_a_run_folder_gives_its_form_too_and_a_begun_run_keeps_its_own(tmp_path):
    there = make_config(**{**CASES["decoder"], "model__name": "decoder"})
    here = make_config(**{**CASES["decoder"], "model__name": "decoder", "model__layers": 1, "model__width": 8,
                          "model__heads": 1, "init_from": str(tmp_path / "source")})  # fmt: skip
    (tmp_path / "source").mkdir()
    runs.write_config(tmp_path / "source", there, "", "")
    found = adopt(here, {})
    assert (found.model.layers, found.model.width, found.model.heads) == (2, 32, 2)
    (tmp_path / "run").mkdir()
    runs.write_config(tmp_path / "run", found, "", "")
    (tmp_path / "source" / "config.json").unlink()
    assert adopt(here, {}, tmp_path / "run") == found  # the same command, once its source is gone
    with pytest.raises(UserError, match="config.init_from: .*source: no run folder: it has no config.json"):
        adopt(here, {}, tmp_path / "another")


@needs_fixtures
def test_flags_and_trials_of_a_sweep_start_alike(tmp_path):
    file = tmp_path / "own.py"
    lines = ("from research import config", "def get_config(size='base'):", "    own = config.base()",
             "    own.train.steps = 2", "    return own")  # fmt: skip
    file.write_text("\n".join(lines))
    flags = {path: value for path, value in configs.leaves(other()).items() if path != "train.epochs"}
    flags = {path: value for path, value in flags.items() if value is not None and not path.startswith("model.")}
    flags |= {"model.name": "encoder", "model.head": "label", "model.dropout": 0.0}
    parsed = argparse.Namespace(config=str(file))
    config, *_ = command.load_config(parsed, flags)
    assert (config.model.width, config.model.layers) == (64, 2)
    assert command.load_config(parsed, flags, adopt=False)[0].model.width == MODELS["encoder"].width
    trials, _ = trials_of(config, [{"seed": 0}, {"model.width": 128}, {"init_from": None}], flags)
    assert [trial.config.model.width for trial in trials] == [64, 128, 64]
    trials, _ = trials_of(other(None), [{"seed": 1}, {"init_from": f"hf:{BERT}"}])
    assert [trial.config.model.width for trial in trials] == [32, 64]
