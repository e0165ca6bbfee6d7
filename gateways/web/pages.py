"""The pages people see (design §9): shells from templates that fill themselves over the API, and the files they load.

`routes` is mounted by the API role behind its own routes, because `/{channel}` would claim any name. Pages are the same for everybody:
who is logged in, what is live, and every word that a person wrote come over the API as data and are shown as text.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from domain.shared import NAME_PATTERN, RESERVED_NAMES
from domain.subscription import PRICES
from gateways.web import assets

Endpoint = Callable[[Request], Awaitable[Response]]

HERE: Final = Path(__file__).parent
FOLDERS: Final = {"app": assets.load(HERE / "static"), "vendor": assets.load(HERE / "vendor")}

# No inline script and none from elsewhere. Styles: the player's controls put theirs into shadow roots as <style> elements, which
# nothing but 'unsafe-inline' admits; no text of a person's ever becomes markup. blob: is how MediaSource hands over a stream.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FOR_EVER: Final = "public, max-age=31536000, immutable"


def _address(folder: str, name: str) -> str:
    """Where a page finds a file; a name that does not exist is a fault at rendering, hence in every test of a page."""
    kept = FOLDERS[folder]
    if name not in kept.files:
        raise LookupError(f"{folder}/{name}")
    return f"/static/{folder}/{kept.digest}/{name}"


_templates: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals["asset"] = _address


def _page(template: str, values: Mapping[str, object] = MappingProxyType({}), *, status: int = 200) -> Response:
    body = _templates.get_template(template).render(values)
    headers = {"Cache-Control": "no-cache"} | SECURITY_HEADERS
    return Response(body, status, headers, media_type="text/html")


def not_found() -> Response:
    """The page for an address that names nothing; also for the API role's own handler of unknown addresses."""
    return _page("not_found.html", status=404)


def _plain(template: str) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return _page(template)

    return endpoint


def _of_channel(template: str, **values: object) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        name = request.path_params["channel"]
        if not NAME_PATTERN.fullmatch(name.lower()) or name.lower() in RESERVED_NAMES:
            return not_found()
        if name != name.lower():
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(request.url.path.lower() + query, 308, SECURITY_HEADERS)
        return _page(template, {"channel": name} | values)

    return endpoint


def _of_id(template: str) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        wanted = request.path_params["id"]
        return _page(template, {"id": wanted}) if _ID.fullmatch(wanted) else not_found()

    return endpoint


async def _static(request: Request) -> Response:
    folder = FOLDERS.get(request.path_params["folder"])
    asset = folder.files.get(request.path_params["name"]) if folder else None
    if folder is None or asset is None:
        return Response("Not found\n", 404, SECURITY_HEADERS, media_type="text/plain")
    # While releases change over, a page of one may ask a pod of the other: it gets what there is, and nobody keeps that.
    current = request.path_params["digest"] == folder.digest
    headers = SECURITY_HEADERS | {
        "Cache-Control": _FOR_EVER if current else "no-store",
        "ETag": asset.etag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == asset.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return Response(asset.compressed, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


async def _favicon(request: Request) -> Response:
    lamp = FOLDERS["app"].files["lamp.svg"]
    headers = SECURITY_HEADERS | {"Cache-Control": "public, max-age=86400", "ETag": lamp.etag}
    return Response(lamp.content, headers=headers, media_type=lamp.media_type)


async def _robots(request: Request) -> Response:
    lines = "User-agent: *\nDisallow: /api/\nDisallow: /dashboard\nDisallow: /settings\nDisallow: /moderation/\nDisallow: /finance\n"
    return Response(lines, headers=SECURITY_HEADERS, media_type="text/plain")


routes: Final = [
    Route("/", _plain("directory.html")),
    Route("/login", _plain("login.html")),
    Route("/register", _plain("register.html")),
    Route("/dashboard", _plain("dashboard.html")),
    Route("/settings", _plain("settings.html")),
    Route("/finance", _plain("finance.html")),
    Route("/docs", _plain("docs.html")),
    Route("/moderation/{channel}", _of_channel("moderation.html")),
    Route("/videos/{id}", _of_id("video.html")),
    Route("/clips/{id}", _of_id("clip.html")),
    Route("/static/{folder}/{digest}/{name}", _static),
    Route("/favicon.ico", _favicon),
    Route("/robots.txt", _robots),
    Route("/{channel}", _of_channel("watch.html", prices=PRICES)),
]
