"""results.svg: what was measured, as bars; drawn with text, lines and rectangles alone.

It follows the reader's choice of light and dark, loads nothing, and says where and when.
"""

from html import escape
from typing import Any

# Panel: workload, figure, title, unit. Less is better in all
PANELS = (
    ("hello", "cpu_us", "Hello-world, keep-alive", "µs of CPU a request"),
    ("close", "cpu_us", "Hello-world, a connection each", "µs of CPU a request"),
    ("post", "cpu_us", "POST of 10 KB", "µs of CPU a request"),
    ("reply-100k", "cpu_us", "Reply of 100 KB", "µs of CPU a request"),
    ("flask", "cpu_us", "Flask", "µs of CPU a request"),
    ("django", "cpu_us", "Django", "µs of CPU a request"),
    ("mixed", "p99_ms", "Quick requests among slow ones", "ms, 99th percentile"),
    ("start", "first_ms", "From start to first reply", "ms"),
)
WIDTH, COLUMN, LABEL, BAR, ROW, TOP = 880, 430, 104, 240, 21, 64
STYLE = """
svg { color-scheme: light dark; --ink: #1f2328; --dim: #59636e; --paper: #ffffff; --bar: #b6bfc9; --ours: #0969da; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6edf3; --dim: #9198a1; --paper: #0d1117; --bar: #474f58; --ours: #4493f8; } }
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink); }
.title { font-size: 20px; font-weight: 600; } .panel { font-weight: 600; font-size: 14px; }
.dim { fill: var(--dim); font-size: 12px; font-weight: normal; } .ours { font-weight: 600; }
.paper { fill: var(--paper); } .bar { fill: var(--bar); } .our-bar { fill: var(--ours); }
"""


def draw(python: str, mine: dict[str, Any]) -> str:
    """The picture of what one Python has measured."""
    panels = [panel for panel in PANELS if panel[0] in mine["workloads"]]
    parts, heights = [], [TOP, TOP]
    for number, (workload, figure, title, unit) in enumerate(panels):
        side = number % 2
        figures = {name: each[figure] for name, each in mine["workloads"][workload]["figures"].items()}
        parts.append(_panel(20 + side * COLUMN, heights[side], title, unit, figures))
        heights[side] += 44 + ROW * len(figures)
    height = max(heights) + 44
    machine, versions = mine["machine"], mine["versions"]
    dates = sorted(mine["workloads"][panel[0]]["date"] for panel in panels)
    where = f"CPython {python}; one worker on one core, four where requests are slow; medians; shorter is better."
    which = ", ".join(f"{name} {version}" for name, version in versions.items())
    foot = f"{machine['processor']}, Linux {machine['kernel']}, {dates[-1][:10]}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="minicorn and other servers, measured"><style>{STYLE}</style>'
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
        f"{_text(20, 30, 'What a request costs', 'title')}{_text(20, 50, where, 'dim')}"
        f"{''.join(parts)}{_text(20, height - 28, foot, 'dim')}{_text(20, height - 11, which, 'dim')}</svg>\n"
    )


def _panel(x: float, y: float, title: str, unit: str, figures: dict[str, float]) -> str:
    most = max(figures.values())
    parts = [
        f'<text x="{x}" y="{y + 16}" class="panel">{escape(title)} <tspan class="dim">{escape(unit)}</tspan></text>'
    ]
    for number, (name, value) in enumerate(sorted(figures.items(), key=lambda item: item[1])):
        top, ours = y + 26 + number * ROW, name == "minicorn"
        width = max(1.0, BAR * value / most)
        parts.append(_text(x, top + 12, name, "ours" if ours else ""))
        kind = "our-bar" if ours else "bar"
        parts.append(f'<rect class="{kind}" x="{x + LABEL}" y="{top + 1}" width="{width:.1f}" height="14" rx="2"/>')
        parts.append(_text(x + LABEL + width + 6, top + 12, _short(value), "ours" if ours else "dim"))
    return "".join(parts)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}"
