"""Measured results: from run folders to results/images.json, and from there to the tables in README and configs.

    python -m results.tables runs/mnist_cnn_0 runs/mnist_cnn_1 runs/mnist_cnn_2
    python -m results.tables        # writes the tables again from what is kept

Runs of one config file and size that differ in their seed alone are one row.
"""

import json
import os
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).parent.parent
KEPT = ROOT / "results" / "images.json"
SPEED = ROOT / "results" / "speed.json"


def read_run(folder):
    """What a table needs of a finished run folder."""
    config = json.loads((folder / "config.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    start = json.loads((folder / "manifest.json").read_text())[-1]
    if result["status"] != "finished":
        sys.exit(f"{folder}: {result['status']}")
    flat = config["config"]
    seed = flat.pop("seed")
    return {
        "config": pathlib.Path(config["file"]).stem,
        "size": config["size"],
        "settings": flat,
        "seed": seed,
        "accuracy": result["metrics"]["test"]["accuracy"],
        "seconds": result["seconds"],
        "parameters": result["parameters"],
        "versions": start["versions"],
        "hardware": hardware(start["devices"]),
    }


def hardware(devices):
    if devices != ["cpu"]:
        return f"{len(devices)} x {devices[0]}"
    info = pathlib.Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return f"{os.cpu_count()} cores{f' ({model[1].strip()})' if model else ''}"


def rows(kept):
    """One row a group: name, size, hardware, minutes, mean, std (n - 1), seeds."""
    for key, group in sorted(kept.items()):
        name, size = key.split(":")
        values = [100 * run["accuracy"] for run in group]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        seconds = statistics.mean(run["seconds"] for run in group)
        yield (
            name,
            size,
            group[0]["hardware"],
            seconds,
            statistics.mean(values),
            spread,
            len(values),
            group[0]["parameters"],
        )


def write_speed(readme):
    """README's table of benchmarks/images.py from results/speed.json."""
    if not SPEED.is_file():
        return
    columns = ("step", "ours, examples/s", "over PyTorch eager", "over channels_last", "start, s", "MB", "data wait")
    table = [f"| {' | '.join(columns)} |"]
    table.append("|---|---|---|---|---|---|---|")
    for name, found in json.loads(SPEED.read_text()).items():
        rate = {side: statistics.median(found[side]["examples_per_second"]) for side in found}
        both = [
            f"{found['ours'][key] / unit:.{digits}f} ({found['torch'][key] / unit:.{digits}f})"
            for key, unit, digits in (("start_seconds", 1, 1), ("peak_bytes", 1e6, 0))
        ]
        network, batch = name.rsplit("_", 1)
        table.append(
            f"| {network}, batch {batch} | {rate['ours']:,.0f} | {rate['ours'] / rate['torch']:.2f} | "
            f"{rate['ours'] / rate['torch_channels_last']:.2f} | {both[0]} | {both[1]} | "
            f"{100 * statistics.median(found['ours']['wait']):.1f} % |"
        )
    replace = lambda m: m[1] + "\n".join(table) + "\n" + m[2]
    readme.write_text(re.sub(r"(<!-- speed -->\n).*?(<!-- end speed -->)", replace, readme.read_text(), flags=re.S))


def main(folders):
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    groups = {}
    for folder in folders:
        run = read_run(pathlib.Path(folder))
        groups.setdefault(f"{run['config']}:{run['size']}", []).append(run)
    for key, group in groups.items():
        if any(run["settings"] != group[0]["settings"] for run in group):
            sys.exit(f"{key}: the runs differ in more than their seed")
        if len({run["seed"] for run in group}) < len(group):
            sys.exit(f"{key}: a seed twice")
        kept[key] = [{k: v for k, v in run.items() if k not in ("config", "size", "settings")} for run in group]
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    table = [
        "| config | size | parameters | test accuracy, % (mean ± std) | seeds | time a run | hardware |",
        "|---|---|---|---|---|---|---|",
    ]
    headers = {}
    for name, size, machine, seconds, mean, spread, n, parameters in rows(kept):
        figure = f"{mean:.2f} ± {spread:.2f}" if n > 1 else f"{mean:.2f}"
        clock = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        table.append(f"| {name} | {size} | {parameters:,} | {figure} | {n} | {clock} | {machine} |")
        line = f"{size:<6} {machine:<22} {clock:>6}   {figure} ({n})"
        headers.setdefault(
            name, ["size   hardware                 time   test accuracy, %: mean ± std (seeds)"]
        ).append(line)
    readme = ROOT / "README.md"
    text = re.sub(
        r"(<!-- results -->\n).*?(<!-- end -->)",
        lambda m: m[1] + "\n".join(table) + "\n" + m[2],
        readme.read_text(),
        flags=re.S,
    )
    readme.write_text(text)
    write_speed(readme)
    for name, lines in headers.items():
        path = ROOT / "configs" / f"{name}.py"
        docstring, quotes, code = path.read_text()[3:].partition('"""')
        docstring = re.sub(r"\n*size   hardware.*", "", docstring, flags=re.S).rstrip()
        path.write_text('"""' + docstring + "\n\n" + "\n".join(lines) + "\n" + quotes + code)


if __name__ == "__main__":
    main(sys.argv[1:])
