"""What the media plane's HTTP answers have in common: problems, cross-origin headers, byte ranges. `origin` and `vod` make theirs of it.

Players run on any page, so every answer may be read from everywhere; none depends on who asks.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from media.hls.playlist import CONTENT_TYPE, Text

CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    # Players across origins tune in by Age (rfc8216bis, appendix C).
    "Access-Control-Expose-Headers": "Accept-Ranges, Age, Content-Length, Content-Range, ETag, Retry-After",
}
IMMUTABLE: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Accept-Ranges": "bytes", **CORS}
_METHODS: Final = "GET, HEAD, OPTIONS"
_NO_WEIGHT: Final = re.compile(r"\s*q=0(\.0*)?\s*")
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """RFC 9457. Kept by no cache, unless `headers` say otherwise."""
    title = HTTPStatus(status).phrase
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail})
    fields = {"Cache-Control": "no-store", **CORS, **(headers or {})}
    return Response(body, status, fields, "application/problem+json")


def kept(seconds: int) -> dict[str, str]:
    return {"Cache-Control": f"public, max-age={seconds}"}


class Elsewhere:
    """The last route below a prefix: pre-flights, addresses that are none, methods that nothing here has."""

    def __init__(self, detail: str) -> None:
        self._detail = detail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope["method"])(scope, receive, send)

    def _answer(self, method: str) -> Response:
        match method:
            case "GET" | "HEAD":
                return problem(404, "not_found", self._detail)
            case "OPTIONS":
                asked = {
                    "Access-Control-Allow-Methods": _METHODS,
                    "Access-Control-Allow-Headers": "Range, Tallylight-Viewer",
                }
                return Response(status_code=204, headers={**CORS, **asked, "Access-Control-Max-Age": "86400"})
            case _:
                return problem(405, "method_not_allowed", "Media can only be read.", {"Allow": _METHODS})


def byte_range(asked: str, size: int) -> tuple[int, int] | None:
    """RFC 9110 14: first byte and the one after the last; the whole where nothing sensible was asked; None where it cannot be given."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        suffix = int(found[2])
        return (max(0, size - suffix), size) if suffix and size else None
    start, end = int(found[1]), min(int(found[2] or size - 1), size - 1) + 1
    if found[2] and int(found[2]) < start:
        return 0, size
    return (start, end) if start < size else None


def is_known(request: Request, tag: str) -> bool:
    """RFC 9110 13.1.2: whether the client has this answer already."""
    known = request.headers.get("If-None-Match", "")
    return known.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(","))


def accepts_gzip(accepted: str) -> bool:
    """RFC 9110 12.5.3, as far as it goes for us: `gzip` is named, and not with a weight of nothing."""
    return any(
        coding.strip().lower() == "gzip" and not _NO_WEIGHT.fullmatch(weight)
        for coding, _, weight in (part.partition(";") for part in accepted.split(","))
    )


def playlist(request: Request, text: Text, headers: Mapping[str, str], *, tag: str) -> Response:
    """A playlist, compressed for whom that may be (B.1). `tag` and the text's version are these bytes' alone."""
    zipped = accepts_gzip(request.headers.get("Accept-Encoding", ""))
    known = f'"{tag}/{text.version}{"z" if zipped else ""}"'
    fields = {**CORS, **headers, "Vary": "Accept-Encoding", "ETag": known}
    if is_known(request, known):
        return Response(status_code=304, headers=fields)
    if zipped:
        fields["Content-Encoding"] = "gzip"
    return Response(text.gzipped if zipped else text.plain, headers=fields, media_type=CONTENT_TYPE)


def in_memory(request: Request, data: bytes | memoryview, media_type: str, *, tag: str) -> Response:
    """Bytes that never change, or the range of them that was asked for. `tag` is theirs alone."""
    size = len(data)
    headers = {**IMMUTABLE, "ETag": f'"{tag}"'}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("Range", "")
    if request.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
        asked = ""  # RFC 9110 13.1.5: what the client has a part of is something else
    wanted = byte_range(asked, size)
    if wanted is None:
        return problem(416, "range_invalid", f"There are {size} bytes.", {"Content-Range": f"bytes */{size}"})
    if wanted == (0, size):
        return Response(data, headers=headers, media_type=media_type)
    start, end = wanted
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(memoryview(data)[start:end], 206, headers, media_type)
