"""The page of --reload: an error with its source, or "still importing"; text and JSON for other clients.

It loads nothing from anywhere, follows the browser's choice of light and dark, and asks a path of ours
that answers when there is newer code: then it loads itself again. Values in, text out.
"""

from __future__ import annotations

import json
from html import escape

from minicorn.record import Value

# A request for this and the name of some code is answered when newer code serves
NEWER = "/.minicorn/newer-than/"

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --paper: #fff; --box: #f5f7f9; --line: #d5dbe1;
  --bad: #b3261e; --mark: #fde4e1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #9aa5b1; --paper: #14171a; --box: #1d2125;
  --line: #343b42; --bad: #ff8a80; --mark: #4a2222; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem; }
h1 { margin: 0 0 .25rem; font-size: 1.4rem; color: var(--bad); overflow-wrap: anywhere; }
h1.calm { color: var(--ink); }
p { margin: .25rem 0; color: var(--dim); }
code, pre { font: 14px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.at { margin: 1rem 0 .4rem; overflow-wrap: anywhere; }
.place { color: var(--ink); user-select: all; }
pre { margin: 0; padding: .75rem 0; overflow-x: auto; background: var(--box); border: 1px solid var(--line);
  border-radius: 6px; }
pre.text { padding: .75rem 1rem; }
pre span { display: block; padding: 0 1rem; min-width: max-content; }
pre span::before { content: attr(data-n); display: inline-block; width: 3.5ch; margin-right: 2ch; text-align: right;
  color: var(--dim); }
pre .bad { background: var(--mark); box-shadow: inset 3px 0 var(--bad); font-weight: 600; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--dim); overflow-wrap: anywhere; }
"""
# The server holds the answer back; where it has ended, it is asked again until it is there. A page asks only while
# it is looked at: a browser has six connections to a server, and a seventh tab would get none
_SCRIPT = """
(async () => {
  const turned = () => new Promise(r => document.addEventListener("visibilitychange", r, { once: true }));
  for (;;) {
    while (document.hidden) await turned();
    const asking = new AbortController();
    turned().then(() => asking.abort());
    try {
      const r = await fetch("%s", { cache: "no-store", signal: asking.signal });
      if (r.status === 204) return location.reload();
    } catch (e) { }
    await new Promise(r => setTimeout(r, 1000));
  }
})();
"""


class Frame(Value):
    """One place in the source; `lines` are numbered, `line` is the one that failed."""

    path: str
    line: int
    function: str
    lines: tuple[tuple[int, str], ...]
    own: bool  # of the project, not of the standard library or a package


class Failure(Value):
    """What to tell a developer. `frames` begin with the innermost."""

    doing: str
    headline: str
    text: str
    frames: tuple[Frame, ...] = ()


def render(failure: Failure, accept: object, code: str) -> tuple[str, str]:
    """The media type and the content for a client that accepts `accept`, of which an application makes anything.

    `code` names the code that is shown, for the page to ask for newer.
    """
    accept = accept if isinstance(accept, str) else ""
    if "text/html" in accept:
        return "text/html", _html(failure, code)
    if "json" in accept:
        return "application/json", _json(failure)
    return "text/plain", f"{failure.doing}: {failure.headline}\n\n{failure.text}\n"


def render_waiting(code: str) -> str:
    """The page for whoever has waited long for new code."""
    body = (
        '<h1 class="calm">Still importing</h1><p>The application is being imported. This page loads itself again.</p>'
    )
    return _document("Still importing", body, code, '<meta http-equiv="refresh" content="5">')


def _json(failure: Failure) -> str:
    places = [{"path": each.path, "line": each.line, "function": each.function} for each in failure.frames]
    content = {"doing": failure.doing, "error": failure.headline, "traceback": failure.text, "frames": places}
    return json.dumps(content) + "\n"


def _html(failure: Failure, code: str) -> str:
    """Render the page. The frame shown open is the innermost of the project's; without one, the innermost of all."""
    main = next((each for each in failure.frames if each.own), next(iter(failure.frames), None))
    parts = [f"<h1>{escape(failure.headline)}</h1><p>{escape(failure.doing)}</p>"]
    if main is not None:
        parts.append(_place(main) + _source(main))
    if len(failure.frames) > 1:
        parts.append("<details><summary>All frames, the innermost first</summary>")
        parts += [_place(each) + _source(each) for each in failure.frames]
        parts.append("</details>")
    shown = "" if main is not None else " open"
    parts.append(
        f'<details{shown}><summary>As text</summary><pre class="text">{escape(failure.text)}</pre></details>'
        "<p>This page loads itself again when the code has been saved.</p>"
    )
    return _document(failure.headline, "".join(parts), code)


def _place(frame: Frame) -> str:
    where = f" in <code>{escape(frame.function)}</code>" if frame.function else ""
    return f'<p class="at"><code class="place">{escape(frame.path)}:{frame.line}</code>{where}</p>'


def _source(frame: Frame) -> str:
    if not frame.lines:
        return ""
    rows = (
        f'<span{" class=bad" if number == frame.line else ""} data-n="{number}">{escape(text) or " "}</span>'
        for number, text in frame.lines
    )
    return f"<pre>{''.join(rows)}</pre>"


def _document(title: str, body: str, code: str, head: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"{head}<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main>"
        f"<script>{_SCRIPT % (NEWER + code)}</script></body></html>"
    )
