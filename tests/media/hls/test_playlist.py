"""The playlists' text, to the letter, and as a parser of HLS reads it."""

import re
from datetime import UTC, datetime, timedelta

import m3u8
from hypothesis import given, settings
from hypothesis import strategies as st

from media.hls.playlist import Report, Variant, master_playlist, media_playlist, rfc3339
from media.hls.window import Entry, Part, Window
from tests.media.hls.given import rendition

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def window(finished: int, parts: int = 0, *, missing: tuple[int, ...] = (), changes: tuple[int, ...] = ()) -> Window:
    """`finished` segments of four parts, then one with `parts`. From each of `changes` on, there is another initialisation segment."""
    made = Window(on_change=lambda: None)
    for number in range(finished + 1):
        init = sum(number >= change for change in changes)
        at = START + timedelta(seconds=2 * number)
        entry = Entry(number, 2.0 * number, at, init, discontinuity=number in changes)
        if number in missing:
            entry.duration_s = 2.0
            made.gap(entry)
            continue
        if number == finished and not parts:
            break
        made.begin(entry)
        for index in range(4 if number < finished else parts):
            made.add(Part(made.next_sequence, 0.5, index == 0, b"x"))
        if number < finished:
            made.finish(2)
    return made


def text(made: Window, *reports: Report, rewind: bool = False, skip: bool = False) -> str:
    return media_playlist(made, target_duration=2, part_target_s=0.5, reports=reports, rewind=rewind, skip=skip)


def test_the_whole_of_a_playlist() -> None:
    assert text(window(1, 2), Report("../240p/index.m3u8", 1, 0)).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.500,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0",
        "#EXT-X-PART-INF:PART-TARGET=0.500",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-MEDIA-SEQUENCE:0",
        '#EXT-X-MAP:URI="init-0.mp4"',
        "#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:05.000Z",
        '#EXT-X-PART:DURATION=0.50000,URI="part-0.m4s",INDEPENDENT=YES',
        '#EXT-X-PART:DURATION=0.50000,URI="part-1.m4s"',
        '#EXT-X-PART:DURATION=0.50000,URI="part-2.m4s"',
        '#EXT-X-PART:DURATION=0.50000,URI="part-3.m4s"',
        "#EXTINF:2.00000,",
        "0.m4s",
        "#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:07.000Z",
        '#EXT-X-PART:DURATION=0.50000,URI="part-4.m4s",INDEPENDENT=YES',
        '#EXT-X-PART:DURATION=0.50000,URI="part-5.m4s"',
        '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-6.m4s"',
        '#EXT-X-RENDITION-REPORT:URI="../240p/index.m3u8",LAST-MSN=1,LAST-PART=0',
    ]


def test_parts_older_than_three_target_durations_are_not_listed() -> None:
    playlist = m3u8.loads(text(window(8, 2)))
    assert [len(segment.parts) for segment in playlist.segments] == [0, 0, 0, 0, 0, 0, 4, 4, 2]
    assert playlist.media_sequence == 0
    whole = m3u8.loads(text(window(30)))
    assert whole.media_sequence == 22
    assert [len(segment.parts) for segment in whole.segments] == [0] * 5 + [4] * 3


def test_where_no_segment_is_open_the_hint_is_the_next_ones_first_part() -> None:
    assert text(window(2)).splitlines()[-1] == '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-8.m4s"'


def test_an_ended_playlist_hints_at_nothing_and_reports_nothing() -> None:
    made = window(3)
    made.end()
    lines = text(made, Report("../240p/index.m3u8", 1, 0)).splitlines()
    assert lines[-1] == "#EXT-X-ENDLIST"
    assert not [line for line in lines if "HINT" in line or "REPORT" in line]


def test_a_change_of_initialisation_stands_before_its_segments_first_part() -> None:
    lines = text(window(3, 1, changes=(2,))).splitlines()
    at = lines.index("#EXT-X-DISCONTINUITY")
    assert lines[at + 1 : at + 3] == [
        '#EXT-X-MAP:URI="init-1.mp4"',
        "#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:09.000Z",
    ]
    assert lines[at + 3].startswith("#EXT-X-PART:")
    assert sum(line.startswith("#EXT-X-MAP") for line in lines) == 2


def test_discontinuities_that_left_are_counted_and_the_initialisation_still_stands_first() -> None:
    playlist = text(window(20, 1, changes=(2, 14)))
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1\n" in playlist
    parsed = m3u8.loads(playlist)
    assert parsed.segments[0].init_section.uri == "init-1.mp4"
    assert parsed.segments[-2].init_section.uri == "init-2.mp4"
    assert "DISCONTINUITY-SEQUENCE" not in text(window(3))


def test_a_gap_is_marked_and_keeps_its_number_and_length() -> None:
    lines = text(window(4, missing=(1, 2))).splitlines()
    for number in (1, 2):
        at = lines.index(f"{number}.m4s")
        assert lines[at - 2 : at] == ["#EXT-X-GAP", "#EXTINF:2.00000,"]
    assert lines.count("#EXT-X-GAP") == 2


def test_a_report_without_parts_names_the_segment_alone() -> None:
    assert '#EXT-X-RENDITION-REPORT:URI="x",LAST-MSN=4\n' in text(window(2), Report("x", 4, None))


def test_a_playlist_with_nothing_in_it_is_still_one() -> None:
    made = window(0)
    assert "#EXT-X-MEDIA-SEQUENCE:0" in text(made)
    made.end()
    assert m3u8.loads(text(made)).is_endlist


def test_times_are_utc_to_the_millisecond() -> None:
    assert rfc3339(START + timedelta(microseconds=123_456)) == "2026-01-02T03:04:05.123Z"


def test_the_master_says_only_what_is_known() -> None:
    video, audio = rendition(), rendition("audio", video=None)
    lines = master_playlist(
        [Variant(video, "a/index.m3u8", 900, 800, 29.97), Variant(audio, "b/index.m3u8", 100, 0, 0.0)]
    ).splitlines()
    assert lines == [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-STREAM-INF:BANDWIDTH=900,AVERAGE-BANDWIDTH=800,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=29.970',
        "a/index.m3u8",
        '#EXT-X-STREAM-INF:BANDWIDTH=100,CODECS="mp4a.40.2"',
        "b/index.m3u8",
    ]


@given(
    finished=st.integers(0, 30),
    parts=st.integers(0, 3),
    missing=st.sets(st.integers(0, 29), max_size=4),
    changes=st.sets(st.integers(1, 29), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_from_one_reload_to_the_next_segments_keep_their_numbers_and_parts_their_addresses(
    finished: int, parts: int, missing: set[int], changes: set[int]
) -> None:
    made = window(finished, parts, missing=tuple(missing - {finished}), changes=tuple(changes - missing))
    playlist = text(made)
    first = int(re.findall(r"MEDIA-SEQUENCE:(\d+)", playlist)[0])
    listed = [int(number) for number in re.findall(r"^(\d+)\.m4s$", playlist, re.MULTILINE)]
    assert listed == list(range(first, first + len(listed)))
    sequences = [int(number) for number in re.findall(r'PART:DURATION=[\d.]+,URI="part-(\d+)', playlist)]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences))) if sequences else True
    assert f'URI="part-{made.next_sequence}.m4s"' in playlist
    assert not sequences or sequences[-1] == made.next_sequence - 1


def long(count: int) -> Window:
    """Segments of two seconds, in parts of a half, all of which can be rewound to."""
    made = Window(on_change=lambda: None, rewind_s=100.0)
    for number in range(count):
        made.begin(Entry(number, 2.0 * number, START + timedelta(seconds=2 * number), 0, discontinuity=number == 3))
        for _ in range(4):
            made.add(Part(made.next_sequence, 0.5, True, b"part"))
        made.finish(2)
    return made


def test_a_delta_update_leaves_out_what_is_older_than_the_skip_boundary() -> None:
    whole, update = (m3u8.loads(text(long(7), skip=skip)) for skip in (False, True))
    assert whole.server_control.can_skip_until == 12.0
    assert update.skip.skipped_segments == 1
    assert [segment.uri for segment in update.segments] == [segment.uri for segment in whole.segments][1:]
    assert not update.segments[0].init_section, "it stands in what was skipped"
    assert update.media_sequence == whole.media_sequence == 0


def test_there_is_no_delta_where_nothing_is_old_enough() -> None:
    assert text(long(6), skip=True) == text(long(6))


def test_what_can_be_rewound_to_goes_back_further_than_what_is_live_and_is_merged_like_it() -> None:
    made = long(40)
    live, rewind, update = (
        m3u8.loads(it) for it in (text(made), text(made, rewind=True), text(made, rewind=True, skip=True))
    )
    assert (live.media_sequence, rewind.media_sequence) == (32, 0)
    assert len(rewind.segments) == 40
    assert live.discontinuity_sequence == 1
    assert not rewind.discontinuity_sequence
    assert update.skip.skipped_segments + len(update.segments) == 40
    assert rewind.segments[-1].dumps(None) == live.segments[-1].dumps(None)


def test_a_playlist_of_two_hours_is_made_of_lines_that_were_made_once() -> None:
    made = long(40)
    text(made, rewind=True)
    lines = [entry.lines for entry in made.rewindable]
    text(made, rewind=True)
    assert all(before is entry.lines for before, entry in zip(lines, made.rewindable, strict=True))


def test_a_part_that_is_missing_is_named_as_missing_and_so_is_its_segment() -> None:
    made = Window(on_change=lambda: None)
    made.begin(Entry(0, 0.0, START, 0))
    made.add(Part(0, 0.5, True, b"part"))
    made.add(Part(1, 0.5, False, b"", gap=True))
    assert '#EXT-X-PART:DURATION=0.50000,URI="part-1.m4s",GAP=YES' in text(made).splitlines()
    made.finish(2)
    assert text(made).splitlines().count("#EXT-X-GAP") == 1
    assert made.segment(0) is None
    assert made.part(0) is not None
    assert made.part(1) is None
