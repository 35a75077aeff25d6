"""The certificate as one HTML page that needs nothing else: no network, no script; light and dark, desk and phone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8885; --bar: #2a7de1; --bad: #d33; --good: #2a9d4a }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; white-space: nowrap }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: var(--line); border-radius: 3px; height: .6rem; min-width: 6rem }
.bar i { background: var(--bar); border-radius: 3px; display: block; height: 100% }
.bad { color: var(--bad); font-weight: 600 } .good { color: var(--good) } code { overflow-wrap: anywhere }
@media (max-width: 40rem) { body { padding: .5rem; font-size: 14px } th, td { padding: .25rem .4rem } }
"""
ON_INPUTS = "on real inputs"
COLUMNS = ("block", "held", "measured / allowed", "bound", "measured", ON_INPUTS, "parameters", "kernel", "branches", "family")
NUMERIC = {"branches", "parameters", "bound", "measured"}


def page(record: dict[str, Any]) -> str:
    """The page for a certificate, a record as `npreparam fuse --report` writes it. Every name of the file is escaped."""
    held = all(row["held"] for row in record["blocks"]) and not record["faults"]
    files = "".join(f"<li>{kind}: <b>{escape(record[kind]['file'])}</b>, SHA-256 <code>{escape(record[kind]['sha256'])}</code></li>"
                    for kind in ("input", "output") if kind in record)
    verdict = '<p class="good">Every fused block is within its bound.</p>' if held else '<p class="bad">Not everything is as it should be.</p>'
    lists = "".join(_list(title, record[key]) for key, title in (
        ("faults", "Wrong"), ("refused", "Not fused"), ("kept", "Left as convolutions, since one would be larger")) if record[key])
    columns = [name for name in COLUMNS if name != ON_INPUTS or "inputs" in record]
    head = "".join(f'<th{_kind(name)}>{name}</th>' for name in columns)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>npreparam {escape(record["command"])}: {escape(record["input"]["file"])}</title><style>{STYLE}</style></head><body>
<h1>npreparam {escape(record["command"])}</h1>{verdict}<ul>{files}</ul>
<p>For inputs of at most {record["largest input"]:g} in magnitude a fused block differs from its branches by no more than its bound, which comes
from the rounding of the stored numbers. Measured is the largest difference in float64 arithmetic, whose own rounding errors may add a little
to what is allowed.{_measured_on(record)}</p>
<h2>Blocks</h2><div class="wide"><table><thead><tr>{head}</tr></thead><tbody>
{"".join(_row(row, columns) for row in record["blocks"])}</tbody></table></div>{lists}</body></html>
"""


def _measured_on(record: dict[str, Any]) -> str:
    if "inputs" not in record:
        return " Measured on random inputs alone."
    count = sum(row["on inputs"] is not None for row in record["blocks"])
    return (f" Also measured on {escape(record['inputs']['file'])}: {count} of {len(record['blocks'])} blocks, those whose input channels it fits. "
            "A file of tensors does not tell where in the network a block stands.")


def _row(row: dict[str, Any], columns: list[str]) -> str:
    real = row["on inputs"]
    cells = {
        "block": f"<code>{escape(row['block'])}</code>", "family": escape(row["family"]), "branches": str(row["branches"]),
        "kernel": "&times;".join(map(str, row["weight"])), "parameters": f"{row['parameters before']:,} &rarr; {row['parameters after']:,}",
        "bound": _number(row["bound"]), "measured": _number(row["measured"]), "measured / allowed": _bar(row),
        ON_INPUTS: "&ndash;" if real is None else f"{_number(real['measured'])} of {_number(real['bound'])}",
        "held": '<span class="good">yes</span>' if row["held"] else '<span class="bad">no</span>'}
    return "<tr>" + "".join(f"<td{_kind(name)}>{cells[name]}</td>" for name in columns) + "</tr>\n"


def _bar(row: dict[str, Any]) -> str:
    allowed = row["bound"] + row["evaluation bound"]
    if row["measured"] is None or not 0 < allowed < float("inf"):
        return "&ndash;"
    share = min(1.0, row["measured"] / allowed)
    return f'<div class="bar" title="{share:.1%}"><i style="width:{share:.1%}"></i></div>'


def _kind(name: str) -> str:
    return ' class="number"' if name in NUMERIC else ""


def _number(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.2e}"


def _list(title: str, lines: Iterable[str]) -> str:
    return f"<h2>{title}</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
