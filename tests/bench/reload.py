"""From the write of a file to the first reply of the new code, beside others.

    python tests/bench/reload.py [--edits 20] [--only flask|django] [--servers minicorn,runserver]

A Flask application, and a Django project with the admin and 40 models in 8 applications, made in a temporary
directory; each server gets the same edits, by turns of one file in place and one replaced. An edit that is
not served within 5 s counts as not seen, and what was answered instead is told; after three such in a row,
or 30 s without a first answer, the next server has its turn: all of it takes half an hour at most.

It takes what it compares with: flask, django, gunicorn, uvicorn and a2wsgi; minicorn 0.1.0 in a virtual
environment of its own, whose Python SEED_PYTHON names.
"""

import argparse
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from servers import CHECKOUT, free_port

HERE = sys.executable
OLD = os.environ.get("SEED_PYTHON", "")
COMMANDS = {
    "minicorn": f"{HERE} -m minicorn {{wsgi}} --bind 127.0.0.1:{{port}} --reload",
    "minicorn-no-template": f"{HERE} -m minicorn {{wsgi}} --bind 127.0.0.1:{{port}} --reload --no-reload-template",
    "flask": f"{HERE} -m flask --app {{module}} run --debug --port {{port}}",
    "flask-no-watchdog": f"{HERE} flask_alone.py --app {{module}} run --debug --port {{port}}",
    "runserver": f"{HERE} manage.py runserver 127.0.0.1:{{port}}",
    "gunicorn": f"{HERE} -m gunicorn {{wsgi}} --bind 127.0.0.1:{{port}} --reload",
    "uvicorn": f"{HERE} -m uvicorn bridge:app --port {{port}} --reload",
    "minicorn-0.1.0": f"{OLD} -m minicorn {{wsgi}} --host 127.0.0.1 --port {{port}} --reload",
}
# Seconds after which an edit counts as not seen, so many in a row after which a server is given up, and
# seconds that it has to answer at all
MISSED, GIVEN_UP, FIRST = 5.0, 3, 30.0
FLASK = """
import flask
from word import WORD
app = flask.Flask(__name__)

@app.route("/")
def index():
    return WORD
"""
SETTINGS = """
import pathlib
SECRET_KEY, DEBUG, ALLOWED_HOSTS, ROOT_URLCONF = "x", True, ["*"], "site_urls"
INSTALLED_APPS = ["django.contrib." + name for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
INSTALLED_APPS += [f"shop{number}" for number in range(8)]
MIDDLEWARE = ["django.contrib." + name for name in ("sessions.middleware.SessionMiddleware",
    "auth.middleware.AuthenticationMiddleware", "messages.middleware.MessageMiddleware")]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth", "django.contrib.messages.context_processors.messages"]}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": pathlib.Path(__file__).parent / "db"}}
WSGI_APPLICATION, DEFAULT_AUTO_FIELD = "main.app", "django.db.models.BigAutoField"
"""
URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path
from word import WORD
urlpatterns = [path("admin/", admin.site.urls), path("", lambda request: HttpResponse(WORD))]
"""
DJANGO = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
"""
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


def make_flask(folder: Path) -> None:
    (folder / "main.py").write_text(FLASK)
    # Its observer of watchdog's is drowned in events of files that are read, where watchdog is 7
    alone = "import sys; sys.modules['watchdog'] = None\nfrom flask.cli import main\nmain()\n"
    (folder / "flask_alone.py").write_text(alone)


def make_django(folder: Path) -> None:
    for name, text in {"site_settings": SETTINGS, "site_urls": URLS, "main": DJANGO, "manage": MANAGE}.items():
        (folder / f"{name}.py").write_text(text)
    for number in range(8):
        application = folder / f"shop{number}"
        application.mkdir()
        (application / "__init__.py").touch()
        models = ["from django.db import models"]
        admins = ["from django.contrib import admin", "from . import models"]
        for model in range(5):
            models.append(f"class Thing{model}(models.Model):\n    name = models.CharField(max_length=100)")
            admins.append(f"admin.site.register(models.Thing{model})")
        (application / "models.py").write_text("\n".join(models) + "\n")
        (application / "admin.py").write_text("\n".join(admins) + "\n")


KINDS = {
    "flask": (
        make_flask,
        ["minicorn", "minicorn-no-template", "flask", "flask-no-watchdog", "gunicorn", "uvicorn", "minicorn-0.1.0"],
    ),
    "django": (make_django, ["minicorn", "minicorn-no-template", "runserver", "gunicorn", "uvicorn", "minicorn-0.1.0"]),
}


@dataclass
class Outcome:
    """What became of one server's edits: milliseconds of those that were served, and why others were not."""

    took: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        edits = len(self.took) + len(self.missed)
        if not edits:
            return f"no answer in {FIRST:g} s"
        parts = []
        if self.took:
            parts.append(f"median {statistics.median(self.took):7.0f} ms, longest {max(self.took):7.0f} ms")
        for reason, count in Counter(self.missed).items():
            parts.append(f"{count} of {edits} edits not served within {MISSED:g} s: {reason.strip('()')}")
        return ", ".join(parts)


def ask(port: int) -> str:
    """The text of the reply; in parentheses why there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=MISSED) as reply:
            return str(reply.read().decode())
    except urllib.error.HTTPError as error:
        return f"(status {error.code})"
    except TimeoutError:
        return "(no reply)"
    except (OSError, http.client.HTTPException):
        return "(refused, reset or cut short)"


def await_word(port: int, word: str, patience: float) -> str:
    """Ask until `word` is served; "", or what was answered in its place until patience ended."""
    deadline = time.monotonic() + patience
    while (text := ask(port)) != word:
        if time.monotonic() > deadline:
            return text if text.startswith("(") else "old code"
        time.sleep(0.002)
    return ""


def edit(folder: Path, number: int) -> str:
    """Each word is longer than the one before: some trust a .pyc by its source's size and second."""
    word = f"word-{number}-" + "x" * number
    path = folder / "word.py"
    if number % 2:
        path.write_text(f"WORD = {word!r}\n")
    else:
        (folder / "word.new").write_text(f"WORD = {word!r}\n")
        (folder / "word.new").replace(path)
    return word


def measure(name: str, folder: Path, edits: int) -> Outcome:
    """Edit so many times, and ask after each until the reply is new."""
    port = free_port()
    (folder / "bridge.py").write_text("import a2wsgi\nimport main\napp = a2wsgi.WSGIMiddleware(main.app)\n")
    first = edit(folder, 0)
    command = COMMANDS[name].format(wsgi="main:app", module="main", port=port).split()
    env = os.environ | {"PYTHONPATH": "" if name.endswith("0.1.0") else str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": ""}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    outcome = Outcome()
    try:
        if await_word(port, first, FIRST):
            return outcome
        time.sleep(2)  # observers that poll have their first look behind them
        in_a_row = 0
        for number in range(1, edits + 1):
            word = edit(folder, number)
            began = time.monotonic()
            if reason := await_word(port, word, MISSED):
                outcome.missed.append(reason)
                in_a_row += 1
            else:
                outcome.took.append((time.monotonic() - began) * 1000)
                in_a_row = 0
            if in_a_row == GIVEN_UP:
                break
            time.sleep(0.25)
        return outcome
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--servers", default="")
    options = parser.parse_args()
    for kind, (make, names) in KINDS.items():
        if options.only not in (None, kind):
            continue
        for name in names:
            if (options.servers and name not in options.servers.split(",")) or (name == "minicorn-0.1.0" and not OLD):
                continue
            with tempfile.TemporaryDirectory() as path:
                folder = Path(path)
                make(folder)
                outcome = measure(name, folder, options.edits)
            print(f"{kind:8}{name:22}{outcome}", flush=True)


if __name__ == "__main__":
    main()
