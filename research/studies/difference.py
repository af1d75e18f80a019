"""What differs between two runs: in config, code, versions, machine, data and results."""

from research import runs
from research.config import leaves
from research.errors import UserError
from research.fields import text_of
from research.studies import gather

SECTIONS = ("config", "code", "versions", "machine", "data", "results")


def read(folder):
    """The record of a run folder.

    Raises:
        UserError: 2, where it is none, or cannot be read.
    """
    if not runs.is_begun(folder):
        raise UserError(2, f"{folder}: no run folder: it has no config.json")
    return gather.readable(gather.read([folder]))[0]


def differences(a, b):
    """{section: [(what, of the one, of the other)]} of two records; what both have alike is left out."""
    a, b = _facts(a), _facts(b)
    pairs = {section: [(what, a[section].get(what), b[section].get(what)) for what in {**a[section], **b[section]}]
             for section in SECTIONS}  # fmt: skip
    return {section: [(what, *both) for what, *both in found if both[0] != both[1]] for section, found in pairs.items()}


def as_rows(found, names):
    """Rows of a table: the section and what differs, both values, and by how much where they are numbers."""
    rows = [("", "", *names, "difference")]
    for section, differing in found.items():
        if not differing:
            rows.append((section, "the same", "", "", ""))
        for what, one, other in differing:
            numbers = section == "results" and all(isinstance(value, (int, float)) for value in (one, other))
            change = f"{other - one:+.6g}" if numbers else ""
            rows.append((section, what, *("-" if value is None else text_of(value) for value in (one, other)), change))
    return rows


def _facts(record):
    start = record.starts[-1] if record.starts else {}
    take = lambda *keys: {key: start.get(key) for key in keys}
    result = {key: value for key, value in record.result.items() if key not in ("metrics", "reason")}
    flat = lambda mapping: {key: tuple(v) if isinstance(v, list) else v for key, v in leaves(mapping).items()}
    return {
        "config": {"file": record.file, "size": record.size, **record.config},
        "code": flat(take("commit", "uncommitted")),
        "versions": flat(start.get("versions") or {}),
        "machine": flat(take("machine", "devices", "together")),
        "data": flat(start.get("data") or {}),
        "results": {"status": record.status, "reason": record.reason or None, **record.metrics, **flat(result)},
    }
