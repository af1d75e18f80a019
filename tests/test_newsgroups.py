"""20 Newsgroups from its archive to a decoder that tells a message's group by its last token; others' tokenizers."""

import io
import json
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GROUPS, SHARED, assert_same_bits, assert_same_numbers, make_config, make_setup, small_newsgroups20

from research import loop, pretrained, runs
from research.data import newsgroups, open_dataset, tokenize, train_tokenizer
from research.data.batches import open_split, read
from research.data.prepare import prepare
from research.data.recipes import RECIPES
from research.errors import UserError
from research.models.decoder import Decoder
from research.randomness import run_key

GPT2 = SHARED / "fixtures" / "hf" / "gpt2-tiny"
MEMORY = 2**31
needs_fixtures = pytest.mark.skipif(not GPT2.is_dir(), reason=f"no {GPT2}: it comes with the data, not with the code")
CASE = {
    "data__name": "newsgroups20",
    "data__max_len": 24,
    "data__batch_size": 8,
    "data__remove": ("headers", "footers", "quotes"),
    "data__splits__test": "test[:21]",
    "task__name": "classify_text",
    "model__name": "decoder",
    "model__head": "label",
    "model__layers": 2,
    "model__heads": 4,
    "model__width": 64,
    "model__context": 64,
}


def archive(folder, members=None):
    """The recipe of the data set, its archive of small messages in `folder`."""
    folder.mkdir()
    with tarfile.open(folder / "20news-bydate.tar.gz", "w:gz") as tar:
        for path, data in (members or small_newsgroups20()).items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (one,) = RECIPES["newsgroups20"].archives
    return RECIPES["newsgroups20"]._replace(archives=(one._replace(sum=None),))


def test_archive_and_unpacked_files_give_each_message_with_its_group(tmp_path, monkeypatch):
    members = {**small_newsgroups20(), "20news-bydate-test/sci.med/caf": b"Subject: x\n\ncaf\xe9\n"}
    recipe = archive(tmp_path / "packed", members)
    for path, data in members.items():
        (tmp_path / "loose" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "loose" / path).write_bytes(data)
    packed = prepare(recipe, tmp_path / "tfds", tmp_path / "packed")
    said = []
    loose = prepare(recipe, tmp_path / "again", tmp_path / "loose", said.append)
    assert "taken unchecked" in said[0]
    for path in packed.iterdir():
        assert (loose / path.name).read_bytes() == path.read_bytes()

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    raw = newsgroups.messages()
    assert raw.examples == {"train": 128, "test": 49} and raw.labels == tuple(GROUPS) and raw.shuffled
    for split in raw.examples:
        source = raw.open(split)
        found = {(e["text"].decode(), int(e["label"])) for e in source.__getitems__(range(len(source)))}
        expected = {(data.decode("latin-1"), GROUPS.index(path.split("/")[1])) for path, data in members.items()
                    if path.startswith(f"20news-bydate-{split}/")}  # fmt: skip
        assert found == expected


def test_another_archive_or_group_is_refused(tmp_path):
    recipe = archive(tmp_path / "packed")
    (one,) = recipe.archives
    with pytest.raises(UserError, match="20news-bydate.tar.gz is not the official file") as error:
        prepare(recipe._replace(archives=(one._replace(sum="0" * 64),)), tmp_path / "tfds", tmp_path / "packed")
    assert error.value.code == 3
    other = {"20news-bydate-test/sci.med/1": b"x"}
    for i, path in enumerate(("alt.surprise/1", ".DS_Store", "sci.med/1/2")):
        wrong = archive(tmp_path / f"wrong{i}", {f"20news-bydate-train/{path}": b"x", **other})
        with pytest.raises(UserError, match=f"train/{path}: SPLIT/GROUP/NUMBER is wanted") as error:
            prepare(wrong, tmp_path / "tfds", tmp_path / f"wrong{i}")
        assert error.value.code == 3
    with pytest.raises(UserError, match="20news-bydate.tar.gz: damaged: .*no file in 20news-bydate-train/"):
        prepare(archive(tmp_path / "half", other), tmp_path / "tfds", tmp_path / "half")
    (tmp_path / "loose" / "20news-bydate-test" / "sci.med").mkdir(parents=True)
    (tmp_path / "loose" / "20news-bydate-test" / "sci.med" / "1").write_bytes(b"x")
    for folder in ("nothing", "loose"):  # in which the messages of train are missing
        with pytest.raises(UserError, match="holds neither 20news-bydate.tar.gz nor 20news-bydate-train/"):
            prepare(recipe, tmp_path / "tfds", tmp_path / folder)
    assert not list((tmp_path / "tfds" / "newsgroups20").iterdir())


MESSAGE = "From: a\nSubject: b\n\nIn article <1> c writes:\n> said\n| said\n\nMine.\nIt stays.\n\n--\nName\n\n"
MESSAGES = (MESSAGE, "", "no header", "A: b\n\n", "A: b\n\none line", "A: b\n\n\n\n--\nonly a signature", "--\n\n> q")


@pytest.mark.parametrize("name", newsgroups.REMOVALS)
def test_what_is_removed_is_what_scikit_learn_removes(name, real_data):
    from sklearn.datasets import _twenty_newsgroups as peer

    theirs = {"headers": peer.strip_newsgroup_header, "footers": peer.strip_newsgroup_footer,
              "quotes": peer.strip_newsgroup_quoting}[name]  # fmt: skip
    real = [e["text"].decode() for e in newsgroups.messages().open("test").__getitems__(range(400))]
    for text in (*MESSAGES, *real):
        assert newsgroups.REMOVALS[name](text) == theirs(text)
        bare = peer.strip_newsgroup_quoting(peer.strip_newsgroup_footer(peer.strip_newsgroup_header(text)))
        assert newsgroups.without(text, ("quotes", "footers", "headers")) == bare


def test_removals_come_in_one_order_and_are_a_part_of_what_the_data_are_known_by():
    read_texts = lambda *names: [e["text"] for e in newsgroups.messages(names).open("train").__getitems__(range(20))]
    whole, bare = read_texts(), read_texts("quotes", "headers", "footers")
    assert bare == read_texts("headers", "footers", "quotes")
    for text, rest in zip(whole, bare):
        assert b"Subject" in text and b"writes:" in text and b"Place" in text
        assert rest.startswith(b"\n") and rest.strip() in text and not any(x in rest for x in (b"Sub", b">", b"Place"))
    known = {newsgroups.messages(names).fingerprint("train") for names in ((), ("quotes",), ("headers", "quotes"))}
    assert len(known) == 3
    with pytest.raises(UserError, match="config.data.remove: 'heads' is unknown") as error:
        newsgroups.messages(("heads",))
    assert error.value.code == 2


def test_the_last_token_tells_the_label_and_padding_changes_nothing():
    model = Decoder(layers=2, heads=2, width=8, context=12, vocabulary=11, head="label", classes=3)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 11, (4, 6)), jnp.int32)
    params = jax.jit(model.init)(run_key(0), tokens)["params"]
    logits = jax.jit(lambda tokens, mask: model.apply({"params": params}, tokens, mask))
    alone = jnp.concatenate([logits(tokens[i : i + 1, :n], jnp.ones((1, n))) for i, n in enumerate((6, 4, 1, 2))])
    mask = jnp.arange(6)[None] < jnp.asarray([6, 4, 1, 2])[:, None]
    assert_same_numbers(logits(tokens, mask), alone)
    wide = lambda x, fill: jnp.pad(x, ((0, 0), (0, 6)), constant_values=fill)
    assert_same_numbers(logits(wide(tokens, -1), wide(mask, False)), alone)
    of_head = lambda head: jax.jit(lambda params: model.clone(head=head).apply({"params": params}, tokens))
    whole = of_head("tokens")({name: x for name, x in params.items() if name != "head_kernel"})
    hidden = of_head("none")(params)
    assert whole.shape == (4, 6, 11)
    assert_same_numbers(alone[0], hidden[0, 5] @ params["head_kernel"])
    nothing = logits(jnp.full((4, 6), -1), jnp.zeros((4, 6)))  # is left of a message
    assert_same_numbers(nothing, logits(jnp.zeros((4, 6), jnp.int32), jnp.zeros((4, 6))))


def test_heads_of_other_tasks_and_of_no_label_are_refused():
    with pytest.raises(
        UserError, match="config.model.head: tokens; config.task.name classify_text wants label"
    ) as error:
        make_setup(**{**CASE, "model__head": "tokens"})
    assert error.value.code == 2
    text = {"data__name": "tiny_shakespeare", "data__max_len": 12, "task__name": "next_token", "model__name": "decoder",
            "model__layers": 1, "model__heads": 1, "model__width": 8, "model__context": 12}  # fmt: skip
    for head, message in (
        ("span", "head: span; .* next_token wants tokens"),
        ("label", "head: label wants config.model"),
    ):
        with pytest.raises(UserError, match=f"config.model.{message}") as error:
            make_setup(**text, model__head=head)
        assert error.value.code == 2
    with pytest.raises(UserError, match="config.model.head: 'lable' is unknown; .*did you mean label") as error:
        make_setup(**{**CASE, "model__head": "lable"})
    assert error.value.code == 2


@pytest.mark.parametrize("devices", [1, 2])
def test_one_batch_of_messages_is_learnt_by_heart(devices):
    from research.randomness import run_key
    from research.train_step import make_train_step

    setup = make_setup(devices, **{**CASE, "optimizer__name": "adam", "optimizer__learning_rate": 3e-3})
    step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    batch = {**read(setup.splits["train"], np.arange(8)), "mask": np.ones(8, np.float32)}
    state = jax.jit(setup.init)(run_key(0))
    for _ in range(40):
        state, metrics = step(state, {}, batch, run_key(0))
    total, count = metrics["accuracy"]
    assert total == count == 8


@needs_fixtures
def test_a_run_begins_with_hugging_faces_parameters_and_its_tokenizer(tmp_path, capsys):
    own = {"data__tokenizer": f"hf:{GPT2}", "init_from": f"hf:{GPT2}", "optimizer__learning_rate": 0.0}
    loop.train(
        make_config(**CASE, **own, train__steps=2, eval__every_steps=2), tmp_path / "run", devices=jax.devices()[:1]
    )
    said, (_, variables) = capsys.readouterr().err, pretrained.load(GPT2)
    assert "28 parameters copied; initialised here, since there is no counterpart: head\n" in said
    run = runs.load(tmp_path / "run")
    found = dict(run.variables["params"])
    assert found.pop("head_kernel").shape == (64, 20)
    assert_same_bits(found, variables["params"])
    assert run.tokenizer.digest == tokenize.read(GPT2).digest and run.config.model.vocabulary == 600
    batch = read(open_split(open_dataset("newsgroups20", {"tokenizer": run.tokenizer, "max_len": 24}), "test", "test",
                            MEMORY, 0), np.arange(3))  # fmt: skip
    pretrained.save(tmp_path / "out", run.model, run.variables, run.tokenizer)
    again, others = pretrained.load(tmp_path / "out")
    mask = batch["tokens"] >= 0
    logits = pretrained.logits(again, others, {"input_ids": np.maximum(batch["tokens"], 0), "attention_mask": mask})
    probabilities = run.task.predict(run.model, run.variables, batch)["probabilities"]
    assert_same_numbers(jax.nn.softmax(logits), probabilities)


@needs_fixtures
def test_parameters_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    own = {**CASE, "init_from": f"hf:{GPT2}", "train__steps": 2}
    cases = {
        "another tokenizer": ({}, 2, "config.init_from: .* has another tokenizer; give config.data.tokenizer=hf:"),
        "another prefix": ({"data__tokenizer": f"hf:{GPT2}", "init_from": f"hf:{GPT2}:blck0"}, 2,
                           "nothing here is called blck0; did you mean block0"),
        "no folder": ({"init_from": "hf:./nowhere"}, 3, "config.init_from: hf:./nowhere: there is no folder"),
        "no tokenizer": ({"data__tokenizer": "hf:./nowhere"}, 3, "config.data.tokenizer: hf:./nowhere: there is no "),
    }  # fmt: skip
    for changes, code, message in cases.values():
        with pytest.raises(UserError, match=message) as error:
            loop.train(make_config(**{**own, **changes}), tmp_path / "run", devices=jax.devices()[:1])
        assert error.value.code == code and not (tmp_path / "run").exists()


@needs_fixtures
def test_a_foreign_tokenizer_keeps_its_own_special_tokens():
    """GPT-2 has no padding of its own: places of padding hold -1, and the end of a document is a token like others."""
    labelled = open_dataset("newsgroups20", {"tokenizer": f"hf:{GPT2}", "max_len": 200})
    ids = labelled.tokenizer
    tokens = labelled.open("test").stacked(np.arange(8))["tokens"]  # not what a cache has kept
    texts = newsgroups.messages().open("test").__getitems__(range(8))
    for row, text in zip(tokens, texts):
        whole = ids.encode([text["text"].decode()])[0]
        assert row[row >= 0].tolist() == whole[:200] and labelled.pad == ids.pad == -1
    assert (tokens < 0).any(axis=1).all()  # none is cut: nothing was added behind them

    running = open_dataset("wikitext2", {"tokenizer": f"hf:{GPT2}", "max_len": 40, "packed": True})
    source = running.open("validation")
    rows = source.stacked(np.arange(len(source)))
    scored = rows["targets"] != ids.pad
    assert (rows["targets"][scored] == ids.end).sum() == 2  # between three articles
    assert (rows["tokens"][rows["positions"] == 0][:1] == ids.begin).all()
    assert ids.token_bytes[ids.end] == 0 and ids.token_bytes[scored_ids := rows["targets"][scored]].sum() > 0
    text = ids.decode(scored_ids[: int(np.argmax(scored_ids == ids.end))])
    assert ids.token_bytes[ids.encode([text])[0]].sum() == len(text.encode())
    assert ids.decode([ids.begin, *ids.encode(["a text"])[0], ids.end, 5]) == "a text"


@needs_fixtures
def test_a_run_on_running_text_with_a_foreign_tokenizer_scores_each_token_once(tmp_path):
    own = {"data__name": "wikitext2", "data__max_len": 16, "data__splits__test": "test", "model__context": 16,
           "data__splits__validation": "validation", "task__name": "next_token", "model__name": "decoder",
           "model__layers": 1, "model__heads": 2, "model__width": 16, "data__tokenizer": f"hf:{GPT2}",
           "data__context": 4}  # fmt: skip
    setup = make_setup(**own)
    split = setup.splits["validation"]
    variables = {"params": jax.jit(setup.init)(run_key(0)).params}
    batch = {**read(split, np.arange(len(split))), "mask": np.ones(len(split), np.float32)}
    sums, _ = setup.task.evaluate(setup.model, variables, batch, None)
    ids = setup.dataset.tokenizer
    source = newsgroups.from_tfds("wikitext2").open("validation")
    texts = [e["text"].decode() for e in source.__getitems__(range(len(source)))]
    assert sums["loss"][1] == sum(map(len, ids.encode(texts))) + len(texts) - 1
    assert sums["bits_per_byte"][1] == sum(len(text.encode()) for text in texts)


def test_word_augmentation_is_for_our_own_tokenizers_alone():
    if not GPT2.is_dir():
        pytest.skip(f"no {GPT2}: it comes with the data, not with the code")
    with pytest.raises(UserError, match="config.data.augment.swap: config.data.tokenizer must be characters,") as error:
        make_setup(**CASE, data__tokenizer=f"hf:{GPT2}", data__augment__swap=0.1)
    assert error.value.code == 2


def test_running_text_wants_a_tokenizer_that_can_end_a_document(tmp_path):
    library = json.loads(train_tokenizer.train(["a b c d e f"], "words", 50).json)
    library["model"]["vocab"] = {f"w{i}": i for i in range(4)} | {"a": 4, "b": 5}
    (tmp_path / "other.json").write_text(json.dumps({**library, "model": {**library["model"], "unk_token": "w0"}}))
    with pytest.raises(UserError, match="config.data.tokenizer: .*no token for the begin of a text: none of") as error:
        open_dataset("tiny_shakespeare", {"tokenizer": str(tmp_path / "other.json")})
    assert error.value.code == 2
