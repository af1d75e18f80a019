"""Figures of results: what they show, and which there are."""

import json

import numpy as np
import pytest
from conftest import run_script
from made_runs import RATE, make_mixed, make_rates, make_run
from PIL import Image

from research import runs
from research.studies import figures, gather, illustrate, report
from research.studies.statistics import summary


def width(path):
    with Image.open(path) as image:
        return image.size[0]


def drawn(folders, output):
    report.write(report.make(folders), output)
    found = json.loads((output / "report.json").read_text())
    return {name.removesuffix(".png") for name in found["files"] if name.endswith(".png")}


def test_which_figures_there_are_follows_from_the_axes(tmp_path):
    rates = make_rates(tmp_path / "rates")
    curves = {"curves_validation_accuracy", "curves_train_loss"}
    assert drawn([rates / "0.1_0"], tmp_path / "one") == curves
    bars = curves | {"bars_test_accuracy"}
    assert drawn([rates], tmp_path / "axis") == bars | {"against_optimizer_learning_rate"}
    for i, rate in enumerate((0.1, 0.01)):
        for j, steps in enumerate((8, 16)):
            make_run(tmp_path / "grid" / f"{i}{j}", 0, 0.5 + i / 10 + j / 20, train__steps=steps, **{RATE: rate})
    own = {"against_optimizer_learning_rate", "against_train_steps", "heat_optimizer_learning_rate_train_steps"}
    assert drawn([tmp_path / "grid"], tmp_path / "two") == bars | own | {"parallel_test_accuracy"}
    make_run(tmp_path / "models" / "a", model__name="mlp"), make_run(tmp_path / "models" / "b", model__name="cnn")
    assert drawn([tmp_path / "models"], tmp_path / "names") == bars
    for path in (tmp_path / "two").glob("*.png"):
        assert width(path) > 500 and path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_a_curve_is_the_mean_over_seeds_where_all_seeds_are(tmp_path):
    folders = [make_run(tmp_path / str(seed), seed) for seed in range(3)]
    (folders[2] / "metrics.jsonl").write_text('{"step": 2, "split": "train", "loss": 4.2}\n')  # stopped early
    curve = lambda own, metric, spread: illustrate._curve("a", list(map(runs.read_rows, own)), metric, spread)
    line = curve(folders, "train/loss", "t")
    expected = summary([4.0, 4.1, 4.2])
    assert line.x.tolist() == [2] and line.mean == pytest.approx([expected.mean])
    assert (line.low[0], line.high[0]) == pytest.approx(expected.interval)
    line = curve(folders, "train/loss", "std")
    assert line.high - line.mean == pytest.approx([expected.std])
    few = curve(folders[:2], "validation/accuracy", "t")
    assert few.low is None and few.x.tolist() == [4, 8]
    assert few.mean[1] == pytest.approx(100 * (0.9 - 1 / 72))  # rates are shown in %


def test_lines_are_told_apart_without_colour_and_the_rest_are_grey():
    assert len(set(figures.DASHES)) == len(set(figures.MARKS)) == len(set(figures.COLOURS)) == figures.MOST
    x = np.arange(3.0)
    lines = [figures.Line(f"run {i}", x, x + i, x, x + 2 * i) for i in range(9)]
    figure = figures.curves(lines, "step", "loss")
    (axes,) = figure.axes
    shown = {tuple(line.get_ydata()): line.get_color() for line in axes.lines}
    assert [shown[tuple(x + i)] for i in range(9)] == [*figures.COLOURS, "0.75", "0.75"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["run 6", "2 others"]
    assert axes.get_xlabel() == "step" and axes.get_ylabel() == "loss"


def test_a_line_of_one_step_is_a_mark_with_an_error_bar():
    """A run that is evaluated once, at its end, has a curve of one point."""
    one, many = np.array([3.0]), np.arange(3.0)
    runs_of_one = (one, one - 1), (one, one + 1)
    lines = [figures.Line("a", one, one, one - 1, one + 2), figures.Line("b", one, one, runs=runs_of_one)]
    (axes,) = figures.curves([*lines, figures.Line("c", many, many, many, many + 1)], "step", "loss").axes
    seen = [line for line in axes.lines if line.get_marker() in figures.MARKS]
    assert sorted(line.get_ydata().tolist() for line in seen) == [[2], [3], [3], [4]]
    (bar,) = [segment for bars in axes.containers for segment in bars.lines[2][0].get_segments()]
    assert bar.tolist() == [[3, 2], [3, 5]] and len(axes.collections) == 2  # the bar, and the band of "c"


def test_axes_are_logarithmic_where_the_values_ask_for_it():
    line = lambda x, y: figures.Line("a", np.array(x), np.array(y), np.array(y) - 5, np.array(y) + 5)
    wide = figures.against([line([1e-4, 1e-3, 1e-2], [1.0, 5.0, 20.0])], "rate", "loss").axes[0]
    assert (wide.get_xscale(), wide.get_yscale()) == ("log", "log") and wide.get_ylim()[0] == pytest.approx(0.7)
    assert [text.get_text() for text in wide.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    near = figures.against([line([0.0, 0.1, 0.2], [1.0, 2.0, 3.0])], "dropout", "loss").axes[0]
    assert (near.get_xscale(), near.get_yscale()) == ("linear", "linear")


def test_parallel_axes_have_numbers_in_their_order_and_names_one_by_one():
    points = [(10.0**-i, ("a", "b")[i % 2], 50.0 + i) for i in range(1, 6)]
    axes = figures.parallel(["rate", "model", "accuracy"], points).axes[0]
    lines = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 3]
    np.testing.assert_allclose(
        lines[::-1], [[1, 0, 0], [0.75, 1, 0.25], [0.5, 0, 0.5], [0.25, 1, 0.75], [0, 0, 1]], atol=1e-9
    )
    many = figures.parallel(["rate", "accuracy"], [(i, i) for i in range(101)]).axes[0]
    assert [text.get_text() for text in many.texts[:8]] == [f"{100 * i / 7:.4g}" for i in range(8)]


def test_long_names_stand_one_below_the_other():
    lines = [figures.Line("x" * length, np.arange(2.0), np.arange(2.0)) for length in (50, 2, 2, 2)]
    (legend,) = figures.curves(lines, "step", "loss").legends
    (short,) = figures.curves(lines[1:] * 2, "step", "loss").legends
    assert legend._ncols == 1 and short._ncols == 2


def test_bars_say_where_they_do_not_begin_at_0():
    near = figures.bars(["a", "b"], [97.0, 98.0], [(96.0, 98.0), None], [[96.5, 97.5], [98.0]], "accuracy, %").axes[0]
    assert near.get_xlim()[0] > 90 and "does not begin at 0" in near.get_xlabel()
    far = figures.bars(["a", "b"], [10.0, 98.0], [None, None], [[10.0], [98.0]], "accuracy, %").axes[0]
    assert far.get_xlim()[0] == 0 and far.get_xlabel() == "accuracy, %"


def test_a_heat_map_has_each_mean_at_its_place(tmp_path, monkeypatch):
    draw, taken = figures.heat_map, []
    monkeypatch.setattr(figures, "heat_map", lambda *arguments: taken.append(arguments) or draw(*arguments))
    for i, rate in enumerate((0.1, 0.01)):
        for j, steps in enumerate((16, 8, 32)):
            if (i, j) != (1, 2):
                make_run(tmp_path / "runs" / f"{i}{j}", 0, 0.1 + i / 10 + j / 20, train__steps=steps, **{RATE: rate})
    report.write(report.make([tmp_path / "runs"]), tmp_path / "out")
    ((rows, columns, values, texts, labels),) = taken
    assert rows == ["0.01", "0.1"] and columns == ["8", "16", "32"]
    np.testing.assert_allclose(values, [[25, 20, np.nan], [15, 10, 20]], atol=1e-9)
    assert texts[0][0] == "25.00 (1†)" and texts[0][2] == ""
    assert labels == ("optimizer.learning_rate", "train.steps", "test accuracy, % (n = 1†)")


def test_of_several_groups_in_one_place_the_best_on_validation_is_shown(tmp_path, monkeypatch):
    """And not that on the test, which would flatter it."""
    draw, taken = figures.heat_map, []
    monkeypatch.setattr(figures, "heat_map", lambda *arguments: taken.append(arguments) or draw(*arguments))
    for rate in (0.1, 0.01):
        for steps in (8, 16):
            for size, accuracy, validation in ((8, 0.9, 0.3), (16, 0.5, 0.4)):
                own = {"train__steps": steps, "data__batch_size": size, RATE: rate}
                make_run(tmp_path / "runs" / f"{rate}{steps}{size}", 0, accuracy, validation=validation, **own)
    report.write(report.make([tmp_path / "runs"]), tmp_path / "out")
    (values,) = [found[2] for found in taken if found[4][:2] == ("optimizer.learning_rate", "train.steps")]
    np.testing.assert_allclose(values, np.full((2, 2), 50.0))


def test_plot_draws_each_run_and_needs_no_result(tmp_path, capsys):
    mixed = make_mixed(tmp_path / "runs")
    for kind in ("png", "pdf"):
        assert run_script("plot", mixed, f"--output={tmp_path / f'curves.{kind}'}") == 0
    assert width(tmp_path / "curves.png") > 500
    assert len(illustrate.curves(gather.read([mixed]), "train/loss")[0].axes[0].lines) == 6
    assert run_script("plot", mixed, "--metric=train/los", f"--output={tmp_path / 'none.png'}") == 2
    assert "did you mean train/loss" in capsys.readouterr().err and not (tmp_path / "none.png").exists()
    assert run_script("plot", mixed, f"--output={tmp_path / 'none.gif'}") == 2
    assert "neither .png nor .pdf" in capsys.readouterr().err


def test_plot_names_what_it_cannot_draw(tmp_path, capsys):
    make_mixed(tmp_path / "runs")
    lacking = tmp_path / "runs" / "0_finished"
    (lacking / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 1.0}\n')
    assert run_script("plot", tmp_path / "runs", f"--output={tmp_path / 'a.png'}", "--metric=validation/loss") == 0
    assert capsys.readouterr().err == f"{lacking}: has no validation/loss, and is not drawn\n"
    (lacking / "result.json").write_text("[1]")
    assert run_script("plot", tmp_path / "runs", f"--output={tmp_path / 'b.png'}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {lacking}/result.json: ") and not (tmp_path / "b.png").exists()


def test_the_fewest_seeds_of_several_groups_are_told(tmp_path):
    rates = make_rates(tmp_path / "runs")
    count = lambda: illustrate._counts(report.make([rates]), "test/accuracy", range(3))
    assert count() == "n = 3"
    (rates / "0.1_1" / "result.json").unlink()
    assert count() == "n ≥ 2†"


def test_every_figure_marks_few_seeds(tmp_path, monkeypatch):
    for i, rate in enumerate((0.1, 0.01)):
        for j, steps in enumerate((8, 16)):
            make_run(tmp_path / "runs" / f"{i}{j}", 0, 0.5 + i / 10 + j / 20, train__steps=steps, **{RATE: rate})
    shown, save = {}, figures.save
    monkeypatch.setattr(figures, "save", lambda figure, stem: shown.update({stem.name: figure}) or save(figure, stem))
    report.write(report.make([tmp_path / "runs"]), tmp_path / "out")
    assert len(shown) == 7
    for name, figure in shown.items():
        texts = [thing.get_text() for thing in figure.findobj(lambda thing: hasattr(thing, "get_text"))]
        assert any("†" in text for text in texts), name
