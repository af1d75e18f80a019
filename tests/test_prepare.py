"""Preparing without TensorFlow: from a small archive to examples read back through TFDS."""

import gzip
import hashlib
import http.server
import io
import json
import pathlib
import re
import shutil
import struct
import sysconfig
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from conftest import REAL_DATA, SMALL_TEXTS, small_text
from tensorflow_datasets.core import hashing

from research.data.dataset import find, from_tfds
from research.data.prepare import download, ensure, prepare, prepare_by_name
from research.data.raw_text import TAGS
from research.data.recipes import RECIPES, STDLIB, Archive, addition, recipe
from research.errors import UserError

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (12, 28, 28), np.uint8), (np.arange(12) % 10).astype(np.uint8)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_mnist():
    """The recipe of MNIST with the sums of four small files, and these files as {name: bytes}."""
    contents = {
        "train-images-idx3-ubyte": idx(IMAGES),
        "train-labels-idx1-ubyte": idx(LABELS),
        "t10k-images-idx3-ubyte": idx(IMAGES[:5]),
        "t10k-labels-idx1-ubyte": idx(LABELS[:5]),
    }
    packed = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in contents.items()}
    md5 = lambda data: hashlib.md5(data).hexdigest()
    archives = [
        Archive(f"http://nowhere/{name}.gz", md5(packed[f"{name}.gz"]), {name: md5(contents[name])})
        for name in contents
    ]
    return RECIPES["mnist"]._replace(archives=tuple(archives)), contents, packed


@pytest.mark.smoke
@pytest.mark.parametrize("packing", ["archives", "unpacked"])
def test_mnist_from_a_manual_folder_reads_back_through_tfds(tmp_path, packing):
    recipe, contents, packed = small_mnist()
    manual = tmp_path / "manual"
    manual.mkdir()
    for name, data in (packed if packing == "archives" else contents).items():
        (manual / name).write_bytes(data)

    prepare(recipe, tmp_path / "tfds", manual)

    source = tfds.data_source("mnist", split="train", data_dir=tmp_path / "tfds")
    assert len(source) == 12
    info = tfds.builder("mnist", data_dir=tmp_path / "tfds").info
    assert str(info.version) == "3.0.1" and info.splits["test"].num_examples == 5
    assert info.features["label"].num_classes == 10
    found = {source[i]["image"].tobytes(): int(source[i]["label"]) for i in range(12)}
    assert found == {image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS)}


def test_cifar10_from_an_archive_reads_back_through_tfds(tmp_path):
    images, manual = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8), tmp_path / "cifar-10-binary.tar.gz"
    members = {}
    for i, name in enumerate([f"data_batch_{j}.bin" for j in range(1, 6)] + ["test_batch.bin"]):
        members[f"cifar-10-batches-bin/{name}"] = bytes([i]) + images[i].transpose(2, 0, 1).tobytes()
    with tarfile.open(manual, "w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    sums = {name: hashlib.md5(data).hexdigest() for name, data in members.items()}
    archive = RECIPES["cifar10"].archives[0]._replace(members=sums)

    prepare(RECIPES["cifar10"]._replace(archives=(archive,)), tmp_path / "tfds", tmp_path)

    source = tfds.data_source("cifar10", split="train", data_dir=tmp_path / "tfds")
    found = {int(source[i]["label"]): source[i]["image"] for i in range(5)}
    assert all(np.array_equal(found[i], images[i]) for i in range(5))


def test_what_is_not_the_official_file_is_refused_and_leaves_nothing(tmp_path):
    recipe, _, packed = small_mnist()
    for name, data in packed.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:4])))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is not the official file") as error:
        prepare(recipe, tmp_path / "tfds", tmp_path)
    assert error.value.code == 3
    assert not list((tmp_path / "tfds" / "mnist").iterdir())


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_cut_archive_is_refused(tmp_path, cut):
    recipe, _, packed = small_mnist()
    for name, data in packed.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed["train-images-idx3-ubyte.gz"][:cut])
    with pytest.raises(UserError, match="train-images-idx3-ubyte") as error:
        prepare(recipe, tmp_path / "tfds", tmp_path)
    assert error.value.code == 3


@pytest.fixture
def server():
    """Serves `body` with ranges on loopback; breaks off after `limit` bytes; remembers the ranges asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        body, limit, asked, ranges = b"", None, [], True

        def do_GET(self):
            value = self.headers.get("Range")
            self.asked.append(value)
            value = value if self.ranges else None
            first = int(value.split("=")[1].rstrip("-")) if value else 0
            if first >= len(self.body):
                self.send_error(416)
                return
            self.send_response(206 if value else 200)
            self.send_header("Content-Length", str(len(self.body) - first))
            self.end_headers()
            self.wfile.write(self.body[first:][: self.limit])

        def log_message(self, *arguments):
            pass

    Handler.asked = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/file.gz", Handler
    running.shutdown()
    running.server_close()


def test_a_broken_download_goes_on_where_it_stopped(tmp_path, server):
    url, handler = server
    handler.body, handler.limit = RNG.bytes(100_000), 60_000
    md5 = hashlib.md5(handler.body).hexdigest()
    with pytest.raises(UserError, match="download broke off|its md5"):
        download(url, md5, tmp_path, lambda text: None)
    assert not (tmp_path / "file.gz").exists()
    handler.limit = None
    path = download(url, md5, tmp_path, lambda text: None)
    assert path.read_bytes() == handler.body
    assert handler.asked == [None, "bytes=60000-"]


def test_a_server_that_knows_no_ranges_is_read_from_the_start(tmp_path, server):
    url, handler = server
    handler.body, handler.ranges = RNG.bytes(50_000), False
    (tmp_path / "file.gz.part").write_bytes(handler.body[:1000])
    assert download(url, hashlib.md5(handler.body).hexdigest(), tmp_path, str).read_bytes() == handler.body


def test_a_download_with_a_wrong_sum_is_deleted(tmp_path, server):
    url, handler = server
    handler.body = b"not the file"
    with pytest.raises(UserError, match="its md5 is") as error:
        download(url, "0" * 32, tmp_path, lambda text: None)
    assert error.value.code == 3 and not list(tmp_path.iterdir())


def test_an_unreachable_place_is_one_line(tmp_path):
    with pytest.raises(UserError, match="download broke off") as error:
        download("http://127.0.0.1:9/file", "0" * 32, tmp_path, lambda text: None)
    assert error.value.code == 3


def test_digits_prepare_themselves_and_two_at_once_do_no_harm(tmp_path, monkeypatch):
    recipe = RECIPES["digits"]
    threads = [threading.Thread(target=prepare, args=(recipe, tmp_path)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]
    source = tfds.builder_from_directory(tmp_path / "digits" / "1.0.0").as_data_source(split="test")
    assert len(source) == 360 and source[0]["image"].shape == (8, 8, 1)


def test_pythons_source_prepares_itself_whole_and_a_file_stands_in_one_split():
    root, splits = pathlib.Path(sysconfig.get_paths()["stdlib"]), recipe(STDLIB).examples({})
    names = [name for split in splits.values() for name, _ in split]
    assert len(names) == len(set(names)) > 300 and {"ast.py", "json/decoder.py"} <= set(names)
    assert not any(name.startswith(("test/", "site-packages/")) for name in names)
    sizes = [len(splits[split]) for split in ("validation", "test")]
    assert 0 < min(sizes) and 8 * max(sizes) < len(splits["train"])
    for split in splits.values():
        for name, example in split[:3]:
            assert example["text"].encode() == (root / name).read_bytes()
    ensure(STDLIB)
    found = from_tfds(STDLIB)
    assert dict(found.examples) == {split: len(rows) for split, rows in splits.items()}
    texts = {found.open("test")[i]["text"].decode() for i in range(found.examples["test"])}
    assert texts == {example["text"] for _, example in splits["test"]}


def test_a_folder_that_is_still_being_written_is_not_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepare(RECIPES["digits"], tmp_path)
    for name in ("1.0.0.incomplete-x", "1.0.0.9-incomplete", "9.9.x"):
        shutil.copytree(tmp_path / "digits" / "1.0.0", tmp_path / "digits" / name)
    shutil.copytree(tmp_path / "digits" / "1.0.0", tmp_path / "digits" / "1.0.10")
    assert find("digits") == tmp_path / "digits" / "1.0.10"


@pytest.mark.parametrize("name", ["mnits", "addition", "addition/three", "addition/03"])
def test_unknown_data_set_lists_the_known(name):
    known = "addition/3, cifar10, digits, fashion_mnist, glue/rte, glue/sst2, mnist, multi30k, newsgroups20, squad/v1"
    with pytest.raises(UserError, match=known) as error:
        prepare_by_name(name)
    assert error.value.code == 2


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_loose(contents, manual):
    for member, data in contents.items():
        (manual / member).parent.mkdir(parents=True, exist_ok=True)
        (manual / member).write_bytes(data)


def small_archives(name, manual, contents=None):
    """Archives of small members, each packed as its official one and written into `manual`; their recipe."""
    contents, archives = contents or SMALL_TEXTS[name](), []
    manual.mkdir()
    for archive in RECIPES[name].archives:
        members, file = {member: contents[member] for member in archive.members}, io.BytesIO()
        if archive.url.endswith(".zip"):
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
                [packed.writestr(*item) for item in members.items()]
        else:
            (data,) = members.values()
            file.write(gzip.compress(data) if archive.url.endswith(".gz") else data)
        (manual / archive.url.rsplit("/", 1)[-1]).write_bytes(file.getvalue())
        sums = {member: sha256(data) for member, data in members.items()}
        archives.append(Archive(archive.url, sha256(file.getvalue()), sums))
    return RECIPES[name]._replace(archives=tuple(archives))


def records(folder):
    """{split: the examples as they are read through TFDS}"""
    builder = tfds.builder_from_directory(folder)
    return {split: list(builder.as_data_source(split=split)) for split in builder.info.splits}


@pytest.mark.parametrize("name", SMALL_TEXTS)
def test_archives_and_what_they_unpack_to_give_the_same_data_set(tmp_path, name):
    recipe = small_archives(name, tmp_path / "archives")
    contents = SMALL_TEXTS[name]()
    write_loose(contents, tmp_path / "nested")
    write_loose({member.rsplit("/", 1)[-1]: data for member, data in contents.items()}, tmp_path / "flat")
    straight = prepare(small_text(name), tmp_path / "straight")
    for packing in ("archives", "nested", "flat"):
        found = prepare(recipe, tmp_path / f"from_{packing}", tmp_path / packing)
        for path in straight.iterdir():
            assert (found / path.name).read_bytes() == path.read_bytes(), (packing, path.name)


def test_multi30k_pairs_the_lines_of_two_files_without_outer_blanks(tmp_path):
    contents = SMALL_TEXTS["multi30k"]()
    contents["val.en"], contents["val.de"] = " a\u2028b \nc".encode(), "\xa0ä  ö\n\td\r\n".encode()
    found = records(prepare(small_archives("multi30k", tmp_path / "m", contents), tmp_path, tmp_path / "m"))
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 128, "validation": 2, "test": 32, "test_2017_flickr": 16}  # fmt: skip
    pairs = {(row["en"].decode(), row["de"].decode()) for row in found["validation"]}
    assert pairs == {("a\u2028b", "ä  ö"), ("c", "d")}
    lines = (contents[f"train.{language}"].decode().splitlines() for language in ("en", "de"))
    assert {(row["en"].decode(), row["de"].decode()) for row in found["train"]} == set(zip(*lines))


def test_wikitext2_is_its_articles_in_source_order(tmp_path):
    found = records(prepare(small_text("wikitext2"), tmp_path))
    for split, file, n in (("train", "train", 8), ("validation", "valid", 3), ("test", "test", 3)):
        texts = [row["text"] for row in found[split]]
        assert b"".join(texts) == SMALL_TEXTS["wikitext2"]()[f"wikitext-2/wiki.{file}.tokens"]
        assert len(texts) == n and all(text.count(b" Town = ") == 1 for text in texts)


def test_tiny_shakespeare_is_cut_ninety_five_five(tmp_path):
    found = records(prepare(small_text("tiny_shakespeare"), tmp_path))
    texts = [row["text"] for rows in found.values() for row in rows]
    assert list(map(len, texts)) == [14_400, 800, 800] and list(found) == ["train", "validation", "test"]
    assert b"".join(texts) == SMALL_TEXTS["tiny_shakespeare"]()["input.txt"]


def test_sst2_has_a_sentence_a_label_and_its_line_number(tmp_path):
    found, contents = records(prepare(small_text("glue/sst2"), tmp_path)), SMALL_TEXTS["glue/sst2"]()
    for split, file in (("train", "train"), ("validation", "dev"), ("test", "test")):
        lines = contents[f"SST-2/{file}.tsv"].split(b"\n")[1:-1]
        assert len(lines) == len(found[split])
        for row in found[split]:
            line = [b"%d" % row["idx"], row["sentence"]] if split == "test" else [row["sentence"], b"%d" % row["label"]]
            assert b"\t".join(line) == lines[row["idx"]] and (split != "test" or row["label"] == -1)
    assert [row["idx"] for row in found["train"][:3]] != [0, 1, 2]


def test_rte_has_two_sentences_a_label_and_its_line_number(tmp_path):
    found, contents = records(prepare(small_text("glue/rte"), tmp_path)), SMALL_TEXTS["glue/rte"]()
    labels = RECIPES["glue/rte"].features["label"][1]
    for split, file in (("train", "train"), ("validation", "dev"), ("test", "test")):
        lines = contents[f"RTE/{file}.tsv"].split(b"\n")[1:-1]
        assert len(lines) == len(found[split])
        for row in found[split]:
            line = [b"%d" % row["idx"], row["sentence1"], row["sentence2"]]
            line += [] if split == "test" else [labels[row["label"]].encode()]
            assert b"\t".join(line) == lines[row["idx"]] and (split != "test" or row["label"] == -1)


def test_wnut_has_words_and_their_tags(tmp_path):
    found, contents = records(prepare(small_text("wnut_17"), tmp_path)), SMALL_TEXTS["wnut_17"]()
    for split, file in (("train", "wnut17train.conll"), ("validation", "emerging.dev.conll")):
        wanted = [part.strip() for part in re.split(r"\n\t?\n", contents[file].decode()) if part.strip()]
        rows = [zip(row["tokens"], row["tags"]) for row in found[split]]
        assert sorted("\n".join(f"{word.decode()}\t{TAGS[tag]}" for word, tag in row) for row in rows) == sorted(wanted)


@pytest.mark.parametrize(
    "name, member, wrong, message",
    [
        ("multi30k", "val.de", lambda lines: lines[:-1], r"val\.en has 32 lines, val\.de 31"),
        ("multi30k", "train.en", lambda lines: [*lines[:2], b"caf\xe9", *lines[3:]], r"train\.en: line 3 is not UTF-8"),
        ("tiny_shakespeare", "input.txt", lambda lines: [b"\xff", *lines], r"input\.txt: line 1 is not UTF-8"),
        (
            "wikitext2",
            "wikitext-2/wiki.valid.tokens",
            lambda lines: [b"text"],
            r"wiki\.valid\.tokens: it has no article",
        ),
        (
            "glue/sst2",
            "SST-2/train.tsv",
            lambda lines: lines[1:],
            r"train\.tsv: line 1 has not the columns sentence<TAB>",
        ),
        (
            "wnut_17",
            "emerging.dev.conll",
            lambda lines: [*lines[:2], b"a\tB-thing"],
            "conll: line 3 is not WORD<TAB>T",
        ),
        (
            "xquad/en",
            "xquad.en.json",
            lambda lines: [b'{"data": [{"title": "a"}]}'],
            "not SQuAD's JSON: KeyError: 'para",
        ),
        ("squad/v1.1", "dev-v1.1.json", lambda lines: [b"{"], "dev-v1.1.json: not SQuAD's JSON: JSONDecodeError"),
        ("wnut_17", "wnut17train.conll", lambda lines: [b"word", *lines], "train.conll: line 1 is not WORD<TAB>TAG"),
        ("glue/sst2", "SST-2/dev.tsv", lambda lines: [*lines, b"no tab"], r"dev\.tsv: line 66 has not the columns"),
        ("glue/sst2", "SST-2/test.tsv", lambda lines: [*lines, b"1\tb\tc"], r"test\.tsv: line 34 has not the columns"),
        ("glue/sst2", "SST-2/train.tsv", lambda lines: [*lines, b"a\t"], r"train\.tsv: line 258 has the label ''"),
        (
            "glue/rte",
            "RTE/dev.tsv",
            lambda lines: [*lines, b"9\ta\tb\t0"],
            "line 50 has the label '0', which is neither ent",
        ),
        (
            "glue/rte",
            "RTE/test.tsv",
            lambda lines: [*lines, b"9\ta"],
            r"test\.tsv: line 18 has not the columns index<TAB>sen",
        ),
    ],
)
def test_a_raw_file_that_is_not_of_its_format_is_named(tmp_path, name, member, wrong, message):
    contents = SMALL_TEXTS[name]()
    contents[member] = b"\n".join(wrong(contents[member].removesuffix(b"\n").split(b"\n"))) + b"\n"
    recipe = small_archives(name, tmp_path / "manual", contents)
    with pytest.raises(UserError, match=message) as error:
        prepare(recipe, tmp_path / "tfds", tmp_path / "manual")
    assert error.value.code == 3 and "\n" not in str(error.value)
    assert not list((tmp_path / "tfds" / name).iterdir())


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_sum_is_of_the_kind_of_its_length(tmp_path, kind):
    recipe, data = small_archives("tiny_shakespeare", tmp_path / "m"), SMALL_TEXTS["tiny_shakespeare"]()["input.txt"]
    right = hashlib.new(kind, data).hexdigest()
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"input.txt is not the official file: its {kind} is {right}, not {wrong}"):
        prepare(
            recipe._replace(archives=(Archive("x/input.txt", None, {"input.txt": wrong}),)), tmp_path, tmp_path / "m"
        )
    prepare(recipe._replace(archives=(Archive("x/input.txt", None, {"input.txt": right}),)), tmp_path, tmp_path / "m")


def test_a_member_without_a_sum_is_held_to_its_archives(tmp_path):
    recipe = small_archives("glue/sst2", tmp_path / "manual")
    (archive,) = recipe.archives
    unknown = archive._replace(members=dict.fromkeys(archive.members))
    with pytest.raises(UserError, match=r"SST-2.zip is not the official file: its sha256 is"):
        prepare(recipe._replace(archives=(unknown._replace(sum="0" * 64),)), tmp_path / "tfds", tmp_path / "manual")
    prepare(recipe._replace(archives=(unknown,)), tmp_path / "tfds", tmp_path / "manual")

    write_loose(SMALL_TEXTS["glue/sst2"](), tmp_path / "loose")
    lines = []
    prepare(recipe._replace(archives=(unknown,)), tmp_path / "again", tmp_path / "loose", lines.append)
    assert "taken unchecked" in lines[0] and "SST-2/dev.tsv" in lines[0]


@pytest.mark.parametrize("cut", [0, 20, 1000, -1])
def test_a_cut_or_foreign_zip_is_refused(tmp_path, cut):
    recipe = small_archives("glue/sst2", tmp_path / "manual")
    path = tmp_path / "manual" / "SST-2.zip"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"SST-2.zip: damaged") as error:
        prepare(recipe, tmp_path / "tfds", tmp_path / "manual")
    assert error.value.code == 3
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("other", b"")
    with pytest.raises(UserError, match=r"SST-2.zip: damaged.*SST-2/train.tsv"):
        prepare(recipe, tmp_path / "tfds", tmp_path / "manual")


def test_a_download_is_checked_by_sha256_or_taken_where_no_sum_is_known(tmp_path, server):
    url, handler = server
    handler.body = b"the file"
    with pytest.raises(UserError, match="its sha256 is"):
        download(url, "0" * 64, tmp_path, str)
    assert download(url, sha256(b"the file"), tmp_path / "a", str).read_bytes() == b"the file"
    assert download(url, None, tmp_path / "b", str).read_bytes() == b"the file"


def test_a_record_has_its_fields_in_the_order_of_their_names(tmp_path):
    """Protobuf's own order is drawn anew in each process, and the fingerprint of the same data would be another."""
    for made in (small_text("glue/sst2"), small_text("multi30k"), addition(1), RECIPES["digits"]):
        (path,) = prepare(made, tmp_path).glob("*-test.array_record-*")
        reader = array_record_module.ArrayRecordReader(str(path))
        keys = [b"\n" + bytes([len(field)]) + field.encode() for field in sorted(made.features)]
        places = [[record.index(key) for key in keys] for record in reader.read_all()]
        reader.close()
        assert places == [sorted(row) for row in places], made.name


@pytest.mark.parametrize("digits, sizes", [(1, (48, 2, 5)), (2, (4430, 177, 443)), (3, (50_000, 2_000, 5_000)),
                                           (18, (50_000, 2_000, 5_000))])  # fmt: skip
def test_no_pair_of_numbers_is_added_twice_even_exchanged(digits, sizes):
    splits = addition(digits).examples({})
    assert {split: len(rows) for split, rows in splits.items()} == dict(zip(("train", "validation", "test"), sizes))
    pairs = []
    for rows in splits.values():
        for _, row in rows:
            a, b = map(int, row["question"].split("+"))
            assert row == {"question": f"{a}+{b}", "answer": str(a + b)} and 0 <= min(a, b) <= max(a, b) < 10**digits
            pairs.append((a, b))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == sum(sizes)
    assert 0.4 < sum(a < b for a, b in pairs) / sum(a != b for a, b in pairs) < 0.6
    assert pairs == [tuple(map(int, row["question"].split("+")))
                     for rows in addition(digits).examples({}).values() for _, row in rows]  # fmt: skip


def test_sums_of_one_digit_are_all_there_are_and_the_same_bits_twice(tmp_path):
    folders = [prepare_by_name("addition/1", tmp_path / part) for part in "ab"]
    assert folders[0] == tmp_path / "a" / "addition" / "1" / "1.0.0"
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()
    found = [row["question"].decode() for rows in records(folders[0]).values() for row in rows]
    assert sorted(sorted(map(int, question.split("+"))) for question in found) == [
        [a, b] for a in range(10) for b in range(a, 10)
    ]
    source = tfds.data_source("addition/1", split="validation", data_dir=tmp_path / "a")
    assert len(source) == 2 and set(source[0]) == {"question", "answer"}


@pytest.mark.parametrize("digits", [-1, 0, 19])
def test_sums_have_one_to_eighteen_digits(digits):
    with pytest.raises(UserError, match=f"addition/{digits}: numbers may have 1 to 18 digits") as error:
        prepare_by_name(f"addition/{digits}")
    assert error.value.code == 2


def test_ensure_prepares_what_is_not_found_into_the_last_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "named"))
    ensure("addition/1")
    assert find("addition/1") == tmp_path / "home/tensorflow_datasets/addition/1/1.0.0"
    prepare_by_name("addition/2")
    ensure("addition/2")
    assert find("addition/2") == tmp_path / "named/addition/2/1.0.0"
    assert not (tmp_path / "home/tensorflow_datasets/addition/2").exists()


def real_records(name, train_lines):
    """[(line, example)] of each split as TFDS has ordered them; of train the first lines only."""
    recipe = RECIPES[name]
    builder = tfds.builder_from_directory(REAL_DATA / name / recipe.version)
    for split, info in builder.info.splits.items():
        source, hasher = builder.as_data_source(split=split), hashing.Hasher(split)
        lines = range(info.num_examples)
        lines = lines if recipe.source_order else sorted(lines, key=hasher.hash_key)
        kept = [place for place, line in enumerate(lines) if split != "train" or line < train_lines]
        yield split, [(lines[place], source[place]) for place in kept]


def raw_files(name, splits):
    """The official raw files, rebuilt: {member: bytes}."""
    splits = {split: [row for _, row in sorted(rows, key=lambda row: row[0])] for split, rows in splits.items()}
    if name == "tiny_shakespeare":
        return {"input.txt": b"".join(rows[0]["text"] for rows in splits.values())}
    if name == "wikitext2":
        files = zip(("train", "valid", "test"), splits.values())
        return {f"wikitext-2/wiki.{file}.tokens": b"".join(row["text"] for row in rows) for file, rows in files}
    if name == "multi30k":
        files = zip(("train", "val", "test_2016_flickr", "test_2017_flickr"), splits.values())
        return {
            f"{file}.{side}": b"".join(row[side] + b"\n" for row in rows)
            for file, rows in files
            for side in ("en", "de")
        }
    if name == "wnut_17":
        lines = lambda row: [word + b"\t" + TAGS[tag].encode() + b"\n" for word, tag in zip(row["tokens"], row["tags"])]
        files = zip(("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"), splits.values())
        return {file: b"".join(b"".join(lines(row)) + b"\n" for row in rows) for file, rows in files}
    labelled = lambda rows: b"".join(b"%s\t%d\n" % (row["sentence"], row["label"]) for row in rows)
    return {
        "SST-2/train.tsv": b"sentence\tlabel\n" + labelled(splits["train"]),
        "SST-2/dev.tsv": b"sentence\tlabel\n" + labelled(splits["validation"]),
        "SST-2/test.tsv": b"index\tsentence\n"
        + b"".join(b"%d\t%s\n" % (row["idx"], row["sentence"]) for row in splits["test"]),
    }


def test_squads_questions_are_those_of_the_real_set_in_its_order(tmp_path):
    if not (REAL_DATA / "xquad/en/3.0.0").is_dir():
        pytest.skip(f"no xquad/en in {REAL_DATA}: set TFDS_DATA_DIR")
    real = records(REAL_DATA / "xquad/en/3.0.0")["test"]
    articles = {}
    for row in sorted(real, key=lambda row: row["id"]):
        texts = [text.decode() for text in row["answers"]["text"]]
        answers = [{"text": t, "answer_start": int(at)} for t, at in zip(texts, row["answers"]["answer_start"])]
        asked = {"id": row["id"].decode(), "question": row["question"].decode(), "answers": answers}
        paragraphs = articles.setdefault(row["title"].decode(), {})
        paragraphs.setdefault(row["context"].decode(), []).append(asked)
    data = [
        {"title": title, "paragraphs": [{"context": context, "qas": asked} for context, asked in paragraphs.items()]}
        for title, paragraphs in articles.items()
    ]
    write_loose({"xquad.en.json": json.dumps({"data": data}).encode()}, tmp_path / "manual")
    recipe = RECIPES["xquad/en"]
    (archive,) = recipe.archives
    recipe = recipe._replace(archives=(archive._replace(sum=None, members={"xquad.en.json": None}),))
    folder = prepare(recipe, tmp_path / "tfds", tmp_path / "manual")
    assert records(folder)["test"] == real and len(real) == 1190
    assert (folder / "features.json").read_bytes() == (REAL_DATA / "xquad/en/3.0.0/features.json").read_bytes()


@pytest.mark.parametrize("name", [name for name in SMALL_TEXTS if name not in ("squad/v1.1", "xquad/en")])
def test_the_real_raw_files_give_the_real_records_in_their_order(tmp_path, name):
    """Raw files rebuilt from the prepared set; but for a shortened train file they must have the pinned sums."""
    recipe = RECIPES[name]
    if not (REAL_DATA / name / recipe.version).is_dir():
        pytest.skip(f"no {name} in {REAL_DATA}: set TFDS_DATA_DIR")
    splits = dict(real_records(name, train_lines=1000))
    write_loose(raw_files(name, splits), tmp_path / "manual")
    shortened = name in ("multi30k", "glue/sst2", "wnut_17")
    archives = []
    for archive in recipe.archives:
        sums = {member: None if shortened and "train" in member else sum for member, sum in archive.members.items()}
        archives.append(archive._replace(members=sums, sum=None))

    folder = prepare(recipe._replace(archives=tuple(archives)), tmp_path / "tfds", tmp_path / "manual")

    found, real = records(folder), REAL_DATA / name / recipe.version
    assert list(found) == list(splits)
    for split, rows in splits.items():
        assert found[split] == [row for _, row in rows], split
    for path in (real / "features.json", *real.glob("*.labels.txt")):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    ours, theirs = (tfds.builder_from_directory(place).info for place in (folder, real))
    assert ours.full_name == theirs.full_name and ours.disable_shuffling == theirs.disable_shuffling
