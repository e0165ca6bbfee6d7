"""A broadcast while it lasts: rungs keep to the source's cuts, go on after a restart, and it ends; and who finds which."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import m3u8
import pytest

from media.fmp4.reader import Fmp4Reader
from media.hls import live as of_live
from media.hls.live import BROADCASTS_MAX, RENDITIONS_MAX, LiveBroadcast, LiveRegistry, LiveRendition
from media.sample import Sample
from tests.media.hls.given import VIDEO, frames, rendition, sound
from tests.media.hls.kept import Kept

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOURCE = rendition(audio=None)
RUNG = rendition("240p", video=replace(VIDEO, width=426, height=240), audio=None)


def begun(kept: Kept | None = None) -> LiveBroadcast:
    return LiveBroadcast(channel="ann", channel_id="c1", address="e1-b1", started_at=START, keep=kept)


def of(broadcast: LiveBroadcast, name: str) -> LiveRendition:
    found = broadcast.rendition(name)
    assert found is not None
    return found


def listed(live: LiveRendition) -> list[tuple[int, float, bool]]:
    return [(entry.number, round(entry.start_s, 3), entry.gap) for entry in live.window.listed]


def samples_of(live: LiveRendition) -> list[Sample]:
    media = b"".join(entry.data or b"" for entry in live.window.listed)
    _, *samples = Fmp4Reader().receive(live.window.inits[0] + media)
    return [sample for sample in samples if isinstance(sample, Sample)]


# -- the source's cuts -------------------------------------------------------------------------------------------------


def test_a_rung_cuts_where_the_source_does_though_its_own_key_frames_stand_elsewhere() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for a, b in zip(frames(301, gop=50), frames(301, gop=25), strict=True):
        source.push(a)
        rung.push(b)
    broadcast.end()
    for live in broadcast.renditions:
        assert listed(live) == [(number, round(number * 50 / 30, 3), False) for number in range(7)]
        dates = [entry.program_date_time for entry in live.window.listed]
        assert dates[1] - START == pytest.approx(timedelta(seconds=50 / 30), abs=timedelta(milliseconds=1))
        assert len(samples_of(live)) == 301


def test_a_rung_that_is_ahead_waits_for_the_source_to_have_cut() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(130):
        rung.push(sample)
    assert of(broadcast, "240p").window.last_number == -1
    for sample in frames(61):
        source.push(sample)
    assert of(broadcast, "240p").window.next == of(broadcast, "source").window.next == (1, 0)
    for sample in frames(130)[61:]:
        source.push(sample)
    broadcast.end()
    assert listed(of(broadcast, "240p")) == listed(of(broadcast, "source"))


def test_a_rung_far_ahead_of_a_source_that_stands_still_goes_on_and_holds_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(of_live, "HELD_SAMPLES_MAX", 100)
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    source.push(frames(1)[0])
    for sample in frames(300):
        rung.push(sample)
    assert of(broadcast, "240p").window.next[0] == 0
    assert sum(part.duration_s for entry in of(broadcast, "240p").window.listed for part in entry.parts) > 6.0


def test_a_source_without_video_leads_too() -> None:
    broadcast = begun()
    sink = broadcast.add(rendition(video=None))
    for sample in sound(300):
        sink.push(sample)
    broadcast.end()
    assert [entry.number for entry in of(broadcast, "source").window.listed] == [0, 1, 2, 3]


# -- beginning again ---------------------------------------------------------------------------------------------------


def test_a_rung_that_was_restarted_goes_on_in_its_playlist_and_leaves_out_what_it_missed() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    stream = frames(601)
    for sample in stream:
        source.push(sample)
        if sample.dts < 2.5 * 90_000:
            rung.push(sample)
        if sample.dts == 9 * 90_000:
            rung = broadcast.add(RUNG)
        if sample.dts >= 9 * 90_000:
            rung.push(sample)
    live = of(broadcast, "240p")
    before = live.window.next_sequence
    broadcast.end()
    assert listed(live) == [(n, 2.0 * n, n in (2, 3, 4)) for n in range(2, 11)]
    playlist = m3u8.loads(live.playlist())
    assert [segment.uri for segment in playlist.segments if segment.gap_tag] == ["2.m4s", "3.m4s", "4.m4s"]
    assert live.playlist().count("EXT-X-MAP") == 1
    assert "DISCONTINUITY" not in live.playlist()  # its times go on, and no other rendition has one here
    assert live.window.next_sequence > before
    assert len({part.sequence for entry in live.window.listed for part in entry.parts}) == sum(
        len(entry.parts) for entry in live.window.listed
    )


def test_a_rung_that_began_again_otherwise_names_its_new_initialisation() -> None:
    kept = Kept()
    broadcast = begun(kept)
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(240):
        if sample.dts == 4 * 90_000:
            rung = broadcast.add(replace(RUNG, video=replace(VIDEO, width=424, height=240)))
        source.push(sample)
        rung.push(sample)
    broadcast.end()
    live = of(broadcast, "240p")
    playlist = m3u8.loads(live.playlist())
    assert [segment.init_section.uri for segment in playlist.segments] == ["init-0.mp4"] * 2 + ["init-1.mp4"] * 2
    assert [name for name, _ in kept.inits] == ["source", "240p", "240p"]
    assert "RESOLUTION=424x240" in broadcast.master()


def test_what_the_closed_run_of_a_rendition_still_pushes_is_nobodys() -> None:
    broadcast = begun()
    first = broadcast.add(SOURCE)
    for sample in frames(30):
        first.push(sample)
    broadcast.add(SOURCE)
    count = of(broadcast, "source").window.next_sequence
    for sample in frames(60)[30:]:
        first.push(sample)
    assert of(broadcast, "source").window.next_sequence == count


def test_a_source_that_comes_back_begins_a_new_timeline_in_every_rendition() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(75):
        source.push(sample)
        rung.push(sample)
    source.close()
    rung.close()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(121, start=20 * 90_000):
        source.push(sample)
        rung.push(sample)
    broadcast.end()
    for live in broadcast.renditions:
        playlist = m3u8.loads(live.playlist())
        assert [segment.discontinuity for segment in playlist.segments] == [False, False, True, False, False]
        assert playlist.segments[2].program_date_time == START + timedelta(seconds=20)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_at_the_end_everything_that_was_pushed_is_out_and_every_playlist_says_so() -> None:
    broadcast = begun()
    told: list[bool] = []
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(100):
        rung.push(sample)
    for sample in frames(70):
        source.push(sample)
    broadcast.listeners.append(lambda: told.append(broadcast.ended))
    broadcast.end()
    broadcast.end()
    for live, number in zip(broadcast.renditions, (70, 100), strict=True):
        assert len(samples_of(live)) == number
        assert live.playlist().endswith("#EXT-X-ENDLIST\n")
    assert told[-1] is True
    with pytest.raises(ValueError, match="over"):
        broadcast.add(SOURCE)


def test_a_broadcast_of_nothing_can_end() -> None:
    broadcast = begun()
    broadcast.add(SOURCE)
    broadcast.end()
    assert not broadcast.has_begun
    assert m3u8.loads(of(broadcast, "source").playlist()).is_endlist


def test_no_more_renditions_than_the_maximum() -> None:
    broadcast = begun()
    for n in range(RENDITIONS_MAX):
        broadcast.add(rendition(f"r{n}"))
    with pytest.raises(ValueError, match="renditions"):
        broadcast.add(rendition("one more"))
    broadcast.add(rendition("r0"))


# -- what is said of it ------------------------------------------------------------------------------------------------


def test_bandwidths_are_measured_and_a_promise_is_never_undercut() -> None:
    broadcast = begun()
    low, high = broadcast.add(replace(SOURCE, bandwidth=80_000)), broadcast.add(replace(RUNG, bandwidth=9_000_000))
    for sample in frames(181):
        fat = replace(sample, data=bytes(2_000 if 60 <= sample.dts // 3000 < 120 else 1_000))
        low.push(fat)
        high.push(fat)
    measured, promised = m3u8.loads(broadcast.master()).playlists
    segments = [of(broadcast, "source").window.segment(number) for number in range(3)]
    sizes = [len(segment.data) for segment in segments if segment is not None and segment.data is not None]
    assert measured.stream_info.bandwidth == max(sizes) * 8 // 2
    assert measured.stream_info.average_bandwidth == round(sum(sizes) * 8 / 6)
    assert promised.stream_info.bandwidth == 9_000_000


def test_the_master_playlist_names_every_codec_that_is_listed() -> None:
    broadcast = begun()
    source = rendition(video=replace(VIDEO, codec="hvc1.1.6.L93.B0"))
    sink = broadcast.add(source)
    for sample in frames(150):
        sink.push(sample)
    slate = broadcast.add(rendition(), slate=True)
    for sample in frames(150, start=10 * 90_000):
        slate.push(sample)

    def codecs(file: str = "index.m3u8") -> str:
        return str(m3u8.loads(broadcast.master(file=file)).playlists[0].stream_info.codecs)

    assert codecs() == "hvc1.1.6.L93.B0,mp4a.40.2,avc1.64001f"
    sink = broadcast.add(source)
    for sample in frames(1200, start=20 * 90_000):
        sink.push(sample)
    assert codecs() == "hvc1.1.6.L93.B0,mp4a.40.2", "the slate is in the list no more"


def test_a_frame_rate_that_was_not_told_is_measured() -> None:
    broadcast = begun()
    sink = broadcast.add(rendition(video=replace(VIDEO, frame_rate=0.0), audio=None))
    assert "FRAME-RATE" not in broadcast.master()
    for sample in frames(201, frame=3600, gop=50):
        sink.push(sample)
    assert "FRAME-RATE=25.000" in broadcast.master()


def test_the_target_duration_fits_the_first_segment_and_never_changes_afterwards() -> None:
    broadcast = begun()
    sink = broadcast.add(SOURCE)
    said: set[int] = set()
    live = of(broadcast, "source")
    live.listeners.append(lambda: said.add(m3u8.loads(live.playlist()).target_duration) if live.is_ready else None)
    for sample in frames(150, gop=120):
        sink.push(sample)
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in live.playlist()
    for sample in frames(1200, gop=210, start=150 * 3000):
        sink.push(sample)
    broadcast.end()
    assert said == {4}
    playlist = m3u8.loads(live.playlist())
    assert max(round(segment.duration) for segment in playlist.segments) == 4
    # 4.4.2.1: it may not promise any more what is not so.
    assert "#EXT-X-INDEPENDENT-SEGMENTS" not in live.playlist()
    assert "#EXT-X-INDEPENDENT-SEGMENTS" not in broadcast.master()


def test_what_x264_says_of_its_key_frames_decides_the_target_duration_before_anybody_has_seen_it() -> None:
    broadcast = begun()
    sink = broadcast.add(SOURCE)
    says = b"x264 - core 164 r3095 - H.264/MPEG-4 AVC codec - options: cabac=1 keyint=250 keyint_min=25 scenecut=40 "
    # The picture changes after a while; then no more.
    for sample in frames(900, gop=250):
        key = sample.key or sample.dts == 55 * 3000
        sink.push(replace(sample, key=key, data=says if key else sample.data))
    live = of(broadcast, "source")
    assert broadcast.target_duration == 8
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in live.playlist()
    assert [round(entry.duration_s, 2) for entry in live.window.listed if entry.finished] == [1.83, 6.5, 8.33, 8.33]


def test_each_playlist_reports_how_far_the_others_are() -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(61 + 15):
        source.push(sample)
        if sample.dts <= 60 * 3000:
            rung.push(sample)
    (report,) = m3u8.loads(of(broadcast, "240p").playlist()).rendition_reports
    assert (report.uri, report.last_msn, report.last_part) == ("../source/index.m3u8", 1, 1)
    source.push(frames(1, start=76 * 3000, gop=60)[0])
    rung.push(frames(1, start=61 * 3000)[0])
    (of_rung,) = m3u8.loads(of(broadcast, "source").playlist()).rendition_reports
    assert (of_rung.uri, of_rung.last_msn, of_rung.last_part) == ("../240p/index.m3u8", 0, 8)


def test_a_playlists_text_is_made_once_a_change() -> None:
    broadcast = begun()
    sink = broadcast.add(SOURCE)
    for sample in frames(70):
        sink.push(sample)
    live = of(broadcast, "source")
    text = live.text()
    assert live.text() is text
    for sample in frames(77)[70:]:
        sink.push(sample)
    assert live.text() is not text


def test_what_players_get_is_what_is_kept() -> None:
    kept = Kept()
    broadcast = begun(kept)
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for sample in frames(130):
        source.push(sample)
        rung.push(sample)
    broadcast.end()
    assert [name for name, _ in kept.inits] == ["source", "240p"]
    for live in broadcast.renditions:
        mine = [segment for segment in kept.segments if segment.rendition == live.name]
        entries = list(live.window.listed)
        assert [(s.number, s.start_s, s.duration_s, s.data) for s in mine] == [
            (e.number, e.start_s, e.duration_s, e.data) for e in entries
        ]
        assert [segment.program_date_time for segment in mine] == [e.program_date_time for e in entries]


# -- the register ------------------------------------------------------------------------------------------------------


@dataclass
class Register:
    now: float = 0.0

    def __post_init__(self) -> None:
        self.registry = LiveRegistry(epoch="e1", clock=lambda: self.now, retained_s=60.0)

    def open(self, broadcast_id: str, channel: str = "ann") -> LiveBroadcast:
        return self.registry.open(channel=channel, channel_id="c1", broadcast_id=broadcast_id, started_at=START)


def test_a_new_broadcast_on_a_channel_ends_the_one_before() -> None:
    register = Register()
    first, second = register.open("b1"), register.open("b2")
    assert first.ended
    assert not second.ended
    assert register.registry.on_channel("ann") is second
    assert register.registry.at("ann", "e1-b1") is first
    assert register.registry.at("bob", "e1-b1") is None


def test_an_ended_broadcast_is_found_for_a_while_and_then_by_nobody() -> None:
    register = Register()
    broadcast = register.open("b1")
    register.registry.close(broadcast)
    register.registry.close(broadcast)
    register.now = 59.9
    assert register.registry.on_channel("ann") is broadcast
    register.now = 60.0
    assert register.registry.at("ann", "e1-b1") is None
    assert register.registry.on_channel("ann") is None
    assert register.registry.broadcasts == []


def test_forgetting_the_one_before_leaves_the_one_that_is_on() -> None:
    register = Register()
    register.open("b1")
    second = register.open("b2")
    register.now = 100.0
    assert register.registry.on_channel("ann") is second
    assert register.registry.broadcasts == [second]


def test_no_more_ended_broadcasts_than_the_maximum_are_kept() -> None:
    register = Register()
    for n in range(BROADCASTS_MAX + 5):
        register.registry.close(register.open(f"b{n}", channel=f"channel{n}"))
    assert len(register.registry.broadcasts) == BROADCASTS_MAX
    assert register.registry.on_channel("channel0") is None
