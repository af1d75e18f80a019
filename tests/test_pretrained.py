"""Folders in Hugging Face's layout: transformers' numbers, nothing lost on the way out and in, nothing believed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED, assert_same_bits, assert_same_numbers, make_config
from safetensors.numpy import load_file, save_file

from research import pretrained
from research.data import tokenize, train_tokenizer
from research.errors import UserError
from research.generation import Sampling
from research.inference import continuation
from research.models.decoder import Decoder
from research.models.mlp import MLP
from research.randomness import run_key
from research.warm_start import adopt

HF, BAD = SHARED / "fixtures" / "hf", SHARED / "fixtures" / "bad"
FOLDERS = ("gpt2-tiny", "gpt2-tiny-sharded", "gpt2-tiny-noprefix", "gpt2-tiny-classifier", "gpt2-tiny-bf16")
SMALL = {"layers": 2, "heads": 2, "width": 8, "context": 6, "vocabulary": 11}
needs_fixtures = pytest.mark.skipif(not HF.is_dir(), reason=f"no {HF}: it comes with the data, not with the code")


@pytest.fixture
def gpt2(tmp_path):
    """A copy of a small GPT-2's folder, to be changed."""
    if not HF.is_dir():
        pytest.skip(f"no {HF}: it comes with the data, not with the code")
    shutil.copytree(HF / "gpt2-tiny", tmp_path / "gpt2")
    for path in (tmp_path / "gpt2").iterdir():
        path.chmod(0o644)
    (tmp_path / "gpt2").chmod(0o755)
    return tmp_path / "gpt2"


def small(choice=False, **fields):
    """A small decoder and its variables, none of them where it begins; with a second head, if it is to choose."""
    model, drawn = Decoder(**{**SMALL, **fields}), np.random.default_rng(0)
    variables = {"params": jax.jit(model.init)(run_key(0), jnp.zeros((1, 1), jnp.int32))["params"]}
    variables |= {"choice": {"kernel": jnp.zeros((8, 1)), "bias": jnp.zeros(1)}} if choice else {}
    return model, jax.tree.map(lambda x: x + jnp.asarray(drawn.normal(size=x.shape), x.dtype), variables)


HEADS = ({}, {"head": "none"}, {"head": "label", "classes": 3}, {"head": "tags", "classes": 4}, {"head": "span"},
         {"tied": False, "activation": "gelu", "hidden": 12}, {"choice": True})  # fmt: skip


def change_config(folder, **values):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: x for name, x in config.items() if x is not ...}))


@pytest.mark.parametrize("name,side", [("gpt2-tiny", "left"), ("bert-tiny-ner", "right")])
@needs_fixtures
def test_padding_may_exceed_the_context_and_tokens_may_not(name, side):
    model, variables = pretrained.load(HF / name)
    ids, more = np.array([[5, 7, 2]]), np.zeros((1, model.context), int)
    expected = pretrained.logits(model, variables, {"input_ids": ids})
    both = lambda a, b: np.concatenate([b, a] if side == "left" else [a, b], axis=1)
    inputs = {"input_ids": both(ids, more), "attention_mask": both(ids * 0 + 1, more)}
    found = pretrained.logits(model, variables, inputs)
    assert_same_numbers(found[:, -3:] if side == "left" else found[:, :3], expected, 1e-5)
    with pytest.raises(UserError, match="position_ids: .* is outside") as error:
        pretrained.logits(model, variables, {"input_ids": both(ids, more)})
    assert error.value.code == 3


def test_a_tied_embedding_may_be_stored_under_either_name(gpt2):
    expected = pretrained.load(gpt2)
    weights = load_file(gpt2 / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("transformer.wte.weight")
    save_file(weights, gpt2 / "model.safetensors", {"format": "pt"})
    model, variables = pretrained.load(gpt2)
    assert model == expected[0]
    assert_same_bits(variables, expected[1])


@pytest.mark.parametrize("fields", [{}, {"head": "label", "classes": 3}, {"head": "tags", "classes": 3},
                                    {"head": "span"}, {"choice": True}, {"tied": False}])  # fmt: skip
def test_without_architectures_the_weights_tell_the_head(fields, tmp_path):
    model, variables = small(**fields)
    pretrained.save(tmp_path / "gpt2", model, variables)
    change_config(tmp_path / "gpt2", architectures=None, id2label=..., label2id=..., num_labels=3)
    again, others = pretrained.load(tmp_path / "gpt2")
    assert again == model
    assert_same_bits(others, variables)


def pad(folder, rows):
    """Rows of noise after the vocabulary, as fine-tuned models have that were padded for speed."""
    weights = load_file(folder / "model.safetensors")
    table = weights["transformer.wte.weight"]
    noise = np.full((rows - len(table), table.shape[1]), 3.0, table.dtype)
    weights["transformer.wte.weight"] = np.concatenate([table, noise])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, vocab_size=rows)


def test_rows_of_a_padded_vocabulary_are_kept_and_never_predicted(gpt2, tmp_path):
    model, variables = pretrained.load(gpt2)
    inputs = {"input_ids": np.array([[5, 7, 2]])}
    expected = np.asarray(pretrained.logits(model, variables, inputs))
    pad(gpt2, 640)
    padded, own = pretrained.load(gpt2)
    assert (padded.vocabulary, padded.unused_rows) == (600, 40)
    found = np.asarray(pretrained.logits(padded, own, inputs))
    assert_same_numbers(found[..., :600], expected)
    assert np.all(found[..., 600:] < -1e29)
    with pytest.raises(UserError, match=r"input_ids: 600 is outside \[0, 600\)"):
        pretrained.logits(padded, own, {"input_ids": np.array([[600]])})
    pretrained.save(tmp_path / "out", padded, own, tokenize.read(gpt2))
    before, after = (load_file(folder / "model.safetensors") for folder in (gpt2, tmp_path / "out"))
    assert_same_bits(after["transformer.wte.weight"], before["transformer.wte.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 640
    assert pretrained.load(tmp_path / "out")[0] == padded
    how = Sampling(temperature=0.0, repetition_penalty=1.5)
    written = [next(continuation.write(*one, [[5, 7]], 4, tokenize.read(gpt2), how=how))
               for one in ((padded, own), (model, variables))]  # fmt: skip
    assert_same_bits(*written)
    config = make_config(data__name="tiny_shakespeare", task__name="next_token", model__name="decoder",
                         data__tokenizer=f"hf:{gpt2}", init_from=f"hf:{gpt2}")  # fmt: skip
    assert adopt(config, {}).model.unused_rows == 40  # which a run that starts from it keeps


def test_a_vocabulary_that_is_padded_to_no_multiple_is_refused(gpt2):
    pad(gpt2, 602)
    with pytest.raises(UserError, match="600 tokens; the embedding in .* has 602") as error:
        pretrained.load(gpt2)
    assert error.value.code == 3


@needs_fixtures
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_those_of_transformers(name, side):
    model, variables = pretrained.load(HF / name)
    stored = np.load(HF / name / "expected.npz")
    found = {field: stored[f"{side}.{field}"] for field in ("input_ids", "attention_mask")}
    logits = np.asarray(pretrained.logits(model, variables, found))
    expected = stored[f"{side}.{'last_hidden_state' if model.head == 'none' else 'logits'}"]
    real = found["attention_mask"] != 0
    if model.head == "label":
        real = np.ones(len(logits), bool)
    np.testing.assert_allclose(logits[real], expected[real], atol=1e-4, rtol=1e-4)
    positions = {"position_ids": np.maximum(found["attention_mask"].cumsum(1) - 1, 0)}
    assert_same_bits(pretrained.logits(model, variables, {**found, **positions}), logits)


@needs_fixtures
def test_arithmetic_in_bfloat16_is_as_far_off_as_transformers():
    model, variables = pretrained.load(HF / "gpt2-tiny-bf16")
    stored = np.load(HF / "gpt2-tiny-bf16" / "expected.npz")
    found = {field: stored[f"right.{field}"] for field in ("input_ids", "attention_mask")}
    logits = np.asarray(pretrained.logits(model.clone(dtype="bfloat16"), variables, found))
    real = found["attention_mask"] != 0
    np.testing.assert_allclose(logits[real], stored["bf16.right.logits"][real], atol=0.33, rtol=0)
    assert np.abs(logits[real] - stored["right.logits"][real]).max() > 1e-3  # it is bfloat16's, and not float32's


@needs_fixtures
def test_a_mask_that_is_not_given_hides_nothing():
    model, variables = pretrained.load(HF / "gpt2-tiny")
    ids = np.arange(6)[None]
    logits = lambda **inputs: pretrained.logits(model, variables, {"input_ids": ids, **inputs})
    assert_same_bits(logits(), logits(attention_mask=np.ones_like(ids)))


@needs_fixtures
@pytest.mark.parametrize("name", FOLDERS)
def test_in_and_out_and_in_is_the_identity(name, tmp_path):
    model, variables = pretrained.load(HF / name)
    tokenizer = tokenize.read(HF / name)
    pretrained.save(tmp_path / "copy", model, variables, tokenizer)
    again, others = pretrained.load(tmp_path / "copy")
    assert len({path.stat().st_mode for path in (tmp_path / "copy").iterdir()}) == 1
    assert again == model and tokenize.read(tmp_path / "copy").digest == tokenizer.digest
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [599] * 3
    assert_same_bits(others, variables)


@pytest.mark.parametrize("fields", HEADS)
def test_every_head_goes_out_and_in(fields, tmp_path):
    model, variables = small(**fields)
    pretrained.save(tmp_path / "model", model, variables)
    again, others = pretrained.load(tmp_path / "model")
    assert again.clone(hidden=32) == model.clone(hidden=32) and (again.hidden or 32) == (model.hidden or 32)
    assert_same_bits(others, variables)
    own = {name: x for name, x in variables.items() if name == "choice"}
    scanned = jax.tree.map(lambda *x: jnp.stack(x), *(variables["params"][f"block{i}"] for i in range(2)))
    rest = {name: x for name, x in variables["params"].items() if not name.startswith("block")}
    pretrained.save(tmp_path / "stacked", model.clone(scan=True), {"params": {**rest, "blocks": scanned}, **own})
    assert (tmp_path / "stacked" / "model.safetensors").read_bytes() == (
        tmp_path / "model" / "model.safetensors"
    ).read_bytes()


def test_the_second_head_tells_of_the_last_token_that_is_no_padding(tmp_path):
    model, variables = small(choice=True)
    ids, mask = np.array([[1, 2, 3], [0, 4, 5]]), np.array([[1, 1, 0], [0, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    found = pretrained.logits(model, variables, inputs)
    hidden = pretrained.logits(model.clone(head="none"), {"params": variables["params"]}, inputs)[[0, 1], [1, 2]]
    fit = hidden @ variables["choice"]["kernel"][:, 0] + variables["choice"]["bias"]
    assert_same_numbers(found["choice"], fit)
    assert_same_bits(found["tokens"], pretrained.logits(model, {"params": variables["params"]}, inputs))
    pretrained.save(tmp_path / "model", model, variables)
    written = load_file(tmp_path / "model" / "model.safetensors")["multiple_choice_head.summary.weight"]
    assert_same_bits(written, np.asarray(variables["choice"]["kernel"]).T)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_short_floats_are_widened_and_prefixes_and_old_masks_do_not_matter(dtype, prefix, tmp_path):
    model, variables = small()
    pretrained.save(tmp_path / "model", model, variables)
    path = tmp_path / "model" / "model.safetensors"
    weights = {prefix + name.removeprefix("transformer."): x.astype(dtype) for name, x in load_file(path).items()}
    weights[f"{prefix}h.0.attn.bias"] = np.ones((1, 1, 6, 6), np.uint8)
    weights["lm_head.weight"] = weights[f"{prefix}wte.weight"]  # tied, and there all the same
    save_file(weights, path)
    _, others = pretrained.load(tmp_path / "model")
    assert_same_bits(others["params"], jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), variables["params"]))


@pytest.mark.parametrize("fields", HEADS)
def test_transformers_loads_what_is_written_and_says_the_same(fields, tmp_path):
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("no transformers: it comes with requirements-bench.txt")
    model, variables = small(**fields)
    pretrained.save(tmp_path / "model", model, variables)
    ids = np.arange(5)[None]
    code = """
import sys, numpy as np, torch, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
model, info = getattr(transformers, config.architectures[0]).from_pretrained(sys.argv[1], output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
model.config.pad_token_id = 10
with torch.no_grad():
    found = model.eval()(torch.arange(5)[None])
keys = "mc_logits logits end_logits start_logits last_hidden_state".split()
keys = [key for key in keys if key in found]
np.savez(sys.argv[2], *(found[key].numpy() for key in keys))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "found.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    logits = jax.tree.leaves(pretrained.logits(model, variables, {"input_ids": ids}))  # of a dict by name
    for ours, theirs in zip(logits, np.load(tmp_path / "found.npz").values(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


DAMAGE = {  # folder of fixtures: what its error says
    "truncated_header": "model.safetensors: not safetensors",
    "truncated_data": "model.safetensors: not safetensors",
    "empty_file": "model.safetensors: not safetensors",
    "header_too_large": "model.safetensors: not safetensors",
    "header_not_json": "model.safetensors: not safetensors",
    "overlapping_offsets": "model.safetensors: not safetensors",
    "offsets_beyond_file": "model.safetensors: not safetensors",
    "negative_offsets": "model.safetensors: not safetensors",
    "wrong_dtype_name": "model.safetensors: not safetensors",
    "shape_vs_bytes": "model.safetensors: not safetensors",
    "duplicate_keys": "model.safetensors: .*'embeddings.LayerNorm.weight' stands there twice",
    "duplicate_keys_same": "model.safetensors: .*'embeddings.LayerNorm.weight' stands there twice",
    "index_parent_path": "index.json: names '../evil'",
    "index_parent_path_suffix": "index.json: names '../evil.safetensors'",
    "index_absolute_path": "index.json: names '/",
    "index_url": "index.json: names 'https://",
    "index_missing_shard": "model-00002-of-00002.safetensors: is not there",
    "index_wrong_shard": "model-00001-of-00002.safetensors: does not have the tensor",
    "pickle_as_safetensors": "model.safetensors: a pickle",
    "pickle_bin": "pytorch_model.bin: a pickle",
    "missing_tensor": "model.safetensors: encoder.layer.0.output.dense.weight, which config.json asks for, is missing",
    "extra_tensor": "model.safetensors: encoder.layer.7.surprise.weight has no place",
    "wrong_shape": r"intermediate.dense.weight has the shape \(16, 32\); by config.json it is \(32, 16\)",
    "nan_inside": r"model.safetensors: embeddings.word_embeddings.weight\[3, 1\] is nan",
    "config_vs_weights": "model.safetensors: 23 tensors are too few for the 2 layers of config.json",
    "vocab_too_long": "vocab.txt: 42 tokens; the embedding in .*model.safetensors has 30",
    "vocab_too_short": "vocab.txt: 21 tokens; the embedding in .*model.safetensors has 30",
    "wrong_model_type": "config.json: n_embd: missing",
    "unknown_model_type": "config.json: model_type: 'no-such-model'; known are bert, gpt2",
}


@needs_fixtures
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_and_hostile_folders_are_refused_by_file_and_fault(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=DAMAGE[name]) as error:
        pretrained.load(BAD / name)
    assert error.value.code == 3 and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())  # a pickle that was run would have left a file


@needs_fixtures
def test_every_damage_that_there_is_a_folder_of_is_among_them_and_the_control_is_read():
    assert {path.name for path in BAD.iterdir() if path.is_dir()} == {*DAMAGE, "good"}
    model, variables = pretrained.load(BAD / "good")
    assert variables["params"]["embedding"].shape == (30, 16) and model.head == "pooled"


def config_with(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def weights_with(change):
    def changed(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return changed


def bad_number(weights):
    weights["transformer.wte.weight"][3, 1] = np.nan


def transposed(weights):
    weights["transformer.h.1.mlp.c_fc.weight"] = np.ascontiguousarray(weights["transformer.h.1.mlp.c_fc.weight"].T)


def of_integers(weights):
    weights["transformer.ln_f.bias"] = weights["transformer.ln_f.bias"].astype(np.int32)


def token_more(folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"].append({**data["added_tokens"][0], "id": 600, "content": "<more>"})
    (folder / "tokenizer.json").write_text(json.dumps(data))


def row_more(folder):
    config_with(vocab_size=601)(folder)
    wte = "transformer.wte.weight"
    weights_with(lambda weights: weights.update({wte: np.concatenate([weights[wte], weights[wte][:1]])}))(folder)


def a_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes((BAD / "pickle_bin" / "pytorch_model.bin").read_bytes())


MISMATCHES = {
    "missing": (weights_with(lambda w: w.pop("transformer.h.1.ln_2.bias")),
                r"model.safetensors: transformer.h.1.ln_2.bias, which config.json asks for, is missing"),
    "extra": (weights_with(lambda w: w.update(surprise=np.ones(2, np.float32))), "surprise has no place"),
    "shape": (weights_with(transposed), r"c_fc.weight has the shape \(256, 64\); by config.json it is \(64, 256\)"),
    "nan": (weights_with(bad_number), r"model.safetensors: transformer.wte.weight\[3, 1\] is nan"),
    "integers": (weights_with(of_integers), "ln_f.bias is of the type int32"),
    "layers": (config_with(n_layer=3), "28 tensors are too few for the 3 layers of config.json"),
    "and billions": (config_with(n_layer=10**9), "28 tensors are too few for the 1000000000 layers"),
    "no number": (config_with(n_embd=10**30), "config.json: n_embd: 10000"),
    "lists": (config_with(activation_function=[[]]), "config.json: activation_function: "),
    "a list more": (config_with(model_type=[]), "config.json: model_type: "),
    "fewer layers": (config_with(n_layer=1), "h.1.* and 11 more has no place"),
    "untied": (config_with(tie_word_embeddings=False), "lm_head.weight, which config.json asks for, is missing"),
    "another head": (config_with(architectures=["GPT2ForSequenceClassification"]), "score.weight, .* is missing"),
    "not tied": (weights_with(lambda w: w.update({"lm_head.weight": w["transformer.wte.weight"] + 1})),
                 "lm_head.weight is not transformer.wte.weight"),
    "architecture": (config_with(architectures=["GPT2Surprise"]), "config.json: architectures: .'GPT2Surprise'."),
    "activation": (config_with(activation_function="relu"), "config.json: activation_function: 'relu'"),
    "epsilon": (config_with(layer_norm_epsilon=1e-6), "config.json: layer_norm_epsilon: 1e-06"),
    "heads": (config_with(n_head=5), "config.json: n_head: 5 does not divide n_embd 64"),
    "width": (config_with(n_embd="64"), "config.json: n_embd: '64'"),
    "no width": (config_with(n_embd=None), "config.json: n_embd: missing"),
    "dropout": (config_with(resid_pdrop=1), "config.json: resid_pdrop: 1"),
    "tokens": (token_more, "tokenizer.json: 601 tokens; the embedding in .*model.safetensors has 600"),
    "rows": (row_more, "tokenizer.json: 600 tokens; the embedding in .*model.safetensors has 601"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    "no object": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not a JSON object"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
    "no tokenizer's JSON": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json: not a token"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "gpt2: no weights: neither model.safetens"),
    "two kinds": (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "gpt2: two kinds of weig"),
    "and a pickle": (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"\x80"), "gpt2: two kinds of weights"),
    "a pickle alone": (a_pickle, "pytorch_model.bin: a pickle"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_folder_that_does_not_go_together_is_refused_by_file_and_fault(gpt2, case):
    change, message = MISMATCHES[case]
    change(gpt2)
    with pytest.raises(UserError, match=message) as error:
        pretrained.load(gpt2)
    assert error.value.code == 3 and "\n" not in str(error.value)


BAD_INPUTS = {
    "id": ({"input_ids": [[3, 11]]}, r"input_ids: 11 is outside \[0, 11\)"),
    "negative": ({"input_ids": [[3, -1]]}, "input_ids: -1 is outside"),
    "too long": ({"input_ids": [[1] * 7]}, r"position_ids: 6 is outside \[0, 6\)"),
    "BERT's": ({"input_ids": [[1]], "token_type_ids": [[0]]}, "inputs input_ids, token_type_ids: GPT-2 takes of "),
    "none": ({"attention_mask": [[1]]}, "inputs attention_mask: GPT-2 takes .*, and input_ids always"),
    "one text": ({"input_ids": [1, 2]}, r"shapes \(2,\), \(2,\); both are"),
    "another mask": ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, r"shapes \(1, 2\), \(1, 1\)"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_inputs_out_of_range_are_refused(case):
    inputs, message = BAD_INPUTS[case]
    with pytest.raises(UserError, match=message) as error:
        pretrained.logits(*small(), inputs)
    assert error.value.code == 3


NOT_GPT2 = {"positions": "rotary", "norm": "rms", "bias": False, "kv_heads": 1, "activation": "swiglu"}


@pytest.mark.parametrize("field", NOT_GPT2)
def test_a_model_that_is_no_gpt2_is_not_written(field, tmp_path):
    with pytest.raises(UserError, match=f"config.model.{field}: ") as error:
        pretrained.save(tmp_path / "model", *small(**{field: NOT_GPT2[field]}))
    assert error.value.code == 2 and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="MLP: has no layout"):
        pretrained.save(tmp_path / "model", MLP(), {})


def test_nothing_is_written_over_and_nothing_half(tmp_path, full_disk):
    model, variables = small()
    with pytest.raises(UserError, match="a tokenizer of 15 tokens; the model has 11") as error:
        pretrained.save(tmp_path / "model", model, variables, train_tokenizer.train(["abcdefghijk"], "characters", 50))
    assert error.value.code == 2 and not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="there is something already") as error:
        pretrained.save(tmp_path / "there", model, variables)
    assert error.value.code == 2
    full_disk(1500)
    with pytest.raises(UserError, match="model: cannot be written") as error:
        pretrained.save(tmp_path / "model", model, variables)
    assert error.value.code == 5 and [path.name for path in tmp_path.rglob("*")] == ["there", "mine.txt"]


@needs_fixtures
def test_tokens_and_texts_are_those_of_the_library():
    known = json.loads((HF / "tokenization.json").read_text())["gpt2"]
    tokenizer = tokenize.read(HF / "gpt2-tiny")
    assert tokenizer.size == known["vocab_size"]
    texts = [entry["text"] for entry in known["texts"]]
    for entry, ids in zip(known["texts"], tokenizer.encode(texts)):
        assert ids == entry["ids"], entry["kind"]
        assert [tokenizer.vocabulary[i] for i in ids] == entry["tokens"]
        if "<|endoftext|>" not in entry["text"]:
            assert tokenizer.decode(ids) == entry["decoded"], entry["kind"]


def test_a_file_that_would_cut_and_pad_texts_does_neither(gpt2):
    path, texts = gpt2 / "tokenizer.json", ["a text of many more tokens than three", "b"]
    whole = tokenize.read(path).encode(texts)
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
           "pad_token": "!"}  # fmt: skip
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation": cut, "padding": pad}))
    assert tokenize.read(path).encode(texts) == whole and len(whole[0]) > 3


@needs_fixtures
def test_a_tokenizer_out_of_vocab_and_merges_is_the_same(gpt2):
    whole = tokenize.read(gpt2)
    (gpt2 / "tokenizer.json").unlink()
    parts, texts = tokenize.read(gpt2), ["A text, naïve.\n\n  x = 1<|endoftext|>", ""]
    assert parts.encode(texts) == whole.encode(texts) and parts.vocabulary == whole.vocabulary
    assert parts.special == whole.special == {"pad": -1, "unknown": -1, "begin": 599, "end": 599, "mask": -1}
    assert pretrained.load(gpt2)[0].vocabulary == 600
    (gpt2 / "merges.txt").unlink()
    with pytest.raises(UserError, match="no tokenizer: neither") as error:
        tokenize.read(gpt2)
    assert error.value.code == 3


@pytest.mark.parametrize(
    "source", ["hf:./nowhere", "hf:/nowhere", "hf:a/b/c", "hf:", "hf:no-such-model", "hf:name@", "hf:@v1"]
)
def test_a_folder_that_is_not_there_is_told_with_what_to_put_where(source, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="there is no folder") as error:
        pretrained.load(source)
    assert error.value.code == 3 and "\n" not in str(error.value)
    asked = "huggingface_hub could not fetch it" in str(error.value)  # for what may be a name alone
    assert asked == ("give hf:FOLDER" in str(error.value)) == (source == "hf:no-such-model")


def test_a_name_is_fetched_without_any_pickle(gpt2, monkeypatch):
    import huggingface_hub

    asked = []

    def fetch(name, revision, allow_patterns, **_):
        asked.append(name if revision is None else (name, revision))
        assert not any(pattern.endswith((".bin", ".h5", ".msgpack", ".py", "*")) for pattern in allow_patterns)
        return str(gpt2)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert pretrained.load("hf:owner/gpt2")[0].vocabulary == 600 and asked == ["owner/gpt2"]
    assert tokenize.read("hf:gpt2-named").size == 600 and asked[1:] == ["gpt2-named"]
    assert pretrained.labels("hf:owner/gpt2@v1") == () and asked[2:] == [("owner/gpt2", "v1")]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="huggingface_hub, which would fetch it, is not installed; put its") as error:
        pretrained.load("hf:owner/gpt2")
    assert error.value.code == 3


@pytest.mark.parametrize("kind", ["bpe", "characters", "words"])
def test_transformers_reads_our_tokenizers_too(kind, tmp_path):
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("no transformers: it comes with requirements-bench.txt")
    texts = ["def read(path):\n    return open(path).read()\n", "a naïve text, of words."] * 20
    tokenizer = train_tokenizer.train(texts, kind, 400)
    pretrained.save(tmp_path / "model", *small(vocabulary=tokenizer.size), tokenizer)
    code = """
import json, sys, transformers
ids = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([[ids(text)["input_ids"] for text in json.loads(sys.argv[2])], ids.pad_token_id, ids.eos_token_id]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model"), json.dumps(texts[:2])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [tokenizer.encode(texts[:2]), tokenizer.pad, tokenizer.end]
