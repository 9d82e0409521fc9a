"""A Django project with the admin and a large table of Python objects, for the preload benchmarks."""

from pathlib import Path

SETTINGS = """
SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_urls"
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
"""
# About 100 MB: a list, a dict, two strings and a float a row
URLS = """
import gc, itertools, random
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

TABLE = [
    {{"key": f"key-{{n}}", "name": f"a name of row {{n}}", "price": n / 7, "tags": [n, n + 1]}} for n in range({rows})
]
# Those that requests read: one in a hundred, anywhere; or all, a hundredth in each request
HOT = random.Random(1).sample(range({rows}), {rows} // 100)
REQUESTS = itertools.count(1)

def look(request):
    if {collections} and next(REQUESTS) % {collections} == 0:
        gc.collect()
    rows = random.sample({pool}, {reads})
    return HttpResponse(str(sum(len(TABLE[n]["name"]) + TABLE[n]["tags"][0] for n in rows)))

urlpatterns = [path("", look), path("admin/", admin.site.urls)]
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
import site_urls
"""


def write(folder: Path, rows: int, everything: bool = False, collections: bool = False) -> None:
    """The project, with a table of so many rows; `everything`: each request reads 1% of it, anywhere;
    `collections`: a process's every 500th request collects garbage."""
    pool, reads = (f"range({rows})", rows // 100) if everything else ("HOT", 20)
    (folder / "site_settings.py").write_text(SETTINGS)
    values = {"rows": rows, "pool": pool, "reads": max(1, reads), "collections": 500 if collections else 0}
    (folder / "site_urls.py").write_text(URLS.format(**values))
    (folder / "site_wsgi.py").write_text(WSGI)
