"""The shape of the code: which way imports go, how deep, and how long a file is."""

import ast

import pytest
from conftest import ROOT

FILES = [path for folder in ("research", "experiments", "configs") for path in (ROOT / folder).rglob("*.py")]
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
ONLY = {  # who alone may import what
    "orbax": ("research.checkpoint",),
    "tensorflow_datasets": ("research.data",),
    "grain": ("research.data",),
    "array_record": ("research.data",),
    "absl": ("experiments",),
    "safetensors": ("research.pretrained",),
    "jinja2": ("research.studies.page",),
    "submitit": ("research.studies.cluster",),
    "optuna": ("research.studies.search", "research.studies.space"),
    "huggingface_hub": ("research.data",),
    "transformers": (),
    "tensorflow": (),
    "torch": (),
}


def imports(path):
    """Every module that a file names in an import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in NAMES else node.module


GRAPH = {name: {found for found in imports(path) if found in NAMES and found != name} for name, path in NAMES.items()}


def test_no_import_cycle_and_depth_of_at_most_ten():
    """A package's __init__ (its dict of names) counts with the files that it lists as one."""

    def part(name):  # research.models.cnn -> research.models
        return ".".join(name.split(".")[:2])

    graph = {}
    for name, found in GRAPH.items():
        graph.setdefault(part(name), set()).update(part(other) for other in found if part(other) != part(name))

    def depth(name, above=()):
        assert name not in above, f"a cycle: {' -> '.join((*above, name))}"
        return 1 + max((depth(other, (*above, name)) for other in graph[name]), default=0)

    assert max(map(depth, graph)) <= 10, {name: depth(name) for name in graph}


def test_the_library_never_looks_up():
    order = ["models", "tasks", "train_step", "loop", "studies"]
    below = {"inference": ("loop", "studies"), **{part: ("inference",) for part in order[:-1]}}  # what it must not see
    for name, found in GRAPH.items():
        top = name.split(".")[0]
        for other in found:
            if top == "research":
                assert other.startswith("research"), (name, other)
            if top == "configs":
                assert other in ("research.config", "research.studies.sweep"), (name, other)
            mine, theirs = ((part.split(".") + [""])[1] for part in (name, other))
            if top == "research" and mine in order and theirs in order:
                assert order.index(theirs) <= order.index(mine), (name, other)
            assert top != "research" or theirs not in below.get(mine, ()), (name, other)


def test_rooms_of_the_library_are_the_known_ones():
    """A new file beside the spine needs a reason: what is no part of a run from top to bottom has a room."""
    spine = """__init__ backend checkpoint config errors evaluation fields generation log loop manifest metrics
               optimizers pictures program progress randomness runs setup sharding signals stderr
               train_step warm_start watchdog"""
    rooms = {"models", "tasks", "data", "inference", "studies", "pretrained"}
    assert {path.stem for path in (ROOT / "research").glob("*.py")} == set(spine.split())
    assert {path.parent.name for path in (ROOT / "research").glob("*/*.py")} == rooms
    assert not list((ROOT / "research").glob("*/*/*.py")) and not list((ROOT / "results").glob("*.py"))


@pytest.mark.parametrize("package", ONLY)
def test_a_library_is_imported_in_its_one_place(package):
    for name, path in NAMES.items():
        if any(found.split(".")[0] == package for found in imports(path)):
            assert name.startswith(ONLY[package]), name


def test_files_and_functions_are_of_a_size_to_be_read():
    lines = {name: path.read_text().count("\n") for name, path in NAMES.items()}
    assert max(lines.values()) <= 400, lines
    assert lines["research.loop"] <= 300 and lines["research.train_step"] <= 300
    assert lines["research.loop"] + lines["research.train_step"] + lines["research.models.cnn"] <= 900
    for name, path in NAMES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
                assert length <= 60, (name, node.name, length)


def test_importing_touches_no_device_and_no_flag():
    import subprocess
    import sys

    code = "import research.loop, jax; from absl import flags; assert not jax._src.xla_bridge._backends"
    done = subprocess.run(
        [sys.executable, "-c", code + "; assert not flags.FLAGS.is_parsed()"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
