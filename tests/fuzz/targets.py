"""What is fuzzed: everything that reads what strangers send to the media plane. A target takes any bytes and returns, or there is a bug.

`make fuzz` drives these by coverage (atheris); tests/fuzz/test_corpus.py runs the corpus through them at every test run. Each raises an
AssertionError where an answer is wrong though nothing crashed: the split of the bytes must not matter, memory must stay within the maxima.
"""

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import QueryParams

from media.flv import HELD_BYTES_MAX, Began, Demuxer, Frame
from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader
from media.hls.live import LiveBroadcast
from media.origin import Directives, directives
from media.rtmp import amf0
from media.rtmp.chunk import PENDING_BYTES_MAX
from media.rtmp.errors import RtmpError
from media.rtmp.session import Media, PublishRequested, ServerSession
from media.sample import Rendition, SampleSink, Tag, TagType

OUT_BYTES_MAX: Final = 1 << 20
HELLO: Final = b"\x03" + bytes(1536)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
TYPES: Final = (TagType.AUDIO, TagType.VIDEO, TagType.SCRIPT)
TAG: Final = struct.Struct(">BIH")


def rtmp(data: bytes) -> None:
    """A whole connection: after a handshake in order, anything; what it publishes is demuxed."""
    split, data = (data[0] or 1, data[1:]) if data else (1, b"")
    session, demuxer = ServerSession(), Demuxer(starts_at=lambda: 0)
    stream = HELLO + bytes(1536) + data
    for at in range(0, len(stream), max(split * 16, 1)):
        session.receive_data(stream[at : at + split * 16])
        for event in session.events():
            match event:
                case PublishRequested() if session.state == "asked":
                    session.accept_publish()
                case Media():
                    demuxer.receive(event.tag)
        assert len(session.data_to_send()) <= OUT_BYTES_MAX
    assert session._chunks._pending <= PENDING_BYTES_MAX


def amf(data: bytes) -> None:
    """What can be read can be written, and reads the same again."""
    try:
        values = amf0.read(data)
    except RtmpError:
        return
    try:
        written = amf0.write(*values)
    except TypeError:
        return  # dates and the like are read and never written
    assert repr(amf0.read(written)) == repr(values)


def flv(data: bytes) -> None:
    """Tags as a publisher may send them, through to the packager: any order, any timestamps."""
    demuxer = Demuxer(starts_at=lambda: 0)
    broadcast = LiveBroadcast(channel="c", channel_id="c", address="a", started_at=START)
    sink: SampleSink | None = None
    for tag in tags_of(data):
        for found in demuxer.receive(tag):
            match found:
                case Began():
                    if sink is not None:
                        sink.close()
                    sink = broadcast.add(Rendition("source", found.bandwidth, found.video, found.audio))
                case Frame() if sink is not None:
                    sink.push(found.sample)
        assert demuxer._held_bytes <= HELD_BYTES_MAX + 65_535
    broadcast.end()
    for live in broadcast.renditions:
        assert live.playlist().startswith("#EXTM3U")


def tags_of(data: bytes) -> list[Tag]:
    """A type, a time and a length, and so many bytes; again and again."""
    found, at = [], 0
    while at + TAG.size <= len(data):
        kind, timestamp_ms, length = TAG.unpack_from(data, at)
        at += TAG.size
        found.append(Tag(TYPES[kind % 3], timestamp_ms, data[at : at + length]))
        at += length
    return found


def fmp4(data: bytes) -> None:
    """The same values however the bytes come."""
    whole = _read(data, len(data) or 1)
    for step in (1, 7) if len(data) < 4096 else (997,):
        assert _read(data, step) == whole


def _read(data: bytes, step: int) -> tuple[list[object], bool]:
    reader = Fmp4Reader()
    found: list[object] = []
    try:
        for at in range(0, len(data), step):
            found += reader.receive(data[at : at + step])
    except Fmp4Error:
        return [], True
    return found, False


def query(data: bytes) -> None:
    """Delivery directives are understood or refused, and never negative."""
    text = data.decode("latin-1")
    asked = directives(QueryParams(parse_qsl(text, keep_blank_values=True)))
    if isinstance(asked, Directives):
        assert asked.number is None or asked.number >= 0
        assert asked.part is None or (asked.part >= 0 and asked.number is not None)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {it.__name__: it for it in (rtmp, amf, flv, fmp4, query)}
