"""Text: tokenizers that give it back, data sets of it, lengths in buckets, what is changed on the way."""

import dataclasses
import json
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED, make_config, make_setup
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from research import sharding
from research.data import augment, open_dataset, text, tokenize, train_tokenizer
from research.data.batches import eval_batches, open_split, stack, train_batches
from research.data.order import Lengths, step_examples
from research.data.tokenize import BEGIN, END, PAD, SPECIAL, UNKNOWN
from research.errors import UserError
from research.evaluation import evaluate
from research.randomness import run_key
from research.setup import resolve
from research.tasks.translate import make_bleu, text_scores
from research.train_step import eval_variables, make_train_step

TEXTS = ["The cat, it's a cat!", "Größe — 日本 😀\n two  lines", "a <unk> @-@ b < end > < pad >"] * 5
MEMORY = 2**31


@pytest.fixture(scope="module", params=train_tokenizer.KINDS)
def trained(request):
    return request.param, train_tokenizer.train(TEXTS, request.param, 400)


@pytest.mark.smoke
@settings(max_examples=100, deadline=None)
@given(st.text())
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_decoding_what_was_encoded_gives_any_text_back(kind, text):
    tokenizer = KEPT.setdefault(kind, train_tokenizer.train(TEXTS, kind, 300))
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text


KEPT = {}


def test_characters_give_their_own_text_back_and_name_the_unknown():
    tokenizer = train_tokenizer.train(TEXTS, "characters", 100)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(TEXTS)] == TEXTS
    (ids,) = tokenizer.encode(["czc"])
    assert ids[1] == UNKNOWN and UNKNOWN not in (ids[0], ids[2])


def test_no_text_is_read_as_a_special_token(trained):
    kind, tokenizer = trained
    assert tokenizer.vocabulary[:4] == (("[PAD]", "[UNK]", "[CLS]", "[SEP]") if kind == "bert" else SPECIAL)
    for ids in tokenizer.encode([*SPECIAL, *TEXTS]):
        assert not {PAD, BEGIN, END} & set(ids), kind


def test_a_tokenizer_is_the_same_after_reading_its_file_and_after_training_again(trained, tmp_path):
    kind, tokenizer = trained
    (tmp_path / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    others = [tokenize.read(tmp_path / "tokenizer.json")]
    if kind != "unigram":  # in whose training the library goes by the order of a hash
        others.append(train_tokenizer.train(TEXTS, kind, 400))
    for other in others:
        assert other.digest == tokenizer.digest
        assert other.encode(TEXTS) == tokenizer.encode(TEXTS)


def test_ids_lie_in_the_vocabulary_and_its_limit_is_kept(trained):
    kind, tokenizer = trained
    assert max(max(ids) for ids in tokenizer.encode(TEXTS)) < tokenizer.size == len(tokenizer.vocabulary) <= 400
    limit = {"bytes": 262, "bpe": 262, "wordpiece": 80, "bert": 80, "unigram": 50}.get(kind, 24)
    assert train_tokenizer.train(TEXTS, kind, limit).size <= limit


def test_decoding_stops_at_the_end_and_refuses_what_is_no_id(trained):
    _, tokenizer = trained
    (ids,) = tokenizer.encode(["a cat"])
    assert tokenizer.decode([BEGIN, *ids, END, *ids, PAD]) == tokenizer.decode(ids)
    for wrong in (-1, tokenizer.size):
        with pytest.raises(UserError, match=f"token id {wrong} is outside") as error:
            tokenizer.decode([wrong])
        assert error.value.code == 3


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
def test_the_bytes_of_tokens_add_up_to_those_of_the_text(kind):
    tokenizer = train_tokenizer.train(TEXTS, kind, 400)
    for one, ids in zip(TEXTS, tokenizer.encode(TEXTS)):
        assert tokenizer.token_bytes[ids].sum() == len(one.encode())
    assert tokenizer.token_bytes[:4].tolist() == [0, 1, 0, 0]  # an unknown character is one byte


def test_the_bytes_of_words_add_up_to_those_of_a_text_that_is_tokenised_already():
    dataset = open_dataset("wikitext2", {"tokenizer": "blanks", "newline": tokenize.NEWLINE})
    articles = text.from_tfds("wikitext2").open("train")
    for article in (articles[i]["text"].decode() for i in range(len(articles))):
        (ids,) = dataset.tokenizer.encode([article.replace("\n", tokenize.NEWLINE)])
        assert dataset.tokenizer.token_bytes[ids].sum() == len(article.encode()) > 100
    assert not dataset.tokenizer.token_bytes[:4].any()  # an unknown word is none


@pytest.mark.parametrize("names", [("strip_tags", "whitespace"), ("nfc",), ("lowercase",)])
def test_a_tokenizer_that_changes_text_counts_no_bytes(names):
    assert train_tokenizer.train(TEXTS, "bytes", 300, normalize=names).token_bytes is None
    spaced = json.loads(train_tokenizer.train(TEXTS, "bpe", 300).json)
    spaced["pre_tokenizer"]["add_prefix_space"] = True
    assert tokenize.Tokenizer(json.dumps(spaced)).token_bytes is None


@pytest.mark.parametrize("newline,counted", [("\n", True), (" ", True), (" <eos> ", False), ("", False)])
def test_bits_per_byte_need_an_end_of_line_that_is_one_byte(newline, counted):
    dataset = open_dataset("tiny_shakespeare", {"tokenizer": "bytes", "vocabulary_size": 300, "newline": newline})
    assert dataset.counts_bytes == counted
    own = {"model__name": "decoder", "data__tokenizer": "bytes", "data__vocabulary_size": 300, "data__newline": newline}
    if counted:
        make_setup(**own, eval__metric="bits_per_byte")
    else:
        with pytest.raises(UserError, match="'bits_per_byte' is not evaluated"):
            make_setup(**own, eval__metric="bits_per_byte")
    blanks = open_dataset("wikitext2", {"tokenizer": "blanks", "newline": tokenize.NEWLINE})
    assert blanks.counts_bytes and not open_dataset("wikitext2", {"tokenizer": "words"}).counts_bytes


def test_a_vocabulary_with_gaps_has_room_for_its_largest_id(tmp_path):
    folder = need_case("08-vocabulary-with-gaps")
    arguments = {"folder": str(folder), "tokenizer": str(folder / "tokenizer.json"), "max_len": 16}
    dataset = open_dataset("text", arguments)
    ids = dataset.tokenizer
    assert ids.size == dataset.vocabulary == len(ids.vocabulary) == 13 and ids.vocabulary[9:11] == ("<unused9>", "dog")
    rows = dataset.open("train").stacked(np.arange(2))["targets"]
    assert rows.max() == 12 and ids.decode([10, 5, 12]).split() == ["dog", "ran"]
    split = open_split(dataset, "train", "train", MEMORY, 0)
    assert next(train_batches(split, 0, 2, 0, 1))["targets"].max() < dataset.vocabulary


def folder_of_gpt2(tmp_path, **files):
    """GPT-2's small vocabulary of 600 tokens in its two files, without tokenizer.json."""
    source = SHARED / "fixtures" / "hf" / "gpt2-tiny"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(source / name, tmp_path)
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tokenize.read(tmp_path)


SEPARATOR = {"content": "<|sep|>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def test_added_tokens_of_a_folder_are_read_whole_by_their_ids(tmp_path):
    tokenizer = folder_of_gpt2(tmp_path, added_tokens={"<|sep|>": 600, "<|pad|>": 601})
    assert tokenizer.encode(["a <|sep|> b"]) == [[64, 220, 600, 282]] and tokenizer.size == 602
    assert tokenizer.token_bytes[600] == 7
    tokenizer = folder_of_gpt2(tmp_path, tokenizer_config={"add_prefix_space": True})
    assert tokenizer.encode(["hello world"])[0][0] == 502
    (tmp_path / "added_tokens.json").unlink()
    tokenizer = folder_of_gpt2(tmp_path, tokenizer_config={"added_tokens_decoder": {"700": SEPARATOR}})
    assert tokenizer.encode(["a <|sep|> b"]) == [[64, 220, 700, 282]] and tokenizer.size == 701  # behind a gap


@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_of_berts_folder_are_read_whole(tmp_path, special):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|Sep|>": 6}))
    if special:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<|Sep|>"]}))
    tokenizer = tokenize.read(tmp_path)
    # One that is not special is found in the normalized text, in lower case.
    spelled, lower = tokenizer.encode(["a <|Sep|> b", "a <|sep|> b"])
    assert spelled == [4, 6, 5] and (lower == spelled) == (not special) and tokenizer.size == 7


@pytest.mark.parametrize(
    "files,part",
    [
        ({"added_tokens": {"<|sep|>": 5}}, "'<|sep|>' has the id 5, but in the vocabulary 5 is"),
        ({"added_tokens": {"a": 600}}, "'a' has the id 600, but in the vocabulary 'a' is 64"),
        ({"added_tokens": {"<|sep|>": "x"}}, "has the id 'x'"),
        ({"added_tokens": ["<|sep|>"]}, "added_tokens.json: not a JSON object"),
        ({"tokenizer_config": {"added_tokens_decoder": {"600": "<|sep|>"}}}, "not a tokenizer"),
    ],
)
def test_added_tokens_that_cannot_be_are_refused(tmp_path, files, part):
    with pytest.raises(UserError) as error:
        folder_of_gpt2(tmp_path, **files)
    assert error.value.code == 3 and part in str(error.value) and str(tmp_path) in str(error.value)


def test_a_tokenizer_that_loses_text_counts_no_bytes(trained):
    kind, tokenizer = trained
    assert (tokenizer.token_bytes is None) == (kind in ("words", "wordpiece", "bert", "unigram"))


@pytest.mark.parametrize(
    "names,before,after",
    [
        (("lowercase",), "Ärger", "ärger"),
        (("nfkc",), "ﬁne x²", "fine x2"),
        (("strip_accents", "lowercase"), "Ärger", "arger"),
        (("strip_tags", "whitespace"), "a<br />b <i>c</i>", "a b c"),
        (("strip_urls", "whitespace"), "see https://x.org/a?b=1 or www.y.de now", "see or now"),
        (("strip_control",), "a\x00b\u200bc\nd", "abc\nd"),
        (("whitespace",), "  a \t\n b ", "a b"),
    ],
)
def test_normalizers_do_what_they_say_and_are_kept(names, before, after):
    tokenizer = train_tokenizer.train(["abc"], "bytes", 300, normalize=names)
    assert tokenizer.normalize(before) == after
    assert tokenizer.decode(tokenizer.encode([before])[0]) == after


@pytest.mark.parametrize(
    "arguments,part",
    [
        ({"kind": "bpee"}, "did you mean bpe?"),
        ({"kind": "bpe", "vocabulary_size": 100}, "at least 260"),
        ({"kind": "unigram", "vocabulary_size": 20}, "not large enough"),
        ({"kind": "words", "min_count": 1000}, "config.data.min_count"),
        ({"kind": "words", "normalize": ("lower",)}, "did you mean lowercase?"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused(arguments, part):
    with pytest.raises(UserError, match="config.data") as error:
        train_tokenizer.train(TEXTS, **{"vocabulary_size": 300, **arguments})
    assert error.value.code == 2 and part in str(error.value)


@pytest.mark.parametrize(
    "content,part",
    [("{", "not a tokenizer"), ("{}", "not a tokenizer"), (b"\xff\xfe", "is UTF-16, not UTF-8")],
)
def test_a_vocabulary_of_another_tokenizer_is_refused(content, part, tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=part) as error:
        open_dataset("glue/sst2", {"tokenizer": str(path)})
    assert error.value.code == 3 and str(path) in str(error.value)


def test_the_tokenizer_of_a_file_is_taken_unless_it_knows_less_than_half_of_the_text(tmp_path):
    own, other = open_dataset("glue/sst2", {}).tokenizer, train_tokenizer.train(["123 + 45"], "words", 50)
    (tmp_path / "own.json").write_text(own.json)
    assert open_dataset("glue/sst2", {"tokenizer": str(tmp_path / "own.json")}).tokenizer.digest == own.digest
    (tmp_path / "other.json").write_text(other.json)
    with pytest.raises(UserError, match="other.json does not know [0-9]+ of the first [0-9]+ tokens") as error:
        open_dataset("glue/sst2", {"tokenizer": str(tmp_path / "other.json")})
    assert error.value.code == 3


@pytest.mark.parametrize("given", ["?", "", "Bert", " bert"])
def test_a_kind_of_tokenizer_that_there_is_not_is_refused(given):
    with pytest.raises(UserError, match=f"config.data.tokenizer: {re.escape(repr(given))} is unknown") as error:
        open_dataset("glue/sst2", {"tokenizer": given})
    assert error.value.code == 2


def pairs(**arguments):
    return open_dataset("multi30k", {"vocabulary_size": 300, "max_len": 24, **arguments})


def test_pairs_hold_both_sides_closed_by_an_end_and_the_reference_as_text():
    dataset, other = pairs(normalize=("lowercase",)), pairs(normalize=("lowercase",), reverse=True)
    source, reversed_ = dataset.open("train")[0], other.open("train")[0]
    raw = text.from_tfds("multi30k").open("train")[0]
    german, english = raw["de"].decode().lower(), raw["en"].decode().lower()
    decode = dataset.tokenizer.decode
    assert (decode(source["source"]), decode(source["target"])) == (german, english)
    assert (decode(reversed_["source"]), decode(reversed_["target"])) == (english, german)
    assert bytes(source["reference"]).rstrip(b"\0").decode() == english
    n = int((source["source"] != PAD).sum())
    assert source["source"][n - 1] == END and not source["source"][n:].any()


def test_long_texts_are_cut_without_an_end_and_counted():
    split = open_split(pairs(max_len=8), "train", "train", MEMORY, 0)
    (note,) = split.notes()
    tokens = np.concatenate([split.arrays["train"][field] for field in ("source", "target")])
    cut = (tokens[:, -1] != PAD) & (tokens[:, -1] != END)
    assert cut.sum() > 0 and note == f"multi30k, split train: {cut.sum()} texts cut to 8 tokens"
    assert open_split(pairs(max_len=8), "train", "train", MEMORY, 0).notes() == [note]  # from the cache, too


def test_a_set_that_streams_counts_what_it_has_read():
    split = open_split(pairs(max_len=8), "train", "train", 0, 0)
    assert split.notes() == []
    batch = next(train_batches(split, 0, 16, 0, 1))
    cut = sum(((batch[field][:, -1] != PAD) & (batch[field][:, -1] != END)).sum() for field in ("source", "target"))
    assert [note.split()[3] for note in split.notes()] >= [str(cut)] and cut > 0


def test_bytes_that_are_no_utf8_are_replaced_and_counted(monkeypatch):
    raw = text.from_tfds("glue/sst2")

    class Spoilt:
        def __len__(self):
            return 8

        def __getitems__(self, records):
            return [{"sentence": b"good \xff film" if i % 4 == 0 else b"bad film", "label": 0} for i in records]

    spoilt = dataclasses.replace(raw, open=lambda split: Spoilt(), examples={"train": 8}, fingerprint=lambda split: "x")
    monkeypatch.setattr(text, "from_tfds", lambda name: spoilt)
    dataset = dataclasses.replace(open_dataset("glue/sst2", {"tokenizer": "characters"}), fingerprint=None)
    split = open_split(dataset, "train", "train", MEMORY, 0)
    assert split.notes() == ["glue/sst2, split train: 2 texts that were not UTF-8"]
    assert dataset.tokenizer.decode(split.arrays["train"]["tokens"][0]) == "good \ufffd film"


def test_a_token_outside_the_vocabulary_is_refused_with_its_place():
    dataset = pairs()
    small = dataclasses.replace(dataset, tokenizer=train_tokenizer.train(["a"], "characters", 5), fingerprint=None)
    with pytest.raises(
        UserError, match=r"multi30k, split train, record 0: token id in source \d+ is outside \[0, 5\)"
    ) as e:
        open_split(small, "train", "train", MEMORY, 0)
    assert e.value.code == 3


@pytest.mark.parametrize("context", [0, 1, 5, 15])
@pytest.mark.parametrize("base", ["train", "validation"])
def test_every_token_of_running_text_is_scored_once_after_the_one_before_it(base, context):
    arguments = {"tokenizer": "characters", "max_len": 16, "context": context}
    dataset = open_dataset("tiny_shakespeare", arguments)
    whole = dataset.tokenizer.encode([text.from_tfds("tiny_shakespeare").open(base)[0]["text"].decode()])[0]
    source = dataset.open(base)
    rows = source.stacked(np.arange(len(source)))
    scored = rows["targets"] != PAD
    assert rows["targets"][scored].tolist() == whole
    assert rows["tokens"][scored].tolist() == [BEGIN, *whole[:-1]]
    behind = 0 if base == "train" else context
    for i in range(1, len(source) - 1):  # what is read before the first that is scored
        assert scored[i].argmax() == behind and (rows["tokens"][i, : behind + 1] != PAD).all()


def test_words_of_wikitext_are_the_usual_stream():
    dataset = open_dataset("wikitext2", {"tokenizer": "blanks", "newline": " <eos> ", "max_len": 32})
    articles = text.from_tfds("wikitext2").open("train")
    texts = [articles[i]["text"].decode() for i in range(len(articles))]
    words = lambda text: [word for line in text.split("\n")[:-1] for word in [*line.split(), "<eos>"]]
    # The custom, and besides an end between articles: the first word of one does not follow from the last of another.
    usual = [word for text in texts for word in [*words(text), SPECIAL[END]]][:-1]
    assert usual.count(SPECIAL[END]) == len(texts) - 1 > 1
    rows = dataset.open("train").stacked(np.arange(len(dataset.open("train"))))
    found = [dataset.tokenizer.vocabulary[i] for i in rows["targets"].ravel() if i != PAD]
    assert found == usual
    assert dataset.token_counts().sum() == len(usual)


@pytest.mark.parametrize(
    "name,arguments,part",
    [
        ("multi30k", {"buckets": (8, 8)}, "rising"),
        ("multi30k", {"buckets": (8, 70)}, "at most max_len 64"),
        ("tiny_shakespeare", {"context": 64}, "nothing to score"),
        ("addition", {"digits": 19}, "1 to 18 digits"),
    ],
)
def test_arguments_that_cannot_be_are_refused(name, arguments, part):
    with pytest.raises(UserError, match=part) as error:
        open_dataset(name, arguments)
    assert error.value.code == 2


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 60), batch=st.integers(1, 60), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_by_length_too_every_example_comes_once_an_epoch(n, batch, epochs, seed):
    batch = min(batch, n)
    lengths = Lengths(np.random.default_rng(n).integers(0, 3, n))
    steps = -(-n * epochs // batch)
    order = np.concatenate([step_examples(seed, step, batch, n, lengths) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_batches_are_of_one_bucket_but_where_one_ends():
    n, size = 1000, 10
    lengths = Lengths(np.random.default_rng(0).integers(0, 4, n))
    batches = [lengths.bucket[step_examples(0, step, size, n, lengths)] for step in range(3 * n // size)]
    mixed = sum(len(set(batch)) > 1 for batch in batches)
    assert mixed <= 3 * 3  # of each epoch three at most: where a bucket goes over into the next
    assert len({tuple(batch) for batch in batches[:20]}) > 1  # and they come in no order


def test_a_jump_to_a_step_equals_the_walk_to_it_with_buckets():
    split = open_split(pairs(buckets=(18, 21)), "train", "train", MEMORY, 0)
    walk = list(train_batches(split, 3, 16, 0, 20))
    for first in (0, 7, 8, 9, 15):
        for jumped, walked in zip(train_batches(split, 3, 16, first, 20), walk[first:]):
            assert jumped.keys() == walked.keys() and all(np.array_equal(jumped[k], walked[k]) for k in jumped)


BUCKETS = {"model__name": "seq2seq", "data__name": "multi30k", "data__vocabulary_size": 300, "data__max_len": 24,
           "data__splits__validation": "validation", "data__splits__test": None}  # fmt: skip


@pytest.mark.smoke
def test_shapes_are_few_and_each_is_traced_once():
    setup = make_setup(**BUCKETS, data__buckets=(18, 21))
    traces = []

    def loss(*arguments):
        traces.append(arguments[2]["source"].shape)
        return setup.task.loss(*arguments)

    task = setup.task._replace(loss=loss)
    whole = sharding.replicated(setup.mesh)
    state, key = jax.jit(setup.init, out_shardings=whole)(run_key(0)), sharding.place(run_key(0), whole)
    step = make_train_step(setup.model, task, setup.optimizer, setup.config, setup.mesh)
    shapes = set()
    for batch in train_batches(setup.splits["train"], 0, 16, 0, 24):
        shapes.add(batch["source"].shape)
        assert batch["source"].shape[1] in (18, 21, 24) and batch["target"].shape[1] == batch["source"].shape[1]
        state, _ = step(state, {}, batch, key)
    assert len(shapes) > 1
    # The step looks at the loss twice: for its counts, and for its gradient.
    assert set(traces) == shapes and all(traces.count(shape) == 2 for shape in shapes)


def test_bucketed_metrics_equal_unbucketed_ones():
    plain, bucketed = make_setup(**BUCKETS), make_setup(**BUCKETS, data__buckets=(18, 21))
    variables = eval_variables(jax.jit(plain.init)(run_key(0)), {})
    expected, found = (evaluate(setup, variables, "validation") for setup in (plain, bucketed))
    assert found.keys() == expected.keys() >= {"loss", "perplexity", "bleu", "chrf", "exact_match"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    seen = [
        row
        for _, batch in eval_batches(bucketed.splits["validation"], 7)
        for row in batch["reference"][batch["mask"] > 0]
    ]
    assert sorted(map(bytes, seen)) == sorted(map(bytes, plain.splits["validation"].arrays["validation"]["reference"]))


def test_text_evaluated_over_eight_devices_is_text_evaluated_on_one():
    alone, split = make_setup(**BUCKETS, task__beam_size=2), make_setup(8, **BUCKETS, task__beam_size=2)
    variables = jax.device_get(eval_variables(jax.jit(alone.init)(run_key(0)), {}))
    expected, found = (evaluate(setup, variables, "validation") for setup in (alone, split))
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_stack_of_several_lengths_is_padded_to_the_longest():
    split = open_split(pairs(buckets=(18, 21)), "train", "train", MEMORY, 0)
    batches = list(train_batches(split, 0, 8, 0, 6))
    stacked = stack(batches, 8, PAD)
    longest = max(batch["source"].shape[1] for batch in batches)
    assert stacked["source"].shape == (8, 8, longest) and stacked["mask"].shape == (8, 8)
    for i, batch in enumerate(batches):
        n = batch["source"].shape[1]
        assert np.array_equal(stacked["source"][i, :, :n], batch["source"]) and not stacked["source"][i, :, n:].any()
    shortest = min(range(6), key=lambda i: batches[i]["source"].shape[1])
    behind = stack(batches, 8, -1)["source"][shortest, :, batches[shortest]["source"].shape[1] :]
    assert behind.size and (behind == -1).all()


def test_buckets_of_a_set_that_streams_are_refused():
    with pytest.raises(UserError, match="config.data.buckets: multi30k does not fit"):
        open_split(pairs(buckets=(8,)), "train", "train", 0, 0)


TOKENS = np.array([BEGIN, *range(4, 104), END, PAD, PAD], np.int32)
KEYS = jax.random.split(jax.random.key(0), 400)


def swap(key, tokens, rate):
    return tokens[augment.swapped_places(key, tokens, rate)]


def changed(function, rate):
    return np.asarray(jax.vmap(lambda key: function(key, jnp.asarray(TOKENS), rate))(KEYS))


@pytest.mark.parametrize("function", [augment.word_dropout, swap, augment.span_mask])
def test_augmentation_leaves_begin_end_and_padding_and_rate_zero_leaves_all(function):
    assert (changed(function, 0.0) == TOKENS).all()
    found = changed(function, 0.5)
    assert (found[:, 101:] == TOKENS[101:]).all() and (found[:, 0] == BEGIN).all()
    assert (found[:, 1] != TOKENS[1]).any() and (found[:, 100] != TOKENS[100]).any()


@pytest.mark.parametrize("function,rate", [(augment.word_dropout, 0.3), (augment.span_mask, 0.3)])
def test_the_share_that_is_made_unknown_is_the_rate(function, rate):
    found = changed(function, rate)[:, 1:101]
    unknown = found == UNKNOWN
    assert ((found == TOKENS[1:101]) | unknown).all()
    assert unknown[:, 20:].mean() == pytest.approx(rate, abs=0.02)


def test_masked_spans_are_about_three_long():
    unknown = changed(augment.span_mask, 0.2)[:, 1:101] == UNKNOWN
    begins = unknown[:, 1:] & ~unknown[:, :-1]
    assert 2.5 < unknown[:, 1:].sum() / begins.sum() < 4.5  # spans that touch count as one


def test_swapping_exchanges_neighbours_alone_and_at_the_rate():
    found, tokens = changed(swap, 0.4)[:, 1:101], TOKENS[1:101]
    assert (np.sort(found, axis=1) == tokens).all()
    moved = found != tokens
    assert np.abs(found - tokens).max() == 1
    assert moved.mean() == pytest.approx(0.4, abs=0.03)


def augmented(dataset, batch, **rates):
    """A batch as data.augment changes it."""
    settings = {**make_config().data.augment.to_dict(), **rates}
    keys = jax.random.split(jax.random.key(1), len(next(iter(batch.values()))))
    found = augment.make_augment(settings, dataset)(keys, {name: jnp.asarray(x) for name, x in batch.items()})
    return {name: np.asarray(x) for name, x in found.items()}


def test_fields_that_belong_to_tokens_move_with_them():
    """Each word is its own tag."""
    own = {"tokenizer": "words", "vocabulary_size": 300, "max_len": 24}
    tags = open_dataset("wnut_17", own)
    tokens = np.array([[*range(10, 30), END, PAD, PAD, PAD]] * 8, np.int32)
    found = augmented(tags, {"tokens": tokens, "tags": tokens}, swap=0.5)
    assert (found["tokens"] == found["tags"]).all() and (found["tokens"] != tokens).any()
    parts = open_dataset("mixture", {"parts": ("glue/sst2", "wnut_17"), **own})
    both = {"tokens": tokens, "wnut_17_tags": tokens, "glue_sst2_label": np.zeros(8, np.int32)}
    found = augmented(parts, both, swap=0.5)
    assert (found["tokens"] == found["wnut_17_tags"]).all() and (found["tokens"] != tokens).any()


def test_both_texts_that_a_model_compares_are_changed():
    own = {"tokenizer": "words", "vocabulary_size": 200, "max_len": 24}
    dataset = open_dataset("wikitext2_sentences", own)
    batch = dataset.open("train").stacked(np.arange(8))
    for rates in ({"word_dropout": 0.4}, {"swap": 0.4}, {"span_mask": 0.4}):
        found = augmented(dataset, batch, **rates)
        for field in ("tokens", "other_tokens"):
            assert (found[field] != batch[field]).mean() > 0.1, (field, rates)
            special = np.isin(batch[field], (BEGIN, END, PAD))
            assert (found[field] == batch[field])[special].all() and (found[field][:, 0] == BEGIN).all()
        same = batch["tokens"] == batch["other_tokens"]  # the first part, whose draws are not shared
        assert (found["tokens"] != found["other_tokens"])[same].any()
        assert all((found[field] == batch[field]).all() for field in ("types", "other_types"))


def test_places_of_tokens_cannot_move():
    data = {"name": "xquad/en", "tokenizer": "bpe", "max_len": 128, "question_len": 32, "stride": 32}
    data |= {"vocabulary_size": 300, "splits__train": "train", "splits__validation": "validation", "augment__swap": 0.1}
    own = {f"data__{name}": value for name, value in data.items()} | {"data__splits__test": None}
    own |= {"model__name": "encoder", "model__head": "span", "task__name": "answer_span"}
    with pytest.raises(UserError, match="swap: xquad/en has places of tokens: first, last") as error:
        resolve(make_config(**own), jax.devices()[:1])
    assert error.value.code == 2


@pytest.mark.parametrize("name,value,data", [("word_dropout", 0.1, "digits"), ("flip", True, "addition")])
def test_augmentation_of_what_the_data_are_not_is_refused(name, value, data):
    overrides = {"model__name": "seq2seq"} if data == "addition" else {}
    with pytest.raises(UserError, match=f"config.data.augment.{name}: {data}") as error:
        make_setup(**overrides, **{f"data__augment__{name}": value})
    assert error.value.code == 2


@pytest.mark.parametrize(
    "task,data",
    [
        ("translate", "glue/sst2"),
        ("classify_text", "multi30k"),
        ("next_token", "multi30k"),
        ("classify_images", "multi30k"),
        ("classify_text", "digits"),
    ],
)
def test_a_task_on_data_of_another_kind_is_refused(task, data):
    config = make_config(data__name=data, task__name=task, data__splits__test=None)
    from research.setup import prepare, resolve

    with pytest.raises(UserError, match="config.(task|model).name: .* wants") as error:
        prepare(*resolve(config, jax.devices()[:1]))
    assert error.value.code == 2


def test_the_tokenizers_file_is_json_of_the_library(trained):
    assert {"model", "decoder", "normalizer", "added_tokens"} <= set(json.loads(trained[1].json))


def test_own_pairs_of_files_are_read_and_sides_of_unequal_length_refused(tmp_path):
    (tmp_path / "train.de").write_text("ein hund\nzwei hunde\nein haus\n")
    (tmp_path / "train.en").write_text("a dog\ntwo dogs\na house\n")
    arguments = {"folder": str(tmp_path), "source": "de", "target": "en", "tokenizer": "words"}
    dataset = open_dataset("parallel", arguments)
    assert dataset.examples == {"train": 3, "train_shuffled": 3}
    assert dataset.carve(ConfigDict({"train": "train", "validation": None}))[1] == "train_shuffled[2:3]"
    row = dataset.open("train").stacked(np.array([1]))
    assert [dataset.tokenizer.decode(row[field][0]) for field in ("source", "target")] == ["zwei hunde", "two dogs"]
    (tmp_path / "test.de").write_text("ein hund\n\n")
    (tmp_path / "test.en").write_text("a dog\n")
    with pytest.raises(UserError, match=r"test.de has 2 lines, .*test.en has 1: they are no pairs") as error:
        open_dataset("parallel", arguments)
    assert error.value.code == 3
    for wrong, code, part in [
        ({"folder": None}, 2, "config.data.folder: needed"),
        ({"folder": str(tmp_path / "none")}, 3, "train.de: cannot be read"),
        ({"target": "fr"}, 3, "train.fr: cannot be read"),
    ]:
        with pytest.raises(UserError, match=part) as error:
            open_dataset("parallel", {**arguments, **wrong})
        assert error.value.code == code


MISFITS = [
    ("recurrent_lm", "addition", "translate", "config.model.name: recurrent_lm takes tokens, mask"),
    ("cnn", "glue/sst2", "classify_text", "config.model.name: cnn takes image, mask"),
    ("recurrent_lm", "glue/sst2", "classify_text", "a classifier wants"),
    ("recurrent_classifier", "tiny_shakespeare", "next_token", "recurrent_classifier wants classes"),
    ("glove", "tiny_shakespeare", "skipgram", "config.model.name: glove takes row, column"),
    ("glove", "tiny_shakespeare", "glove", "glove wants co-occurrences"),
    ("word_vectors", "addition", "skipgram", "word vectors want running text"),
    ("seq2seq", "digits", "translate", "seq2seq wants vocabulary; digits has none"),
]


@pytest.mark.parametrize("model,data,task,part", MISFITS, ids=lambda value: value[:20])
def test_a_model_that_does_not_fit_its_task_or_data_is_refused(model, data, task, part):
    given = {"model__name": model, "data__name": data, "task__name": task, "data__splits__test": None}
    given |= {"data__max_len": 16} if data == "tiny_shakespeare" else {}
    with pytest.raises(UserError) as error:
        make_setup(**given)
    assert error.value.code == 2 and part in str(error.value)


def test_parameters_of_a_run_with_another_tokenizer_are_refused(tmp_path):
    from conftest import CASES

    from research import loop, runs

    case = {**CASES["recurrent_classifier"], "model__name": "recurrent_classifier", "train__steps": 4}
    one = jax.devices()[:1]
    loop.train(make_config(**case), tmp_path / "first", devices=one)
    other = {**case, "data__vocabulary_size": 12, "init_from": str(tmp_path / "first")}
    with pytest.raises(UserError, match="config.init_from: .* has another tokenizer; give") as error:
        loop.train(make_config(**other), tmp_path / "second", devices=one)
    assert error.value.code == 2 and not (tmp_path / "second").exists()
    same = {**other, "data__tokenizer": str(tmp_path / "first" / "tokenizer.json")}
    loop.train(make_config(**same), tmp_path / "second", devices=one)
    assert runs.read_tokenizer(tmp_path / "second").digest == runs.read_tokenizer(tmp_path / "first").digest


CASES = SHARED / "cases"


def of_pairs(folder, **arguments):
    own = {"folder": str(folder), "tokenizer": "words", "max_len": 40, **arguments}
    return open_dataset("parallel", own)


def write_pairs(folder, source, target, split="train"):
    (folder / f"{split}.src").write_bytes(source)
    (folder / f"{split}.tgt").write_bytes(target)


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    write_pairs(tmp_path, b"a\nb\rc\nd\n", b"1\r\n2\r\n3\r4\r\n")
    dataset = of_pairs(tmp_path)
    rows = dataset.open("train").stacked(np.arange(3))
    read = [[dataset.tokenizer.decode(ids) for ids in rows[field]] for field in ("source", "target")]
    assert read == [["a", "b c", "d"], ["1", "2", "3 4"]] and dataset.examples["train"] == 3


def test_a_lone_carriage_return_shifts_no_pair():
    folder = need_case("01-carriage-return")
    dataset = of_pairs(folder)
    assert dataset.examples["train"] == 40
    lines = (folder / "train.tgt").read_bytes().split(b"\n")
    last = dataset.open("train").stacked(np.array([39]))["reference"][0]
    assert bytes(last).rstrip(b"\0") == lines[39].strip()


def need_case(name):
    if not (CASES / name).is_dir():
        pytest.skip(f"no {CASES / name}")
    return CASES / name


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_pairs_in_another_encoding_are_refused_by_file(tmp_path, encoding):
    text = "grün\n".encode(encoding)
    write_pairs(tmp_path, b"green\n", text)
    with pytest.raises(UserError, match="train.tgt: (is UTF-(16|32), not UTF-8|byte [12] .* is (not UTF-8|0))") as e:
        of_pairs(tmp_path)
    assert e.value.code == 3


def test_utf16_pairs_are_refused():
    with pytest.raises(UserError, match=r"train.src: byte 1 \(line 1\) is 0: the file is UTF-16") as error:
        of_pairs(need_case("02-utf16-pairs"))
    assert error.value.code == 3


def test_two_files_for_one_split_of_pairs_are_refused_and_the_usual_names_known(tmp_path):
    for split in ("train", "valid"):
        write_pairs(tmp_path, b"a b\n", b"c d\n", split)
    (tmp_path / "notes.md").touch()
    dataset = of_pairs(tmp_path)
    assert set(dataset.examples) == {"train", "train_shuffled", "validation"}
    assert dataset.notes == (f"{tmp_path}: unused files: notes.md",)
    with pytest.raises(UserError, match="dev.src and valid.src both claim to be validation") as error:
        of_pairs(need_case("03-valid-ignored"))
    assert error.value.code == 3
    (tmp_path / "valid.tgt").rename(tmp_path / "val.tgt")
    with pytest.raises(UserError, match="val.tgt and valid.src both claim to be validation"):
        of_pairs(tmp_path)


def test_a_byte_order_mark_changes_no_id(tmp_path):
    write_pairs(tmp_path, b"ein hund\nein\n", b"a dog\na\n")
    (tmp_path / "marked").mkdir()
    write_pairs(tmp_path / "marked", "ein hund\nein\n".encode("utf-8-sig"), "a dog\na\n".encode("utf-8-sig"))
    plain, marked = of_pairs(tmp_path), of_pairs(tmp_path / "marked")
    assert plain.tokenizer.digest == marked.tokenizer.digest
    rows = [dataset.open("train").stacked(np.arange(2)) for dataset in (plain, marked)]
    assert all(np.array_equal(rows[0][field], rows[1][field]) for field in rows[0])


def test_bleu_compares_complete_references():
    """30 Russian words are 31 tokens and 639 bytes."""
    folder = need_case("05-bleu-references")
    dataset = of_pairs(folder)
    split = open_split(dataset, "test", "test", MEMORY, 0)
    references = split.arrays["test"]["reference"]
    texts = (folder / "test.tgt").read_text(encoding="utf-8").splitlines()
    assert [bytes(row).rstrip(b"\0").decode() for row in references] == texts
    own = {"bleu": 100.0}
    for share, expected in ((1, own), (2, {"bleu": pytest.approx(36.788, abs=1e-3)})):
        halves = [" ".join(words[: len(words) // share]) for words in map(str.split, texts)]
        tokens = text.padded(dataset.tokenizer.encode(halves), 40, dataset.tokenizer.pad)
        found = text_scores(dataset.tokenizer, tokens, references)
        assert found["bleu"] == pytest.approx(expected["bleu"], abs=1e-3), share


def test_bleu_counts_words_as_the_tokenizer_of_its_name_does(monkeypatch):
    references = ["今天天气很好我们去公园散步", "他昨天买了一本新书给妹妹", "这座城市的历史非常悠久"]
    translations = ["今天天气很好我们去公园跑步", "他昨天买了一本旧书给妹妹", "这座城市的历史十分悠久"]
    tokenizer = train_tokenizer.train(references + translations, "characters", 100)
    rows = [list(text.encode()) for text in references]
    arrays = text.padded(tokenizer.encode(translations), 20, tokenizer.pad), text.padded(rows, 50, 0).astype(np.uint8)
    assert text_scores(tokenizer, *arrays, "zh")["bleu"] == pytest.approx(74.5, abs=0.05)
    assert text_scores(tokenizer, *arrays)["bleu"] == 0
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    for name in ("flores200", "none of these"):
        with pytest.raises(UserError, match=f"config.task.bleu_tokenizer: {name}: ") as error:
            make_bleu(name)
        assert error.value.code == 2
