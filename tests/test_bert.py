"""BERT's folders in Hugging Face's layout: transformers' numbers and tokens, every form of one, and what is none."""

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
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from research import loop, pretrained, runs
from research.data import tokenize, train_tokenizer
from research.errors import UserError
from research.models.encoder import Encoder
from research.pretrained.bert import KINDS
from research.randomness import run_key
from research.tasks.losses import cross_entropy, masked

HF = SHARED / "fixtures" / "hf"
FOLDERS = {  # what the fixtures call what each head tells
    "pretraining": {"masked": "prediction_logits", "next": "seq_relationship_logits"},
    "classifier": {"label": "logits"},
    "encoder": {"states": "last_hidden_state", "pooled": "pooler_output"},
    "ner": {"tags": "logits"},
    "qa": {"start": "start_logits", "end": "end_logits"},
}
SMALL = {"layers": 2, "heads": 2, "width": 8, "hidden": 12, "context": 6, "vocabulary": 11, "dropout": 0.1}
pytestmark = pytest.mark.skipif(not HF.is_dir(), reason=f"no {HF}: it comes with the data, not with the code")


@pytest.fixture
def folder(tmp_path):
    """A copy of a small BERT's folder, with both heads of its pretraining, to be changed."""
    shutil.copytree(HF / "bert-tiny-pretraining", tmp_path / "bert")
    for path in (tmp_path / "bert").iterdir():
        path.chmod(0o644)
    (tmp_path / "bert").chmod(0o755)
    return tmp_path / "bert"


def read_folder(name):
    """Model, variables, inputs and what transformers makes of them."""
    stored = dict(np.load(HF / f"bert-tiny-{name}" / "expected.npz"))
    inputs = {field: stored[field] for field in ("input_ids", "attention_mask", "token_type_ids")}
    return *pretrained.load(HF / f"bert-tiny-{name}"), inputs, stored


def close(found, expected, mask):
    """Whether numbers are transformers', but for what padding tells."""
    found, expected = np.asarray(found), np.asarray(expected)
    if expected.shape[:2] == mask.shape:
        found, expected = found[mask], expected[mask]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_a_model_tells_and_its_hidden_states_are_those_of_transformers(name):
    model, variables, inputs, stored = read_folder(name)
    mask, found = inputs["attention_mask"] != 0, pretrained.logits(model, variables, inputs)
    found = found if isinstance(found, dict) else {model.head: found}
    assert found.keys() == FOLDERS[name].keys()
    for told, theirs in FOLDERS[name].items():
        close(found[told], stored[theirs], mask)
    states = lambda layers: pretrained.logits(model.clone(layers=layers, head="none"), variables, inputs)
    for layers, expected in enumerate(stored["hidden_states"]):
        close(states(layers), expected, mask)
    if "pooler_output" in stored:
        close(pretrained.logits(model.clone(head="pooled"), variables, inputs)["pooled"], stored["pooler_output"], mask)


def test_losses_are_those_of_transformers():
    mean = lambda logits, labels: np.divide(*masked(cross_entropy(logits, np.maximum(labels, 0)), labels >= 0))
    model, variables, inputs, stored = read_folder("pretraining")
    found = pretrained.logits(model, variables, inputs)
    losses = mean(found["masked"], stored["labels"]), mean(found["next"], stored["next_sentence_label"])
    np.testing.assert_allclose(losses, [stored["mlm_loss"], stored["nsp_loss"]], atol=1e-4)
    for name in ("classifier", "ner"):
        model, variables, inputs, stored = read_folder(name)
        loss = mean(pretrained.logits(model, variables, inputs), stored["labels"])
        np.testing.assert_allclose(loss, stored["loss"], atol=1e-4)
    model, variables, inputs, stored = read_folder("qa")
    found = pretrained.logits(model, variables, inputs)
    loss = sum(mean(found[end], stored[f"{end}_positions"]) for end in ("start", "end")) / 2
    np.testing.assert_allclose(loss, stored["loss"], atol=1e-4)


def test_parts_and_places_that_are_not_given_are_the_first_and_those_in_the_row():
    model, variables, inputs, _ = read_folder("encoder")
    ids = inputs["input_ids"]
    alone = pretrained.logits(model, variables, {"input_ids": ids})
    places = np.arange(ids.shape[1])[None]
    given_all = {"token_type_ids": 0 * ids, "attention_mask": 0 * ids + 1, "position_ids": places}
    assert_same_bits(alone, pretrained.logits(model, variables, {"input_ids": ids, **given_all}))


@pytest.mark.parametrize("name", FOLDERS)
def test_in_and_out_and_in_is_the_identity(name, tmp_path):
    model, variables, *_ = read_folder(name)
    tokenizer = tokenize.read(HF / f"bert-tiny-{name}")
    pretrained.save(tmp_path / "copy", model, variables, tokenizer)
    again, others = pretrained.load(tmp_path / "copy")
    assert again == model and tokenize.read(tmp_path / "copy").digest == tokenizer.digest
    assert_same_bits(others, variables)
    named = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    theirs = json.loads((HF / f"bert-tiny-{name}" / "tokenizer_config.json").read_text())
    for role in ("cls", "sep", "pad", "unk", "mask"):
        assert named[f"{role}_token"] == theirs[f"{role}_token"]
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["pad_token_id"] == 0
    wrote, theirs = (load_file(place / "model.safetensors") for place in (tmp_path / "copy", HF / f"bert-tiny-{name}"))
    assert_same_bits(wrote, theirs)


def small(head, **fields):
    """A small encoder and its variables, none of them where it begins."""
    classes = 3 if head in ("label", "tags") else None
    model, drawn = Encoder(**{**SMALL, **fields}, head=head, classes=classes), np.random.default_rng(0)
    variables = {"params": jax.jit(model.init)(run_key(0), jnp.zeros((1, 1), jnp.int32))["params"]}
    return model, jax.tree.map(lambda x: x + jnp.asarray(drawn.normal(size=x.shape), x.dtype), variables)


@pytest.mark.parametrize("head", KINDS)
def test_every_head_goes_out_and_in_and_stacked_layers_are_written_as_single_ones(head, tmp_path):
    model, variables = small(head)
    pretrained.save(tmp_path / "model", model, variables)
    again, others = pretrained.load(tmp_path / "model")
    assert again == model
    assert_same_bits(others, variables)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(variables["params"][f"block{i}"] for i in range(2)))
    rest = {name: x for name, x in variables["params"].items() if not name.startswith("block")}
    pretrained.save(tmp_path / "stacked", model.clone(scan=True), {"params": {**rest, "blocks": stacked}})
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "stacked"))
    assert one == other


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors")


def change_config(folder, **changes):
    data = json.loads((folder / "config.json").read_text())
    data = {name: value for name, value in {**data, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_short_floats_are_widened(folder, dtype):
    _, variables = pretrained.load(folder)
    change_weights(folder, lambda weights: {name: x.astype(dtype) for name, x in weights.items()})
    _, others = pretrained.load(folder)
    assert_same_bits(others, jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), variables))


def test_weights_may_lie_in_several_files(folder):
    model, variables = pretrained.load(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    placed = {name: files[i % 3] for i, name in enumerate(weights)}
    for file in files:
        save_file({name: x for name, x in weights.items() if placed[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    again, others = pretrained.load(folder)
    assert again == model
    assert_same_bits(others, variables)


def test_the_first_models_folders_are_read_whole(folder):
    """As bert-base-uncased's: a BertForMaskedLM by name with all of its pretraining, TensorFlow's names of norms, tied
    weights written out, and a buffer."""
    model, variables = pretrained.load(folder)
    change_config(folder, architectures=["BertForMaskedLM"])

    def old(weights):
        table, bias = weights["bert.embeddings.word_embeddings.weight"], weights["cls.predictions.bias"]
        named = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
                 for name, x in weights.items()}  # fmt: skip
        tied = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias}
        return {**named, **tied, "bert.embeddings.position_ids": np.arange(64)[None]}

    change_weights(folder, old)
    again, others = pretrained.load(folder)
    assert again == model and model.head == "pretraining"
    assert_same_bits(others, variables)
    change_weights(folder, lambda weights: {name: x for name, x in weights.items() if "seq_rel" not in name})
    again, others = pretrained.load(folder)  # without the second head the pooler has no reader, and goes with it
    assert again.head == "masked" and not any("pooler" in name for name in others["params"])


@pytest.mark.parametrize("lost, head", [((), "pretraining"), (("seq",), "masked"), (("cls",), "pooled"),
                                        (("cls", "pooler"), "none")])  # fmt: skip
def test_without_architectures_the_weights_tell_the_head_with_the_prefix_or_without(folder, lost, head):
    change_config(folder, architectures=None)
    change_weights(folder, lambda weights: {n: x for n, x in weights.items() if not any(part in n for part in lost)})
    model, variables = pretrained.load(folder)
    assert model.head == head
    change_weights(folder, lambda weights: {name.removeprefix("bert."): x for name, x in weights.items()})
    again, others = pretrained.load(folder)
    assert again == model
    assert_same_bits(others, variables)


@pytest.mark.parametrize("lost", ["embeddings.word_embeddings.weight", "cls.predictions.bias"])
def test_a_tied_weight_may_be_stored_under_either_name(folder, lost):
    expected = pretrained.load(folder)
    stored = {"cls.predictions.bias": "cls.predictions.decoder.bias"}.get(lost, "cls.predictions.decoder.weight")
    change_weights(folder, lambda weights: {stored if n.endswith(lost) else n: x for n, x in weights.items()})
    model, variables = pretrained.load(folder)
    assert model == expected[0]
    assert_same_bits(variables, expected[1])


def test_rows_that_no_token_uses_are_masked_out_of_the_logits():
    model = Encoder(**{**SMALL, "vocabulary": 11}, unused_rows=5)
    variables = jax.jit(model.init)(run_key(0), np.zeros((1, 4), np.int32))
    logits = pretrained.logits(model, variables, {"input_ids": np.array([[3, 1, 4, 1]])})
    assert logits.shape == (1, 4, 16) and np.all(logits[..., 11:] < -1e29) and np.all(np.abs(logits[..., :11]) < 1e3)


@pytest.mark.parametrize("name,head", [("classifier", "label"), ("ner", "tags"), ("qa", "span"), ("encoder", "pooled")])
def test_without_architectures_the_weights_of_a_head_tell_it(tmp_path, name, head):
    shutil.copytree(HF / f"bert-tiny-{name}", tmp_path / "bert", copy_function=shutil.copyfile)
    (tmp_path / "bert").chmod(0o755)
    expected = pretrained.load(tmp_path / "bert")
    change_config(tmp_path / "bert", architectures=None)
    model, variables = pretrained.load(tmp_path / "bert")
    assert model == expected[0] and model.head == head
    assert_same_bits(variables, expected[1])


@pytest.mark.parametrize("labels,num,classes", [(None, 3, 3), ({}, 3, 3), ({"0": "a", "1": "b", "2": "c"}, None, 3)])
def test_classes_are_the_named_labels_or_their_number(tmp_path, labels, num, classes):
    shutil.copytree(HF / "bert-tiny-classifier", tmp_path / "bert", copy_function=shutil.copyfile)
    (tmp_path / "bert").chmod(0o755)
    change_config(tmp_path / "bert", id2label=labels, num_labels=num)
    assert pretrained.load(tmp_path / "bert")[0].classes == classes
    change_config(tmp_path / "bert", id2label=None, num_labels=0)
    with pytest.raises(UserError, match="num_labels: 0; a whole number of at least 1") as error:
        pretrained.load(tmp_path / "bert")
    assert error.value.code == 3


@pytest.mark.parametrize("head", KINDS)
def test_transformers_loads_what_is_written_and_says_the_same(head, tmp_path):
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("no transformers: it comes with requirements-bench.txt")
    model, variables = small(head)
    pretrained.save(tmp_path / "model", model, variables)
    code = """
import sys, numpy as np, torch, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
kind, own = getattr(transformers, config.architectures[0]), eval(sys.argv[3])
model, info = kind.from_pretrained(sys.argv[1], output_loading_info=True, **own)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
with torch.no_grad():
    found = model.eval()(torch.arange(5)[None], token_type_ids=torch.tensor([[0, 0, 0, 1, 1]]))
keys = "prediction_logits seq_relationship_logits logits end_logits start_logits last_hidden_state pooler_output"
keys = [key for key in keys.split() if key in found and found[key] is not None]
np.savez(sys.argv[2], **{str(i): found[key].numpy() for i, key in enumerate(keys)})
"""
    own = "{'add_pooling_layer': False}" if head == "none" else "{}"
    command = [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "found.npz"), own]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    inputs = {"input_ids": np.arange(5)[None], "token_type_ids": np.array([[0, 0, 0, 1, 1]])}
    told = pretrained.logits(model, variables, inputs)
    told = told if isinstance(told, dict) else {head: told}
    order = ["masked", "next", "label", "tags", "end", "start", "none", "states", "pooled"]
    for name, theirs in zip(sorted(told, key=order.index), np.load(tmp_path / "found.npz").values(), strict=True):
        np.testing.assert_allclose(told[name], theirs, atol=1e-4, rtol=1e-4)


def without(name):
    return lambda folder: change_weights(folder, lambda weights: {n: x for n, x in weights.items() if n != name})


def more(name, x):
    return lambda folder: change_weights(folder, lambda weights: {**weights, name: np.float32(x)})


def described(**changes):
    return lambda folder: change_config(folder, **changes)


def another_vocabulary(folder):
    path = folder / "vocab.txt"
    path.write_text(path.read_text() + "surprise\n")
    (folder / "tokenizer.json").unlink()


MISMATCHES = {
    "missing": (without("bert.encoder.layer.1.attention.self.key.weight"),
                "model.safetensors: bert.encoder.layer.1.attention.self.key.weight, which .* is missing"),
    "an extra": (more("bert.surprise", [1]), "model.safetensors: bert.surprise has no place"),
    "not tied": (more("cls.predictions.decoder.weight", np.zeros((500, 64))),
                 "cls.predictions.decoder.weight is not bert.embeddings.word_embeddings.weight"),
    "two names": (more("bert.embeddings.LayerNorm.gamma", np.ones(64)),
                  "bert.embeddings.LayerNorm.weight is there by its old name, too"),
    "a head that is not there": (described(architectures=["BertForSequenceClassification"]),
                                 "classifier.weight and 1 more, which config.json asks for, is missing"),
    "no head where there are two": (described(architectures=["BertModel"]), "cls.predictions.bias and .* no place"),
    "a head of another size": (described(architectures=["BertForMaskedLM"], vocab_size=499), r"shape \(500,"),
    "architecture": (described(architectures=["BertForMultipleChoice"]), "'BertForMultipleChoice'.; one of BertFor"),
    "a decoder": (described(is_decoder=True), "config.json: is_decoder: True; only False is known"),
    "relative positions": (described(position_embedding_type="relative_key"), "position_embedding_type: 'relative_k"),
    "epsilon": (described(layer_norm_eps=1e-5), "layer_norm_eps: 1e-05; only 1e-12"),
    "activation": (described(hidden_act="relu"), "hidden_act: 'relu'; known are gelu, gelu_new"),
    "heads": (described(num_attention_heads=5), "num_attention_heads: 5 does not divide hidden_size 64"),
    "width": (described(hidden_size=32), r"word_embeddings.weight has the shape \(500, 64\); .* is \(500, 32\)"),
    "positions": (described(max_position_embeddings=63), r"position_embeddings.weight has the shape \(64, 64\)"),
    "no types": (described(type_vocab_size=0), "type_vocab_size: 0; a whole number"),
    "no width": (described(intermediate_size=None), "intermediate_size: missing"),
    "layers": (described(num_hidden_layers=10**9), "too few for the 1000000000 layers"),
    "dropout": (described(hidden_dropout_prob=1.5), "hidden_dropout_prob: 1.5"),
    "vocabulary": (another_vocabulary, "vocab.txt: 501 tokens; the embedding in .*model.safetensors has 500"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_folder_that_does_not_go_together_is_refused_by_file_and_fault(folder, case):
    change, message = MISMATCHES[case]
    change(folder)
    with pytest.raises(UserError, match=message) as error:
        pretrained.load(folder)
    assert error.value.code == 3 and "\n" not in str(error.value)


BAD_INPUTS = {
    "id": ({"input_ids": [[3, 11]]}, r"input_ids: 11 is outside \[0, 11\)"),
    "part": ({"input_ids": [[3, 1]], "token_type_ids": [[0, 2]]}, r"token_type_ids: 2 is outside \[0, 2\)"),
    "longer than the positions": ({"input_ids": [[1] * 7]}, r"position_ids: 6 is outside \[0, 6\)"),
    "another's": ({"input_ids": [[1]], "labels": [[0]]}, "inputs input_ids, labels: BERT takes of attention_mask, "),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_inputs_out_of_range_are_refused(case):
    inputs, message = BAD_INPUTS[case]
    with pytest.raises(UserError, match=message) as error:
        pretrained.logits(*small("none"), inputs)
    assert error.value.code == 3


NOT_BERT = {"positions": "rotary", "norm": "rms", "norm_first": True, "activation": "swiglu"}


@pytest.mark.parametrize("field", NOT_BERT)
def test_a_model_that_is_no_bert_is_not_written(field, tmp_path):
    with pytest.raises(UserError, match=f"config.model.{field}: .*; BERT has ") as error:
        pretrained.save(tmp_path / "model", *small("none", **{field: NOT_BERT[field]}))
    assert error.value.code == 2 and not list(tmp_path.iterdir())


def tokenizers(folder):
    """BERT's tokenizer as its JSON has it, and as it is made of vocab.txt."""
    whole = tokenize.read(folder)
    (folder / "tokenizer.json").unlink()
    return {"tokenizer.json": whole, "vocab.txt": tokenize.read(folder)}


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_tokens_and_texts_are_those_of_the_library_of_one_text_and_of_two(folder, file):
    known, tokenizer = json.loads((HF / "tokenization.json").read_text())["bert"], tokenizers(folder)[file]
    assert tokenizer.size == known["vocab_size"]
    assert tokenizer.special == {"pad": 0, "unknown": 1, "begin": 2, "end": 3, "mask": 4}
    for entry, ids in zip(known["texts"], tokenizer.encode(entry["text"] for entry in known["texts"])):
        ids, parts = tokenizer.join(ids)
        assert ids == entry["ids"] and set(parts) == {0}, entry["kind"]
        assert [tokenizer.vocabulary[i] for i in ids] == entry["tokens"]
        if entry["kind"] != "bert specials":
            inner = lambda text: text.replace("[CLS]", "").replace("[SEP]", "").strip()
            assert tokenizer.decode(ids) == inner(entry["decoded"]), entry["kind"]
    for entry in known["pairs"]:
        first, second = tokenizer.encode([entry["text"], entry["text_pair"]])
        assert tokenizer.join(first, second) == (entry["ids"], entry["token_type_ids"]), entry


def test_transformers_reads_a_tokenizer_of_ours_in_berts_form(tmp_path):
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("no transformers: it comes with requirements-bench.txt")
    tokenizer = train_tokenizer.train(["A naïve text, of words.", "And others; [MASK] too."] * 20, "bert", 60)
    pretrained.save(tmp_path / "model", *small("pretraining", vocabulary=tokenizer.size), tokenizer)
    code = """
import json, sys, transformers
ids = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
found = ids("A text, and [MASK].", "Others of words")
special = [ids.pad_token_id, ids.unk_token_id, ids.cls_token_id, ids.sep_token_id, ids.mask_token_id]
print(json.dumps([found["input_ids"], found["token_type_ids"], special]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    pair = tokenizer.join(*tokenizer.encode(["A text, and [MASK].", "Others of words"]))
    assert json.loads(done.stdout) == [*pair, list(range(5))] and tokenizer.mask in pair[0]


@given(st.lists(st.integers(5, 400), max_size=12), st.lists(st.integers(5, 400), max_size=12), st.integers(4, 30))
def test_of_two_texts_that_are_too_long_the_longer_one_is_cut_as_the_library_does(first, second, size):
    tokenizer, library = tokenize.read(HF / "bert-tiny-encoder"), library_of_fixture()
    library.enable_truncation(size, strategy="longest_first")
    words = lambda ids: [tokenizer.vocabulary[i] for i in ids if not tokenizer.vocabulary[i].startswith("##")]
    texts = [" ".join(words(ids)) for ids in (first, second)]
    found = library.encode(*texts) if texts[1] else library.encode(texts[0])
    assert tokenizer.join(*tokenizer.encode(texts), size) == (found.ids, found.type_ids)


def library_of_fixture():
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(HF / "bert-tiny-encoder" / "tokenizer.json"))


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_is_read_by_the_choices_that_stand_beside_it(folder, lower):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    assert tokenize.read(folder).normalize("A Naïve\x00 Text") == ("a naive text" if lower else "A Naïve Text")
    (folder / "tokenizer_config.json").unlink()
    assert tokenize.read(folder).normalize("Naïve") == "naive"


BAD_VOCABULARIES = {
    "twice": (lambda text: text + "the\n", "vocab.txt: 'the' stands there twice"),
    "no end": (lambda text: text.replace("[SEP]", "sep"), r"vocab.txt: \[SEP\] is missing"),
    "empty": (lambda text: "", r"vocab.txt: \[UNK\] is missing"),
}


@pytest.mark.parametrize("case", BAD_VOCABULARIES)
def test_a_vocabulary_that_is_none_is_refused(folder, case):
    change, message = BAD_VOCABULARIES[case]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text(change((folder / "vocab.txt").read_text()))
    with pytest.raises(UserError, match=message) as error:
        tokenize.read(folder)
    assert error.value.code == 3


CASE = {"data__name": "newsgroups20", "data__max_len": 24, "data__batch_size": 8, "task__name": "classify_text",
        "model__name": "encoder", "model__head": "label", "model__layers": 2, "model__heads": 4, "model__width": 64,
        "model__context": 64, "model__dropout": 0.0, "data__splits__validation": "train[:16]",
        "data__splits__test": "test"}  # fmt: skip


def test_a_run_begins_with_hugging_faces_parameters_and_goes_out_as_it_is(tmp_path, capsys):
    source = f"hf:{HF / 'bert-tiny-pretraining'}"
    own = {"data__tokenizer": source, "init_from": source, "optimizer__learning_rate": 0.0}
    loop.train(
        make_config(**CASE, **own, train__steps=2, eval__every_steps=2), tmp_path / "run", devices=jax.devices()[:1]
    )
    said, (_, variables) = capsys.readouterr().err, pretrained.load(HF / "bert-tiny-pretraining")
    assert "there is no counterpart: head; without use here: masked, next, transform\n" in said
    run = runs.load(tmp_path / "run")
    found = dict(run.variables["params"])
    heads = [found.pop(name) for name in ("head_kernel", "head_bias")]
    assert [x.shape for x in heads] == [(64, 20), (20,)]
    trunk = {name: x for name, x in variables["params"].items() if not name.startswith(("masked", "next", "transform"))}
    assert_same_bits(found, trunk)
    setup_batch = {"tokens": tokenized(run)}
    pretrained.save(tmp_path / "out", run.model, run.variables, run.tokenizer)
    inputs = {"input_ids": setup_batch["tokens"], "attention_mask": setup_batch["tokens"] != 0}
    logits = pretrained.logits(*pretrained.load(tmp_path / "out"), inputs)
    probabilities = run.task.predict(run.model, run.variables, {**setup_batch, "mask": np.ones(3)})["probabilities"]
    assert_same_numbers(jax.nn.softmax(logits), probabilities)


def tokenized(run):
    """int32[3, 24]: texts as the run reads them."""
    rows = [run.tokenizer.join(ids, size=24)[0] for ids in run.tokenizer.encode(["a file", "the text is read", "open"])]
    return np.array([row + [0] * (24 - len(row)) for row in rows], np.int32)
