"""Text out of a language model: cached equals uncached, alone equals beside others, and what a person asks for."""

import json
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED, assert_same_numbers, run_script
from test_transformer import MODERN, gpt2_parameters

from research import runs
from research.data import tokenize, train_tokenizer
from research.errors import UserError
from research.generation import GREEDY, PLAIN, Sampling, filtered, lengths
from research.inference import continuation
from research.models.decoder import Decoder
from research.models.recurrent import RecurrentLM
from research.optimizers import stacked_like
from research.randomness import run_key

V, CONTEXT = 29, 16
SMALL = {"layers": 2, "heads": 4, "width": 16, "context": CONTEXT, "vocabulary": V}
FORMS = {
    "gpt2": Decoder(**SMALL),
    "modern": Decoder(**SMALL, **MODERN),
    "lstm": RecurrentLM(embedding=8, width=12, layers=2, vocabulary=V),
}


class Ids(NamedTuple):
    """Of a vocabulary without special tokens, unless given."""

    pad: int = -1
    begin: int = -1
    end: int = -1
    size: int = V


NONE = Ids()


@pytest.fixture(params=FORMS, scope="module")
def form(request):
    """A small model, and variables that make its distributions uneven."""
    model = FORMS[request.param]
    variables = jax.jit(model.init)(run_key(0), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4)))
    drawn = np.random.default_rng(3)
    return model, jax.tree.map(lambda x: x + jnp.asarray(0.4 * drawn.normal(size=x.shape), x.dtype), variables)


def prompts(*sizes, seed=0):
    drawn = np.random.default_rng(seed)
    return [drawn.integers(0, V, n).tolist() for n in sizes]


def written(form, given, steps, ids=NONE, **own):
    return np.concatenate(list(continuation.write(*form, given, steps, ids, **own)), axis=1)


@partial(jax.jit, static_argnums=0)
def _read_all(model, variables, row):
    return model.apply(variables, row, jnp.ones(row.shape))


def logits_of(form, row):
    """Of the token behind a row, by reading all of it; padding at the end changes nothing."""
    model, variables = form
    padded = np.zeros((1, getattr(model, "context", 64)), np.int32)
    padded[0, : len(row)] = row
    return _read_all(model, variables, padded)[0, len(row) - 1]


def by_reading_all(form, prompt, steps):
    """Greedy, without a cache; what fills the context is cut to its latter half."""
    row, found, context = list(prompt), [], getattr(form[0], "context", 10**9)
    for _ in range(steps):
        row = row[-(context // 2) :] if len(row) > context else row
        token = int(jnp.argmax(logits_of(form, row)))
        row, found = [*row, token], [*found, token]
    return found


def test_the_cached_logits_are_the_whole_texts(form):
    """Prompts of several lengths, two texts each, one token at a time."""
    (model, variables), drawn = form, np.random.default_rng(1)
    given, more = prompts(1, 4, 7), drawn.integers(0, V, (6, 5))
    tokens, mask = continuation._padded([prompt[:-1] for prompt in given], 8)
    memory, carry = continuation._read(model, variables, tokens, mask, 2)
    carry = model.widen(carry, 6) if hasattr(model, "widen") else carry
    rows = [list(prompt) for prompt in given for _ in range(2)]
    for t in range(6):
        logits, carry = model.apply(
            variables, memory, carry, jnp.asarray([row[-1] for row in rows], jnp.int32), method="decode"
        )
        for row, found in zip(rows, logits):
            assert_same_numbers(found, logits_of(form, row), 1e-5)
        rows = [[*row, int(token)] for row, token in zip(rows, more[:, t])] if t < 5 else rows


def test_greedy_text_is_that_of_reading_all_for_each_token(form):
    """Through all stages of the cache, and beyond the context."""
    given = prompts(1, 5, CONTEXT)
    found = written(form, given, 30, how=GREEDY)
    assert found.tolist() == [by_reading_all(form, prompt, 30) for prompt in given]


@pytest.mark.parametrize("form", ["modern", "lstm", pytest.param("gpt2", marks=pytest.mark.slow)], indirect=True)
def test_a_prompt_alone_has_the_text_that_it_has_beside_others(form):
    given, how = prompts(3, 6), Sampling(1.3, 0.9, 20, 0.9, 0.01)
    together = written(form, given, 14, how=how, samples=2, seed=5).reshape(2, 2, -1)
    assert len({text.tobytes() for text in together.reshape(4, -1)}) == 4
    assert not np.array_equal(written(form, given, 14, how=how, samples=2, seed=6), together.reshape(4, -1))
    for prompt, texts in zip(given, together):
        alone = written(form, [prompt], 14, how=how, samples=2, seed=5)
        assert np.array_equal(alone, texts)
    assert np.array_equal(written(form, [prompt], 14, how=how, seed=5)[0], texts[0])


def test_prompts_of_different_lengths_share_the_programs_of_the_cache_s_stages(form):
    continuation._write.clear_cache()
    for n in range(1, CONTEXT - 1):
        written(form, prompts(n), 2, how=GREEDY)
    stages = continuation.STAGES if hasattr(form[0], "widen") else 1
    assert continuation._write._cache_size() == stages


@pytest.mark.parametrize("form", ["modern", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "lstm"))],
                         indirect=True)  # fmt: skip
def test_what_was_drawn_is_distributed_as_the_filter_says(form):
    (prompt,), how = prompts(4), Sampling(temperature=0.8, top_k=12, top_p=0.9)
    drawn = written(form, [prompt], 1, how=how, samples=4000)[:, 0]
    expected = np.exp(np.asarray(filtered(logits_of(form, prompt)[None], None, how)))[0]
    counts = np.bincount(drawn, minlength=V)
    assert counts[expected == 0].sum() == 0
    likely = expected > 0
    chi_square = (np.square(counts - 4000 * expected)[likely] / (4000 * expected[likely])).sum()
    assert likely.sum() > 3 and chi_square < 2.5 * likely.sum() + 10


def test_a_text_ends_by_a_stop_and_the_others_go_on(form):
    given = prompts(2, 4, 3, 2)
    free = written(form, given, 12, how=GREEDY)
    stop = int(free[0, 3])
    found = written(form, given, 12, how=GREEDY, stop=(stop, int(free[1, 7])))
    for row, whole in zip(found, free):
        n = next((i + 1 for i, token in enumerate(whole) if token in (stop, free[1, 7])), 12)
        assert row.tolist() == [*whole[:n], *[-1] * (len(row) - n)]
    assert (found == -1).any()


def test_texts_that_have_all_ended_are_not_gone_on_with(form):
    (prompt,) = prompts(3)
    first = int(written(form, [prompt], 1, how=GREEDY)[0, 0])
    assert written(form, [prompt], 100, how=GREEDY, stop=(first,)).shape[1] <= continuation.PIECE


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_beams_texts_score_as_the_model_does(form, beam_size):
    model, variables = form
    given, ids = prompts(1, 4, 6), Ids(end=7)
    tokens, mask = continuation._padded([prompt[:-1] for prompt in given], 8)
    last = jnp.asarray([prompt[-1] for prompt in given], jnp.int32)
    found, scores = continuation._search(model, variables, tokens, mask, last, 6, ids, beam_size, 1.0)
    for prompt, texts, own in zip(given, np.asarray(found), scores):
        for text, score in zip(texts, own):
            text = text[: int(lengths(text, ids))].tolist()
            each = [jax.nn.log_softmax(logits_of(form, [*prompt, *text[:i]]))[token] for i, token in enumerate(text)]
            assert float(score) == pytest.approx(float(sum(each)) / len(text), rel=1e-4)
        assert beam_size > 1 or text == by_reading_all(form, prompt, 6)[: len(text)]


def test_a_beam_copies_nothing_that_its_texts_share():
    """Memory for a long prompt grows with the prompts, not with the beam."""
    model = Decoder(**{**SMALL, "context": 2048, "width": 64})
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32)))
    tokens, last = jax.ShapeDtypeStruct((1, 2000), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    cache = 2 * 2 * 2000 * 64 * 4  # bytes: keys and values of both layers

    def memory(beam_size):
        program = continuation._search.lower(model, variables, tokens, tokens, last, 8, Ids(), beam_size, 1.0)
        return program.compile().memory_analysis().temp_size_in_bytes

    assert memory(16) - memory(2) < cache


def fixture():
    folder = SHARED / "fixtures" / "hf" / "gpt2-tiny"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="module")
def gpt2():
    params = jax.tree.map(jnp.asarray, gpt2_parameters(fixture()))
    return Decoder(layers=2, heads=4, width=64, context=64, vocabulary=600), {"params": params}


CASES = "greedy greedy_repetition_penalty greedy_eos beam4 beam4_eos"


@pytest.mark.parametrize("case", CASES.split())
def test_the_continuations_are_transformers(gpt2, case):
    known = json.loads((fixture() / "generation.json").read_text())
    found, settings = known["results"][case], known["results"][case]["settings"]
    end = settings["eos_token_id"]
    ids = Ids(known["pad_token_id"], -1, -1 if end is None else end, 600)
    given, steps = known["prompts"], settings["max_new_tokens"]
    real = lambda text: text[: int(lengths(text, ids))].tolist()
    if "num_beams" not in settings:
        how = GREEDY._replace(repetition_penalty=settings.get("repetition_penalty", 1.0))
        texts = written(gpt2, given, steps, ids, how=how, stop=(ids.end,))
        assert [real(text) for text in texts] == found["continuations"]
        return
    tokens, mask = continuation._padded([prompt[:-1] for prompt in given], 16)
    last = jnp.asarray([prompt[-1] for prompt in given], jnp.int32)
    own = settings["num_beams"], settings["length_penalty"]
    texts, scores = continuation._search(*gpt2, tokens, mask, last, steps, ids, *own)
    assert [[real(text) for text in beam] for beam in np.asarray(texts)] == found["all_beams"]
    assert_same_numbers(scores, np.array(found["all_beam_scores"], np.float32), 1e-5)


def test_the_samplers_distributions_are_transformers():
    """Of equal logits at the border of top-p one is as good as another, and the library takes any."""
    known, settings = np.load(fixture() / "samplers.npz"), json.loads((fixture() / "samplers.json").read_text())
    logits, seen = known["logits"], np.zeros(known["logits"].shape, bool)
    for row, history in zip(seen, known["history"]):
        row[history] = True
    for name, how in settings["settings"].items():
        ours = np.asarray(filtered(jnp.asarray(logits), jnp.asarray(seen), Sampling(**how)))
        theirs = known[f"logprobs.{name}"]
        single = np.array([[(row == x).sum() == 1 for x in row] for row in logits])
        for a, b in ((ours[single], theirs[single]), (np.sort(ours), np.sort(theirs))):
            assert np.array_equal(np.isfinite(a), np.isfinite(b)), name
            np.testing.assert_allclose(a[np.isfinite(a)], b[np.isfinite(b)], atol=2e-5, err_msg=name)


def test_a_filter_of_nothing_leaves_the_models_distribution():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, V)), jnp.float32)
    assert_same_numbers(filtered(logits, None, PLAIN), jax.nn.log_softmax(logits))


TEXTS = "Grüße, 世界! 🙂🙂 naïve café\n\tif x:  return 'é'"


@pytest.mark.parametrize("kind", train_tokenizer.KINDS)
def test_text_that_streams_is_the_text(kind):
    tokenizer = train_tokenizer.train([TEXTS] * 3, kind, 300)
    (ids,) = tokenizer.encode([TEXTS])
    for n in (1, 2, 5):
        stream = tokenizer.stream(ids[:3])
        added = "".join(stream(ids[i : i + n]) for i in range(3, len(ids), n))
        assert tokenizer.decode(ids).endswith(added) and len(added) > len(tokenizer.decode(ids)) / 2


@pytest.mark.parametrize("n", [1, 3, 20])
def test_a_character_that_is_complete_is_shown_where_the_next_one_is_cut_off(n):
    tokenizer = train_tokenizer.train([TEXTS], "bytes", 300)
    ids = tokenizer.encode(["aß世"])[0]  # of 1, 2 and 3 bytes
    for size in range(2, len(ids) + 1):
        stream = tokenizer.stream(ids[:1])
        added = "".join(stream(ids[i : min(i + n, size)]) for i in range(1, size, n))
        assert added == ("" if size < 3 else "ß" if size < 6 else "ß世"), size


def test_a_token_that_ends_one_character_and_starts_another_shows_the_first():
    data = json.loads(train_tokenizer.train(["aß世"], "bytes", 300).json)
    tokenizer = tokenize.Tokenizer(json.dumps(data))
    end, start = (tokenizer.vocabulary[i] for i in tokenizer.encode(["ß世"])[0][1:3])
    data["model"]["vocab"][end + start], data["model"]["merges"] = tokenizer.size, [[end, start]]
    tokenizer = tokenize.Tokenizer(json.dumps(data))
    ids = tokenizer.encode(["aß世"])[0]
    assert len(ids) == 5
    stream = tokenizer.stream(ids[:1])
    assert [stream([i]) for i in ids[1:]] == ["", "ß", "", "世"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a small GPT on Python's source."""
    folder = tmp_path_factory.mktemp("gpt") / "run"
    assert run_script("train", "--config=configs/stdlib_gpt.py:tiny", f"--workdir={folder}") == 0
    return folder


def generate(folder, *flags):
    return run_script("generate", f"--workdir={folder}", *flags)


def test_the_text_is_printed_behind_its_prompt_and_is_the_same_twice(folder, capsys, tmp_path):
    output = tmp_path / "texts.jsonl"
    shown = []
    for _ in range(2):
        assert generate(folder, "--prompt=def f(x):", "--tokens=50", f"--output={output}") == 0
        shown.append(capsys.readouterr().out)
    (line,) = map(json.loads, output.read_text().splitlines())
    assert shown[0] == shown[1] == f"def f(x):{line['text']}\n" and line["prompt"] == "def f(x):"
    assert generate(folder, "--prompt=def f(x):", "--tokens=50", "--seed=1") == 0
    assert capsys.readouterr().out != shown[0]


@pytest.mark.slow  # the same of the functions is test_a_prompt_alone_has_the_text_that_it_has_beside_others
def test_several_prompts_have_each_the_text_that_it_has_alone(folder, capsys, tmp_path):
    file, output = tmp_path / "prompts.txt", tmp_path / "texts.jsonl"
    file.write_text("import os\nclass A:\nx\n")
    flags = "--tokens=40", "--num_samples=2", "--top_p=0.9"
    assert generate(folder, f"--file={file}", f"--output={output}", *flags) == 0
    out, lines = capsys.readouterr().out, [json.loads(line) for line in output.read_text().splitlines()]
    assert [(line["prompt"], line["sample"]) for line in lines] == [
        (prompt, i) for prompt in ("import os", "class A:", "x") for i in range(2)
    ]
    blocks = [f"--- prompt {i // 2 + 1}, text {i % 2 + 1}\n{x['prompt']}{x['text']}\n" for i, x in enumerate(lines)]
    assert out == "".join(blocks)
    assert generate(folder, "--prompt=class A:", f"--output={output}", *flags) == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == [x["text"] for x in lines[2:4]]


def test_a_text_ends_before_a_stop(folder, capsys):
    assert generate(folder, "--prompt=def ", "--tokens=60", "--temperature=0.9") == 0
    whole = capsys.readouterr().out.removesuffix("\n")
    stop = whole[30:33]
    assert generate(folder, "--prompt=def ", "--tokens=60", "--temperature=0.9", f"--stop={stop}", "--stop=§") == 0
    assert capsys.readouterr().out == whole[: whole.index(stop, 4)] + "\n"


def test_stacked_layers_write_what_single_ones_do(folder):
    run = runs.load(folder)
    rows = continuation.encode(run, ["import os"], ["--prompt"])
    like = jax.eval_shape(lambda: run.model.clone(scan=True).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)))
    params = stacked_like(run.variables["params"], like["params"])
    stacked = run._replace(model=run.model.clone(scan=True), variables={**run.variables, "params": params})
    texts = [list(continuation.stream(each, rows, steps=20)) for each in (run, stacked)]
    assert texts[0] == texts[1]


def test_a_prompt_as_long_as_the_context_is_read_and_a_longer_one_refused_or_cut(folder, capsys):
    run = runs.load(folder)
    context = run.model.context
    (row,) = continuation.encode(run, ["x" * (context + 5)], ["--prompt"], cut=True)
    prompt = run.tokenizer.decode(row)
    assert len(row) == context and generate(folder, f"--prompt={prompt}", "--tokens=20") == 0
    expected = capsys.readouterr().out
    assert generate(folder, f"--prompt=xyz{prompt}", "--tokens=20") == 2
    assert (
        f"{len(run.tokenizer.encode(['xyz' + prompt])[0])} tokens; the model reads {context}" in capsys.readouterr().err
    )
    assert generate(folder, f"--prompt=xyz{prompt}", "--tokens=20", "--long_prompt=cut") == 0
    assert capsys.readouterr().out == "xyz" + expected


@pytest.mark.parametrize(
    "flags,code,message",
    [
        ([], 2, "give --prompt or --file, and not both"),
        (["--prompt=x", "--file=y"], 2, "give --prompt or --file, and not both"),
        (["--prompt="], 2, "--prompt: '' is empty"),
        (["--file=nowhere.txt"], 3, "nowhere.txt: cannot be read"),
        (["--prompt=x", "--tokens=0"], 2, "--tokens: 0; it must be at least 1"),
        (["--prompt=x", "--tokens=many"], 2, "--tokens"),
        (["--prompt=x", "--temperature=-1"], 2, "--temperature: -1.0; it must be a number of at least 0"),
        (["--prompt=x", "--temperature=nan"], 2, "--temperature: nan"),
        (["--prompt=x", "--top_k=0"], 2, "--top_k: 0; it must be at least 1"),
        (["--prompt=x", "--top_p=0"], 2, "--top_p: 0.0; it must be above 0 and at most 1"),
        (["--prompt=x", "--min_p=2"], 2, "--min_p: 2.0; it must be from 0 to 1"),
        (["--prompt=x", "--repetition_penalty=0"], 2, "--repetition_penalty: 0.0; it must be a number above 0"),
        (["--prompt=x", "--num_samples=0"], 2, "--num_samples: 0; it must be at least 1"),
        (["--prompt=x", "--seed=-1"], 2, "--seed: -1; it must be from 0"),
        (["--prompt=x", "--output=no/such/folder"], 2, "--output: no/such/folder is not a file in a folder"),
        (["--prompt=x", "--beam_size=0"], 2, "--beam_size: 0; it must be at least 1"),
        (["--prompt=x", "--beam_size=9999", "--tokens=2"], 2, "--beam_size: 9999; it must be from --num_samples, 1"),
        (["--prompt=x", "--beam_size=2", "--num_samples=3", "--tokens=2"], 2, "--beam_size: 2; it must be from"),
        (["--prompt=x", "--beam_size=2", "--top_k=3"], 2, "--top_k: not with --beam_size, which draws nothing"),
        (["--prompt=x", "--beam_size=2", "--stop=a"], 2, "--stop: not with --beam_size"),
        (["--prompt=x", "--beam_size=2", "--tokens=9999"], 2, "--tokens: 9999 behind a prompt of 1; a beam has room"),
        (["--prompt=x", "--config.seed=1"], 2, "--config.seed: this script takes no config"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_line(folder, flags, code, message, capsys):
    assert generate(folder, *flags) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]


def test_a_run_that_cannot_write_is_refused(folder):
    run = runs.load(folder)
    config = run.config.copy_and_resolve_references()
    config.task = {"name": "classify"}
    with pytest.raises(UserError, match="its task is classify, not next_token"):
        continuation.ready(run._replace(config=config))
    with pytest.raises(UserError, match="decoder has no methods encode and decode"):
        continuation.ready(run._replace(model=object()))


def test_a_prompt_of_unknown_tokens_alone_is_refused(folder):
    tokenizer = train_tokenizer.train(["abc"], "characters", 10)
    run = runs.load(folder)._replace(tokenizer=tokenizer)
    with pytest.raises(UserError, match="no token of it is in the run's vocabulary of 7"):
        continuation.encode(run, ["xyz"], ["--prompt"])
