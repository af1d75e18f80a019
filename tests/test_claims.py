"""Claims: what counts as met, how kept runs are told from others, and the way from a claim to README's table."""

import json

import pytest
from conftest import ROOT, run_script
from made_runs import make_run

from research import config as configs
from research import runs
from research.studies import claims, gather, results, schedule, tables

CONFIG = '''"""Digits, for a test.

size   hardware                 time   none
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "digits"
    config.model.name = "mlp"
    config.model.widths = (8,)
    config.train.epochs = 1.0
    tiny = {"data.splits.train": "train[:320]", "data.splits.validation": "train[320:400]"}
    return sized(config, size, tiny=tiny)


def claims():
    return CLAIMS
'''
CLAIM = {"size": "tiny", "metric": "accuracy", "published": 0.05, "paper": "Nobody 2026", "row": "2", "why": "too hard"}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A repository of one config, scratch.py, as the working folder."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "README.md").write_text("# Mine\n\n<!-- results -->\n<!-- end results -->\nAll.\n<!-- not met -->\n"
                                        "<!-- end not met -->\n")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    declare(CLAIM)
    return tmp_path


def declare(*found):
    with open("configs/scratch.py", "w") as file:
        file.write(CONFIG.replace("CLAIMS", repr(list(found))))


def only():
    (claim,) = claims.read()
    return claim


def make_runs(claim, values, status="finished"):
    """Run folders of a claim as `reproduce` leaves them, without the training; the last one with this status."""
    plan = claims.plan(claim, runs.as_folder("runs/claims") / claim.stem)
    plan.folder.mkdir(parents=True)
    schedule._begin(plan)
    for trial, value in zip(plan.trials, values, strict=True):
        last = trial is plan.trials[-1]
        make_run(plan.folder / trial.name, trial.config.seed, value, status if last else "finished")
        runs.write_config(plan.folder / trial.name, trial.config, plan.file, plan.size)
    return gather.read([plan.folder])


def judged(values, **fields):
    """What is said of runs with these test accuracies under a claim with other fields."""
    declare(CLAIM | {"seeds": len(values)} | fields)
    claims.keep(only(), make_runs(only(), values))
    return claims.judge(only())


def test_a_claim_from_its_config_to_the_table(scratch, capsys):
    """Trained, tested, kept, reported, in README; and the same command again trains nothing."""
    assert run_script("reproduce", "scratch") == 0
    shown = capsys.readouterr().out
    assert " met " in shown and "at least 5" in shown and "Nobody 2026, 2" in shown
    saved = runs.read_json(scratch / "results" / "scratch_tiny.json")
    values = [run["metrics"]["test/accuracy"] for run in saved["runs"]]
    assert [run["seed"] for run in saved["runs"]] == [0, 1, 2] and len(set(values)) > 1
    results_of = sorted(scratch.glob("runs/claims/scratch_tiny/*/result.json"))
    assert sorted(runs.read_json(path)["metrics"]["test"]["accuracy"] for path in results_of) == sorted(values)
    page = (scratch / "reports/scratch_tiny/report.html").read_text()
    assert "published (Nobody 2026, 2): at least 5: met, p" in page
    before = [path.stat().st_mtime_ns for path in results_of]
    assert run_script("reproduce", "scratch", "--size=tiny") == 0 and capsys.readouterr().out == shown
    assert [path.stat().st_mtime_ns for path in results_of] == before
    assert run_script("reproduce", "--check") == 1
    said = capsys.readouterr()
    assert "README.md, line 4:" in said.out and "configs/scratch.py, line 3:" in said.out
    assert "error: 2 differ" in said.err
    assert run_script("reproduce", "--write") == 0 and run_script("reproduce", "--check") == 0
    assert "| scratch | tiny |" in (scratch / "README.md").read_text()
    assert "(3)  at least 5: met, p" in (scratch / "configs/scratch.py").read_text()
    (scratch / "results/scratch_tiny.json").unlink()  # a number that no run is kept of may stand nowhere
    assert run_script("reproduce", "--check") == 1
    said = capsys.readouterr().out
    assert "README.md, line 6:" in said and "configs/scratch.py, line 2:" in said
    assert run_script("reproduce", "--write") == 0 and run_script("reproduce", "--check") == 0
    assert "hardware" not in (scratch / "configs/scratch.py").read_text()


@pytest.mark.parametrize(
    ("values", "fields", "verdict"),
    [
        ((0.90, 0.92, 0.94), {"published": 0.89}, "not met"),  # above it, and by luck in 7 of 100 cases
        ((0.90, 0.92, 0.94), {"published": 0.88}, "met"),
        ((0.90, 0.92, 0.94), {"published": 0.97, "met": "at_most"}, "met"),
        ((0.90, 0.92, 0.94), {"published": 0.93, "met": "at_most"}, "not met"),
        ((0.90, 0.92, 0.94), {"published": 0.92, "met": "within", "margin": 0.05}, "met"),
        ((0.90, 0.92, 0.94), {"published": 0.92, "met": "within", "margin": 0.02}, "not met"),
        ((0.90, 0.92, 0.94), {"published": 0.88, "spread": (0.03, 3)}, "not met"),  # theirs is known no better
        ((0.92, 0.92), {"published": 0.91}, "met"),
        ((0.92, 0.92), {"published": 0.92}, "not met"),
        ((0.92,), {"published": None}, "nothing published"),
    ],
)
def test_what_counts_as_met(scratch, values, fields, verdict):
    found = judged(values, **fields)
    assert found.verdict == verdict
    assert [run["metrics"]["test/accuracy"] for run in found.runs] == list(values)
    text = "\n".join(tables.as_lines(claims.table([found])))
    assert ("not met: too hard" in text) == (verdict == "not met")
    assert claims.words(found).endswith(": too hard") == (verdict == "not met")


def test_the_list_tells_what_a_claim_costs_and_wants(scratch):
    found = [
        judged((0.90, 0.92, 0.94)),
        claims.Judged(only()._replace(gpu=True, needs="a moon"), [], None, "not run", ""),
    ]
    made = claims.table(found)
    cells = [dict(zip(made.head, (cell.text for cell in row))) for row in made.rows]
    assert cells[0]["minutes"] == "3.1" and cells[0]["verdict"] == "met"  # 61, 62 and 63 seconds
    assert cells[1]["minutes"] == "-" and cells[1]["verdict"] == "not run, wants a GPU"
    assert made.notes[1:] == ["scratch, tiny: needs a moon"]


def test_runs_of_another_config_or_too_few_are_no_proof(scratch):
    assert claims.judge(only()).verdict == "not run"
    assert judged((0.9, 0.92, 0.94)).verdict == "met"
    declare(CLAIM | {"seeds": 4})
    assert claims.judge(only()).verdict == "too few seeds" and "3 of 4" in str(claims.table([claims.judge(only())]))
    declare(CLAIM | {"seeds": 2})
    assert [run["seed"] for run in claims.judge(only()).runs] == [0, 1]
    declare(CLAIM | {"overrides": {"model.widths": (9,)}})
    found = claims.judge(only())
    assert found.verdict == "not run" and found.stale.endswith("config.model.widths (8,) there, (9,) here")
    assert any(line.endswith(found.stale) for line in results.differing(scratch))
    saved = runs.read_json(scratch / "results/scratch_tiny.json")
    saved["config"]["model"]["gone"] = 1  # a field that was there once
    runs.write_json(scratch / "results/scratch_tiny.json", saved)
    assert "config.model.gone" in claims.judge(only()).stale


@pytest.mark.parametrize("content", [[], {"config": {}}, {"format": 1, "config": "FULL", "runs": [{"seed": 0}]}])
def test_a_file_that_is_none_of_a_claim_is_named(scratch, content):
    (scratch / "results").mkdir()
    text = json.dumps(content).replace('"FULL"', json.dumps(configs.to_json(only().config)))
    (scratch / "results/scratch_tiny.json").write_text(text)
    assert run_script("reproduce") == 2


def test_a_claim_that_is_not_met_says_why(scratch, capsys):
    assert judged((0.01, 0.02), why="").verdict == "not met"
    assert run_script("reproduce", "--write") == 0 and run_script("reproduce", "--check") == 1
    assert capsys.readouterr().out == "configs/scratch.py: scratch, tiny, is not met; its `why` says nothing\n"
    declare(CLAIM | {"seeds": 2, "why": "drawn at random"})
    assert run_script("reproduce", "--write") == 0 and run_script("reproduce", "--check") == 0
    assert "- scratch, tiny, is not met: drawn at random" in (scratch / "README.md").read_text()


def test_runs_of_the_config_as_it_was_are_not_taken_for_others(scratch, capsys):
    make_runs(only(), (0.9, 0.92, 0.94))
    declare(CLAIM | {"overrides": {"model.widths": (9,)}})
    assert run_script("reproduce", "scratch") == 2
    assert "config.model.widths (8,) there, (9,) here; choose another --workdir" in capsys.readouterr().err
    assert not (scratch / "results").exists()


def test_what_cannot_be_written_is_told_before_any_training(scratch, capsys):
    (scratch / "results").write_text("")
    assert run_script("reproduce", "scratch") == 5
    (scratch / "results").unlink()
    (scratch / "reports/scratch_tiny").mkdir(parents=True)
    (scratch / "reports/scratch_tiny/mine").write_text("")
    assert run_script("reproduce", "scratch") == 2 and "holds no report" in capsys.readouterr().err
    assert not (scratch / "runs").exists()


def test_a_run_that_diverged_is_no_number_and_nothing_is_kept(scratch, capsys):
    make_runs(only(), (0.9, 0.92, 0.0), "diverged")
    assert run_script("reproduce", "scratch") == 6
    assert "diverged of old age; the claim is not tested" in capsys.readouterr().err
    assert not (scratch / "results").exists() and not (scratch / "reports").exists()


def test_a_run_that_failed_ends_with_its_code(scratch, capsys, monkeypatch):
    make_runs(only(), (0.9, 0.92, 0.0), "failed")
    monkeypatch.setattr("experiments.reproduce.train", lambda *_: 3)  # which has tried again
    assert run_script("reproduce", "scratch") == 3 and "failed of old age" in capsys.readouterr().err


def test_a_metric_that_nothing_evaluates_is_named_before_any_training(scratch, capsys):
    declare(CLAIM | {"metric": "bleu"})
    assert run_script("reproduce", "scratch") == 2
    assert "config.eval.metric: 'bleu' is not evaluated; known are" in capsys.readouterr().err
    assert not (scratch / "runs").exists()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"size": "huge"}, "config size: 'huge' is unknown"),
        ({"metrics": "loss"}, "no field 'metrics'; did you mean metric?"),
        ({"metric": ""}, "metric: needed"),
        ({"published": "99"}, "published: '99' is not float"),
        ({"seeds": 0}, "seeds: 0; at least 2, or there is nothing to test"),
        ({"seeds": 1}, "at least 2"),
        ({"seeds": 0, "published": None}, "at least 1"),
        ({"seeds": True}, "seeds: True is not int"),
        ({"met": "above"}, "met: 'above' is unknown; known are at_least, at_most, within"),
        ({"met": "within"}, "margin: 0; met=within has one above 0"),
        ({"margin": 0.1}, "margin: 0.1"),
        ({"spread": (0.1,)}, "spread: (0.1,) is not (standard deviation, seeds)"),
        ({"overrides": {"model.width": 3}}, "claim 1: config.model.width: mlp has no width"),
    ],
)
def test_a_claim_that_is_none_is_named(scratch, fields, part, capsys):
    declare(CLAIM | fields)
    assert run_script("reproduce") == 2
    error = capsys.readouterr().err
    assert part in error and "configs/scratch.py" in error and error.count("\n") == 1


def test_claims_have_names_of_their_own(scratch, capsys):
    declare(CLAIM, CLAIM | {"published": 0.9})
    assert run_script("reproduce") == 2
    assert "a second claim scratch of size tiny; give it a variant" in capsys.readouterr().err
    declare(CLAIM, CLAIM | {"variant": "wide", "overrides": {"model.widths": (9,)}}, CLAIM | {"size": "base"})
    assert [(claim.name, claim.size) for claim in claims.read()] == [
        ("scratch", "tiny"), ("scratch+wide", "tiny"), ("scratch", "base")
    ]  # fmt: skip
    assert claims.named(claims.read(), "scratch+wide", None).config.model.widths == (9,)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["scrach"], "scrach: no claim of that name; did you mean scratch?; there are scratch"),
        (["scratch"], "--size: needed; scratch has claims of tiny, base"),
        (["scratch", "--size=cpu"], "--size: scratch has no claim of size cpu; it has of tiny, base"),
        (["--size=cpu"], "--size: no claim is of size cpu"),
        (["scratch", "--size=tiny", "--jobs=0"], "--jobs: 0"),
        (["scratch", "--check"], "give one of them"),
        (["--config.seed=1"], "this script takes no config"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(scratch, flags, part, capsys):
    declare(CLAIM, CLAIM | {"size": "base"})
    assert run_script("reproduce", *flags) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert {path.name for path in scratch.iterdir()} == {"configs", "README.md"}


def test_without_any_claim_there_is_nothing_to_reproduce(scratch, capsys):
    declare()
    assert run_script("reproduce") == 2 and "no config file in it has claims()" in capsys.readouterr().err
    (scratch / "configs/scratch.py").write_text(CONFIG.replace("CLAIMS", "1 / 0"))
    assert run_script("reproduce") == 2
    assert "configs/scratch.py, line 20: ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_a_commit_is_kept_where_its_code_was_not_changed(scratch):
    keep = lambda **start: (claims.keep(only(), [r._replace(starts=(r.starts[0] | start,)) for r in found]),
                            {run["commit"] for run in claims.judge(only()).runs})[1]  # fmt: skip
    found = make_runs(only(), (0.9, 0.92, 0.94))
    assert keep(uncommitted=["?? results/scratch_tiny.json", " M README.md"]) == {"c" * 40}
    assert keep(uncommitted=[" M research/loop.py"]) == {None}


def test_without_a_readme_there_is_nothing_to_check(scratch, capsys):
    (scratch / "README.md").unlink()
    assert run_script("reproduce", "--check") == 2 and "README.md: not there" in capsys.readouterr().err


def test_a_metric_that_no_run_has_is_named(scratch, capsys):
    declare(CLAIM | {"metric": "bleu"})
    make_runs(only(), (0.9, 0.92, 0.94))
    assert run_script("reproduce", "scratch") == 2 and "no run reports test/bleu" in capsys.readouterr().err


def test_every_experiment_has_a_claim_and_every_result_its_own():
    found = [claims.judge(claim, ROOT / "results") for claim in claims.read(ROOT / "configs")]
    assert {claim.claim.file for claim in found} == {str(path) for path in (ROOT / "configs").glob("*.py")}
    assert {f"{own.claim.stem}.json" for own in found if own.runs} | set(results.TABLES) == {
        path.name for path in (ROOT / "results").glob("*.json")
    }
    assert not [own.stale for own in found if own.stale]
    for own in found:
        assert own.claim.published is None or own.claim.source
        assert own.verdict != "not met" or own.claim.why
