"""Flask and Django for real, with four workers."""

import hashlib
import http.cookiejar
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
from harness import Server, Starter, environment

UPLOAD = os.urandom(500_000)
PREPARE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
User.objects.create_superuser("admin", "admin@example.org", "secret")
"""


class Browser:
    """Keeps cookies, follows redirects."""

    def __init__(self, server: Server) -> None:
        self._base = f"http://127.0.0.1:{server.port}"
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)

    def open(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
        """The status and the text of the reply to a GET, or to a POST of `data`."""
        request = urllib.request.Request(self._base + path, data, headers)
        try:
            with self._opener.open(request, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def post(self, path: str, **form: str) -> tuple[int, str]:
        return self.open(path, urllib.parse.urlencode(form).encode())

    def upload(self, path: str, content: bytes) -> tuple[int, str]:
        """A form with a file, as a browser sends it."""
        body = io.BytesIO()
        body.write(b'--edge\r\nContent-Disposition: form-data; name="file"; filename="data.bin"\r\n')
        body.write(b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--edge--\r\n")
        return self.open(path, body.getvalue(), **{"Content-Type": "multipart/form-data; boundary=edge"})


def csrf_token(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found, page
    return found[1]


@pytest.fixture(scope="module")
def flask(start_for_module: Starter) -> Server:
    return start_for_module("flask_app:app", "--workers", "4")


@pytest.fixture(scope="module")
def django(start_for_module: Starter) -> Server:
    cwd = start_for_module.cwd
    subprocess.run([sys.executable, "-c", PREPARE], cwd=cwd, env=environment(), check=True, timeout=60)
    return start_for_module("django_site.wsgi:application", "--workers", "4")


# Both


@pytest.fixture(params=["flask", "django"])
def site(request: pytest.FixtureRequest) -> Server:
    server = request.getfixturevalue(request.param)
    assert isinstance(server, Server)
    return server


def test_an_upload_of_500_kb_arrives_whole(site: Server) -> None:
    assert Browser(site).upload("/upload", UPLOAD) == (200, hashlib.sha256(UPLOAD).hexdigest())


def test_an_upload_beyond_the_limit_is_413(site: Server) -> None:
    assert Browser(site).upload("/upload", bytes(1_100_000))[0] == 413


def test_a_streamed_reply_arrives_whole(site: Server) -> None:
    expected = "".join(f"line {number}\n" for number in range(5000))
    assert Browser(site).open("/stream") == (200, expected)


def test_an_unknown_path_is_404(site: Server) -> None:
    assert Browser(site).open("/no/such/path")[0] == 404


def test_an_exception_is_500_and_its_traceback_is_in_the_log_alone(site: Server) -> None:
    status, text = Browser(site).open("/fail")
    assert status == 500
    assert "secret" not in text
    assert "Traceback" not in text
    site.wait_log(r"Traceback \(most recent call last\)(.*\n)+.*ValueError: a secret of the application")


def test_many_clients_at_once_are_all_answered(site: Server) -> None:
    statuses: list[int] = []

    def browse() -> None:
        browser = Browser(site)
        statuses.extend(browser.open("/stream")[0] for _ in range(5))

    clients = [threading.Thread(target=browse) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses == [200] * 40


# Flask


def test_a_flask_session_lives_in_its_cookie(flask: Server) -> None:
    one, other = Browser(flask), Browser(flask)
    visits = [json.loads(one.open("/")[1])["visits"] for _ in range(5)]
    assert visits == [1, 2, 3, 4, 5]
    assert json.loads(other.open("/")[1])["visits"] == 1


def test_a_flask_form_redirects_to_what_it_has_set(flask: Server) -> None:
    assert Browser(flask).post("/login", name="Zoë & friends") == (200, "Zoë & friends")


# Django


def test_a_django_session_lives_in_the_database(django: Server) -> None:
    browser = Browser(django)
    assert [json.loads(browser.open("/visits")[1])["visits"] for _ in range(5)] == [1, 2, 3, 4, 5]
    with sqlite3.connect(django.cwd / "site.sqlite3") as database:
        assert database.execute("select count(*) from django_session").fetchone()[0] >= 1
    database.close()


def test_a_django_form_needs_its_csrf_token(django: Server) -> None:
    browser = Browser(django)
    page = browser.open("/form")[1]
    status, text = browser.post("/form", name="Zoë", csrfmiddlewaretoken=csrf_token(page))
    assert status == 200
    assert "Hello Zoë" in text
    assert browser.post("/form", name="Zoë")[0] == 403


def test_the_django_admin_can_be_used(django: Server) -> None:
    browser = Browser(django)
    page = browser.open("/admin/")[1]
    token = csrf_token(page)
    status, text = browser.post(
        "/admin/login/?next=/admin/", username="admin", password="secret", csrfmiddlewaretoken=token
    )
    assert status == 200
    assert "Site administration" in text
    page = browser.open("/admin/auth/user/add/")[1]
    form = {"username": "new", "usable_password": "true", "password1": "g3heim-g3nug", "password2": "g3heim-g3nug"}
    status, text = browser.post("/admin/auth/user/add/", **form, csrfmiddlewaretoken=csrf_token(page))
    assert status == 200
    assert "was added successfully" in text


def test_a_django_session_survives_a_roll(django: Server) -> None:
    browser = Browser(django)
    browser.open("/visits")
    django.hup()
    assert json.loads(browser.open("/visits")[1])["visits"] == 2
