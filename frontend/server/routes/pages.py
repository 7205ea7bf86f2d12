"""GET /, /status and /docs for a browser, with their scripts and styles under /pages/. Not part of the API."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from frontend.server.pages import PAGES, Page

router = APIRouter()


def _serves(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def serve(http: Request) -> Response:
        return page.respond(http)

    return serve


for path, page in PAGES.items():
    router.add_route(path, _serves(page), include_in_schema=False)
