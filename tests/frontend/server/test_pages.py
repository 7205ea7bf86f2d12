"""The pages as files: headers, caching, keys, and `--no-pages`. tests/frontend/pages has them in a browser."""

import re
from html.parser import HTMLParser

import httpx
import pytest
from starlette.testclient import TestClient

from frontend.server.app import create_app
from frontend.server.pages import PAGES
from tests.frontend.conftest import error_of

MAX_TOTAL_BYTES = 150_000


@pytest.mark.parametrize("path", PAGES)
def test_pages_need_no_key_and_allow_only_what_this_server_has(guarded: httpx.Client, path: str) -> None:
    response = guarded.get(path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_page_that_the_browser_has_is_304(http: httpx.Client) -> None:
    etag = http.get("/").headers["etag"]
    again = http.get("/", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get("/", headers={"if-none-match": '"other"'}).status_code == 200


def test_only_files_of_the_folder_are_served(http: httpx.Client) -> None:
    for path in ("/pages/", "/pages/../settings.py", "/pages/%2e%2e/settings.py", "/pages/chat.html", "/chat.html"):
        assert error_of(http.get(path), 404)
    assert error_of(http.post("/", json={}), 405)


def test_without_pages_the_api_is_as_before() -> None:
    client = TestClient(create_app(None, with_pages=False))  # type: ignore[arg-type]  # these routes need no service
    assert [client.get(path).status_code for path in PAGES] == [404] * len(PAGES)
    assert client.get("/health/live").status_code == 200


class Loads(HTMLParser):
    """What a page loads, and inline scripts and styles, which its policy forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "script":
            self.urls.append(given.get("src") or "inline")
        if tag == "link":
            self.urls.append(given["href"] or "")


@pytest.mark.parametrize("path", ["/", "/status", "/docs"])
def test_pages_load_own_files_only(path: str) -> None:
    found = Loads()
    found.feed(PAGES[path].content.decode())
    assert found.inline == []
    assert {f"/{url}" for url in found.urls} <= PAGES.keys()


def test_scripts_import_own_files_and_write_no_markup() -> None:
    for path, page in PAGES.items():
        if path.endswith(".js"):
            script = page.content.decode()
            imported = re.findall(r'from "\./([^"]+)"', script)
            assert script.count("import {") == len(imported)
            assert {f"/pages/{name}" for name in imported} <= PAGES.keys()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_the_pages_are_small() -> None:
    assert sum(len(page.content) for page in PAGES.values()) < MAX_TOTAL_BYTES
