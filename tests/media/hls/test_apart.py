"""Renditions that cannot cut together: rungs that are lost and come back, and a source whose key frames are too far apart."""

from dataclasses import replace
from datetime import UTC, datetime

import m3u8
import pytest

from media.hls.live import LiveBroadcast, LiveRendition
from media.sample import Sample
from tests.media.hls.given import VIDEO, frames, interleaved, rendition, sound
from tests.media.hls.kept import Kept
from tests.media.hls.test_validator import Watching

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOURCE = rendition(audio=None)
RUNG = rendition("240p", video=replace(VIDEO, width=426, height=240), audio=None)
LOWER = rendition("160p", video=replace(VIDEO, width=284, height=160), audio=None)


def begun(kept: Kept | None = None) -> LiveBroadcast:
    made = LiveBroadcast(channel="ann", channel_id="c1", address="e1-b1", started_at=START, keep=kept)
    made.has_rungs = True
    return made


def of(broadcast: LiveBroadcast, name: str) -> LiveRendition:
    found = broadcast.rendition(name)
    assert found
    return found


def durations(live: LiveRendition) -> list[float]:
    return [round(entry.duration_s, 2) for entry in live.window.listed if entry.finished]


def clocked(count: int, *, start: int = 0, source_gop: int = 250) -> list[Sample]:
    """As FFmpeg gives a rung whose source has few key frames: with those, and one two seconds after the last."""
    made, last = [], 0
    for sample in frames(count + start, gop=source_gop):
        frame = sample.dts // 3000
        key = sample.key or frame - last >= 60
        last = frame if key else last
        made.append(replace(sample, key=key))
    return made[start:]


def test_a_rung_that_is_lost_lacks_the_rest_of_its_segment_and_comes_back_at_the_next() -> None:
    kept = Kept()
    broadcast = begun(kept)
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    sent = frames(60 * 5 + 1)
    for sample in sent[:80]:
        source.push(sample)
        rung.push(sample)
    rung.close()
    for sample in sent[80:130]:
        source.push(sample)
    lost = of(broadcast, "240p")
    assert [entry.gap for entry in lost.window.listed] == [False, True], (
        "its viewers know as soon as the source goes on"
    )
    again = broadcast.add(RUNG)
    for sample in sent[130:]:
        source.push(sample)
        again.push(sample)
    playlist = m3u8.loads(lost.playlist())
    assert [segment.gap_tag for segment in playlist.segments] == [None, True, True, None, None]
    assert durations(lost) == durations(of(broadcast, "source")) == [2.0] * 5
    parts = [part for part in playlist.segments[1].parts if part.gap]
    assert not parts or sum(part.duration for part in parts) == pytest.approx(40 / 30, abs=0.02)
    its = [it for it in kept.segments if it.rendition == "240p"]
    assert [it.number for it in its] == [0, 1, 3, 4], "what players saw of the one it was lost in is kept"
    shown = sum(part.duration for part in playlist.segments[1].parts if not part.gap) or its[1].duration_s
    assert its[1].duration_s == pytest.approx(shown, abs=0.001)
    assert 0.0 < its[1].duration_s < 0.7


def test_parts_that_are_missing_are_no_longer_than_parts_may_be() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    sent = frames(140)
    for sample in sent[:80]:
        source.push(sample)
        rung.push(sample)
    rung.close()
    for sample in sent[80:]:
        source.push(sample)
    lost = of(broadcast, "240p")
    missing = [part for entry in lost.window.listed for part in entry.parts if part.gap]
    assert missing
    assert all(part.duration_s <= lost.part_target_s for part in missing)
    assert "GAP=YES\n" in lost.playlist()


def test_the_end_while_a_rung_is_away_leaves_no_segment_open() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(80):
        source.push(sample)
        rung.push(sample)
    rung.close()
    for sample in frames(110)[80:]:
        source.push(sample)
    broadcast.end()
    for live in broadcast.renditions:
        assert live.window.open is None
        assert durations(live) == [2.0, pytest.approx(50 / 30, abs=0.02)]


def test_a_source_with_few_key_frames_cuts_at_them_and_its_rungs_every_two_seconds() -> None:
    kept = Kept()
    broadcast = begun(kept)
    source, rung, lower = (broadcast.add(it) for it in (SOURCE, RUNG, LOWER))
    for sample, made in zip(frames(760, gop=250), clocked(760), strict=True):
        source.push(sample)
        rung.push(made)
        lower.push(made)
    assert durations(of(broadcast, "source")) == [pytest.approx(25 / 3, abs=0.01)] * 3
    for name in ("240p", "160p"):
        live = of(broadcast, name)
        assert max(durations(live)) < 2.5
        assert min(durations(live)) >= 2.0
        assert live.target_duration == 2
    assert of(broadcast, "source").target_duration == 10
    assert all(it.apart == (it.rendition == "source") for it in kept.segments)
    playlists = [m3u8.loads(it.playlist()) for it in broadcast.renditions]
    assert [it.target_duration for it in playlists] == [10, 2, 2]
    assert broadcast.master().index("240p/") < broadcast.master().index("160p/")


def test_rungs_of_such_a_source_that_were_lost_come_back_with_gaps_of_a_segments_length() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    sent, made = frames(1000, gop=250), clocked(1000)
    for sample, its in zip(sent[:400], made[:400], strict=True):
        source.push(sample)
        rung.push(its)
    rung.close()
    again = broadcast.add(RUNG)
    for sample in sent[400:]:
        source.push(sample)
    for its in made[700:]:
        again.push(its)
    live = of(broadcast, "240p")
    assert max(durations(live)) < 2.5
    assert sum(entry.gap for entry in live.window.rewindable) >= 4
    starts = [entry.start_s for entry in live.window.listed if entry.finished]
    for start, duration, following in zip(starts, durations(live), starts[1:], strict=False):
        assert start + duration == pytest.approx(following, abs=0.04)


def test_an_interruption_breaks_both_timelines_as_often() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample, its in zip(frames(400, gop=250), clocked(400), strict=True):
        source.push(sample)
        rung.push(its)
    source.close()
    rung.close()
    later = 20 * 90_000
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample, its in zip(frames(400, gop=250), clocked(400), strict=True):
        source.push(replace(sample, dts=sample.dts + later))
        rung.push(replace(its, dts=its.dts + later))
    for live in broadcast.renditions:
        assert sum(entry.discontinuity for entry in live.window.listed) + live.window.discontinuity_sequence == 1
        broken = next(entry for entry in live.window.listed if entry.discontinuity)
        assert broken.start_s == pytest.approx(20.0, abs=0.04)


def test_a_source_without_rungs_has_nobody_to_part_from() -> None:
    kept = Kept()
    broadcast = begun(kept)
    broadcast.has_rungs = False
    source = broadcast.add(SOURCE)
    for sample in frames(760, gop=250):
        source.push(sample)
    assert not any(it.apart for it in kept.segments)
    assert of(broadcast, "source").target_duration == 8


SAYS = b"x264 - core 164 r3095 - H.264/MPEG-4 AVC codec - options: keyint=250 keyint_min=25 scenecut=40 "


def with_scenes(sent: list[Sample], *scenes: int, says: bool = False) -> list[Sample]:
    """Key frames more, where the picture changes; `says`: x264 tells what it was set to."""
    made = []
    for sample in sent:
        key = sample.key or sample.dts // 3000 in scenes
        made.append(replace(sample, key=key, data=SAYS if says and key else sample.data))
    return made


@pytest.mark.parametrize("scenes", [(60,), (60, 105, 160, 300), (52, 90)])
def test_a_source_whose_groups_grow_long_when_it_has_been_seen_keeps_its_target_and_its_rungs_their_key_frames(
    scenes: tuple[int, ...],
) -> None:
    broadcast = begun()
    watching = Watching(broadcast)
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    sent = with_scenes(frames(1200, gop=250), *scenes)
    last = 0
    for sample in sent:
        frame = sample.dts // 3000
        key = sample.key or frame - last >= 60
        last = frame if key else last
        source.push(sample)
        rung.push(replace(sample, key=key))
    broadcast.end()
    assert broadcast.is_apart("source")
    assert watching.findings == []
    assert {live.target_duration for live in broadcast.renditions} == {2}
    assert "#EXT-X-INDEPENDENT-SEGMENTS" not in of(broadcast, "source").playlist()
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in of(broadcast, "240p").playlist()


def test_a_source_that_says_how_few_key_frames_it_will_have_is_apart_from_its_first_change_of_scene() -> None:
    broadcast = begun()
    watching = Watching(broadcast)
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample, made in zip(with_scenes(frames(800, gop=250), 55, says=True), clocked(800), strict=True):
        source.push(sample)
        rung.push(made)
    broadcast.end()
    assert watching.findings == []
    assert [live.target_duration for live in broadcast.renditions] == [10, 2]
    assert durations(of(broadcast, "source"))[:2] == [1.83, 6.5]
    assert all(live.independent for live in broadcast.renditions)


def test_a_source_whose_key_frames_are_asked_for_at_whole_seconds_stays_with_its_rungs_whatever_x264_says() -> None:
    broadcast = begun()
    source = broadcast.add(SOURCE)
    for sample in with_scenes(frames(400), says=True):
        source.push(sample)
    assert not broadcast.is_apart("source")
    assert durations(of(broadcast, "source")) == [2.0] * 6


def test_sound_alone_keeps_to_the_key_frames_of_the_rungs_though_it_comes_long_before_them() -> None:
    broadcast = begun()
    watching = Watching(broadcast)
    fast = replace(VIDEO, frame_rate=60.0)
    source, rung = broadcast.add(rendition(video=fast)), broadcast.add(rendition("240p", video=fast))
    only = broadcast.add(rendition("audio", video=None))
    # 60 frames/s: half a frame is less than half a packet of sound.
    pictures = frames(1300, frame=1500, gop=500)
    for sample in interleaved(pictures, sound(1015)):
        source.push(sample)
        if sample.kind == "audio":
            only.push(sample)
        late = sample.dts - 30 * 1500
        if sample.kind == "video" and late >= 0:
            rung.push(replace(pictures[late // 1500], key=(late // 1500) % 120 == 0 or (late // 1500) % 500 == 0))
        elif sample.kind == "audio":
            rung.push(sample)
    assert of(broadcast, "audio").window.last_number >= 8
    assert of(broadcast, "240p").independent
    broadcast.end()
    assert watching.findings == []


def test_sound_alone_goes_on_though_the_rungs_are_lost() -> None:
    broadcast = begun()
    source, rung = broadcast.add(rendition()), broadcast.add(rendition("240p"))
    only = broadcast.add(rendition("audio", video=None))
    for sample in interleaved(frames(900, gop=250), sound(1400)):
        source.push(sample)
        if sample.dts < (270_000 if sample.kind == "video" else 144_000):
            rung.push(replace(sample, key=sample.key or sample.dts % 180_000 == 0))
        if sample.kind == "audio":
            only.push(sample)
    assert of(broadcast, "audio").window.last_number >= 11
    assert max(durations(of(broadcast, "audio"))) < 2.5
