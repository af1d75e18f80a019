"""The Pareto front of a search for several objectives: groups that no other beats in one and equals in the rest."""

from typing import NamedTuple

from research.studies import schedule, tables


class Front(NamedTuple):
    labels: list[str]  # of the objectives, with their direction: "validation loss, nats (min)"
    values: dict[int, tuple[float, ...]]  # of the groups that have all objectives, their means
    best: list[int]  # the groups on the front, by the first objective


def of(folders, groups):
    """The front of the groups in some folders; None where these are not of one search for several objectives."""
    plans = [plan for folder in folders if (plan := schedule.read_plan(folder))]
    found = [plan.asked["search"]["objectives"] for plan in plans if "search" in plan.asked]
    if len(found) != len(folders) or any(own != found[0] for own in found) or len(found[0]) < 2:
        return None
    names = [f"{own['split']}/{own['metric']}" if own["split"] else own["metric"] for own in found[0]]
    signs = [1 if own["direction"] == "min" else -1 for own in found[0]]
    titles = [tables.title(name) if "/" in name else name for name in names]
    values = {}
    for number, group in enumerate(groups):
        rows = [[(record.metrics | record.result).get(name) for name in names] for record in group.records]
        if rows and not any(value is None for row in rows for value in row):
            values[number] = tuple(sum(column) / len(column) for column in zip(*rows))
    costs = {number: [sign * value for sign, value in zip(signs, own)] for number, own in values.items()}
    best = [i for i, own in costs.items() if not any(dominates(other, own) for other in costs.values())]
    labels = [f"{title} ({own['direction']})" for title, own in zip(titles, found[0])]
    return Front(labels, values, sorted(best, key=lambda i: costs[i]))


def dominates(a, b):
    """Whether costs are lower in one and higher in none."""
    return all(x <= y for x, y in zip(a, b)) and any(x < y for x, y in zip(a, b))
