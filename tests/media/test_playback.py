"""Tokens for what subscribers alone may play, and the gate before live media, recordings, storyboards and clips."""

import asyncio
from pathlib import Path

import httpx
import m3u8
import pytest
from starlette.applications import Starlette

from media import ffmpeg
from media.archive import Archive
from media.clips import Clips
from media.clips import cut as cut_clip
from media.playback import CLOSED, EDGE, Gate, Signer, TokenInAddress
from media.storyboard import Storyboards
from media.vod import Vod
from tests.media.recorded import BROADCAST, NUMBERS, SEGMENT_S, Report, record
from tests.media.stage import Encoder, code, played, served, staged

NOW_S = 1_800_000_000.0
SIGNER = Signer("secret")
GOOD = SIGNER.issue("c1", "a1", until_s=NOW_S + 60)


def test_a_token_opens_its_channel_until_its_end() -> None:
    assert SIGNER.channel_of(GOOD, now_s=NOW_S) == "c1"
    assert SIGNER.channel_of(GOOD, now_s=NOW_S + 59.9) == "c1"
    assert SIGNER.channel_of(GOOD, now_s=NOW_S + 60) is None
    assert SIGNER.channel_of(SIGNER.issue("c1", None, until_s=NOW_S + 60), now_s=NOW_S) == "c1"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "c1",
        GOOD.replace("c1", "c2", 1),
        GOOD.replace(".a1.", ".a2."),
        GOOD.replace(str(int(NOW_S) + 60), str(int(NOW_S) + 6000)),
        GOOD[:-1] + ("0" if GOOD[-1] != "0" else "1"),
        GOOD.upper(),
        GOOD + "\n",
        Signer("another secret").issue("c1", "a1", until_s=NOW_S + 60),
        "c1.1.a1." + SIGNER.edge,
        SIGNER.edge,
    ],
)
def test_nothing_else_opens_anything(token: str) -> None:
    assert SIGNER.channel_of(token, now_s=NOW_S) is None


def test_an_edge_proves_itself_by_the_key() -> None:
    assert SIGNER.is_edge(SIGNER.edge)
    assert not any(SIGNER.is_edge(said) for said in ("", "é", SIGNER.key, Signer("x").edge))


async def test_what_is_live_plays_with_a_token_in_its_address_and_only_so() -> None:
    async with staged(signer=SIGNER) as stage:
        encoder = Encoder(stage.open())
        encoder.until(3, 2)
        paths = ["/live/ann/index.m3u8", "/live/ann/dvr.m3u8"]
        paths += [f"{encoder.path}/{name}" for name in ("index.m3u8", "dvr.m3u8", "init-0.mp4", "1.m4s", "part-20.m4s")]
        before = [await stage.get(path) for path in paths]
        assert {(answer.status_code, answer.headers.get(CLOSED)) for answer in before} == {(200, None)}
        stage.gate.closed = frozenset({"c1"})
        token = SIGNER.issue("c1", "a1", until_s=2e10)
        late = SIGNER.issue("c1", "a1", until_s=1e9)
        foreign = SIGNER.issue("c2", "a1", until_s=2e10)
        for path, open_ in zip(paths, before, strict=True):
            assert code(await stage.get(path)) == (401, "token_required"), path
            assert code(await stage.get(f"/play/{late}{path}")) == (401, "token_invalid")
            assert code(await stage.get(f"/play/{foreign}{path}")) == (403, "token_foreign")
            found = await stage.get(f"/play/{token}{path}")
            assert (found.status_code, found.content) == (200, open_.content)
            assert found.headers["cache-control"] == open_.headers["cache-control"].replace("public", "private")
            edge = await stage.get(path, headers={EDGE: SIGNER.edge})
            assert (edge.status_code, edge.headers[CLOSED]) == (200, "c1")
            assert edge.headers["cache-control"] == open_.headers["cache-control"]
            assert code(await stage.get(path, headers={EDGE: "0" * 64})) == (401, "token_required")
        for refused in ("/live/nobody/index.m3u8", f"/play/{late}/live/nobody/index.m3u8"):
            assert (await stage.get(refused)).status_code == 404
        stage.gate.closed = frozenset()
        assert (await stage.get(paths[0])).status_code == 200


async def test_recordings_storyboards_and_clips_of_a_closed_channel_need_its_token(tmp_path: Path) -> None:
    archive = Archive.open(str(tmp_path))
    await record(archive, Report())
    gate = Gate(SIGNER, clock=lambda: NOW_S)
    vod = Vod(archive, gate=gate)

    async def about(clip_id: str) -> tuple[str, float, float] | None:
        return (BROADCAST, 1.0, 3.0) if clip_id == "k1" else None

    await cut_clip(archive, "k1", BROADCAST, 1.0, 3.0)
    clips = Clips(archive, about, ffmpeg.binary(), gate=gate)
    routes = [*Storyboards(archive, vod, ffmpeg.binary()).routes(), *vod.routes(), *clips.routes()]
    async with (
        served(TokenInAddress(Starlette(routes=routes))) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        shown = ("index.m3u8", "source/index.m3u8", "source/1.m4s", "source/init-0.mp4", "storyboard/index.vtt")
        paths = [f"/vod/{BROADCAST}/{it}" for it in (*shown, "storyboard/sprite-0.jpg")]
        master = m3u8.loads((await client.get("/clips/k1/index.m3u8")).text)
        paths += ["/clips/k1/index.m3u8", f"/clips/k1/{master.playlists[0].uri}", "/clips/k1/clip.mp4"]
        channel_id = (await vod.recording(BROADCAST)).recording.channel_id  # type: ignore[union-attr]
        good = SIGNER.issue(channel_id, "a1", until_s=NOW_S + 60)
        foreign = SIGNER.issue("another", "a1", until_s=NOW_S + 60)
        open_ = [await client.get(path) for path in paths]
        assert {answer.status_code for answer in open_} == {200}
        gate.closed = frozenset({channel_id})
        for path, before in zip(paths, open_, strict=True):
            assert code(await client.get(path)) == (401, "token_required"), path
            assert code(await client.get(f"/play/{foreign}{path}")) == (403, "token_foreign")
            found = await client.get(f"/play/{good}{path}")
            assert (found.status_code, found.content) == (200, before.content)
            assert "private" in found.headers["cache-control"]
        assert (await client.get(f"/vod/{BROADCAST}/storyboard/poster.jpg")).status_code == 200
        assert (await client.get("/vod/none/index.m3u8")).status_code == 404
        # A player that knows nothing of tokens needs the first address alone.
        frames, complaints = await played(f"{url}/play/{good}/vod/{BROADCAST}/index.m3u8", "0:v")
        assert (frames, complaints) == (NUMBERS * SEGMENT_S * 30, b"")
        frames, complaints = await played(f"{url}/vod/{BROADCAST}/index.m3u8", "0:v")
        assert frames == 0
        assert b"401" in complaints
        # Nobody's token serves another, who asks in the same moment.
        answers = await asyncio.gather(*(client.get(f"{before}{paths[2]}") for before in ("", f"/play/{good}") * 10))
        assert [answer.status_code for answer in answers] == [401, 200] * 10
