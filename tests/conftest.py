"""Eight CPU devices, strict shapes, warnings as errors, one compile cache, and small data sets in TFDS's own form."""

import json
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
from research.data.raw_text import GROUPS  # noqa: E402
from research.data.recipes import RECIPES  # noqa: E402
from research.models import MODELS  # noqa: E402
from research.models.layers import Conv, Dropout, Norm, head  # noqa: E402
from research.setup import prepare as prepare_run  # noqa: E402
from research.setup import resolve  # noqa: E402


def small_images(name):
    """256 training and 64 test images that can be told apart, in place of a data set's own: same shape, same labels."""
    shape, labels = (RECIPES[name].features[field][1] for field in ("image", "label"))

    def examples(members):
        splits = {}
        for split, n in (("train", 256), ("test", 64)):
            rng = np.random.default_rng(len(split))
            classes = np.arange(n) % len(labels)
            images = rng.integers(0, 60, (n, *shape), np.uint8)
            for image, label in zip(images, classes):
                image[2 * label : 2 * label + 4, 4:20] += 150
            rows = [{"image": image, "label": int(label)} for image, label in zip(images, classes)]
            splits[split] = list(enumerate(rows))
        return splits

    return RECIPES[name]._replace(archives=(), examples=examples)


def small_multi30k():
    """Pairs that differ, of sentences whose words are each other's, with their genders: translation can be learnt."""
    colours = {"red": "rot", "blue": "blau", "tall": "groß", "small": "klein", "young": "jung", "happy": "froh"}
    nouns = {"dog": ("er", "Hund"), "cat": ("e", "Katze"), "child": ("es", "Kind"), "man": ("er", "Mann"),
             "woman": ("e", "Frau"), "bird": ("er", "Vogel")}  # fmt: skip
    verbs = {"runs": "läuft", "sleeps": "schläft", "plays": "spielt", "sits": "sitzt", "waits": "wartet"}
    places = {"in the park": "im Park", "on the street": "auf der Straße", "at home": "zu Hause"}
    pairs = [
        (f"A {colour} {noun} {verb} {place}.", f"Ein{'e' * (ending == 'e')} {farbe}{ending} {nomen} {verbum} {ort}.")
        for colour, farbe in colours.items()
        for noun, (ending, nomen) in nouns.items()
        for verb, verbum in verbs.items()
        for place, ort in places.items()
    ]
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    members = {}
    for file, n in (("train", 128), ("val", 32), ("test_2016_flickr", 32), ("test_2017_flickr", 16)):
        for side, language in enumerate(("en", "de")):
            members[f"{file}.{language}"] = "".join(f"{pair[side]}\n" for pair in pairs[:n]).encode()
        pairs = pairs[n:]
    return members


def small_sst2():
    """Phrases whose last word decides the label."""
    words = ["awful", "dull", "tedious", "clumsy", "lifeless"], ["moving", "charming", "brilliant", "funny", "warm"]
    before = ["the film", "a script", "this cast", "its plot"], ["is", "seems", "remains"], ["very", "quite", "often"]
    rng, members = np.random.default_rng(1), {}
    for file, n in (("train", 256), ("dev", 64), ("test", 32)):
        rows = ["index\tsentence" if file == "test" else "sentence\tlabel"]
        for i, label in enumerate(rng.integers(2, size=n)):
            sentence = f"{' '.join(rng.choice(known) for known in (*before, words[label]))} "
            rows.append(f"{i}\t{sentence}" if file == "test" else f"{sentence}\t{label}")
        members[f"SST-2/{file}.tsv"] = "".join(f"{row}\n" for row in rows).encode()
    return members


def small_rte():
    """Pairs of which the second follows if its last word is in the first."""
    things = ["a dog", "a cat", "a bird", "a horse"]
    rng, members = np.random.default_rng(5), {}
    for file, n in (("train", 128), ("dev", 48), ("test", 16)):
        rows = ["\t".join(["index", "sentence1", "sentence2"] + ["label"] * (file != "test"))]
        for i, (follows, place) in enumerate(zip(rng.integers(2, size=n), rng.integers(4, size=n))):
            other = things[(place + 1 + i % 3) % 4]
            row = [str(i), f"they saw {things[place]} in the {'park' if i % 2 else 'old town'} .",
                   f"there was {things[place] if follows else other}"]  # fmt: skip
            rows.append("\t".join(row + [["not_entailment", "entailment"][follows]] * (file != "test")))
        members[f"RTE/{file}.tsv"] = "".join(f"{row}\n" for row in rows).encode()
    return members


def small_wnut_17():
    """Sentences in which a word that only names have says which words are an entity, and of which type."""
    rng, members = np.random.default_rng(6), {}
    names = {"person": ["Anna", "Bert Miller", "O'Hara"], "location": ["Rome", "New York", "St. Ives"]}
    for file, n in (("wnut17train.conll", 128), ("emerging.dev.conll", 48), ("emerging.test.annotated", 32)):
        text = ""
        for i in range(n):
            kind = list(names)[int(rng.integers(2))]
            name = names[kind][int(rng.integers(3))].split()
            before, behind = (["yes", ","] * int(rng.integers(2)) + [verb] for verb in ("met", "again"))
            tags = [f"{'B' if j == 0 else 'I'}-{kind}" for j in range(len(name))]
            rows = [*((word, "O") for word in before), *zip(name, tags), *((word, "O") for word in behind)]
            text += "".join(f"{word}\t{tag}\n" for word, tag in rows if i % 9 or tag == "O")
            text += "\t\n" if i % 2 else "\n"
        members[file] = text.encode()
    return members


def small_squad(seed, articles):
    """Articles of two texts, in which somebody met somebody somewhere, and who and where is asked."""
    rng, names = np.random.default_rng(seed), ["Anna", "Bert", "Cara", "Dora", "Emil", "Fred"]
    places, data, number = ["Rome", "New York", "Köln", "Oslo"], [], 0
    for article in range(articles):
        paragraphs = []
        for _ in range(2):
            text, asked = "", []
            for one, other in rng.permutation(names).reshape(3, 2).tolist():
                place = places[int(rng.integers(4))]
                answer = (one, len(text)) if rng.random() < 0.3 else (place, len(text) + len(f"{one} met {other} in "))
                question = f"Who met {other}?" if answer[0] == one else f"Where did {one} meet {other}?"
                text += f"{one} met {other} in {place} . "
                answers = [{"text": answer[0], "answer_start": answer[1]}] * (1 + number % 2)
                asked.append({"id": f"q{seed}{number}", "question": question, "answers": answers})
                number += 1
            paragraphs.append({"context": text.strip(), "qas": asked[1:]})
        data.append({"title": f"Article {article}", "paragraphs": paragraphs})
    return json.dumps({"version": "1.1", "data": data}).encode()


def small_wikitext2():
    """Articles whose words often follow one another, with <unk> and the marks of the tokenised form."""
    words = "the game of war was played in a small town , and <unk> said that it had 3 @,@ 000 men . they won".split()
    rng, members = np.random.default_rng(2), {}
    for file, n in (("train", 8), ("valid", 3), ("test", 3)):
        text = ""
        for article in range(n):
            text += f" \n = {'Small' if article % 2 else 'Old'} Town = \n \n"
            for section in (None, "History", "Later years"):
                at = int(rng.integers(len(words)))
                steps = np.cumsum(rng.choice([1, 1, 1, 2, 5], size=60))
                text += f" = = {section} = = \n \n" if section else ""
                text += f" {' '.join(words[(at + step) % len(words)] for step in steps)} . \n \n"
        members[f"wikitext-2/wiki.{file}.tokens"] = text.encode()
    return members


def small_tiny_shakespeare():
    """Dialogue of 16,000 characters: TFDS's cut gives 14,400, 800 and 800."""
    rng, text = np.random.default_rng(3), ""
    subjects, verbs = ["I", "you", "we", "my lord", "the king"], ["know", "love", "fear", "speak of", "have seen"]
    objects = ["the crown", "thy brother", "this night", "the wars", "a gentle heart"]
    while len(text) < 16_000:
        lines = [f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(objects)}" for _ in range(2)]
        text += (
            f"{rng.choice(['ROMEO', 'First Citizen', 'KING HENRY'])}:\n{lines[0].capitalize()},\nAnd {lines[1]}.\n\n"
        )
    return {"input.txt": text[:16_000].encode()}


def small_newsgroups20():
    """Messages with a header, a quote and a signature, a file each; one word of the body tells the group."""
    rng, members = np.random.default_rng(4), {}
    groups = {group: f"word{i}" for i, group in enumerate(GROUPS)}
    for split, n in (("train", 128), ("test", 48)):
        for i in range(n):
            group = GROUPS[i % len(GROUPS)]
            said = " ".join(rng.choice(["some", "thing", "of", "caf\xe9", "note"], size=int(rng.integers(3, 12))))
            members[f"20news-bydate-{split}/{group}/{100 + i}"] = (
                f"From: a{i}@b.c\nSubject: Re: {said}\n\nIn article <{i}> somebody writes:\n> {said}\n\n"
                f"{said} {groups[group]} {said}\n\n--\nName {i}, Place\n"
            ).encode("latin-1")
    return members


SMALL_TEXTS = {
    "multi30k": small_multi30k,
    "glue/sst2": small_sst2,
    "glue/rte": small_rte,
    "wnut_17": small_wnut_17,
    "squad/v1.1": lambda: {"train-v1.1.json": small_squad(0, 20), "dev-v1.1.json": small_squad(1, 6)},
    "xquad/en": lambda: {"xquad.en.json": small_squad(2, 20)},
    "wikitext2": small_wikitext2,
    "tiny_shakespeare": small_tiny_shakespeare,
}


def small_text(name):
    """The recipe of a data set of text, with a small raw file in place of each official one."""
    examples, members = RECIPES[name].examples, {**SMALL_TEXTS, "newsgroups20": small_newsgroups20}[name]
    return RECIPES[name]._replace(archives=(), examples=lambda _: examples(members()))


# Idempotent, and safe for two processes at once. A folder that is there is not made anew: `make clean` after a change.
for _name in ("mnist", "fashion_mnist", "cifar10"):
    prepare.prepare(small_images(_name), CACHE / "tfds")
for _name in (*SMALL_TEXTS, "newsgroups20"):
    prepare.prepare(small_text(_name), CACHE / "tfds")


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


# What each model is trained on where it is not the digits, and how small; word vectors have tests of their own.
CASES = {
    "cnn": {"model__layers": ("conv4", "pool2", "dense16")},
    "resnet": {"model__depth": 10, "model__width": 4},
    "vgg": {"model__depth": 11, "model__width": 4},
    "seq2seq": {
        "data__name": "addition",
        "data__digits": 2,
        "task__name": "translate",
        "model__width": 32,
        "model__embedding": 32,
        "model__attention": "additive",
        "model__bidirectional": True,
    },
    "recurrent_classifier": {
        "data__name": "glue/sst2",
        "data__max_len": 12,
        "data__splits__test": "validation[:21]",
        "task__name": "classify_text",
        "model__width": 8,
        "model__embedding": 8,
    },
    "decoder": {
        "data__name": "tiny_shakespeare",
        "data__tokenizer": "characters",
        "data__max_len": 12,
        "task__name": "next_token",
        "model__layers": 2,
        "model__heads": 2,
        "model__width": 32,
        "model__context": 12,
    },
    "encoder": {
        "data__name": "wikitext2_sentences",
        "data__max_len": 24,
        "data__vocabulary_size": 200,
        "data__splits__train": "train",
        "data__splits__validation": "validation",
        "data__splits__test": "test",
        "task__name": "masked_lm",
        "eval__metric": "masked_loss",
        "eval__direction": "min",
        "model__head": "pretraining",
        "model__layers": 1,
        "model__heads": 2,
        "model__width": 32,
        "model__context": 24,
        "model__dropout": 0.0,
    },
    "recurrent_lm": {
        "data__name": "tiny_shakespeare",
        "data__tokenizer": "characters",
        "data__max_len": 12,
        "task__name": "next_token",
        "model__width": 64,
        "model__embedding": 64,
    },
}


def make_config(**overrides):
    """A config that trains in a second: SMALL, with overrides written as model__name="mlp"."""
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    values = {**SMALL, **given}
    if "model.name" in given:
        values = {key: value for key, value in values.items() if not key.startswith("model.") or key in given}
    return configs.override(configs.base(), values)


def make_setup(devices=1, **overrides):
    """A Setup of make_config on the first `devices` of the eight; a model named in CASES brings its data and task."""
    case = CASES.get(overrides.get("model__name"), {})
    if overrides.get("data__name", case.get("data__name")) != case.get("data__name"):
        case = {name: value for name, value in case.items() if not name.startswith("data__")}
    overrides = {**case, **overrides}
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


def read_events(folder):
    """What TensorBoard shows of a folder of event files: {(step, tag): float}, what a resume made anew once."""
    import struct

    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = {}
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            if event.session_log.status == SessionLog.START:
                shown = {(step, tag): value for (step, tag), value in shown.items() if step < event.step}
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    shown[event.step, value.tag] = value.simple_value
    return shown


def assert_curve_is_whole(folder):
    """TensorBoard shows each row of metrics.jsonl, and nothing else."""
    from research import runs

    rows = {
        (row["step"], f"{row['split']}/{name}"): np.float32(value)
        for row in runs.read_rows(folder)
        for name, value in row.items()
        if name not in ("step", "split")
    }
    assert read_events(folder / "tensorboard") == rows


@pytest.fixture
def full_disk():
    """full_disk(n): from now on no file of this process may grow beyond n bytes; undone after the test."""
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


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
