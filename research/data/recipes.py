"""What data sets are made of: their official archives with pinned sums, and the parsers of their raw formats."""

import hashlib
import pathlib
import platform
import re
import struct
import sysconfig
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from research.data import raw_text
from research.errors import UserError, pick
from research.randomness import generator


class Archive(NamedTuple):
    """A sum is md5 (32 hex digits) or sha256 (64); None where it is not known."""

    url: str
    sum: str | None  # of the archive as the official place serves it
    members: dict  # {path inside it: sum of its content}; of a .gz or a plain file the one file it holds; of a folder,
    # whose path ends with /, each file below it


class Recipe(NamedTuple):
    """How one data set is made."""

    name: str  # with the config where it has one: glue/sst2
    version: str
    features: dict  # {field: "text", "string", "int32", ("image", shape), ("label", names), ("sequence", one of
    # these or a dict of them)}
    homepage: str
    archives: tuple[Archive, ...]
    examples: Callable  # {member: bytes} -> {split: [(key, {field: value})]}; an image is uint8[H, W, C]
    source_order: bool = False  # else TFDS's, by the hash of the key


def recipe(name):
    """The Recipe of a name: one of RECIPES, or addition/D."""
    digits = re.fullmatch(r"addition/(0|-?[1-9]\d*)", name)
    return addition(int(digits[1])) if digits else pick({**RECIPES, STDLIB: stdlib()}, name, "data set to prepare")


# The version is in the name, so that another Python on the machine does not change what a run reads.
STDLIB = f"stdlib/python{platform.python_version()}"
# Of no author's own hand, or not in every distribution of Python.
NOT_SOURCE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3",
              "turtledemo", "encodings", "pydoc_data", "__pycache__"}  # fmt: skip


def stdlib():
    """The source of this Python's own standard library, a document a file: 9 MB of text that every machine has.

    A file in twenty is validation and one in twenty test, by the hash of its path.
    """

    def examples(members):
        root, splits = pathlib.Path(sysconfig.get_paths()["stdlib"]), {"train": [], "validation": [], "test": []}
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root)
            if not NOT_SOURCE & set(name.parts) and (text := path.read_bytes().decode(errors="replace")):
                place = int(hashlib.md5(str(name).encode()).hexdigest(), 16) % 20
                split = {0: "validation", 1: "test"}.get(place, "train")
                splits[split].append((str(name), {"text": text}))
        return splits

    return Recipe(STDLIB, "1.0.0", {"text": "text"}, "https://docs.python.org/3/library/", (), examples)


def addition(digits):
    """57,000 sums of two numbers of up to `digits` digits, as text, generated: no pair twice, in either order.

    A task of Zaremba and Sutskever 2014 (arXiv:1410.4615). Numbers are uniform in [0, 10^digits). Of one digit there
    are 55 pairs and of two 5,050, a+b and b+a being one: all are used, in the same proportions.
    """
    if not 1 <= digits <= 18:
        raise UserError(2, f"addition/{digits}: numbers may have 1 to 18 digits")

    def examples(members):
        pairs = _pairs_of_numbers(10**digits, generator(0, "addition", digits))
        rows = [(f"{a}+{b}", {"question": f"{a}+{b}", "answer": f"{a + b}"}) for a, b in pairs]
        first, second = round(len(rows) * 50 / 57), round(len(rows) * 52 / 57)
        return {"train": rows[:first], "validation": rows[first:second], "test": rows[second:]}

    features = {"question": "text", "answer": "text"}
    return Recipe(f"addition/{digits}", "1.0.0", features, "https://arxiv.org/abs/1410.4615", (), examples)


def _pairs_of_numbers(size, rng, n=57_000):
    """n pairs of numbers in [0, size), or all that there are, in random order: none twice, nor exchanged."""
    if size * (size + 1) // 2 <= n:
        pairs = [(a, b) for a in range(size) for b in range(a, size)]
        exchanged = rng.random(len(pairs)) < 0.5
        return [pairs[i][::-1] if exchanged[i] else pairs[i] for i in rng.permutation(len(pairs))]
    found = {}
    while len(found) < n:
        for a, b in rng.integers(size, size=(n, 2)).tolist():
            found.setdefault((min(a, b), max(a, b)), (a, b))
    return list(found.values())[:n]


def _labelled(keys, images, labels):
    return [(key, {"image": image, "label": int(label)}) for key, image, label in zip(keys, images, labels)]


def _digits(members):
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)[..., None]
    order = sorted(range(len(images)), key=lambda i: hashlib.md5(f"digits {i}".encode()).digest())
    examples = _labelled(order, images[order], data.target[order])
    return {"train": examples[360:], "test": examples[:360]}


def _idx(data):
    """The array in an IDX file: big-endian 0x08, rank, sizes, then bytes."""
    magic, rank = struct.unpack_from(">HBB", data)[1:]
    sizes = struct.unpack_from(f">{rank}I", data, 4)
    if magic != 8 or len(data) != 4 + 4 * rank + np.prod(sizes):
        raise ValueError("not an IDX file of bytes")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _mnist(members):
    def split(prefix):
        images = _idx(members[f"{prefix}-images-idx3-ubyte"])
        labels = _idx(members[f"{prefix}-labels-idx1-ubyte"])
        return _labelled(range(len(labels)), images[..., None], labels)

    return {"train": split("train"), "test": split("t10k")}


def _cifar10(members):
    def split(name, files):
        records = [np.frombuffer(members[f"cifar-10-batches-bin/{file}.bin"], np.uint8) for file in files]
        records = np.concatenate(records).reshape(-1, 3073)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _labelled((f"{name}_{i}" for i in range(len(images))), images, records[:, 0])

    return {"train": split("train", [f"data_batch_{i}" for i in range(1, 6)]), "test": split("test", ["test_batch"])}


def _images(shape, labels):
    return {"image": ("image", shape), "label": ("label", tuple(labels))}


def _idx_archives(place, sums):
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        Archive(f"{place}{name}-ubyte.gz", packed, {f"{name}-ubyte": content})
        for name, (packed, content) in zip(names, sums)
    )


RECIPES = {
    "digits": Recipe("digits", "1.0.0", _images((8, 8, 1), "0123456789"),
                     "https://archive.ics.uci.edu/dataset/80", (), _digits),
    "mnist": Recipe(
        "mnist", "3.0.1", _images((28, 28, 1), "0123456789"), "http://yann.lecun.com/exdb/mnist/",
        _idx_archives("https://storage.googleapis.com/cvdf-datasets/mnist/", (
            ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        )), _mnist),
    "fashion_mnist": Recipe(
        "fashion_mnist", "3.0.1", _images((28, 28, 1), (
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")),
        "https://github.com/zalandoresearch/fashion-mnist",
        _idx_archives("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", (
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        )), _mnist),
    "cifar10": Recipe(
        "cifar10", "3.0.2", _images((32, 32, 3), (
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        (Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", {
            "cifar-10-batches-bin/data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "cifar-10-batches-bin/data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "cifar-10-batches-bin/data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "cifar-10-batches-bin/data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "cifar-10-batches-bin/data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "cifar-10-batches-bin/test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        }),), _cifar10),
    "multi30k": Recipe(
        "multi30k", "1.0.0", {"de": "text", "en": "text"}, "https://github.com/multi30k/dataset",
        tuple(Archive(f"https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/{name}.gz", packed,
                      {name: content}) for name, packed, content in (
            ("train.en", "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
             "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
            ("train.de", "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
             None),
            ("val.en", "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
             "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
            ("val.de", "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
             "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
            ("test_2016_flickr.en", "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
             "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
            ("test_2016_flickr.de", "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
             "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
            ("test_2017_flickr.en", "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
             "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98"),
            ("test_2017_flickr.de", "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
             "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081"),
        )), raw_text.multi30k),
    "tiny_shakespeare": Recipe(
        "tiny_shakespeare", "1.0.0", {"text": "text"}, "https://github.com/karpathy/char-rnn",
        (Archive("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                 "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", {
            "input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        }),), raw_text.tiny_shakespeare),
    "wikitext2": Recipe(
        "wikitext2", "1.0.0", {"text": "text"}, "https://arxiv.org/abs/1609.07843",
        # Its authors' first place, s3.amazonaws.com/research.metamind.io/wikitext/, answers 403 since 2024. This is
        # Merity's own; whether its archive is the first one's to the byte is not known, so the members decide.
        (Archive("https://wikitext.smerity.com/wikitext-2-v1.zip", None, {
            "wikitext-2/wiki.train.tokens": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
            "wikitext-2/wiki.valid.tokens": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            "wikitext-2/wiki.test.tokens": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        }),), raw_text.wikitext2, source_order=True),
    "newsgroups20": Recipe(
        "newsgroups20", "1.0.0", {"text": "text", "label": ("label", tuple(raw_text.GROUPS))},
        "http://qwone.com/~jason/20Newsgroups/",
        # The sum is that of the archive under this name which scikit-learn fetches.
        (Archive("http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz",
                 "8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
                 {"20news-bydate-train/": None, "20news-bydate-test/": None}),), raw_text.newsgroups20),
    "glue/sst2": Recipe(
        "glue/sst2", "2.0.0", {"sentence": "text", "label": ("label", ("negative", "positive")), "idx": "int32"},
        "https://nlp.stanford.edu/sentiment/index.html",
        (Archive("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
                 "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa", {
            "SST-2/train.tsv": "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1",
            "SST-2/dev.tsv": "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0",
            "SST-2/test.tsv": "69a938605609b3e6663b4487918fe1565eb293734e6e520d0366d1d412fd2a13",
        }),), raw_text.glue("SST-2", ["sentence"], ["0", "1"])),
    "glue/rte": Recipe(
        "glue/rte", "2.0.0",
        {"sentence1": "text", "sentence2": "text", "label": ("label", ("entailment", "not_entailment")),
         "idx": "int32"},
        "https://aclweb.org/aclwiki/Recognizing_Textual_Entailment",
        # The sum is the one that TFDS has of this archive.
        (Archive("https://dl.fbaipublicfiles.com/glue/data/RTE.zip",
                 "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee",
                 dict.fromkeys(("RTE/train.tsv", "RTE/dev.tsv", "RTE/test.tsv"))),),
        raw_text.glue("RTE", ["sentence1", "sentence2"], ["entailment", "not_entailment"])),
    "wnut_17": Recipe(
        "wnut_17", "1.0.0", {"tokens": ("sequence", "text"), "tags": ("sequence", ("label", raw_text.TAGS))},
        "http://noisy-text.github.io/2017/emerging-rare-entities.html",
        tuple(Archive(f"https://raw.githubusercontent.com/leondz/emerging_entities_17/master/{name}", content,
                      {name: content}) for name, content in (
            ("wnut17train.conll", "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5"),
            ("emerging.dev.conll", "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8"),
            ("emerging.test.annotated", "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0"),
        )), raw_text.wnut_17),
    "squad/v1.1": Recipe(
        "squad/v1.1", "3.0.0", raw_text.SQUAD, "https://rajpurkar.github.io/SQuAD-explorer/",
        # The sums are those that TFDS has of these files.
        tuple(Archive(f"https://rajpurkar.github.io/SQuAD-explorer/dataset/{name}", content, {name: content})
              for name, content in (
            ("train-v1.1.json", "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
            ("dev-v1.1.json", "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
        )), raw_text.squad({"train": "train-v1.1.json", "validation": "dev-v1.1.json"})),
    "xquad/en": Recipe(
        "xquad/en", "3.0.0", raw_text.SQUAD, "https://github.com/deepmind/xquad",
        (Archive("https://github.com/deepmind/xquad/raw/master/xquad.en.json",
                 "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
                 {"xquad.en.json": "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29"}),),
        raw_text.squad({"test": "xquad.en.json"})),
    "addition/3": addition(3),  # as an example: recipe() knows any number of digits
}  # fmt: skip
