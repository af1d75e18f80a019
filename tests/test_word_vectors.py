"""Word vectors: losses equal sums over pairs, draws have word2vec's frequencies, formats and answers are gensim's."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, SHARED, assert_same_bits, assert_same_numbers, run_script

from research import config as configs
from research import sharding
from research.data import open_dataset
from research.data.batches import train_batches
from research.data.cooccurrences import matrix
from research.errors import UserError
from research.inference import similarity
from research.models.word2vec import Glove, WordVectors
from research.pretrained.word_vectors import Vectors, read, write
from research.randomness import run_key
from research.setup import prepare, resolve
from research.tasks import TASKS
from research.tasks.word_vectors import Draws, chances, draw
from research.train_step import eval_keys, make_train_step

RNG = np.random.default_rng(0)
V, D, WINDOW, NEGATIVES = 20, 6, 3, 5
FIXTURES = SHARED / "fixtures" / "word2vec"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"no {FIXTURES}")
WORDS = tuple(f"w{i}" for i in range(V))


def spec(counts=None):
    """What a task needs to know of a text whose words 4 to V - 1 stand in it so often."""
    ids = types.SimpleNamespace(pad=0, unknown=1, begin=2, end=3, vocabulary=WORDS)
    counts = np.array([50, 30, 0, 0, *range(1000, 1000 - 10 * (V - 4), -10)] if counts is None else counts)
    fields = dict.fromkeys(("targets", "row", "column", "count"))
    return types.SimpleNamespace(
        name="words", tokenizer=ids, vocabulary=len(counts), token_counts=lambda: counts, features=fields
    )


def some_draws(length, rows=3):
    words = RNG.integers(4, V, (rows, length))
    for row, n in zip(words, (length, length - 7, 1)):
        row[n:] = 0
    reach = RNG.integers(1, WINDOW + 1, words.shape)
    return Draws(*map(jnp.asarray, (words, reach, RNG.integers(4, V, (rows, -(-length // 32), 4)))))


def softplus(x):
    return np.logaddexp(0, x)


def contexts(words, reach, i):
    return [j for j in range(len(words)) if j != i and words[i] and words[j] and abs(j - i) <= min(reach[i], WINDOW)]


def pair_by_pair(kind, v, u, draws, mask):
    """The loss as the papers have it, one pair after another: (sum, count)."""
    total, count = 0.0, 0
    for words, reach, noise, weight in zip(*map(np.asarray, draws), mask):
        for i in range(len(words)):
            near, wrong = contexts(words, reach, i), noise[i // 32]
            if kind == "skipgram":
                trained = [(v[words[i]], u[words[j]]) for j in near]
            else:
                trained = [(np.mean([v[words[j]] for j in near], axis=0), u[words[i]])] if near else []
            for hidden, right in trained:
                loss = softplus(-hidden @ right) + NEGATIVES * np.mean([softplus(hidden @ u[n]) for n in wrong])
                total, count = total + weight * loss, count + weight
    return total, count


KEYS = {"dropout": jax.random.key(0), "augment": None}


def losses(monkeypatch, kind, draws, mask, params):
    """The task's own sums and gradients for these draws."""
    monkeypatch.setattr("research.tasks.word_vectors.draw", lambda *_, **__: draws)
    task = TASKS[kind](spec(), window=WINDOW, negatives=NEGATIVES, shared_negatives=draws.noise.shape[-1])
    model, batch = WordVectors(D, V), {"targets": jnp.zeros((len(mask), 5), jnp.int32), "mask": jnp.asarray(mask)}

    def loss(params):
        terms, _, _ = task.loss(model, {"params": params}, batch, KEYS, True)
        return terms["loss"]

    (total, count), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return total, count, gradient


@pytest.mark.parametrize("length", [9, 32, 96])
@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_loss_and_gradient_equal_the_sum_over_pairs(kind, length, monkeypatch):
    with jax.enable_x64(True):
        draws, mask = some_draws(length), [1.0, 0.5, 1.0]
        params = {name: jnp.asarray(RNG.normal(size=(V, D))) for name in ("input_embedding", "output_embedding")}
        total, count, gradient = losses(monkeypatch, kind, draws, mask, params)
        v, u = (np.asarray(params[name]) for name in ("input_embedding", "output_embedding"))
        expected = pair_by_pair(kind, v, u, draws, mask)
        assert (float(total), float(count)) == pytest.approx(expected, rel=1e-12)
        step = 1e-6
        for name in params:
            for row, column in ((draws.words[0, 2], 1), (draws.words[1, 0], 3), (draws.noise[0, 0, 0], 0)):
                moved = [dict(input_embedding=v.copy(), output_embedding=u.copy()) for _ in range(2)]
                for sign, matrices in zip((1, -1), moved):
                    matrices[name][row, column] += sign * step
                high, low = (
                    pair_by_pair(kind, m["input_embedding"], m["output_embedding"], draws, mask)[0] for m in moved
                )
                assert float(gradient[name][row, column]) == pytest.approx((high - low) / 2 / step, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_masked_blocks_padding_and_what_lies_behind_it_change_nothing(kind, monkeypatch):
    own = jax.random.key(0), jnp.zeros((1, 8), int), jnp.zeros((1, 1, 4), int)
    params = jax.jit(WordVectors(D, V).init)(*own)["params"]
    draws = some_draws(64)
    alone = losses(monkeypatch, kind, jax.tree.map(lambda x: x[:1], draws), [1.0], params)

    assert_same_numbers(losses(monkeypatch, kind, draws, [1.0, 0.0, 0.0], params), alone)
    empty = losses(monkeypatch, kind, draws._replace(words=draws.words * 0), [1.0, 1.0, 1.0], params)
    assert empty[1] == 0 and not any(np.any(x) for x in jax.tree.leaves(empty))


def drawn(counts, blocks, subsample=1e-2, window=5, shared=16):
    blocks = jnp.asarray(blocks, jnp.int32)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(blocks)))
    tables = chances(spec(counts), subsample)
    return jax.device_get(draw(keys, blocks, *tables, window=window, shared_negatives=shared))


def assert_frequent(found, share, n):
    """found / n is share, within five standard deviations."""
    assert abs(found / n - share) <= 5 * np.sqrt(share * (1 - share) / n) + 1e-9, (found / n, share)


def test_words_are_kept_as_word2vec_keeps_them():
    counts = np.array([0, 99, 0, 0, 500, 300, 150, 40, 9, 1])
    text = np.random.default_rng(1).permutation(np.repeat(np.arange(10), counts))
    draws = drawn(counts, np.tile(text, (200, 1)))
    assert not np.isin(draws.words, [1, 2, 3]).any()
    for word in range(4, 10):
        share = counts[word] / 1000
        keep = min(1, np.sqrt(0.01 / share) + 0.01 / share)
        assert_frequent((draws.words == word).sum(), keep, 200 * counts[word])


def test_kept_words_stand_in_their_order_at_the_left():
    counts = np.array([0, 10, 0, 0, 100, 1, 1, 1])
    draws = drawn(counts, [[5, 4, 6, 1, 4, 7, 0, 0]], subsample=1e-9)
    everything = drawn(counts, [[5, 4, 6, 1, 4, 7, 0, 0]], subsample=0.0)
    assert draws.words[0].tolist() == [0] * 8  # all of them too frequent
    assert everything.words[0].tolist() == [5, 4, 6, 4, 7, 0, 0, 0]


def test_noise_is_the_unigram_distribution_to_a_power_and_reach_is_uniform():
    counts = np.array([7, 99, 0, 0, 512, 64, 8, 1, 0])
    draws = drawn(counts, np.full((400, 96), 4), subsample=0.0, shared=32)
    power = np.where(np.arange(9) >= 4, counts, 0) ** 0.75
    for word in range(9):
        assert_frequent((draws.noise == word).sum(), power[word] / power.sum(), draws.noise.size)
    for reach in range(1, 6):
        assert_frequent((draws.reach == reach).sum(), 1 / 5, draws.reach.size)


def test_evaluation_draws_the_same_wherever_a_block_stands():
    task, model = TASKS["skipgram"](spec(), shared_negatives=4), WordVectors(D, V)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8), int), jnp.zeros((1, 1, 4), int))
    blocks = jnp.asarray(RNG.integers(4, V, (6, 40)), jnp.int32)
    batch = lambda rows: {"targets": blocks[rows], "mask": jnp.ones(len(rows))}
    of = jax.jit(lambda rows: task.evaluate(model, params, batch(rows), eval_keys(rows))[0]["loss"])
    whole, first, rest = (of(np.array(rows)) for rows in ([0, 1, 2, 3, 4, 5], [4, 2], [5, 0, 3, 1]))
    assert_same_numbers(whole, jax.tree.map(jnp.add, first, rest))


def test_glove_loss_is_the_papers():
    model, batch = Glove(D, V), {"row": [4, 5, 6, 7], "column": [5, 5, 9, 4]}
    batch |= {"count": [0.5, 100.0, 300.0, 2.0], "mask": [1, 1, 1, 0]}
    batch = {name: jnp.asarray(x, jnp.int32 if name in ("row", "column") else jnp.float32) for name, x in batch.items()}
    params = jax.tree.map(
        lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32),
        model.init(jax.random.key(0), batch["row"], batch["column"])["params"],
    )
    total, count = TASKS["glove"](spec()).evaluate(model, {"params": params}, batch, {})[0]["loss"]
    p, expected = jax.tree.map(np.asarray, params), 0
    for i, j, x, weight in ((4, 5, 0.5, (0.5 / 100) ** 0.75), (5, 5, 100.0, 1.0), (6, 9, 300.0, 1.0)):
        score = p["input_embedding"][i] @ p["output_embedding"][j] + p["input_bias"][i] + p["output_bias"][j]
        expected += weight * (score - np.log(x)) ** 2
    assert (float(total), float(count)) == (pytest.approx(expected, rel=1e-5), 3)
    vectors = model.apply({"params": params}, method="vectors")
    assert_same_numbers(vectors, p["input_embedding"] + p["output_embedding"])


@pytest.mark.parametrize("part", [4, 1_000_000])
def test_cooccurrences_of_a_text_by_hand(part, monkeypatch):
    monkeypatch.setattr("research.data.cooccurrences.PART", part)
    text = [4, 5, 4, 6, 4, 4, 7, 5, 6]
    expected = np.zeros((8, 8))
    for p, i in enumerate(text):
        for q, j in enumerate(text):
            if 0 < abs(p - q) <= 3:
                expected[i, j] += 1 / abs(p - q)
    row, column, count = matrix(np.array(text), 8, 3)
    found = np.zeros((8, 8))
    found[row, column] = count
    assert np.allclose(found, expected, rtol=1e-6) and len(row) == (expected > 0).sum()


def test_the_data_set_of_cooccurrences_leaves_special_words_out_and_is_shuffled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # counted now, not by an earlier code
    data = open_dataset("wikitext2_cooccurrences", {"min_count": 40, "window": 2, "normalize": ("lowercase",)})
    assert data.token_counts()[data.tokenizer.unknown] > 0
    cells = data.open("train").stacked(np.arange(data.examples["train"]))
    assert min(cells["row"].min(), cells["column"].min()) >= 4 and cells["count"].min() >= 0.5
    assert (np.diff(cells["row"]) < 0).any()
    both = {(i, j): x for i, j, x in zip(*(cells[name].tolist() for name in ("row", "column", "count")))}
    assert all(both[j, i] == x for (i, j), x in both.items())


# The formats


def some_vectors(n=7, width=5):
    words = ("the", "Straße", "東京", "a\u00a0b", "3", "<unk>", "é")[:n]
    return Vectors(words, np.random.default_rng(2).normal(size=(n, width)).astype(np.float32))


@pytest.mark.parametrize("binary", [True, False])
def test_vectors_come_back_bit_for_bit(binary, tmp_path):
    vectors = some_vectors()
    vectors.matrix[0] = [0.0, -0.0, 1e-45, 3.4028235e38, 1 / 3]
    path = tmp_path / ("v.bin" if binary else "v.txt")
    write(path, *vectors)
    found = read(path)
    assert found.words == vectors.words
    assert_same_bits(found.matrix, vectors.matrix)


@needs_fixtures
def test_files_of_gensim_and_of_the_c_tool_are_read_and_written_as_gensim_does(tmp_path):
    expected = json.loads((FIXTURES / "expected.json").read_text())
    matrix = np.load(FIXTURES / "vectors.npz")
    matrix = matrix[matrix.files[0]]
    for name in ("vectors.txt", "vectors.bin", "vectors_c_style.bin"):
        found = read(FIXTURES / name)
        assert list(found.words) == expected["vocab"]
        assert_same_bits(found.matrix, matrix.astype(np.float32))
    write(tmp_path / "vectors.bin", *found)
    write(tmp_path / "vectors.txt", *found)
    for name in ("vectors.txt", "vectors.bin"):
        assert (tmp_path / name).read_bytes() == (FIXTURES / name).read_bytes()


@pytest.mark.parametrize("name", ["v.bin", "v.txt"])
def test_gensim_reads_what_we_write(name, tmp_path):
    models = pytest.importorskip("gensim.models", reason="gensim is not installed: requirements-bench.txt")
    vectors = some_vectors()
    write(tmp_path / name, *vectors)
    found = models.KeyedVectors.load_word2vec_format(tmp_path / name, binary=name.endswith(".bin"))
    assert tuple(found.index_to_key) == vectors.words
    assert_same_bits(found.vectors, vectors.matrix)


GOOD = b"2 2\na 1 2\nb 3 4\n"
ONE = np.float32([1, 2]).tobytes()


@pytest.mark.parametrize(
    "name,content,said",
    [
        ("v.txt", b"", "not with a line of two numbers"),
        ("v.txt", b"a 1 2\n", "not with a line of two numbers"),
        ("v.txt", b"2 2", "not with a line of two numbers"),
        ("v.txt", b"-2 2\na 1 2\n", "not with a line of two numbers"),
        ("v.txt", b"9999999999 999999\n" + GOOD, "cannot hold the 9999999999 words"),
        ("v.bin", b"9999999999 999999\n" + GOOD, "cannot hold the 9999999999 words"),
        ("v.txt", b"2 2\na 1 2\n" + b" " * 9, "word 2 of 2: it is empty"),
        ("v.txt", b"3 2\na 1 2.00000\nb 3 4.0000\n", "ends after 2 of the 3 words"),
        ("v.txt", b"1 2\na 1 2\nb 3 4\n", "goes on after the 1 words"),
        ("v.txt", b"2 2\na 1 2\na 3 4\n", "word 2 of 2: 'a' stands there twice"),
        ("v.txt", b"2 2\na 1 2\nb 3 4 5\n", "'b' has 3 numbers"),
        ("v.txt", b"2 2\na 1 2\nb 3 x\n", "line 3: could not convert"),
        ("v.txt", b"2 2\na 1 2\nb 3 nan\n", "'b' has a number that is not finite"),
        ("v.txt", b"2 2\na 1 2\nb 3 1e99\n", "'b' has a number that is not finite"),
        ("v.txt", b"2 2\na 1 2\n\xff 3 4\n", r"byte 10 \(line 3\) is not UTF-8"),
        ("v.txt", GOOD.decode().encode("utf-16"), "is UTF-16, not UTF-8"),
        ("v.bin", b"2 2\na " + ONE + b"\nb " + ONE[:-1] + b"", "cannot hold|word 2 of the 2"),
        ("v.bin", b"2 2\na " + ONE + b"\nbbbbbbbbbbb" + ONE, "word 2 of the 2"),
        ("v.bin", b"1 2\na " + ONE + b"b " + ONE, "goes on after the 1 words"),
        ("v.bin", b"2 2\na " + ONE + b"a " + ONE, "'a' stands there twice"),
        ("v.bin", b"2 2\na " + ONE + b"\xff " + ONE, "is not UTF-8"),
        ("v.bin", b"1 2\na " + np.float32([1, np.inf]).tobytes(), "not finite"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error, np.errstate(over="ignore"):
        read(tmp_path / name)
    assert error.value.code == 3 and str(tmp_path / name) in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_vectors(tmp_path):
    (tmp_path / "v.txt").write_bytes(b"\xef\xbb\xbf" + GOOD)
    assert read(tmp_path / "v.txt").words == ("a", "b")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "words,matrix,said",
    [
        (["a b", "c"], np.ones((2, 2)), "'a b' cannot be written"),
        (["a\n", "c"], np.ones((2, 2)), "cannot be written"),
        (["", "c"], np.ones((2, 2)), "cannot be written"),
        (["\ud800", "c"], np.ones((2, 2)), "cannot be written as UTF-8"),
        (["a", "a"], np.ones((2, 2)), "1 of them different"),
        (["a"], np.ones((2, 2)), "1 words"),
        (["a", "b"], np.array([[1, 2], [3, np.nan]]), "the vector of 'b' is not finite"),
    ],
)
def test_what_a_format_cannot_hold_is_not_written(words, matrix, said, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        write(tmp_path / "v.txt", words, matrix)
    assert error.value.code == 3 and not list(tmp_path.iterdir())


# What vectors are asked


@needs_fixtures
def test_neighbours_and_analogies_are_gensims():
    expected, vectors = json.loads((FIXTURES / "expected.json").read_text()), read(FIXTURES / "vectors.bin")
    for word, answers in expected["most_similar"].items():
        found = similarity.neighbours(vectors, [word], top=10)
        assert [w for w, _ in found] == [w for w, _ in answers]
        assert np.allclose([x for _, x in found], [x for _, x in answers], atol=1e-5)
    assert expected["analogies"]
    for case in expected["analogies"]:
        found = similarity.neighbours(vectors, case["positive"], case["negative"], 5)
        assert [w for w, _ in found] == [w for w, _ in case["top5"]] and found[0][0] == case["answer"]
        assert np.allclose([x for _, x in found], [x for _, x in case["top5"]], atol=1e-5)


def test_correlation_and_accuracy_leave_unknown_words_out(tmp_path):
    words = ("man", "woman", "king", "queen", "far")
    vectors = Vectors(words, np.float32([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1], [-1, -1, -1]]))
    (tmp_path / "pairs").write_text(
        "# a comment\nman\tKing\t5\nman\tfar\t1\nman\twoman\t5.5\nman\tcat\t9\nking\tqueen\t8\n"
    )
    found = similarity.correlation(vectors, tmp_path / "pairs")
    assert (found.pairs, found.unknown) == (4, 1)
    assert found.spearman == pytest.approx(0.9486832980505138)  # ranks 1, 2.5, 2.5, 4 beside 1, 2, 3, 4
    (tmp_path / "questions").write_text(
        ": royal\nMan King woman queen\nman woman king queen\ncat a b c\n: odd\nman king woman far\n"
    )
    found = similarity.analogies(vectors, tmp_path / "questions")
    assert [tuple(row) for row in found] == [("royal", 2, 2, 1), ("odd", 0, 1, 0), ("all", 2, 3, 1)]
    for content, ask in (("a\tb\n", similarity.correlation), ("a b c\n", similarity.analogies)):
        (tmp_path / "wrong").write_text(content)
        with pytest.raises(UserError, match="wrong, line 1"):
            ask(vectors, tmp_path / "wrong")
    nothing = [("", similarity.analogies), ("", similarity.correlation), ("man\tking\t1\n", similarity.correlation)]
    for content, ask in [*nothing, ("man\tking\t1\nman\tfar\t1\ncat\tdog\t2\n", similarity.correlation)]:
        (tmp_path / "little").write_text(content)
        with pytest.raises(UserError, match="little: holds") as error:
            ask(vectors, tmp_path / "little")
        assert error.value.code == 3


def test_an_unknown_word_names_its_neighbour_in_spelling():
    with pytest.raises(UserError, match="'qeen' has no vector; did you mean queen") as error:
        similarity.neighbours(Vectors(("king", "queen"), np.eye(2)), ["qeen"])
    assert error.value.code == 2


def test_the_plane_is_that_of_the_principal_axes():
    line = np.outer(np.arange(5.0), [3, 4, 0]) + 7
    at, share = similarity.plane(line)
    assert np.allclose(np.abs(at[:, 0]), [10, 5, 0, 5, 10]) and np.allclose(at[:, 1], 0) and np.allclose(share, [1, 0])


@pytest.mark.parametrize(
    "text,expected",
    [
        ("king - man + woman", (["king", "woman"], ["man"])),
        ("man king woman", (["king", "woman"], ["man"])),
        ("a", (["a"], [])),
        ("a + b", (["a", "b"], [])),
        ("- man + king", (["king"], ["man"])),
        ("well-known - a", (["well-known"], ["a"])),
    ],
)
def test_an_analogy_is_read(text, expected):
    from experiments.nearest import parse_analogy

    assert parse_analogy(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "a -", "a + - b", "a - b c", "+", "- a"])
def test_what_is_no_analogy_is_refused(text):
    from experiments.nearest import parse_analogy

    with pytest.raises(UserError, match="is meant"):
        parse_analogy(text)


# All of it


def facts(seed=0):
    """A text of sentences on countries and their capitals, each country with neighbours and a tongue of its own."""
    rng, lines = np.random.default_rng(seed), []
    capitals = {"france": "paris", "italy": "rome", "spain": "madrid", "greece": "athens", "austria": "vienna"}
    own = {"france": "french", "italy": "italian", "spain": "spanish", "greece": "greek", "austria": "german"}
    for _ in range(900):
        country = str(rng.choice(list(capitals)))
        capital, tongue = capitals[country], own[country]
        sentences = (
            f"{capital} city speaks {tongue}",
            f"{tongue} streets cross {capital} city",
            f"{country} country speaks {tongue}",
            f"{tongue} armies guard {country} country",
        )
        lines.append(str(rng.choice(sentences)))
    return capitals, " ".join(lines).split()


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_capitals_and_countries_are_learnt_from_sentences_about_them(kind):
    import optax

    capitals, text = facts()
    words = ["< pad >", "< unknown >", "< begin >", "< end >", *sorted(set(text))]
    ids = np.array([words.index(word) for word in text])
    blocks = jnp.asarray(ids[: len(ids) // 64 * 64].reshape(-1, 64), jnp.int32)
    counts = np.bincount(ids, minlength=len(words))
    task = TASKS[kind](spec(counts), window=3, shared_negatives=16, subsample=0.0)
    model, optimizer = WordVectors(16, len(words)), optax.adam(0.02)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8), int), jnp.zeros((1, 1, 4), int))["params"]
    batch = {"targets": blocks, "mask": jnp.ones(len(blocks))}

    def loss(params, key):
        keys = jax.random.split(key, len(blocks))
        total, count = task.loss(model, {"params": params}, batch, {**KEYS, "augment": keys}, True)[0]["loss"]
        return total / count

    def update(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), 300)
    (params, _), _ = jax.jit(lambda params: jax.lax.scan(update, (params, optimizer.init(params)), keys))(params)
    vectors = Vectors(tuple(words), np.asarray(model.apply({"params": params}, method="vectors")))
    right = 0
    for a in capitals:
        for b in capitals:
            found = similarity.neighbours(vectors, [capitals[a], b], [a], top=1)
            right += a != b and found[0][0] == capitals[b]
    assert right >= 18  # of 20; by the kind alone it would be 5
    for kin in (set(capitals), set(capitals.values())):
        assert sum(similarity.neighbours(vectors, [word], top=1)[0][0] in kin for word in kin) >= 4  # of 5


def test_the_script_answers_exports_and_draws(tmp_path, capsys):
    vectors = Vectors(("man", "woman", "king", "queen"), np.float32([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]]))
    write(tmp_path / "v.txt", *vectors)
    flags = [f"--vectors={tmp_path / 'v.txt'}"]
    (tmp_path / "pairs").write_text("man\tking\t5\nman\twoman\t6\nman\tqueen\t1\nman\tdog\t1\n")
    (tmp_path / "questions").write_text(": royal\nman king woman queen\n")
    assert run_script("nearest", *flags, "King", "--analogy=king - man + woman", "--top=1") == 0
    assert capsys.readouterr().out.split() == "King queen 0.8165 king - man + woman queen 0.9753".split()
    asked = [f"--similarity={tmp_path / 'pairs'}", f"--analogies={tmp_path / 'questions'}"]
    assert run_script("nearest", *flags, *asked, f"--export={tmp_path / 'v.bin'}", "--picture", tmp_path / "v.png") == 0
    out = capsys.readouterr().out
    assert "pairs 3  unknown 1" in out and "royal accuracy 1.0000  (1 of 1; unknown 0)" in out
    assert_same_bits(read(tmp_path / "v.bin").matrix, vectors.matrix)
    from PIL import Image

    with Image.open(tmp_path / "v.png") as picture:
        assert min(picture.size) > 500
    for wrong, code in ([*flags, "kin"], 2), (flags, 2), (["man"], 2), ([*flags, "man", "--top=0"], 2):
        assert run_script("nearest", *wrong) == code
    assert "did you mean king?" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["text_word2vec", "text_glove"])
@pytest.mark.parametrize("devices,parallel,parts", [(8, "jit", 1), (4, "pmap", 1), (1, "jit", 2)])
def test_a_step_is_the_same_however_its_batch_is_cut(config, devices, parallel, parts):
    def step(devices, **given):
        found, _, _ = configs.load_file(f"{ROOT}/configs/{config}.py:tiny")
        given = {name.replace("__", "."): value for name, value in given.items()}
        found = configs.override(found, {"train.steps_per_call": 1, "optimizer.name": "sgd", **given})
        setup = prepare(*resolve(found, jax.devices()[:devices]))
        state = jax.jit(setup.init, out_shardings=sharding.replicated(setup.mesh))(run_key(0))
        train = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
        (batch,) = train_batches(setup.splits["train"], 0, setup.config.data.batch_size, 0, 1)
        batch["mask"][::3] = 0
        return jax.device_get(train(state, {}, batch, run_key(0)))

    assert_same_numbers(step(devices, train__parallel=parallel, train__microbatches=parts), step(1))
