"""Order, the two roads of reading, splits, and what is refused."""

import json
import weakref

import numpy as np
import pytest
from conftest import CACHE
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from research.data import DATASETS, open_dataset, order
from research.data.batches import eval_batches, open_split, read, train_batches
from research.data.dataset import Dataset
from research.data.order import share, step_examples
from research.errors import UserError

MEMORY, STREAM = 2**31, 0


def digits(split="train[:100]", limit=MEMORY, workers=0):
    return open_split(open_dataset("digits", {}), split, "train", limit, workers)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 50), epochs=st.integers(1, 3), processes=st.sampled_from([1, 2, 5]))
def test_every_example_once_an_epoch_over_all_processes(n, batch, epochs, processes):
    batch *= processes
    steps = -(-n * epochs // batch)
    chosen = [step_examples(7, step, batch, n) for step in range(steps)]
    read_by_all = [np.concatenate([share(examples, p, processes) for p in range(processes)]) for examples in chosen]
    order = np.concatenate(read_by_all)
    for epoch in range(epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_another_epoch_and_another_seed_have_another_order():
    first, second = step_examples(0, 0, 50, 50), step_examples(0, 1, 50, 50)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, step_examples(1, 0, 50, 50))


@pytest.mark.parametrize("first", [0, 5, 6, 7, 20])  # before, at and after the end of an epoch of 6.25 steps
def test_a_jump_to_a_step_equals_the_walk_to_it(first):
    split = digits()
    walk = list(train_batches(split, 3, 16, 0, 22))
    jump = list(train_batches(split, 3, 16, first, 22))
    assert len(jump) == 22 - first
    assert all(same(a, b) for a, b in zip(jump, walk[first:]))


@pytest.mark.smoke
@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("first", [0, 5])
def test_streamed_order_is_in_memory_order(workers, first):
    memory = list(train_batches(digits(), 3, 16, first, 14))
    stream = list(train_batches(digits(limit=STREAM, workers=workers), 3, 16, first, 14))
    assert len(stream) == len(memory) == 14 - first
    assert all(same(a, b) for a, b in zip(stream, memory))


def test_a_dropped_stream_is_freed_before_another_starts_workers():
    split = digits(limit=STREAM, workers=1)
    older = train_batches(split, 3, 16, 0, 4)
    older.itself = older  # freed by the garbage collector alone, as Grain's are once they have run
    gone = weakref.ref(older)
    del older
    train_batches(split, 3, 16, 0, 4)
    assert gone() is None


def test_streamed_shares_of_two_processes_are_the_batch():
    split = digits(limit=STREAM)
    whole = next(train_batches(split, 0, 16, 2, 3))
    halves = [next(train_batches(split, 0, 16, 2, 3, process, 2)) for process in range(2)]
    assert all(np.array_equal(np.concatenate([half[k] for half in halves]), whole[k]) for k in whole)


@pytest.mark.parametrize("limit", [MEMORY, STREAM])
def test_a_split_of_several_parts_reads_as_one(limit):
    joined = digits("train[90:100]+test[:5]+train[:3]", limit)
    parts = [digits(part, limit) for part in ("train[90:100]", "test[:5]", "train[:3]")]
    expected = [read(part, range(len(part))) for part in parts]
    found = read(joined, range(18))
    assert same(found, {k: np.concatenate([part[k] for part in expected]) for k in found})


@pytest.mark.parametrize("n", [1, 7, 13])
def test_evaluation_batches_count_each_example_once(n):
    split = digits(f"train[:{n}]")
    for batch_size in range(1, n + 2):
        numbers, batches = zip(*eval_batches(split, batch_size))
        counted = np.concatenate([own[batch["mask"] > 0] for own, batch in zip(numbers, batches)])
        assert counted.tolist() == list(range(n))
        assert all(len(batch["mask"]) == batch_size for batch in batches)
        labels = np.concatenate([batch["label"][batch["mask"] > 0] for batch in batches])
        assert np.array_equal(labels, read(split, range(n))["label"])


def test_validation_is_carved_from_train_where_there_is_none():
    dataset = DATASETS["digits"]()
    splits = ConfigDict({"train": "train[100:200]", "validation": None})
    assert dataset.carve(splits) == ("train[100:190]", "train[190:200]")
    theirs = Dataset("own", {}, {"train": 10, "validation": 5}, None)
    assert theirs.carve(ConfigDict({"train": "train", "validation": None})) == ("train", "validation")


@pytest.mark.parametrize(
    "split", ["nowhere", "train[:0]", "train[50%:50%]", "train[9:2]", "train[:9999]", "train[a:]", ""]
)
def test_an_unknown_or_empty_split_is_refused_and_the_known_are_listed(split):
    with pytest.raises(UserError, match=r"config.data.splits.train: .*digits has .*train \(1437\)") as error:
        digits(split)
    assert error.value.code == 2


def with_labels(labels, n=8):
    images = np.zeros((n, 4, 4, 1), np.uint8)
    source = [{"image": image, "label": label} for image, label in zip(images, labels)]
    features = {"image": ((4, 4, 1), np.dtype("uint8")), "label": ((), np.dtype("int64"))}
    return Dataset("own", features, {"train": n}, lambda split: source, 3, ("a", "b", "c"))


def opened(monkeypatch, dataset):
    """A data set of a user's own, as open_dataset gives it."""
    monkeypatch.setitem(DATASETS, "own", lambda: dataset)
    return open_dataset("own", {})


def sorted_by_label(n=60, **more):
    """An example's first pixel is its number; the labels come in three blocks."""
    images = np.zeros((n, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    source = [{"image": image, "label": i * 3 // n} for i, image in enumerate(images)]
    features = {"image": ((4, 4, 1), np.dtype("uint8")), "label": ((), np.dtype("int32"))}
    return Dataset("own", features, {"train": n}, {"train": source}.get, 3, **more)


@pytest.mark.parametrize("limit", [MEMORY, STREAM])
def test_validation_of_sorted_data_is_a_random_part_and_the_same_in_every_run(monkeypatch, limit):
    splits = ConfigDict({"train": "train", "validation": None})
    found = []
    for _ in range(2):
        dataset = opened(monkeypatch, sorted_by_label())
        texts = dataset.carve(splits)
        assert texts == ("train_shuffled[0:54]", "train_shuffled[54:60]")
        parts = [open_split(dataset, text, "train", limit, 0) for text in texts]
        found.append([read(part, range(len(part))) for part in parts])
    (train, validation), again = found
    numbers = np.concatenate([part["image"][:, 0, 0, 0] for part in (train, validation)])
    assert sorted(numbers) == list(range(60)) and len(set(validation["label"])) > 1
    assert all(same(a, b) for a, b in zip(found[0], again))
    assert all((part["label"] == part["image"][:, 0, 0, 0] // 20).all() for part in (train, validation))

    other = opened(monkeypatch, sorted_by_label(fingerprint=lambda split: "of other content"))
    elsewhere = read(open_split(other, texts[1], "train", STREAM, 0), range(6))
    assert not same(elsewhere, validation)
    whole = read(open_split(dataset, "train", "train", limit, 0), range(60))
    assert (whole["image"][:, 0, 0, 0] == np.arange(60)).all()  # train itself is as it is
    assert opened(monkeypatch, sorted_by_label(shuffled=True)).carve(splits) == ("train[0:54]", "train[54:60]")


def test_a_part_of_sorted_data_wants_its_validation_named(monkeypatch):
    dataset = opened(monkeypatch, sorted_by_label())
    with pytest.raises(UserError, match="no random order; for a random one take parts of train_shuffled") as error:
        dataset.carve(ConfigDict({"train": "train[:30]", "validation": None}))
    assert error.value.code == 2
    assert dataset.carve(ConfigDict({"train": "train_shuffled[:30]", "validation": None})) == (
        "train_shuffled[0:27]",
        "train_shuffled[27:30]",
    )


def test_a_wrong_label_of_reordered_data_names_the_record_in_the_data(monkeypatch):
    labels = [0, 1, 2, 0, 1, 7, 0, 1]
    dataset = opened(monkeypatch, with_labels(labels))
    with pytest.raises(UserError, match=r"record 5: label 7 is outside \[0, 3\)"):
        read(open_split(dataset, "train_shuffled", "train", MEMORY, 0), range(8))
    dataset = opened(monkeypatch, with_labels([0, 1, 2, 0, 1.5, 2, 0, 1]))
    with pytest.raises(UserError, match=r"record 4: label is float64\[\]"):
        read(open_split(dataset, "train_shuffled", "train", MEMORY, 0), range(8))


def test_the_random_order_is_made_when_it_is_read_and_not_when_the_set_is_opened(monkeypatch):
    asked = []
    known = lambda split: asked.append(split) or "content"  # a fingerprint may read all of the data
    dataset = opened(monkeypatch, sorted_by_label(fingerprint=known))
    assert asked == []
    dataset.open("train_shuffled")
    assert asked == ["train"]


IMAGE = np.zeros((4, 4, 1), np.uint8)


@pytest.mark.parametrize("limit", [MEMORY, STREAM])
@pytest.mark.parametrize(
    "declared,value,found",
    [  # ((shape, dtype), what an example holds, how it is named)
        (((4, 4, 1), "uint8"), IMAGE / 255, r"float64\[4, 4, 1\]"),
        (((4, 4, 1), "uint8"), IMAGE.astype(np.float32), r"float32\[4, 4, 1\]"),
        (((4, 4, 1), "uint8"), IMAGE.astype(np.int64), r"int64\[4, 4, 1\]"),
        (((4, 4, 1), "float32"), IMAGE, r"uint8\[4, 4, 1\]"),
        (((4, 4, 1), "uint8"), IMAGE[..., 0], r"uint8\[4, 4\]"),
        (((4, 4, 3), "uint8"), IMAGE, r"uint8\[4, 4, 1\]"),
        (((), "int32"), 1.5, r"float64\[\]"),
        (((), "int32"), 2**40, r"int64\[\]"),
        (((), "uint8"), -1, r"int64\[\]"),
        (((), "int32"), [1], r"int(32|64)\[1\]"),
        (((2,), "int32"), ["a", "b"], r"str\d*\[2\]"),
        (((), "float32"), None, r"object\[\]"),
    ],
)
def test_a_value_that_is_not_what_was_declared_is_refused_and_never_cast(declared, value, found, limit):
    shape, dtype = declared
    good = np.zeros(shape, dtype) if shape else 0 * np.ones((), dtype)[()]
    dataset = Dataset(
        "own", {"x": (shape, np.dtype(dtype))}, {"train": 3}, lambda split: [{"x": good}, {"x": value}] * 2
    )
    assert (read(open_split(dataset, "train[:1]", "train", STREAM, 0), [0])["x"] == 0).all()
    named = rf"own, split train, record 1: x is {found}, but declared as {dtype}\[{', '.join(map(str, shape))}\]"
    with pytest.raises(UserError, match=named) as error:
        read(open_split(dataset, "train", "train", limit, 0), range(3))
    assert error.value.code == 3


@pytest.mark.parametrize(
    "dtype,value", [("int32", 7), ("int64", np.int32(7)), ("uint8", np.int64(200)), ("float32", 0.5), ("bool", True)]
)
def test_a_number_of_the_declared_kind_is_taken_whatever_its_width(dtype, value):
    dataset = Dataset("own", {"x": ((), np.dtype(dtype))}, {"train": 1}, lambda split: [{"x": value}])
    found = read(open_split(dataset, "train", "train", STREAM, 0), [0])["x"]
    assert found.dtype == dtype and found[0] == value


@pytest.mark.parametrize("label", [3, -1, 255])
@pytest.mark.parametrize("limit", [MEMORY, STREAM])
def test_a_label_out_of_range_names_its_record(label, limit):
    dataset = with_labels([0, 1, 2, 0, 1, label, 0, 1])
    with pytest.raises(UserError, match=rf"own, split train, record 5: label {label} is outside \[0, 3\)") as error:
        read(open_split(dataset, "train", "train", limit, 0), range(8))
    assert error.value.code == 3


def test_a_damaged_shard_names_data_set_split_and_records(tmp_path, monkeypatch):
    import shutil

    shutil.copytree(CACHE / "tfds" / "mnist", tmp_path / "mnist")
    shard = next((tmp_path / "mnist").rglob("mnist-train.array_record*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    shard.write_bytes(data)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="mnist, split train") as error:
        open_split(DATASETS["mnist"](), "train", "train", MEMORY, 0)
    assert error.value.code == 3


def test_a_missing_data_set_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="experiments.prepare cifar10") as error:
        DATASETS["cifar10"]()
    assert error.value.code == 3


def test_the_cache_is_read_back_and_its_loss_costs_nothing_but_time(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = read(digits(), range(10))
    assert list((tmp_path / "research" / "decoded").glob("digits-train-*/complete"))
    assert same(read(digits(), range(10)), first)


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "header", "gone", "older"])
def test_a_damaged_cache_is_made_again(monkeypatch, tmp_path, how):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = read(digits(), range(10))
    (folder,) = (tmp_path / "research" / "decoded").glob("digits-train-*")
    for path in folder.glob("*.npy"):
        content = bytearray(path.read_bytes())
        if how == "flipped":
            content[-1] ^= 1
        elif how == "header":  # of as many bytes: other numbers
            content = content.replace(b"'<i4'", b"'<u4'").replace(b"'|u1'", b"'|i1'")
        path.write_bytes({"cut": content[:200], "empty": b""}.get(how, content))
        if how == "gone":
            path.unlink()
    if how == "older":  # kept the names of the fields, without sums
        (folder / "complete").write_text(json.dumps({"fields": ["image", "label"], "notes": {}}))
    assert same(read(digits(), range(10)), first)
    assert "sums" in json.loads((folder / "complete").read_text())


def test_official_order_and_pixels_of_mnist(real_data):
    split = open_split(DATASETS["mnist"](), "train", "train", STREAM, 0)
    assert read(split, range(3))["label"][0] == 4
    assert len(split) == 60000


def test_the_orders_of_a_populations_members_are_drawn_once(monkeypatch):
    drawn = []
    generator = order.generator
    monkeypatch.setattr(order, "generator", lambda *given: drawn.append(given) or generator(*given))
    for step in range(6):  # two epochs
        for seed in range(1000, 1016):
            order.step_examples(seed, step, 4, 12)
    assert len(drawn) == len(set(drawn)) == 16 * 2
