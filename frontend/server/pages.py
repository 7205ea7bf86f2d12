"""The pages for a browser, read once: chat, status, API description, and the scripts and styles that they load.

They hold no data. What they show comes through the public API, which asks for a key where keys are set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).parents[1] / "pages"
_MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

_HEADERS = {
    "Cache-Control": "no-cache",  # a browser asks each time, and gets 304 unless the product was upgraded
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        # Text never becomes markup: assigning a string to innerHTML throws.
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One file as it is served; `etag` changes with its content."""

    content: bytes
    media_type: str
    etag: str

    def respond(self, http: Request) -> Response:
        """The file, or 304 without a body to a browser that has it."""
        headers = {**_HEADERS, "ETag": self.etag}
        if http.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def _read(file: Path) -> Page:
    content = file.read_bytes()
    return Page(content=content, media_type=_MEDIA_TYPES[file.suffix], etag=f'"{sha256(content).hexdigest()[:32]}"')


def _read_all() -> Mapping[str, Page]:
    files = {file.name: _read(file) for file in sorted(_FOLDER.iterdir()) if file.suffix in _MEDIA_TYPES}
    pages = {"/": files.pop("chat.html"), "/status": files.pop("status.html"), "/docs": files.pop("docs.html")}
    return pages | {f"/pages/{name}": page for name, page in files.items()}


PAGES: Mapping[str, Page] = _read_all()
"""Each file by its path in the URL. The pages name one another by relative URLs, so a proxy may add a prefix."""
