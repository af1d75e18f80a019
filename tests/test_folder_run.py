"""A folder in Hugging Face's layout is used as a run is: the same numbers, or an error if it does not say enough."""

import json
import shutil

import jax
import numpy as np
import pytest
from conftest import SHARED, assert_same_numbers, run_script
from scipy.special import softmax

from research import pretrained
from research.data import tokenize
from research.errors import UserError
from research.inference import folder_run, prediction, similarity
from research.models.encoder import Encoder
from research.randomness import run_key

HF = SHARED / "fixtures" / "hf"
pytestmark = pytest.mark.skipif(not HF.is_dir(), reason=f"no {HF}: it comes with the data, not with the code")
TEXT = "a gripping film"


def script(capsys, *arguments):
    """A script's exit code, stdout and stderr."""
    return run_script(*arguments), *capsys.readouterr()


def ids_of(folder, *texts):
    tokenizer = tokenize.read(folder)
    return tokenizer, tokenizer.join(*tokenizer.encode(list(texts)))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder whose head has the classes of SST-2."""
    folder, tokenizer = tmp_path_factory.mktemp("hf") / "sst2", tokenize.read(HF / "bert-tiny-classifier")
    model = Encoder(layers=1, heads=2, width=16, context=64, vocabulary=tokenizer.size, head="label", classes=2)
    variables = jax.jit(model.init)(run_key(0), np.zeros((1, 4), np.int32))
    pretrained.save(folder, model, variables, tokenizer, ("negative", "positive"))
    return folder


@pytest.fixture
def encoder(tmp_path):
    """A copy of a BERT without a head, with the pooling file of a sentence encoder."""
    shutil.copytree(HF / "bert-tiny-encoder", tmp_path / "encoder", copy_function=shutil.copyfile)
    (tmp_path / "encoder").chmod(0o755)
    (tmp_path / "encoder" / "1_Pooling").mkdir()
    write(tmp_path / "encoder", pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    return tmp_path / "encoder"


def write(folder, **pooling):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64, **pooling}))


@pytest.mark.parametrize("second", [None, "so it is"])
def test_classes_of_a_text_and_of_a_pair_are_those_of_the_logits(second):
    folder = HF / "bert-tiny-classifier"
    run = folder_run.load(f"hf:{folder}", {}, paired=second is not None)
    (row,) = prediction.top_classes(run, prediction.read_texts(run, [TEXT], [second] if second else ()), 3)
    _, (ids, types) = ids_of(folder, *filter(None, (TEXT, second)))
    inputs = {"input_ids": np.array([ids]), "token_type_ids": np.array([types])}
    expected = softmax(np.asarray(pretrained.logits(*pretrained.load(folder), inputs))[0])
    found = {one["class"]: one["probability"] for one in row["top"]}
    assert_same_numbers([found[name] for name in pretrained.labels(folder)], list(expected))


def test_a_text_is_tagged_told_a_word_and_asked_by_the_scripts(capsys):
    for name, flags in (
        ("ner", ["--text=Anna met Bert"]),
        ("pretraining", ["--text=a [MASK] film"]),
        ("qa", ["--text=a gripping film", "--question=what film"]),
    ):
        code, out, err = script(capsys, "predict", f"--workdir=hf:{HF / f'bert-tiny-{name}'}", *flags)
        assert code == 0 and len(out.splitlines()) >= 1, err


def test_a_language_model_writes_and_is_evaluated_as_its_logits_say(capsys):
    folder = HF / "gpt2-tiny"
    own = ["--prompt=The war", "--tokens=3", "--temperature=0"]
    code, out, _ = script(capsys, "generate", f"--workdir=hf:{folder}", *own)
    tokenizer, model = tokenize.read(folder), pretrained.load(folder)
    (ids,) = tokenizer.encode(["The war"])
    for _ in range(3):
        logits = pretrained.logits(*model, {"input_ids": np.array([ids])})
        ids.append(int(np.argmax(logits[0, -1])))
    assert code == 0 and out.strip() == tokenizer.decode(ids).strip()
    own = ["--config.data.name=tiny_shakespeare", "--config.data.max_len=12", "--split=validation[:2]"]
    code, out, _ = script(capsys, "evaluate", f"--workdir=hf:{folder}", *own)
    assert code == 0 and f"weights of hf:{folder}" in out and "loss" in out


def test_a_classifier_is_evaluated_on_a_data_set_that_is_named(classifier, capsys, tmp_path):
    evaluate = ["evaluate", f"--workdir=hf:{classifier}", "--split=validation"]
    output = tmp_path / "found.json"
    code, *_ = script(capsys, *evaluate, "--config.data.name=glue/sst2", f"--output={output}")
    assert code == 0
    predict = ["predict", f"--workdir=hf:{classifier}", "--split=validation", "--config.data.name=glue/sst2"]
    code, *_ = script(capsys, *predict, "--top=1", f"--output={tmp_path / 'rows.jsonl'}")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    right = np.mean([row["top"][0]["class"] == row["label"] for row in rows])
    assert code == 0 and json.loads(output.read_text())["metrics"]["accuracy"] == pytest.approx(right)


def test_vectors_of_sentences_are_the_mean_of_the_states(encoder):
    run = folder_run.load(f"hf:{encoder}", {})
    found = similarity.sentence_vectors(run, [TEXT, "a file"], ["one", "two"])
    for text, vector in zip([TEXT, "a file"], found):
        _, (ids, _) = ids_of(encoder, text)
        states = np.asarray(pretrained.logits(*pretrained.load(encoder), {"input_ids": np.array([ids])})["states"])[0]
        mean = states.mean(axis=0)
        assert_same_numbers(vector, mean / np.linalg.norm(mean), 1e-5)


def test_a_sentence_encoder_reads_as_many_tokens_as_it_says(encoder):
    (encoder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5}))
    run = folder_run.load(f"hf:{encoder}", {})
    with pytest.raises(UserError, match="one: .* the run reads at most 5"):
        similarity.sentence_vectors(run, [" ".join([TEXT] * 3)], ["one"])


@pytest.mark.parametrize(
    "pooling,code,message",
    [
        ({"pooling_mode_cls_token": True}, 3, "pooling_mode_cls_token; only pooling_mode_mean_tokens is known here"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, 3, "pooling_mode_cls_token, pooling_mode"),
        ({}, 3, "no mode; only pooling_mode_mean_tokens"),
        (None, 2, "no head, and no 1_Pooling/config.json"),
    ],
)
def test_a_folder_that_does_not_say_how_states_become_a_vector_is_refused(encoder, pooling, code, message):
    if pooling is None:
        shutil.rmtree(encoder / "1_Pooling")
    else:
        write(encoder, **pooling)
    with pytest.raises(UserError, match=message) as error:
        folder_run.load(f"hf:{encoder}", {})
    assert error.value.code == code


def test_what_such_a_folder_cannot_know_is_asked_for(classifier, tmp_path):
    source, data = f"hf:{classifier}", {"data.name": "glue/sst2"}
    with pytest.raises(UserError, match="--config.data.name: needed.*names no data set"):
        folder_run.load(source, {}, needs_data=True)
    with pytest.raises(UserError, match="--config.model.width: .* takes config.data.\\* alone"):
        folder_run.load(source, {"model.width": "3"})
    with pytest.raises(UserError, match="config.data.name: wikitext2 has no classes; hf:.* predicts 2"):
        folder_run.load(source, {"data.name": "wikitext2"}, needs_data=True)
    shutil.copytree(classifier, tmp_path / "turned")
    path = tmp_path / "turned" / "config.json"
    named = {"id2label": {"0": "POSITIVE", "1": "NEGATIVE"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    with pytest.raises(UserError, match="predicts POSITIVE, NEGATIVE in this order; glue/sst2 has negative, positive"):
        folder_run.load(f"hf:{tmp_path / 'turned'}", data, needs_data=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"problem_type": "multi_label_classification"}))
    with pytest.raises(UserError, match="problem_type multi_label_classification of 2 labels: only classes that"):
        folder_run.load(f"hf:{tmp_path / 'turned'}", {})
    (tmp_path / "turned" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="turned: no tokenizer: neither") as error:
        folder_run.load(f"hf:{tmp_path / 'turned'}", {})
    assert error.value.code == 3
