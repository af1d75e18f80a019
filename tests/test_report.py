"""Reports: what stands in run folders stands in tables, figures and the page, and nothing else does."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import make_config, run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import ACCURACIES, RATE, STATUSES, make_mixed, make_rates, make_run

from research import runs
from research.errors import UserError
from research.studies import report, tables
from research.studies.statistics import summary


@pytest.fixture
def rates(tmp_path):
    return make_rates(tmp_path / "runs")


def write(folders, output, **choices):
    made = report.make(folders, **choices)
    report.write(made, output)
    return made, json.loads((output / "report.json").read_text())


def test_the_numbers_are_the_folders(rates, tmp_path):
    made, found = write([rates], tmp_path / "out")
    assert [group["config"]["optimizer.learning_rate"] for group in found["groups"]] == [0.001, 0.01, 0.1]
    for group in found["groups"]:
        values = ACCURACIES[group["config"]["optimizer.learning_rate"]]
        own = group["metrics"]["test/accuracy"]
        assert own["values"] == list(values) and own["seeds"] == [0, 1, 2] and own["n"] == 3
        assert own["mean"] == pytest.approx(np.mean(values)) and own["std"] == pytest.approx(np.std(values, ddof=1))
        assert own["interval"] == pytest.approx(summary(values).interval) and not own["few_seeds"]
        read = [json.loads((runs.as_folder(run) / "result.json").read_text()) for run in group["runs"]]
        assert [result["metrics"]["test"]["accuracy"] for result in read] == list(values)
    assert found["failed"] == [] and set(found["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    assert made.names == ["test/accuracy", "test/loss"]
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    row = next(line.split(",") for line in lines if line.startswith("0.1,test/accuracy"))
    assert float(row[3]) == summary(ACCURACIES[0.1]).mean


def test_bold_are_the_best_and_those_that_do_not_differ_from_it(rates, tmp_path):
    made, found = write([rates], tmp_path / "out")
    bold = {group["name"]: group["metrics"]["test/accuracy"]["bold"] for group in found["groups"]}
    assert bold == {"learning_rate=0.001": True, "learning_rate=0.01": False, "learning_rate=0.1": True}
    lines = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert lines[3].split(" | ")[1] == "71.0 ± 2.5 (3)" and lines[2].split(" | ")[1] == "**92 ± 8 (3)**"
    assert "\\textbf{92 $\\pm$ 8 (3)}" in (tmp_path / "out" / "results.tex").read_text()
    assert r"\begin{tabular}{lrrr}" in (tmp_path / "out" / "results.tex").read_text()
    assert "Welch's t test" in found["notes"][1] and "Holm over 4 comparisons" in found["notes"][1]
    far = found["groups"][1]["metrics"]["test/accuracy"]["from_best"]
    assert far["difference"] == pytest.approx(0.71 - 2.77 / 3) and far["p"] < far["p_holm"] < 0.05


def test_of_many_comparisons_one_in_twenty_is_no_difference(tmp_path):
    """Alone a difference of p = 0.04 counts; among nine more comparisons it does not."""
    for group in range(11):
        for seed, value in enumerate((0.5, 0.52, 0.54) if group else (0.55, 0.57, 0.59)):
            make_run(tmp_path / f"{group:02d}_{seed}", seed, value, **{RATE: 0.1 + group})
    made = report.make([tmp_path], ["test/accuracy"])
    found, p = made.against["test/accuracy"][1]
    assert found.p < 0.05 < p and made.is_bold("test/accuracy", 1)
    two = report.make([tmp_path / f"{group:02d}_{seed}" for group in range(2) for seed in range(3)], ["test/accuracy"])
    assert not two.is_bold("test/accuracy", 1)


def test_the_best_loss_is_the_lowest_and_the_choice_is_by_validation(rates):
    made = report.make([rates], ["test/loss"])
    assert made.groups[made.best["test/loss"]].differs == {"optimizer.learning_rate": 0.001}
    assert "Best on validation accuracy, %: learning_rate=0.001." in made.notes


def test_a_metric_of_unknown_direction_has_a_best_mean_only_where_a_config_states_it(rates):
    made = report.make([rates], ["test/loss"])
    values = [{"test/wer": {0: 0.1, 1: 0.2}}, {"test/wer": {0: 0.3, 1: 0.5}}]
    means = [{"test/wer": summary(list(own["test/wer"].values()))} for own in values]
    assert report._judged(made.groups[:2], ["test/wer"], values, means, "t", False)[0] == {}
    for direction, best in (("min", 0), ("max", 1)):
        stated = {**made.groups[0].config, "eval.metric": "wer", "eval.direction": direction}
        records = tuple(record._replace(config=stated) for record in made.groups[0].records)
        groups = [made.groups[0]._replace(records=records), made.groups[1]]
        assert report._judged(groups, ["test/wer"], values, means, "t", False)[0] == {"test/wer": best}


def test_pairs_by_seed_see_what_their_spread_hides(tmp_path):
    for seed, base in enumerate((0.2, 0.5, 0.8)):
        make_run(tmp_path / f"a{seed}", seed, base, **{RATE: 0.1})
        make_run(tmp_path / f"b{seed}", seed, base + 0.05 + seed / 1000, **{RATE: 0.2})
    apart, pairs = (report.make([tmp_path], paired=paired).against["test/accuracy"][0] for paired in (False, True))
    assert apart[1] > 0.5 and pairs[1] < 0.01


def test_pairs_are_of_the_seeds_that_both_have(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"a{seed}", seed, 0.5, **{RATE: 0.1})
        make_run(tmp_path / f"b{seed}", seed + 1, 0.6 + seed / 100, **{RATE: 0.2})
    found, _ = report.make([tmp_path], paired=True).against["test/accuracy"][0]
    assert found.difference == pytest.approx(0.5 - (0.6 + 0.61) / 2)


def test_a_test_that_can_find_nothing_says_so(rates):
    assert any("finds no difference" in note for note in report.make([rates], test="rank").notes)
    assert not any("finds no difference" in note for note in report.make([rates]).notes)


@pytest.fixture
def mixed(tmp_path):
    return make_mixed(tmp_path / "runs")


def test_runs_that_failed_are_named_and_in_no_number(mixed, tmp_path):
    _, found = write([mixed], tmp_path / "out")
    (group,) = found["groups"]
    assert group["metrics"]["test/accuracy"]["values"] == [0.90, 0.91]
    assert [run["status"] for run in found["failed"]] == list(STATUSES)
    assert [run["reason"] for run in found["failed"]][0] == "diverged of old age"
    assert found["failed"][3]["reason"] == "no result; at step 8"
    assert "**" not in (tmp_path / "out" / "results.md").read_text()  # one group is the best of none
    assert r"\begin{tabular}{llrrr}" in (tmp_path / "out" / "results.tex").read_text()
    for name in ("results.md", "results.tex", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        for status in STATUSES:
            assert f"1 {status}" in text and f"_{status}" in text, (name, status)


def test_a_group_of_which_none_finished_has_its_row_and_no_number(rates, tmp_path):
    make_run(tmp_path / "runs" / "hot", 0, 0.0, "diverged", **{RATE: 10.0})
    made, found = write([rates], tmp_path / "out")
    (hot,) = [group for group in found["groups"] if group["config"]["optimizer.learning_rate"] == 10.0]
    assert hot["runs"] == [] and hot["metrics"] == {}
    assert "| 10.0 | 1 diverged | - (0) | - (0) | - |" in (tmp_path / "out" / "results.md").read_text()


def test_a_seed_twice_counts_once(tmp_path):
    make_run(tmp_path / "a", 0, 0.9), make_run(tmp_path / "b", 0, 0.9), make_run(tmp_path / "c", 1, 0.8)
    made = report.make([tmp_path, tmp_path / "a", tmp_path / "c" / ".." / "b"])
    assert made.summaries[0]["test/accuracy"].n == 2
    assert [(record.folder.name, record.status) for record in made.failed] == [("b", "again")]


def test_a_damaged_folder_is_named_and_loses_no_other(rates):
    (rates / "0.1_0" / "result.json").write_text("{")
    (rates / "0.1_1" / "config.json").write_text("[]")
    (rates / "0.1_2" / "result.json").write_text('{"status": "finished"}')
    (rates / "0.01_2" / "result.json").write_text('["finished"]')
    made = report.make([rates])
    assert [record.status for record in made.failed] == ["unreadable"] * 4
    (rates / "0.01_1" / "manifest.json").unlink()
    assert len(report.make([rates]).failed) == 5
    assert str(rates / "0.1_0" / "result.json") in made.failed[1].reason
    assert len(made.groups) == 2


def test_runs_of_a_group_on_other_data_or_code_are_told(tmp_path):
    make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1, start={"commit": "d", "data": {"name": "others"}})
    assert report.make([tmp_path]).notes[-2:] == [
        "digits_cnn: its runs are of different data.",
        "digits_cnn: its runs are of different code.",
    ]


def test_few_seeds_are_marked_in_every_output(mixed, tmp_path, capsys):
    assert run_script("report", mixed, f"--output={tmp_path / 'out'}") == 0
    shown = capsys.readouterr().out
    for text in (shown, *((tmp_path / "out" / name).read_text() for name in ("results.md", "report.html"))):
        assert "(2†)" in text and "† fewer than 3" in text
    assert r"(2$\dagger$)" in (tmp_path / "out" / "results.tex").read_text()
    head, *lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert head.endswith("few_seeds") and all(line.endswith("True") for line in lines)
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all(own["few_seeds"] for own in found["groups"][0]["metrics"].values())


def test_what_comes_with_a_name_is_no_column_where_the_names_tell_all_apart(tmp_path):
    make_run(tmp_path / "a", model__name="mlp"), make_run(tmp_path / "b", model__name="vgg")
    assert [group.differs for group in report.make([tmp_path]).groups] == [{"model.name": "mlp"}, {"model.name": "vgg"}]
    make_run(tmp_path / "c", model__name="vgg", model__width=8)
    assert set(report.make([tmp_path]).groups[0].differs) == {"model.name", "model.width"}


def test_fields_that_change_together_are_both_named(tmp_path):
    make_run(tmp_path / "a", train__steps=8, **{RATE: 0.1}), make_run(tmp_path / "b", train__steps=16, **{RATE: 0.2})
    assert set(report.make([tmp_path]).groups[0].differs) == {"optimizer.learning_rate", "train.steps"}


def test_configs_of_several_files_are_told_apart_by_them(tmp_path):
    make_run(tmp_path / "a", **{RATE: 0.5}), make_run(tmp_path / "b", file="configs/mnist_cnn.py", data__batch_size=8)
    assert [group.differs for group in report.make([tmp_path]).groups] == [
        {"config": "digits_cnn:base"}, {"config": "mnist_cnn:base"}
    ]  # fmt: skip
    make_run(tmp_path / "c", file="configs/mine.py", **{RATE: 0.5})  # all else as in a
    assert len(report.make([tmp_path]).groups) == 3


@pytest.mark.parametrize(
    "value, uncertainty, expected",
    [
        (0.98765, 0.00354, ("0.9877", "0.0035")),  # the review's own bounds: 354 has two digits,
        (0.98765, 0.00355, ("0.988", "0.004")),  # 355 one,
        (0.827, 0.119, ("0.83", "0.12")),  # its examples
        (0.827, 0.367, ("0.8", "0.4")),
        (98.888, 0.0951, ("98.89", "0.10")),  # and from 950 on it is 1.0
        (12345.0, 480.0, ("12300", "500")),
        (1.5, None, ("1.500", "0")),
        (0.0, 0.0, ("0", "0")),
        (-3.21987, 0.04, ("-3.22", "0.04")),
    ],
)
def test_rounding_is_by_the_uncertainty(value, uncertainty, expected):
    assert tables.rounded(value, uncertainty) == expected


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_rounding_costs_less_than_a_fifth_of_the_uncertainty(value, uncertainty):
    if uncertainty < 1e-9 * abs(value):
        return
    shown, error = map(float, tables.rounded(value, uncertainty))
    assert abs(shown - value) <= 0.2 * uncertainty + 1e-9 * abs(value)
    assert abs(error - uncertainty) <= 0.2 * uncertainty


@pytest.mark.parametrize(
    "spread, expected", [("t", "2.0 ± 2.5"), ("std", "2.0 ± 1.0"), ("bootstrap", "2.0 [1.0, 3.0]")]
)
def test_spreads(spread, expected):
    assert tables.figure(summary([1, 2, 3]), spread) == expected
    assert tables.figure(summary([0.5]), spread, 100) == "50.00"


NASTY = r"50% of_a & b #1 $x$ {y} ~z ^w \q <v> |u| "


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(NASTY + 'é"\n†±')))
def test_latex_sees_no_letter_of_its_own(text):
    """Whatever it reads as a command stands behind a backslash, and the text is there again without them."""
    found = tables.as_latex(text)
    left = re.sub(r"\\text[a-z]+\{\}|\\[{}$&#_%]|\$\\(pm|dagger)\$", "", found)
    assert not re.search(r"[\\{}$&#_%~^\n]", left)


@pytest.fixture
def nasty(tmp_path):
    """Runs whose config and folders have letters that mean something to LaTeX, HTML and Markdown."""
    for i, name in enumerate((NASTY, "<script>document.title = 'broken'</script>", "a | b ** `c`")):
        for seed in range(2):
            make_run(tmp_path / "runs" / f"50%_&{i}{seed}#'\"<b>", seed, 0.5 + i / 10 + seed / 100, init_from=name)
    return tmp_path / "runs"


def test_latex_compiles(nasty, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex is installed")
    write([nasty], tmp_path / "out")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage[landscape]{geometry}\\begin{document}\\small\n"
        "\\input{out/results.tex}\n\n\\input{out/comparisons.tex}\n\\end{document}\n"
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "paper.pdf").is_file(), done.stdout[-2000:]


def test_markdown_has_a_cell_for_each_column(nasty, tmp_path):
    write([nasty], tmp_path / "out")
    for name in ("results.md", "comparisons.md"):
        rows = [line for line in (tmp_path / "out" / name).read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1 and len(rows) > 2


def test_the_page_is_whole_and_its_links_lead_to_the_runs(nasty, tmp_path):
    from urllib.parse import unquote

    made, _ = write([nasty], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](https?:|//|/)""", text) and "<script>document.title" not in text
    links = [unquote(link) for link in re.findall(r'href="([^"#][^"]*)"', text)]
    linked = {(tmp_path / "out" / link).resolve() for link in links}
    assert {record.folder.resolve() for group in made.groups for record in group.records} < linked
    assert all(path.exists() for path in linked)
    for target in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{target}"' in text
    assert "python -m experiments.train --config.seed=1" in text and "c" * 10 in text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def in_a_browser(page, folder):
    """What headless Chromium makes of a page, its scripts run: HTML."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_a_browser_shows_the_page_and_sorts_its_tables(rates, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    write([rates], tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    columns = lambda shown: re.findall(r"<td[^>]*>(.*?)</td>", shown.split('id="results"')[1].split("</table>")[0])[::4]
    assert columns(in_a_browser(page, tmp_path)) == ["0.001", "0.01", "0.1"]
    clicks = "const heads = document.querySelectorAll('#results th');"
    broken = "document.title = [...document.images].filter(image => !image.naturalWidth).length + ' broken pictures';"
    for click, expected in (("heads[1].click()", ["0.01", "0.1", "0.001"]),
                            ("heads[1].click(); heads[1].click()", ["0.001", "0.1", "0.01"]),
                            ("heads[0].click(); heads[0].click()", ["0.1", "0.01", "0.001"])):  # fmt: skip
        text = page.read_text().replace("</body>", f"<script>{clicks} {click}; {broken}</script></body>")
        (tmp_path / "out" / "clicked.html").write_text(text)
        shown = in_a_browser(tmp_path / "out" / "clicked.html", tmp_path)
        assert columns(shown) == expected
        assert "<title>0 broken pictures</title>" in shown
    click = "document.querySelectorAll('#comparisons th')[3].click()"  # differences, as -21 ± 5
    text = page.read_text().replace("</body>", f"<script>{click}</script></body>")
    (tmp_path / "out" / "clicked.html").write_text(text)
    table = in_a_browser(tmp_path / "out" / "clicked.html", tmp_path).split('id="comparisons"')[1].split("</table>")[0]
    differences = [float(text) for text in re.findall(r">(-?[\d.]+) ± ", table)]
    assert differences == [-21.0, 0.0, 0.0, 0.21]
    assert shown.count("<img") == len(re.findall("<figcaption>", shown)) >= 4


def test_the_same_report_twice_is_the_same_files(rates, tmp_path):
    files = []
    for _ in range(2):
        made = report.make([rates])
        report.write(made, tmp_path / "out")
        files.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert files[0] == files[1] and len(files[0]) > 10
    assert not [name for name, content in files[0].items() if b"CreationDate" in content]


def test_a_new_report_takes_the_place_of_the_old_one(rates, tmp_path):
    write([rates], tmp_path / "out")
    (tmp_path / "out" / "paper.txt").write_text("mine")
    _, found = write([rates / "0.1_0"], tmp_path / "out")
    assert set(found["files"]) | {"paper.txt"} == {path.name for path in (tmp_path / "out").iterdir()}
    assert not list((tmp_path / "out").glob("against*"))


def test_a_report_that_cannot_be_written_leaves_the_old_one(rates, tmp_path, full_disk):
    write([rates], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    made = report.make([rates / "0.1_0"])
    full_disk(20_000)  # the page is larger
    with pytest.raises(UserError) as error:
        report.write(made, tmp_path / "out")
    assert error.value.code == 5
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}


def test_a_folder_of_something_else_is_left_alone(rates, tmp_path):
    before = sorted((rates / "0.1_0").iterdir())
    for output in (rates, rates / "0.1_0"):
        with pytest.raises(UserError, match="holds no report") as error:
            write([rates], output)
        assert error.value.code == 2
    assert sorted((rates / "0.1_0").iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder that can be written"):
        write([rates], tmp_path / "file")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["runs", "--metrics=test/accurracy"], "did you mean test/accuracy"),
        (["nothing"], "no run folder"),
        (["runs/hot"], "no finished run"),
        ([], "FOLDER"),
        (["runs", "--spread=sem"], "known are t, bootstrap, std"),
        (["runs", "--test=anova"], "known are t, permutation, rank"),
        (["runs", "--config.seed=1"], "takes no config"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(rates, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    make_run(rates / "hot", 0, 0.0, "diverged", **{RATE: 10.0})
    assert run_script("report", *arguments, "--output=out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and says in line and not (tmp_path / "out").exists()
    assert run_script("report", "runs") == 2 and "--output: needed" in capsys.readouterr().err


def test_a_report_is_of_folders_of_sweeps_too(tmp_path, monkeypatch):
    """In the sweep's order, with the trials that were not begun."""
    from research import config as configs
    from research.studies import schedule, sweep

    points = sweep.product(sweep.axis("optimizer.learning_rate", [0.3, 0.1]), sweep.axis("seed", [1, 0]))
    trials, _ = sweep.trials_of(make_config(), points)
    plan = schedule.Plan(tmp_path, "configs/digits_cnn.py", "base", make_config(), trials, {})
    saved = [{"name": trial.name, "overrides": trial.overrides} for trial in plan.trials]
    runs.write_json(tmp_path / "sweep.json", {"format": 1, "file": plan.file, "size": plan.size, "asked": {},
                                              "config": configs.to_json(plan.config), "trials": saved})  # fmt: skip
    for trial in plan.trials[:3]:
        make_run(tmp_path / trial.name, trial.overrides["seed"], **{RATE: trial.overrides["optimizer.learning_rate"]})
    (tmp_path / "logs").mkdir()
    made = report.make([tmp_path])
    assert [group.differs["optimizer.learning_rate"] for group in made.groups] == [0.3, 0.1]
    assert [record.seed for record in made.groups[0].records] == [0, 1]
    assert [(record.folder.name, record.status) for record in made.failed] == [(plan.trials[3].name, "waiting")]


def test_numbers_that_were_drawn_are_shown_with_four_digits_and_kept_with_all(tmp_path):
    for i, rate in enumerate((0.012345678, 1e-5)):
        make_run(tmp_path / "runs" / str(i), **{RATE: rate})
    _, found = write([tmp_path / "runs"], tmp_path / "out")
    assert [group["name"] for group in found["groups"]] == ["learning_rate=0.01235", "learning_rate=1e-05"]
    assert found["groups"][0]["config"] == {"optimizer.learning_rate": 0.012345678}
    assert "\n0.012345678,test/accuracy" in (tmp_path / "out" / "results.csv").read_text()
    assert "--config.optimizer.learning_rate=0.012345678" in (tmp_path / "out" / "report.html").read_text()


def test_diff_names_what_differs_and_nothing_else(tmp_path, capsys):
    a = make_run(tmp_path / "a", 0, 0.9)
    b = make_run(tmp_path / "b", 1, 0.8, start={"versions": {"jax": "2"}, "data": {"name": "mnist"}})
    assert run_script("diff", a, a) == 0
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]] == [["the", "same"]] * 6
    assert run_script("diff", a, b) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert ["config", "seed", "0", "1"] in lines and ["versions", "jax", "1", "2"] in lines
    assert ["data", "name", "digits", "mnist"] in lines and ["code", "the", "same"] in lines
    assert ["results", "test/accuracy", "0.9", "0.8", "-0.1"] in lines
    assert {line[1] for line in lines if line[0] == "config"} == {"seed"}


@pytest.mark.parametrize("arguments, says", [((), "RUN RUN: needed"), (("a", "none"), "no run folder"),
                                             (("a", "broken"), "not JSON")])  # fmt: skip
def test_diff_of_what_is_no_run_is_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a"), make_run(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    assert run_script("diff", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
