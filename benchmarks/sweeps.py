"""Sixteen seeds of small networks: one after the other, by two processes, and as one program.

    python -m benchmarks.sweeps

Each is the whole command experiments.sweep, start to table, in rounds that take turns; the compile cache is warm.
Beside the trials an hour stands what a sweep takes beyond the time that its runs themselves tell. Writes
results/speed_sweeps.json, from which `make results` makes README's table.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from benchmarks.turns import ROOT
from research import manifest, runs
from research.studies import schedule

TRIALS = 16
WORKLOADS = {
    "addition_gru": ["--config=configs/addition_gru.py:tiny"],
    "digits_mlp": ["--config=configs/digits_cnn.py:cpu", "--config.model.name=mlp"],
    "digits_cnn": ["--config=configs/digits_cnn.py:cpu"],
}
MODES = {"one": [], "jobs": ["--jobs=2"], "together": [f"--vectorize={TRIALS}"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each mode, behind one that is not counted; 3")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of them, by comma")
    arguments = parser.parse_args()
    path = ROOT / "results" / "speed_sweeps.json"
    for name in arguments.workloads.split(","):
        row = {"versions": {"jax": importlib.metadata.version("jax")}, "date": datetime.date.today().isoformat()}
        row["gflops"] = manifest.matmul_gflops()
        row["modes"] = {mode: {"seconds": [], "beyond": []} for mode in MODES}
        for turn in range(arguments.rounds + 1):
            for mode, found in row["modes"].items():
                seconds, beyond, form = measured([*WORKLOADS[name], *MODES[mode]])
                print(f"{name} {mode}: {seconds:.1f} s, beyond the runs {beyond:.2f} s {form}", flush=True)
                if turn:  # the first one compiles
                    found["seconds"].append(seconds)
                    found["beyond"].append(beyond)
                    found |= {"form": form} if form else {}
        results = json.loads(path.read_text()) if path.is_file() else {}
        results.setdefault(name, {})[manifest.machine()] = row
        path.write_text(json.dumps(results, indent=1) + "\n")


def measured(flags):
    """Seconds of a sweep, those of them that its runs do not count as theirs, and the form of its population."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "sweep"
        command = [sys.executable, "-m", "experiments.sweep", *flags, f"--axis=seed=0:{TRIALS}", f"--workdir={folder}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        began = time.monotonic()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        seconds = time.monotonic() - began
        results = [runs.read_json(path) for path in folder.glob("*/result.json")]
        assert len(results) == TRIALS and all(result["status"] == "finished" for result in results)
        spent = [result["seconds"] for result in results]
        logs = "".join(path.read_text() for path in (folder / schedule.LOGS).iterdir())
        forms = re.findall(rf"^{TRIALS} runs by (\w+)$", logs, re.M)
        own = max(spent) if forms else sum(spent) / (2 if "--jobs=2" in flags else 1)
        return seconds, seconds - own, forms[0] if forms else ""


if __name__ == "__main__":
    main()
