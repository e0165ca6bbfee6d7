"""The text of master and media playlists (RFC 8216 and draft-pantos-hls-rfc8216bis). Pure: state in, text out; `live` calls it.

Addresses in it are relative to the playlist's own.
"""

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from media.hls.window import PARTS_LISTED_TD, Entry, Part, Window
from media.sample import Rendition

VERSION: Final = 9
HOLD_BACK_TD: Final = 3
PART_HOLD_BACK_PTD: Final = 3
SKIP_UNTIL_TD: Final = 6
"""4.4.3.8: CAN-SKIP-UNTIL is at least so many target durations."""
GZIP_LEVEL: Final = 5
CONTENT_TYPE: Final = "application/vnd.apple.mpegurl"
INDEPENDENT: Final = "#EXT-X-INDEPENDENT-SEGMENTS"


@dataclass(slots=True)
class Text:
    """A playlist's bytes, and what tells them from those it had before."""

    plain: bytes
    version: str
    _gzipped: bytes = b""

    @property
    def gzipped(self) -> bytes:
        if not self._gzipped:
            self._gzipped = gzip.compress(self.plain, GZIP_LEVEL, mtime=0)
        return self._gzipped


@dataclass(frozen=True, slots=True)
class Variant:
    """A rendition as the master playlist offers it. Bandwidths in bit/s; `frame_rate` 0 where there is no video; `codecs` where they are
    more than the rendition's own."""

    rendition: Rendition
    uri: str
    bandwidth: int
    average_bandwidth: int
    frame_rate: float
    codecs: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """How far another rendition of the broadcast is. `part` None: its last segment has no parts listed."""

    uri: str
    number: int
    part: int | None


def part_uri(sequence: int) -> str:
    return f"part-{sequence}.m4s"


def segment_uri(number: int) -> str:
    return f"{number}.m4s"


def init_uri(index: int) -> str:
    return f"init-{index}.mp4"


def master_playlist(variants: Iterable[Variant], *, independent: bool = True) -> str:
    """`independent` (4.4.2.1): every segment of every rendition can be decoded without another."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{VERSION}", *([INDEPENDENT] if independent else [])]
    for variant in variants:
        video = variant.rendition.video
        attributes = [f"BANDWIDTH={variant.bandwidth}"]
        if variant.average_bandwidth:
            attributes.append(f"AVERAGE-BANDWIDTH={variant.average_bandwidth}")
        attributes.append(f'CODECS="{variant.codecs or variant.rendition.codecs}"')
        if video is not None:
            attributes.append(f"RESOLUTION={video.width}x{video.height}")
        if variant.frame_rate:
            attributes.append(f"FRAME-RATE={variant.frame_rate:.3f}")
        lines += [f"#EXT-X-STREAM-INF:{','.join(attributes)}", variant.uri]
    return "\n".join(lines) + "\n"


def media_playlist(
    window: Window,
    *,
    target_duration: int,
    part_target_s: float,
    reports: Sequence[Report] = (),
    rewind: bool = False,
    skip: bool = False,
    independent: bool = True,
) -> str:
    """One rendition's playlist, as its window stands: the live one, or with `rewind` all that can be rewound to. `skip`: a delta update
    (6.2.5.1), where there is something to skip."""
    entries = list(window.rewindable if rewind else window.listed)
    total_s = sum(entry.duration_s for entry in entries)
    skip_until_s = float(SKIP_UNTIL_TD * target_duration)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{VERSION}",
        f"#EXT-X-TARGETDURATION:{target_duration}",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"
        f",PART-HOLD-BACK={PART_HOLD_BACK_PTD * part_target_s:.3f}"
        f",HOLD-BACK={HOLD_BACK_TD * target_duration:.1f},CAN-SKIP-UNTIL={skip_until_s:.1f}",
        f"#EXT-X-PART-INF:PART-TARGET={part_target_s:.3f}",
        *([INDEPENDENT] if independent else []),
        f"#EXT-X-MEDIA-SEQUENCE:{entries[0].number if entries else 0}",
    ]
    discontinuity_sequence = window.rewind_discontinuity_sequence if rewind else window.discontinuity_sequence
    if discontinuity_sequence:
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity_sequence}")
    first, start_s, init = 0, 0.0, -1
    if skip:
        while first < len(entries) and total_s - start_s - entries[first].duration_s >= skip_until_s:
            start_s += entries[first].duration_s
            init = entries[first].init
            first += 1
        if first:
            lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={first}")
    # A sum of durations is never quite what it should be, and what was left out must not come back.
    parts_from_s = total_s - PARTS_LISTED_TD * target_duration - 1e-6
    for entry in entries[first:]:
        if entry.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if entry.init != init:
            init = entry.init
            lines.append(f'#EXT-X-MAP:URI="{init_uri(init)}"')
        lines.append(_segment(entry, with_parts=start_s >= parts_from_s or not entry.finished))
        start_s += entry.duration_s
    if window.ended:
        lines.append("#EXT-X-ENDLIST")
    else:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{part_uri(window.next_sequence)}"')
        lines += [_report(report) for report in reports]
    return "\n".join(lines) + "\n"


def _segment(entry: Entry, *, with_parts: bool) -> str:
    if entry.lines and not with_parts:
        return entry.lines
    lines = [f"#EXT-X-PROGRAM-DATE-TIME:{rfc3339(entry.program_date_time)}"]
    if with_parts:
        lines += [_part(part) for part in entry.parts]
    if entry.finished:
        if entry.gap:
            lines.append("#EXT-X-GAP")
        lines += [f"#EXTINF:{entry.duration_s:.5f},", segment_uri(entry.number)]
    text = "\n".join(lines)
    if entry.finished and not with_parts:
        entry.lines = text  # it is made once, however long viewers can rewind to it
    return text


def _part(part: Part) -> str:
    independent, gap = (",INDEPENDENT=YES" if part.independent else ""), (",GAP=YES" if part.gap else "")
    return f'#EXT-X-PART:DURATION={part.duration_s:.5f},URI="{part_uri(part.sequence)}"{independent}{gap}'


def _report(report: Report) -> str:
    part = "" if report.part is None else f",LAST-PART={report.part}"
    return f'#EXT-X-RENDITION-REPORT:URI="{report.uri}",LAST-MSN={report.number}{part}'


def rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
