"""Who may play what a channel shows to its subscribers alone: signed tokens in the address, held against a key and nothing else.

The API signs them (`Signer.issue`); the origin, recordings, clips and storyboards stand behind a `Gate`. A token stands before the path,
`/play/{token}/live/…`, so that every relative address in a playlist carries it on, in any player. An edge that has the key proves itself
by a header instead: it is given what is closed, marked with the channel, keeps one copy for everybody, and checks tokens itself
(`gateways/edge/cache.vcl`).
"""

import hmac
import re
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from media.answers import problem

PREFIX: Final = "/play"
TOKEN_S: Final = 600
"""So long a token is good; whoever plays on asks for another before."""
EDGE: Final = "Tallylight-Edge"
"""An edge's proof that it checks tokens."""
CLOSED: Final = "Tallylight-Closed"
"""To an edge: the channel whose token a client must show for this."""
NOBODY: Final = "-"
TOKEN: Final = r"[A-Za-z0-9-]{1,64}\.[0-9]{1,12}\.[A-Za-z0-9-]{1,64}\.[0-9a-f]{64}"  # noqa: S105 - its form
"""Channel id, end in seconds since 1970, account id, signature."""
_TOKEN: Final = re.compile(TOKEN)
_ADDRESS: Final = re.compile(rf"{PREFIX}/([^/]{{1,300}})(?=/)")
_IN_SCOPE: Final = "tallylight.token"


class Signer:
    """`secret` is of the API, the media nodes and the edges; what signs is made from it, and safe in any configuration file."""

    def __init__(self, secret: str) -> None:
        self.key = hmac.new(secret.encode(), b"playback", sha256).hexdigest()

    @property
    def edge(self) -> str:
        """What `EDGE` must say."""
        return self._sign("edge")

    def issue(self, channel_id: str, account_id: str | None, *, until_s: float) -> str:
        signed = f"{channel_id}.{int(until_s)}.{account_id or NOBODY}"
        return f"{signed}.{self._sign(signed)}"

    def channel_of(self, token: str, *, now_s: float) -> str | None:
        """Whose media it opens; None for one that is not ours or no longer good."""
        if not _TOKEN.fullmatch(token):
            return None
        signed, _, signature = token.rpartition(".")
        channel_id, until_s, _ = signed.split(".")
        good = hmac.compare_digest(signature, self._sign(signed)) and now_s < int(until_s)
        return channel_id if good else None

    def is_edge(self, said: str) -> bool:
        return hmac.compare_digest(said.encode(), self.edge.encode())

    def _sign(self, text: str) -> str:
        return hmac.new(self.key.encode(), text.encode(), sha256).hexdigest()


class Gate:
    """Before what belongs to a channel. `clock` in seconds since 1970."""

    def __init__(self, signer: Signer, *, clock: Callable[[], float] = time.time) -> None:
        self._signer = signer
        self._clock = clock
        self.closed: frozenset[str] = frozenset()
        """Ids of the channels that only their subscribers may play."""

    async def answer(
        self, request: Request, channel_id: str, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """The endpoint's answer, or why there is none for this client."""
        if channel_id not in self.closed:
            return await endpoint(request)
        to_edge = self._signer.is_edge(request.headers.get(EDGE, ""))
        if not to_edge and (refusal := self._refusal(request, channel_id)) is not None:
            return refusal
        response = await endpoint(request)
        if to_edge:
            response.headers[CLOSED] = channel_id
        elif "Cache-Control" in response.headers:
            # No cache that does not check tokens may give it to another.
            response.headers["Cache-Control"] = response.headers["Cache-Control"].replace("public", "private")
        return response

    def _refusal(self, request: Request, channel_id: str) -> Response | None:
        token = request.scope.get(_IN_SCOPE, "")
        if not token:
            return problem(
                401, "token_required", f"Only subscribers may play this: at {PREFIX}/{{token}}{request.url.path}."
            )
        found = self._signer.channel_of(token, now_s=self._clock())
        if found is None:
            return problem(401, "token_invalid", "This playback token is not valid (any more).")
        if found != channel_id:
            return problem(403, "token_foreign", "This playback token is another channel's.")
        return None


class TokenInAddress:
    """ASGI: `/play/{token}/…` is `…`, asked for with a token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := _ADDRESS.match(scope["path"])):
            path = scope["path"][found.end() :]
            scope = {**scope, "path": path, "raw_path": path.encode(), _IN_SCOPE: found[1]}
        await self._app(scope, receive, send)
