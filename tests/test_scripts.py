"""The scripts as their users meet them: results on stdout, one line on stderr and the right code for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, run_script
from PIL import Image

from research import runs

TINY = f"--config={ROOT}/configs/digits_cnn.py:tiny"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert run_script("train", TINY, f"--workdir={folder}") == 0
    return folder


@pytest.mark.smoke
def test_train_prints_the_test_accuracy_and_the_run_folder(tmp_path, capsys):
    assert run_script("train", TINY, f"--workdir={tmp_path}/run", "--config.seed", "3") == 0
    out = capsys.readouterr().out
    result = runs.read_json(tmp_path / "run" / "result.json")
    assert f"test accuracy {result['metrics']['test']['accuracy']:.4f}\n" in out
    assert f"run folder {tmp_path}/run\n" in out
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["config"]["seed"] == 3 and saved["size"] == "tiny" and saved["config"]["model"]["classes"] == 10


def test_a_run_folder_goes_on_with_its_own_config(run, capsys):
    assert run_script("train", f"--workdir={run}") == 0
    assert f"run folder {run}" in capsys.readouterr().out


def test_evaluate_gives_what_the_run_found(run, tmp_path, capsys):
    result = runs.read_json(run / "result.json")
    for split in ("test", "validation"):
        assert run_script("evaluate", f"--workdir={run}", f"--split={split}", f"--output={tmp_path}/m.json") == 0
        assert json.loads((tmp_path / "m.json").read_text())["metrics"] == pytest.approx(result["metrics"][split])
    assert run_script("evaluate", f"--workdir={run}", "--split=train[:7]") == 0
    assert "train[:7] accuracy" in capsys.readouterr().out


def test_predict_of_a_split_and_of_its_image_files_agree(run, tmp_path, capsys):
    from research.data import DATASETS

    assert (
        run_script("predict", f"--workdir={run}", "--split=test[:3]", "--top=10", f"--output={tmp_path}/a.jsonl") == 0
    )
    source = DATASETS["digits"]().open("test")
    for i in range(3):
        Image.fromarray(source[i]["image"][..., 0]).save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(3)]
    assert run_script("predict", f"--workdir={run}", *files, "--top=10", f"--output={tmp_path}/b.jsonl") == 0
    a, b = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("a.jsonl", "b.jsonl")
    )
    assert [row["top"] for row in a] == [row["top"] for row in b]
    assert [row["label"] for row in a] == [str(source[i]["label"]) for i in range(3)]
    assert sum(c["probability"] for c in a[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert f"{tmp_path}/0.png" in capsys.readouterr().out


def test_predictions_of_a_split_that_has_changed_are_refused(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run/manifest.json"
    starts = json.loads(path.read_text())
    starts[-1]["data"]["fingerprint"]["test"] = "0" * 64
    path.write_text(json.dumps(starts))
    assert run_script("predict", f"--workdir={tmp_path}/run", "--split=test[:3]") == 2
    assert "the split test of digits differs" in capsys.readouterr().err
    assert run_script("predict", f"--workdir={tmp_path}/run", "--split=train[:3]") == 0


def test_predict_takes_images_of_another_size_and_with_colours(run, tmp_path, capsys):
    Image.fromarray(np.zeros((30, 20, 4), np.uint8)).save(tmp_path / "big.png")
    assert run_script("predict", f"--workdir={run}", tmp_path / "big.png") == 0
    assert "big.png" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nbroken"])
def test_an_image_that_is_none_is_refused(run, tmp_path, capsys, content):
    (tmp_path / "x.png").write_bytes(content)
    assert run_script("predict", f"--workdir={run}", tmp_path / "x.png") == 3
    assert one_line(capsys).startswith(f"error: {tmp_path}/x.png: not an image")


def test_summary_counts_and_show_data_draws(tmp_path, capsys):
    assert run_script("summary", f"--config={ROOT}/configs/mnist_cnn.py") == 0
    out = capsys.readouterr().out
    assert "93,322" in out and "Conv_0/kernel" in out and "3x3x1x32" in out
    config = f"--config={ROOT}/configs/cifar10_resnet.py:tiny"
    assert (
        run_script("show_data", config, "--config.data.augment.mixup=0.5", f"--output={tmp_path}/a.png", "--examples=8")
        == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("0: ") and f"{tmp_path}/a.png" in out
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    left, right = np.split(picture, 2, axis=1)
    assert left.shape == right.shape and not np.array_equal(left, right)


def test_show_data_shows_both_parts_of_a_pair(capsys):
    config = f"--config={ROOT}/configs/wikitext_bert.py:tiny"
    assert run_script("show_data", config, "--examples=1") == 0
    first, other = (line for line in capsys.readouterr().out.splitlines() if " | " in line)
    assert first.startswith("0: tokens: ") and other.startswith("0: other_tokens: ")
    assert first.split(": ")[2].split(" | ")[0] == other.split(": ")[2].split(" | ")[0]


def test_prepare_names_the_folder(tmp_path, capsys):
    assert run_script("prepare", "digits", f"--data_dir={tmp_path}") == 0
    assert capsys.readouterr().out == f"digits {tmp_path}/digits/1.0.0\n"


@pytest.mark.parametrize("script", ["train", "evaluate", "predict", "summary", "show_data", "prepare"])
def test_help_says_what_it_does_and_shows_an_example(script, capsys):
    assert run_script(script, "--help") == 0
    out = capsys.readouterr().out
    assert f"python -m experiments.{script}" in out
    if script in ("train", "summary", "show_data"):
        assert "--config.optimizer.learning_rate=0.001" in out and "its peak" in out


def one_line(capsys):
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and captured.out == "", captured
    return lines[0]


WRONG = [  # flags, code, part of the line
    (["--config.optimizer.lerning_rate=1"], 2, "did you mean config.optimizer.learning_rate?"),
    (["--config.data.batch_size=big"], 2, "config.data.batch_size: 'big' is not int"),
    (["--config.optimizer.learning_rate=nan"], 2, "config.optimizer.learning_rate"),
    (["--config.optimizer.learning_rate=-1"], 2, "config.optimizer.learning_rate"),
    (["--config.data.batch_size=0"], 2, "config.data.batch_size"),
    (["--config.train.microbatches=3"], 2, "not divisible by"),
    (["--config.optimizer.warmup_steps=1000"], 2, "warm-up"),
    (["--config.optimizer.name=sdg"], 2, "did you mean sgd?"),
    (["--config.model.name=nothing"], 2, "known are cnn"),
    (["--config.data.name=nothing"], 2, "known are addition, cifar10, digits"),
    (["--config.data.splits.test=tset"], 2, "digits has"),
    (["--config.data.splits.train=train[:0]"], 2, "is empty"),
    (["--config.data.batch_size=4000"], 2, "which has 160 examples"),
    (["--config.eval.metric=acuracy"], 2, "did you mean accuracy?"),
    (["--config.train.early_stopping.metric=los"], 2, "did you mean loss?"),
    (["--config.eval.metric=loss", "--config.eval.direction=max"], 2, "would select the worst checkpoint by loss"),
    (["--config.eval.direction=up"], 2, "known are max, min"),
    (["--config.optimizer.rules=nowhere=0.1"], 2, "matches no parameter"),
    (["--config.model.layers=conv8,pool9"], 2, "has no room"),
    (["--config.model.dtype=float31"], 2, "config.model.dtype"),
    (["--config.model.classes=3"], 2, "config.model.classes"),
    (["--config.task.mean=0.1,0.2"], 2, "config.task.mean"),
    (["--config.seed"], 2, "needs a value"),
    (["--confg=x"], 2, "--confg"),
    (["--config=configs/none.py"], 2, "no file"),
    ([TINY.replace("tiny", "huge")], 2, "known are base, cpu, tiny"),
    (["--config.init_from=nowhere"], 2, "config.init_from: nowhere: no run folder"),
    (["--config.init_from=gs://bucket/run"], 2, "config.init_from: gs://bucket/run: a URL"),
    (["--config.train.epochs=1e300"], 2, "config.train.epochs: 1e+300 epochs of 160 are too many steps"),
    (["--config.optimizer.warmup_epochs=1e300"], 2, "config.optimizer.warmup_epochs: 1e+300 epochs"),
    (
        [
            "--config.optimizer.schedule=piecewise",
            "--config.optimizer.boundaries_epochs=1e308,1e308",
            "--config.optimizer.boundary_factors=0.1,0.1",
        ],
        2,
        "config.optimizer.boundaries_epochs: 1e+308 epochs",
    ),
    (["--config.optimizer.rules=.*=frozen"], 2, "they freeze all of"),
]


@pytest.mark.parametrize("flags,code,part", WRONG, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line_and_a_code_and_nothing_is_written(flags, code, part, tmp_path, capsys):
    assert run_script("train", TINY, f"--workdir={tmp_path}/run", *flags) == code
    line = one_line(capsys)
    assert line.startswith("error: ") and part in line
    assert not (tmp_path / "run").exists()


def test_scripts_without_what_they_need_say_so(run, tmp_path, capsys):
    for script, flags, code in [
        ("train", [], 2),
        ("evaluate", [], 2),
        ("evaluate", [f"--workdir={tmp_path}"], 2),
        ("evaluate", [f"--workdir={run}", "--split=nowhere"], 2),
        ("evaluate", [f"--workdir={run}", "--config.seed=1"], 2),
        ("predict", [f"--workdir={run}"], 2),
        ("predict", [f"--workdir={run}", "--split=test", "--top=0"], 2),
        ("predict", [f"--workdir={run}", f"{tmp_path}/missing.png"], 3),
        ("summary", ["--config=configs"], 2),
        ("show_data", [TINY, "--output=batch.txt"], 2),
        ("prepare", [], 2),
        ("prepare", ["nothing"], 2),
        ("prepare", ["cifar10", f"--manual={tmp_path}", f"--data_dir={tmp_path}"], 3),
    ]:
        assert run_script(script, *flags) == code, (script, flags)
        assert one_line(capsys).startswith("error: ")


BROKEN = [  # a file of the run folder, what it holds instead, the scripts' code
    ("config.json", "{", 2),
    ("config.json", "{}", 2),
    ("config.json", '{"format": 1, "config": 5}', 2),
    ("result.json", '{"status": "finished"}', 2),
    ("result.json", "[]", 2),
    ("result.json", '["finished"]', 2),
    ("result.json", '{"status": ["finished"]}', 2),
    ("result.json", "[" * 100_000 + "]" * 100_000, 2),
    ("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000, 2),
    ("manifest.json", '[{"data": {}}]', 2),
    ("manifest.json", "[]", 2),
]


@pytest.mark.parametrize("name,content,code", BROKEN)
def test_a_broken_run_folder_is_one_line(run, tmp_path, capsys, name, content, code):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    script = "evaluate" if name == "manifest.json" else "train"
    assert run_script(script, f"--workdir={tmp_path}/run") == code
    assert one_line(capsys).startswith("error: ")


@pytest.fixture
def ten_seconds():
    """Whatever waits for ever is an error."""

    def over(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "name", ["config.json", "result.json", "manifest.json", "metrics.jsonl", "log.txt", "lock", "*"]
)
def test_a_pipe_where_a_run_folder_has_a_file_is_refused(run, tmp_path, capsys, name, ten_seconds):
    shutil.copytree(run, tmp_path / "run")
    if name == "*":
        path = max((tmp_path / "run/checkpoints/30").rglob("state/**/d/*"), key=lambda path: path.stat().st_size)
    else:
        path = tmp_path / "run" / name
    (tmp_path / "run/result.json").unlink()
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    code = run_script("train", f"--workdir={tmp_path}/run")
    if name == "*":  # that step is set aside, and another one taken
        assert code == 0 and "is not a file; going on from step" in capsys.readouterr().err
    else:
        assert code in (2, 5) and name in one_line(capsys)


def test_a_file_where_a_folder_should_be_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run_script("train", TINY, f"--workdir={workdir}") in (2, 5)
        assert one_line(capsys).startswith("error: ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    assert run_script("train", TINY, f"--workdir={tmp_path}/run") == 2
    assert "run" in one_line(capsys)


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run", "file:///tmp/run"])
@pytest.mark.parametrize("script", ["train", "evaluate", "predict", "translate", "nearest", "summary", "show_data"])
def test_a_url_is_no_run_folder(script, url, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = {"train": [TINY], "predict": ["--split=test"], "translate": ["--text=a"], "nearest": ["a"]}.get(script, [])
    assert run_script(script, *flags, f"--workdir={url}") == 2
    assert one_line(capsys).startswith(f"error: {url}: a URL") and list(tmp_path.iterdir()) == []


CONFIG = "from research.config import base\n\n\ndef get_config(size='base'):\n"


@pytest.mark.parametrize(
    "content,line",  # of a config file of the user's, and what the error says; {} is the file
    [
        (CONFIG + "    return None\n", "get_config returned NoneType ({}, line 4); what began"),
        (CONFIG + "    return {'seed': 1}\n", "get_config returned dict ({}, line 4); what began"),
        (CONFIG + "    config = base()\n    {}['missing']\n", "{}, line 6: KeyError: 'missing'"),
        (CONFIG + "    return base().nothing\n", "{}, line 5: AttributeError:"),
        (CONFIG + "    return base(\n", "SyntaxError: '(' was never closed ({short}, line 5)"),
        ("import nothing_of_that_name\n", "{}, line 1: ModuleNotFoundError: No module named"),
        ("get_config = 5\n", "TypeError: 'int' object is not callable"),
        ("", "AttributeError: module 'config_own' has no attribute 'get_config'"),
    ],
)
def test_a_mistake_in_a_config_file_names_its_line(content, line, tmp_path, capsys):
    (tmp_path / "own.py").write_text(content)
    assert run_script("train", f"--config={tmp_path}/own.py", f"--workdir={tmp_path}/run") == 2
    wanted = line.replace("{short}", "own.py").replace("{}", f"{tmp_path}/own.py", 1)
    assert f"error: --config: {tmp_path}/own.py: " in (said := one_line(capsys)) and wanted in said
    assert not (tmp_path / "run").exists()


def test_numbers_no_int32_holds_and_bytes_that_are_no_text_are_refused(run, tmp_path, capsys):
    for step in ("99999999999", "2147483648", "-1"):
        assert run_script("show_data", TINY, f"--step={step}", f"--output={tmp_path}/a.png") == 2
        assert "--step: from 0 to 2147483647" in one_line(capsys)
    assert run_script("show_data", TINY, "--step=2147483647", f"--output={tmp_path}/a.png") == 0


@pytest.mark.smoke
def test_a_device_that_is_not_there_is_one_line(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cuda"}
    command = [sys.executable, "-m", "experiments.train", TINY]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: JAX_PLATFORMS=cuda: no such device: ")


def script(*arguments, cwd, devices=1):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.smoke
def test_a_mistake_ends_a_real_process_before_anything_is_compiled(tmp_path):
    process = script("experiments.train", TINY, "--config.data.batch_size=24", cwd=tmp_path, devices=16)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == "" and list(tmp_path.iterdir()) == []
    assert (
        err
        == "error: config.data.batch_size: 24 is not divisible by 16 devices x 1 microbatches; the next that is: 32\n"
    )


@pytest.mark.smoke
@pytest.mark.parametrize("seconds", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_a_killed_process_goes_on_to_the_same_bits(tmp_path, seconds):
    flags = [TINY, "--config.train.epochs=8", "--config.checkpoint.every_steps=3", "--config.model.dropout=0.2"]
    whole = script("experiments.train", *flags, "--workdir=whole", cwd=tmp_path)
    assert whole.wait(timeout=120) == 0, whole.communicate()
    killed = script("experiments.train", *flags, "--workdir=run", cwd=tmp_path)
    while not list((tmp_path / "run" / "checkpoints").glob("[0-9]*")) and killed.poll() is None:
        time.sleep(0.02)  # until the first checkpoint is whole; then somewhere in what follows
    time.sleep(seconds)
    killed.kill()
    killed.communicate()
    again = script("experiments.train", *flags, "--workdir=run", cwd=tmp_path)
    assert again.wait(timeout=120) == 0, again.communicate()
    [process.communicate() for process in (whole, again)]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    a, b = (runs.load(tmp_path / name) for name in ("whole", "run"))
    assert a.step == b.step and a.result["metrics"] == b.result["metrics"]
    import jax

    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.variables), jax.tree.leaves(b.variables)))
