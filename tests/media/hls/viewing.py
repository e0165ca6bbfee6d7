"""Players over HTTP that take everything there is: blocking reloads, delta updates, every part and segment, held against the rules."""

import asyncio
from types import TracebackType

import httpx
import m3u8

from media.hls.agreement import Agreement
from media.hls.listing import Playlist, read

LIVE, REWIND = "index.m3u8", "dvr.m3u8"


class Viewing:
    """One player a rendition of a live broadcast, from entering to the end. `file`: the playlist of what is live, or the rewindable one."""

    def __init__(self, client: httpx.AsyncClient, channel: str, file: str = LIVE) -> None:
        self.agreement = Agreement(at_once=False)
        self.delta_updates = 0
        self._client = client
        self._channel = channel
        self._file = file
        self._players: dict[str, asyncio.Task[None]] = {}
        self._task = asyncio.create_task(self._follow())

    async def __aenter__(self) -> "Viewing":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in (self._task, *self._players.values()):
            task.cancel()
        await asyncio.gather(self._task, *self._players.values(), return_exceptions=True)

    async def ended(self) -> None:
        """Until every player has seen the end."""
        await asyncio.wait_for(asyncio.gather(*self._players.values()), 30)

    async def _follow(self) -> None:
        """Renditions come by and by."""
        while True:
            answer = await self._client.get(f"/live/{self._channel}/{self._file}")
            if answer.status_code == 200:
                for variant in m3u8.loads(answer.text).playlists:
                    url = f"/live/{self._channel}/{variant.uri}"
                    name = url.split("/")[-2]
                    if name not in self._players:
                        self._players[name] = asyncio.create_task(self._play(name, url))
            await asyncio.sleep(0.5)

    async def _play(self, name: str, url: str) -> None:
        media: dict[str, bytes] = {}
        watch = self.agreement.watch(name, media.get)
        reloads = 0
        while watch.latest is None or not watch.latest.ended:
            answer = await self._client.get(url + _directives(watch.latest, skip=reloads % 2 == 1))
            if answer.status_code == 503:
                continue  # nothing came in time, which is for the caller to bear
            assert answer.status_code == 200, (url, answer.status_code, answer.text)
            reloads += 1
            await fetch(self._client, url.rpartition("/")[0], answer.text, media)
            self.delta_updates += "EXT-X-SKIP" in answer.text
            self.agreement.playlist(name, answer.text)


def _directives(latest: Playlist | None, *, skip: bool) -> str:
    if latest is None:
        return ""
    number, part = latest.reaches
    whole = bool(latest.segments) and latest.segments[-1].whole
    wanted = (number + 1, 0) if whole else (number, part + 1)
    return f"?_HLS_msn={wanted[0]}&_HLS_part={wanted[1]}{'&_HLS_skip=YES' if skip else ''}"


async def fetch(client: httpx.AsyncClient, folder: str, text: str, media: dict[str, bytes]) -> None:
    """What a playlist names of segments that are whole, if it is not here yet."""
    for segment in read(text).segments:
        if not segment.whole or segment.gap or segment.uri in media:
            continue
        for uri in (segment.init, *(it.uri for it in segment.parts), segment.uri):
            if uri and uri not in media:
                answer = await client.get(f"{folder}/{uri}")
                if answer.status_code == 200:
                    media[uri] = answer.content


async def recording_of(client: httpx.AsyncClient, broadcast_id: str) -> Agreement:
    """All of a recording, every rendition to its end."""
    agreement = Agreement(recorded=True)
    master = m3u8.loads((await client.get(f"/vod/{broadcast_id}/index.m3u8")).text)
    for variant in master.playlists:
        name = variant.uri.split("/")[0]
        media: dict[str, bytes] = {}
        agreement.watch(name, media.get)
        text = (await client.get(f"/vod/{broadcast_id}/{variant.uri}")).text
        await fetch(client, f"/vod/{broadcast_id}/{name}", text, media)
        agreement.playlist(name, text)
    return agreement
