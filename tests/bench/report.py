"""From results.json to results.svg and to the tables of README.md, between its markers."""

from collections.abc import Callable

import picture
import results
from results import HERE, Document

README = HERE / "README.md"
NAMES = {
    "cpu_us": "CPU",
    "first_ms": "time",
    "connection_kb": "KB each in the server",
    "share": "requests a CPU second beside 10,000, of that without",
}


def write() -> None:
    """Both anew."""
    document = results.load()
    python = results.latest(document)
    mine = document[python]
    if "workloads" in mine:
        (HERE / "results.svg").write_text(picture.draw(results.title(document, python), mine))
    text = README.read_text()
    for marker, table in TABLES.items():
        before, _, rest = text.partition(f"<!-- {marker} -->\n")
        text = f"{before}<!-- {marker} -->\n{table(document)}<!-- end -->{rest.partition('<!-- end -->')[2]}"
    README.write_text(text)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def goals(document: Document) -> str:
    """What is asked, and what each Python reached."""
    pythons = sorted(document, key=lambda text: [int(part) for part in text.split(".")])
    lines = _row("asked", "", *(results.title(document, python) for python in pythons))
    lines += _row("---", "---:", *["---:"] * len(pythons))
    for workload, figure, peer, limit in results.GOALS:
        asked = f"`{workload}` {NAMES[figure]}" + (f", times {peer}'s" if peer else "")
        cells = []
        for each in pythons:
            figures = document[each].get("workloads", {}).get(workload, {}).get("figures", {})
            value = results.reached(figures, figure, peer)
            missed = value is not None and not results.is_met(figure, value, limit)
            cells.append("" if value is None else f"{value:.2f}" + " ✗" * missed)
        lines += _row(asked, f"{'≥' if figure == 'share' else '≤'} {limit:.2f}", *cells)
    return lines


def budget(document: Document) -> str:
    python = results.latest(document, "budget")
    measured = document[python].get("budget", {}).get("hello", {})
    lines = _row("part", f"µs, {results.title(document, python)}", "what it is") + _row("---", "---:", "---")
    for part, (value, text) in measured.get("parts", {}).items():
        lines += _row(part, f"{value:.1f}", text)
    return lines


def growth(document: Document) -> str:
    python = results.latest(document, "growth")
    measured = document[python].get("growth", {})
    lines = _row("number of", "exponent", "last step", f"µs a request, {results.title(document, python)}")
    lines += _row("---", "---:", "---:", "---")
    for each in measured.values():
        points = each["points"]
        shown = ", ".join(f"{size}: {cost:.0f}" for size, cost in points.items())
        lines += _row(each["what"], f"{each['exponent']:.2f}", f"{each['last']:.2f}", shown)
    return lines


TABLES: dict[str, Callable[[Document], str]] = {"goals": goals, "budget": budget, "growth": growth}
