"""Recordings that are shown to nobody: not a playlist, not a byte, not a picture; and not after a start without the read model either."""

from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette

from domain.channel import PlaybackRuleChanged
from eventstore.port import Append, IndexWrite, StreamWrite
from gateways.media_hidden import Closed, Hidden
from media import ffmpeg
from media.archive import Archive
from media.playback import Gate, Signer
from media.storyboard import Storyboards
from media.vod import Vod
from tests.media.recorded import BROADCAST, Report, record
from tests.stores import memory_store

PATHS = (
    "index.m3u8",
    "source/index.m3u8",
    "source/1.m4s",
    "source/init-0.mp4",
    "storyboard/index.vtt",
    "storyboard/poster.jpg",
)


class Given:
    def __init__(self) -> None:
        self.unpublished: list[str] = []

    async def __call__(self) -> list[str]:
        return self.unpublished


async def statuses(archive: Archive, vod: Vod) -> set[int]:
    app = Starlette(routes=[*Storyboards(archive, vod, ffmpeg.binary()).routes(), *vod.routes()])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vod", timeout=60) as client:
        return {(await client.get(f"/vod/{BROADCAST}/{path}")).status_code for path in PATHS}


async def test_what_is_hidden_is_gone_for_everybody_and_comes_back(tmp_path: Path) -> None:
    archive = Archive.open(str(tmp_path))
    await record(archive, Report())
    vod, given = Vod(archive), Given()
    hidden = Hidden(archive, vod, given)
    assert await statuses(archive, vod) == {200}
    given.unpublished = [BROADCAST]
    await hidden.look()
    assert await statuses(archive, vod) == {404}
    # A node that starts while the read model is away.
    started = Vod(archive)
    await Hidden(archive, started, given).remember()
    assert await statuses(archive, started) == {404}
    given.unpublished = []
    await hidden.look()
    assert await statuses(archive, vod) == {200}
    await Hidden(archive, started, given).remember()
    assert await statuses(archive, started) == {200}


async def test_an_archive_that_never_hid_anything_hides_nothing(tmp_path: Path) -> None:
    vod = Vod(Archive.open(str(tmp_path)))
    await Hidden(Archive.open(str(tmp_path)), vod, Given()).remember()
    assert vod.hidden == frozenset()


@pytest.mark.parametrize("fault", [OSError("the archive is away")])
async def test_what_could_not_be_written_down_is_written_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    archive = Archive.open(str(tmp_path))
    vod, given = Vod(archive), Given()
    hidden = Hidden(archive, vod, given)
    given.unpublished = ["b1"]

    async def failing(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "put", failing)
        with pytest.raises(OSError, match="away"):
            await hidden.look()
    assert vod.hidden == {"b1"}, "it is hidden all the same"
    await hidden.look()
    started = Vod(archive)
    await Hidden(archive, started, given).remember()
    assert started.hidden == {"b1"}


async def test_a_channel_that_was_closed_is_closed_at_the_node_and_after_a_start_without_the_store(
    tmp_path: Path,
) -> None:
    archive, gate, store = Archive.open(str(tmp_path)), Gate(Signer("secret")), memory_store()
    closed = Closed(archive, gate, store)
    await closed.remember()
    rule = PlaybackRuleChanged(channel_id="c1", subscribers_only=True)
    row = IndexWrite("channels_closed", {"channel_id": "c1"}, {})
    await store.append(Append(uuid4(), [StreamWrite("channel-c1", "c1", [rule], 0)], [row]))
    await closed.look()
    assert gate.closed == {"c1"}
    started = Gate(Signer("secret"))
    await Closed(archive, started, memory_store()).remember()
    assert started.closed == {"c1"}
