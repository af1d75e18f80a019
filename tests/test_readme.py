"""README, headers and docstrings tell the truth: their commands run, their examples work."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT, SHARED, run_script

from research import pretrained, runs
from research.data import train_tokenizer
from research.models.decoder import Decoder
from research.models.encoder import Encoder
from research.randomness import run_key
from research.studies import results

README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
SCRIPTS = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.stem not in ("__init__", "command"))


def commands(text):
    """Lines of a text that are commands of ours, without their comments."""
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python -m experiments.")]


def tiny(words):
    """A command's script and flags, with the size of its config or claim replaced by tiny."""
    script, flags = words[2].removeprefix("experiments."), words[3:]
    flags = [re.sub("^--size=.*", "--size=tiny", re.sub("^--trials=.*", "--trials=3", flag)) for flag in flags]
    return script, [re.sub(r"^(--config=configs/\w+\.py)(:\w+)?$", r"\1:tiny", flag) for flag in flags]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder with configs/ in it, whose claims of size cpu are of tiny, as the working folder."""
    (tmp_path / "configs").mkdir()
    for path in CONFIGS:
        (tmp_path / "configs" / path.name).write_text(path.read_text().replace('"size": "cpu"', '"size": "tiny"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small_models(tmp_path_factory):
    """Small models under the names of published ones that commands take: a classifier, a GPT-2, a sentence encoder."""
    texts = ["a gripping film , and the war ended in spring ."] * 4
    words, letters = (train_tokenizer.train(texts, kind, 400) for kind in ("bert", "bpe"))
    small = {"layers": 1, "heads": 2, "width": 16}
    kinds = {
        "mine/sst2_bert": (Encoder(**small, head="label", classes=2, vocabulary=words.size), words),
        "gpt2": (Decoder(**small, vocabulary=letters.size), letters),
        "sentence-transformers/all-MiniLM-L6-v2": (Encoder(**small, head="none", vocabulary=words.size), words),
    }
    folder = tmp_path_factory.mktemp("published")
    for name, (model, tokenizer) in kinds.items():
        variables = jax.jit(model.init)(run_key(0), jnp.zeros((1, 4), jnp.int32))
        pretrained.save(folder / name, model, variables, tokenizer)
    (folder / name / "1_Pooling").mkdir()
    (folder / name / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.fixture
def published(scratch, small_models):
    shutil.copytree(small_models, scratch, dirs_exist_ok=True)


def before_adding(text):
    return text.partition("## Adding your own")[0]


def test_every_command_of_the_readme_runs_in_its_order(scratch, published, capsys):
    lines = commands(before_adding(README))
    assert len(lines) >= 7
    (scratch / "lines.txt").write_text("The game was won .\nIt is a small town .\n")
    for words in lines:
        script, flags = tiny(words)
        assert run_script(script, *flags) == 0, (words, capsys.readouterr())
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "runs.load" in code]
    capsys.readouterr()
    exec(compile(block, "README", "exec"), {})
    assert (
        float(capsys.readouterr().out.split()[0])
        == runs.read_json(scratch / "runs/digits_cnn/result.json")["metrics"]["test"]["accuracy"]
    )


def test_the_example_of_other_peoples_weights_runs(scratch):
    folder = SHARED / "fixtures" / "hf" / "gpt2-tiny"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: it comes with the data, not with the code")
    (scratch / "gpt2").symlink_to(folder)  # not `published`, of other sizes
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "pretrained.load" in code]
    found = {}
    exec(compile(block, "README", "exec"), found)
    assert found["logits"].shape == (1, 3, 600) and (scratch / "mine" / "model.safetensors").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_command_of_a_config_header_trains(path, scratch):
    header = ast.get_docstring(ast.parse(path.read_text()))
    lines = commands(header)
    assert lines and all(f"--config=configs/{path.name}" in words[3].split(":")[0] for words in lines)
    for name in sorted(
        {name for words in lines for flag in words for name in re.findall(r"init_from=runs/(\w+)", flag)}
    ):
        assert run_script("train", f"--config=configs/{name}.py:tiny", f"--workdir=runs/{name}") == 0
    unique = {}  # base and cpu are both tiny here, and a learning rate would be compiled anew
    for script, flags in map(tiny, lines):
        without = r"--workdir=.*|--config\.optimizer\.learning_rate=\d[\d.e-]*"
        kept = [flag for flag in flags if not re.fullmatch(without, flag)]
        unique[script, *kept] = kept
    for number, ((script, *_), flags) in enumerate(unique.items()):
        assert run_script(script, *flags, f"--workdir=run{number}") == 0
    result = runs.read_json(scratch / "run0" / "result.json")
    assert result["status"] == "finished" and set(result["metrics"]) == {"validation", "test"}
    losses = [row["loss"] for row in runs.read_rows(scratch / "run0") if row["split"] == "train"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_command_of_a_script_docstring_runs(path, scratch, published, capsys):
    from PIL import Image

    lines = commands(ast.get_docstring(ast.parse(path.read_text())))
    assert lines and all(words[2] == f"experiments.{path.stem}" for words in lines)
    for name in sorted({name for words in lines for flag in words for name in re.findall(r"(?:^|=)runs/(\w+)$", flag)}):
        if (ROOT / "configs" / f"{name}.py").is_file():
            assert run_script("train", f"--config=configs/{name}.py:tiny", f"--workdir=runs/{name}") == 0
    (scratch / "sums.txt").write_text("1+2\n34+5\n")
    (scratch / "prompts.txt").write_text("import \nclass A:\n")
    (scratch / "lines.txt").write_text("The game was won .\nIt is a small town .\n")
    for name in ("seven.png", "three.jpg"):
        Image.new("L", (8, 8)).save(name)
    (scratch / "FOLDER").mkdir()  # cifar10 is there already: the command finds it prepared
    for words in lines:
        script, flags = tiny(words)
        assert run_script(script, *flags) == 0, (words, capsys.readouterr())


def test_what_make_runs_stands_in_the_readme():
    for target in ("demo", "demo-seq2seq", "demo-gpt"):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
        for line in recipe.splitlines():
            assert shlex.split(line.replace("$(RUN)", "python")) in commands(README)
    for target in re.findall(r"make ([a-z0-9-]+)", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


@pytest.mark.parametrize("kind", ["models", "tasks", "data"])
def test_the_worked_example_of_adding_one_works(kind, tmp_path):
    for folder in ("research", "experiments", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = README.partition("## Adding your own")[2]
    blocks = dict(re.findall(r"```python\n# (research/\S+)\n(.*?)```", text, re.S))
    ((file, code),) = [
        item for item in blocks.items() if item[0].startswith(f"research/{kind}/") and "__init__" not in item[0]
    ]
    (tmp_path / file).write_text(code)
    line, entry = re.search(r"(from .*?)\n(.*)\n", blocks[f"research/{kind}/__init__.py"]).groups()
    name, added = re.fullmatch(r"(\w+) = \{\.\.\., (.*)\}", entry).groups()
    registry = tmp_path / "research" / kind / "__init__.py"
    registry.write_text(registry.read_text().replace(f"\n{name} = {{", f"\n{line}\n\n{name} = {{{added}, ", 1))
    stem = file.rsplit("/", 1)[1].removesuffix(".py")
    (words,) = [words for words in commands(text) if f"--workdir=runs/{stem}" in words]
    script, flags = tiny(words)
    if kind == "data":
        flags.append("--config.data.splits.train=train[:320]")
        flags.append("--config.data.splits.validation=train[320:]")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-m", f"experiments.{script}", *flags], cwd=tmp_path, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = runs.read_json(tmp_path / "runs" / stem / "result.json")
    assert result["status"] == "finished"
    if kind == "data":
        assert result["metrics"]["test"]["accuracy"] > 0.9


def test_figures_are_those_of_the_results(monkeypatch, capsys):
    """README's tables and the headers are what research/studies/results.py makes from results/."""
    monkeypatch.chdir(ROOT)
    assert run_script("reproduce", "--check") == 0, capsys.readouterr()
    assert len(results.derived()) > 10
