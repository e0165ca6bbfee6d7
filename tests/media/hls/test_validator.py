"""Whole broadcasts held against the rules of LL-HLS, and the rules held against playlists that break them."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import pytest

from media import ffmpeg, pipeline
from media.fmp4.reader import Fmp4Reader
from media.hls.agreement import Agreement
from media.hls.live import LiveBroadcast
from media.hls.validator import SYNC_S_MAX, Watch
from media.sample import AudioTrack, Rendition, Sample
from media.slate import Slates
from tests.media.hls.given import AUDIO, VIDEO, frames, interleaved, rendition, sound
from tests.media.hls.kept import Kept
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, live_on, transcoder_of, until
from tests.media.test_reconnects import OnTime
from tests.media.test_transcoder import pace

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNG = rendition("240p", video=replace(VIDEO, width=426, height=240))
SLATE_AUDIO = AudioTrack("mp4a.40.2", b"\x11\x88", 48_000, 1)


class Watching:
    """Reads every playlist of a broadcast whenever it changes, as a player that misses nothing; every other time a delta update."""

    def __init__(self, broadcast: LiveBroadcast) -> None:
        self.broadcast = broadcast
        self.agreement = Agreement()
        self.watches = self.agreement.watches
        self._looks = 0
        broadcast.listeners.append(self.look)

    def look(self) -> None:
        self._looks += 1
        for live in self.broadcast.renditions:
            if live.is_ready:
                watch = self.agreement.watch(live.name, self._fetcher(live.name))
                skip = watch.latest is not None and self._looks % 2 == 0
                self.agreement.playlist(live.name, live.text(skip=skip).plain.decode())

    def _fetcher(self, name: str) -> Callable[[str], bytes | None]:
        live = self.broadcast.rendition(name)
        assert live is not None
        window = live.window

        def fetch(uri: str) -> bytes | None:
            kind, _, number = uri.rpartition(".")[0].rpartition("-")
            if kind == "init":
                return window.inits[int(number)]
            if kind == "part":
                part = window.part(int(number))
                return bytes(part.data) if part is not None else None
            entry = window.segment(int(number))
            return entry.data if entry is not None else None

        return fetch

    @property
    def findings(self) -> list[str]:
        apart = [live.name for live in self.broadcast.renditions if self.broadcast.is_apart(live.name)]
        return self.agreement.findings(apart=apart)


def begun() -> tuple[LiveBroadcast, Watching]:
    broadcast = LiveBroadcast(channel="ann", channel_id="c1", address="e1-b1", started_at=START)
    return broadcast, Watching(broadcast)


def minutes(count: float, *, start_s: float = 0.0) -> list[Sample]:
    video, audio = frames(round(count * 1800), start=round(start_s * 90_000)), round(count * 60 * 48_000 / 1024)
    return interleaved(video, sound(audio, start=round(start_s * 48_000)))


def run(broadcast: LiveBroadcast, samples: Iterable[Sample], of: Iterable[Rendition] = (rendition(), RUNG)) -> None:
    sinks = [broadcast.add(it) for it in of]
    for sample in samples:
        for sink in sinks:
            sink.push(sample)
    for sink in sinks:
        sink.close()


def test_a_plain_broadcast_keeps_every_rule() -> None:
    broadcast, watching = begun()
    run(broadcast, minutes(2))
    broadcast.end()
    assert watching.findings == []
    assert watching.watches["source"].samples == watching.watches["240p"].samples > 2 * 1800


def test_a_broadcast_with_interruptions_slates_and_lost_rungs_keeps_every_rule() -> None:
    broadcast, watching = begun()
    run(broadcast, minutes(0.55))
    slate = [replace(it, audio=SLATE_AUDIO) for it in (rendition(), RUNG)]
    run(broadcast, minutes(0.2, start_s=36.5), of=slate)
    source, rung = broadcast.add(rendition()), broadcast.add(RUNG)
    for index, sample in enumerate(minutes(1, start_s=49.0)):
        source.push(sample)
        if index == 700:
            rung.close()
        elif index == 1_000:
            rung = broadcast.add(RUNG)
        if not 700 <= index < 1_000:
            rung.push(sample)
    broadcast.end()
    assert watching.findings == []
    assert sum(it.gap for it in watching.watches["240p"].segments.values()) >= 2


def test_after_an_hour_sound_and_picture_are_still_where_the_encoder_put_them() -> None:
    kept = Kept()
    broadcast = LiveBroadcast(channel="ann", channel_id="c1", address="e1-b1", started_at=START, keep=kept)
    # What RTMP makes of it: whole milliseconds. The sound's clock is off by 200 in a million, and of 500 frames one is lost. Neither
    # 44.1 kHz nor 9.97 frames/s fits the other, nor a millisecond.
    video = [_told("video", n / 9.97, 90_000, key=n % 20 == 0) for n in range(round(3600 * 9.97))]
    audio = [_told("audio", n * 1024 / 44_100 * 1.0002, 44_100) for n in range(155_000) if n % 500 != 250]
    of = rendition(audio=replace(AUDIO, sample_rate=44_100))
    run(broadcast, sorted((*video, *audio), key=lambda it: float(it.data)), of=[of])
    off = {"video": 0.0, "audio": 0.0}
    count = 0
    reader = Fmp4Reader()
    reader.receive(kept.inits[0][1])
    for segment in kept.segments:
        for found in reader.receive(segment.data):
            assert isinstance(found, Sample)
            scale, count = 90_000 if found.kind == "video" else 44_100, count + 1
            off[found.kind] = max(off[found.kind], abs((found.dts + found.cts) / scale - float(found.data)))
    assert count > 0.999 * len(video) + 0.999 * len(audio)
    assert off["video"] + off["audio"] < SYNC_S_MAX, off
    broadcast.end()


def _told(kind: Literal["video", "audio"], at_s: float, scale: int, *, key: bool = True) -> Sample:
    """A sample whose bytes say when it is of, and whose timestamp is that in milliseconds."""
    dts = round(round(at_s * 1000) * scale / 1000)
    return Sample(kind, dts, 0, 1024 if kind == "audio" else 0, key, b"%.6f" % at_s)


def test_timestamps_that_pass_the_wrap_of_rtmp_and_of_32_bits_of_90_khz_go_on() -> None:
    broadcast, watching = begun()
    run(broadcast, minutes(0.5, start_s=2**32 / 1000 - 15))
    broadcast.end()
    assert watching.findings == []


async def test_a_real_broadcast_that_is_interrupted_and_loses_its_ffmpeg_keeps_every_rule(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _real(OnTime(tmp_path), monkeypatch, seconds=12, rounds=2)  # type: ignore[arg-type]


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_a_real_broadcast_of_ten_minutes_keeps_every_rule(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _real(OnTime(tmp_path), monkeypatch, seconds=400, rounds=3)  # type: ignore[arg-type]


async def _real(stand: OnTime, monkeypatch: pytest.MonkeyPatch, *, seconds: int, rounds: int) -> None:
    monkeypatch.setattr(pipeline, "SLATES_AFTER_S", 0.0)
    sent = tags(seconds=seconds)
    async with stand.node(silent_s=0.5, slates=Slates(ffmpeg.binary())) as (broadcasts, registry):
        watching: Watching | None = None
        for number in range(rounds):
            sink = await broadcasts.open(ANN, encoder="", peer="")
            pacing = asyncio.create_task(pace(sink, sent))
            await until(lambda: registry.on_channel("ann"))
            watching = watching or Watching(live_on(registry))
            if number == 1:
                await until(lambda: broadcasts._by_channel["c1"]._transcoder and transcoder_of(broadcasts).lag_s > 0)
                killed = transcoder_of(broadcasts).pid
                assert killed is not None
                os.kill(killed, signal.SIGKILL)
            await pacing
            await sink.close("disconnected" if number < rounds - 1 else "unpublished")
            if number < rounds - 1:
                await asyncio.sleep(2.5)  # the slate's time
        assert watching is not None
        assert watching.findings == []
        assert watching.watches["source"].samples > rounds * seconds * 30


# -- the rules themselves ----------------------------------------------------------------------------------------------

GOOD = """#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=3.0,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0
#EXT-X-PART-INF:PART-TARGET=1.0
#EXT-X-MEDIA-SEQUENCE:5
#EXT-X-MAP:URI="init-0.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:05.000Z
#EXT-X-PART:DURATION=1.00000,URI="part-10.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=1.00000,URI="part-11.m4s"
#EXTINF:2.00000,
5.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:07.000Z
#EXT-X-PART:DURATION=1.00000,URI="part-12.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-13.m4s"
"""


def findings(*texts: str) -> str:
    watch = Watch("source", lambda _: None)
    for text in texts:
        watch.playlist(text)
    return "\n".join(it for it in watch.findings if "fetched" not in it)


def test_a_good_playlist_has_no_findings() -> None:
    longer = GOOD.replace(
        '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-13.m4s"', '#EXT-X-PART:DURATION=0.90000,URI="part-13.m4s"'
    )
    assert findings(GOOD, longer + '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-14.m4s"\n') == ""


@pytest.mark.parametrize(
    ("right", "wrong", "section"),
    [
        ("#EXTM3U", "#EXTM", "unreadable"),
        ("TARGETDURATION:2", "TARGETDURATION:1", "4.4.3.1"),
        ("PART-HOLD-BACK=3.0", "PART-HOLD-BACK=2.0", "PART-HOLD-BACK"),
        (",HOLD-BACK=6.0", ",HOLD-BACK=5.0", "HOLD-BACK"),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=11.0", "CAN-SKIP-UNTIL"),
        ("CAN-BLOCK-RELOAD=YES", "CAN-BLOCK-RELOAD=NO", "blocking"),
        ('#EXT-X-MAP:URI="init-0.mp4"\n', "", "4.4.4.5"),
        ("#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:07.000Z\n", "", "B.1"),
        ("DURATION=1.00000", "DURATION=1.20000", "4.4.4.9"),
        ("#EXT-X-MEDIA-SEQUENCE:5\n", "#EXT-X-MEDIA-SEQUENCE:4\n#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n", "6.2.5.1"),
        ("#EXTINF:2.00000", "#EXTINF:1.50000", "as long as its parts"),
        ('URI="part-11.m4s"', 'URI="part-11.m4s",GAP=YES', "is no gap"),
        ('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-13.m4s"\n', "", "hint"),
        (
            '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-13.m4s"',
            '#EXT-X-ENDLIST\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="x"',
            "hint",
        ),
        ('DURATION=1.00000,URI="part-10.m4s",INDEPENDENT=YES', 'DURATION=0.50000,URI="part-10.m4s"', "lasts only"),
    ],
)
def test_each_rule_is_seen_to_be_broken(right: str, wrong: str, section: str) -> None:
    assert right in GOOD
    assert section in findings(GOOD.replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("right", "wrong", "section"),
    [
        ("TARGETDURATION:2", "TARGETDURATION:3", "target duration went"),
        ("MEDIA-SEQUENCE:5", "MEDIA-SEQUENCE:4", "fell"),
        ("03:04:05.000Z", "03:04:05.100Z", "at of segment 5 changed"),
        ("init-0.mp4", "init-1.mp4", "init of segment 5 changed"),
        ('part-11.m4s"', 'part-99.m4s"', "parts of 5 changed"),
        ('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-13.m4s"', '#EXT-X-PART:DURATION=0.90000,URI="other.m4s"', "hinted"),
        (
            '#EXT-X-MAP:URI="init-0.mp4"',
            '#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="init-0.mp4"',
            "discontinuity of segment 5",
        ),
        ("#EXTINF:2.00000", "#EXTINF:2.00300", "duration of segment 5 changed"),
    ],
)
def test_what_may_not_change_is_seen_to_change(right: str, wrong: str, section: str) -> None:
    assert section in findings(GOOD, GOOD.replace(right, wrong, 1))


def longer(first: int, segments: int, *, skipped: int = 0) -> str:
    head = GOOD[: GOOD.index("#EXT-X-MEDIA-SEQUENCE")] + f"#EXT-X-MEDIA-SEQUENCE:{first}\n"
    listed = [
        f"#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:{2 * number:02}.000Z\n#EXTINF:2.00000,\n{number}.m4s\n"
        for number in range(first + skipped, first + segments)
    ]
    start = f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n" if skipped else '#EXT-X-MAP:URI="init-0.mp4"\n'
    return f'{head}{start}{"".join(listed)}#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-{first + segments}.m4s"\n'


def test_a_delta_update_is_put_together_with_what_was_known_and_may_skip_no_more_than_that() -> None:
    assert findings(longer(0, 9), longer(0, 10, skipped=4)) == ""
    assert "did not have whole" in findings(longer(0, 3), longer(0, 10, skipped=4))
    assert "from its end" in findings(longer(0, 9), longer(0, 10, skipped=7))


def reported(*texts: tuple[str, str]) -> str:
    agreement = Agreement()
    for name in ("a", "b"):
        agreement.watch(name, lambda _: None)
    for name, text in texts:
        agreement.playlist(name, text)
    return "\n".join(it for it in agreement.findings() if "fetched" not in it)


def telling(text: str, of: str, number: int) -> str:
    return f'{text}#EXT-X-RENDITION-REPORT:URI="../{of}/index.m3u8",LAST-MSN={number}\n'


def test_what_renditions_say_of_each_other_is_held_against_them() -> None:
    first = ("a", longer(0, 3)), ("b", telling(longer(0, 3), "a", 2))
    assert reported(*first, ("a", telling(longer(0, 4), "b", 2)), ("b", telling(longer(0, 4), "a", 3))) == ""
    assert "no rendition report of a" in reported(first[0], ("b", longer(0, 3)))
    early = ("a", telling(longer(0, 4), "b", 7)), ("b", telling(longer(0, 4), "a", 3))
    assert "said that it reaches" in reported(*first, *early)
    assert "it reached (2, -1) before" in reported(*first, ("a", longer(0, 4)), ("b", telling(longer(0, 4), "a", 1)))


def test_renditions_whose_bytes_are_of_other_times_or_whose_breaks_differ_are_found() -> None:
    def of(start_s: float, dates: LiveBroadcast, breaks: bool) -> tuple[str, LiveBroadcast]:
        return dates.renditions[0].playlist().replace("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF", breaks), dates

    agreement = Agreement()
    for name, start_s, breaks in (("a", 0.0, False), ("b", 0.5, True)):
        broadcast, watching = begun()
        run(broadcast, minutes(0.2, start_s=start_s), of=[rendition()])
        agreement.watch(name, watching._fetcher("source"))
        text, _ = of(start_s, broadcast, breaks)
        agreement.playlist(name, text.replace("03:04:05.500", "03:04:05.000").replace(".500Z", ".000Z"))
    for apart in ([], ["a"]):
        found = "\n".join(agreement.findings(apart=apart))
        assert "6.2.4 times in their bytes and dates lie up to 0.500 s apart" in found
        assert "6.2.4 discontinuity sequences differ" in found


def test_a_recording_says_that_it_is_one_and_has_its_end() -> None:
    text = longer(0, 4).replace("#EXT-X-MEDIA-SEQUENCE", "#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-MEDIA-SEQUENCE")
    ended = text[: text.index("#EXT-X-PRELOAD")] + "#EXT-X-ENDLIST\n"
    for right in (ended, text, longer(0, 4)):
        watch = Watch("source", lambda _: None, recorded=True)
        watch.playlist(right)
        assert any("4.4.3.5" in it for it in watch.findings) == (right is not ended)


def test_bytes_that_overlap_begin_without_a_key_frame_or_lose_the_sound_are_found() -> None:
    def broken(change: Callable[[list[Sample]], list[Sample]]) -> str:
        broadcast, watching = begun()
        for live in ("source",):
            sink = broadcast.add(rendition(live))
            for sample in change(minutes(0.2)):
                sink.push(sample)
        window = broadcast.renditions[0].window
        entries = [entry for entry in window.listed if entry.finished]
        return "\n".join(watching.findings) + str(len(entries))

    assert "found" not in broken(lambda it: it)
    late = broken(lambda it: [s if s.kind == "video" else replace(s, dts=s.dts + 9_600) for s in it])
    assert "sound" in late


def test_segments_that_do_not_follow_on_are_found() -> None:
    broadcast, watching = begun()
    run(broadcast, minutes(0.2), of=[rendition()])
    watch = Watch("source", watching._fetcher("source"))
    text = broadcast.renditions[0].playlist()
    swapped = text.replace("\n1.m4s", "\n2.m4s", 1)
    watch.playlist(swapped)
    assert any("decode time" in it for it in watch.findings)
    assert any("is not its parts" in it or "decode time" in it for it in watch.findings)
