"""The RTMP core, bytes in and events out: what encoders send, what breaks the protocol, and any bytes in any pieces."""

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.rtmp import amf0
from media.rtmp.chunk import EARLY_BYTES_MAX, MESSAGE_BYTES_MAX, STREAMS_MAX, ChunkReader, Message, write
from media.rtmp.errors import RtmpError
from media.rtmp.session import (
    Connected,
    Event,
    Failed,
    Media,
    PublishRequested,
    ServerSession,
    Unpublished,
)
from media.sample import Tag, TagType
from tests.media.rtmp.wire import C2, CONNECT, HELLO, amf, chunk, command, publish


def talk(*pieces: bytes, accept: bool = True) -> tuple[ServerSession, list[Event]]:
    session = ServerSession()
    events: list[Event] = []
    for piece in pieces:
        session.receive_data(piece)
        new = session.events()
        events += new
        if accept and any(isinstance(event, PublishRequested) for event in new):
            session.accept_publish()
    return session, events


def told(session: ServerSession) -> list[list[Any]]:
    """The commands in what the session wants to send (after the handshake)."""
    reader = ChunkReader()
    out = session.data_to_send()
    return [amf0.read(message.data) for message in reader.receive(out[1 + 2 * 1536 :]) if message.type == 20]


def statuses(session: ServerSession) -> list[str]:
    return [values[3]["code"] for values in told(session) if values[0] == "onStatus"]


PUBLISHING = (HELLO + C2, CONNECT, publish())


def test_an_encoder_connects_publishes_sends_and_leaves() -> None:
    tags = chunk(9, b"\x17\x00video", at=40, stream=1, cid=4) + chunk(8, b"\xaf\x01audio", at=41, stream=1, cid=5)
    bye = command("FCUnpublish", 6, None, "key") + command("deleteStream", 7, None, 1)
    session, events = talk(*PUBLISHING, tags, bye)
    assert events == [
        Connected("live", "FMLE/3.0 (compatible; FMSc/1.0)"),
        PublishRequested("live", "key", "FMLE/3.0 (compatible; FMSc/1.0)"),
        Media(Tag(TagType.VIDEO, 40, b"\x17\x00video")),
        Media(Tag(TagType.AUDIO, 41, b"\xaf\x01audio")),
        Unpublished(),
    ]
    commands = told(session)
    assert [values[0] for values in commands] == [
        "_result", "_result", "_result", "onFCPublish", "_result", "onStatus", "onStatus",
    ]  # fmt: skip
    assert commands[0][3]["code"] == "NetConnection.Connect.Success"
    assert commands[4] == ["_result", 4.0, None, 1.0]


def test_a_refused_key_gets_its_status_and_nothing_more_is_read() -> None:
    session, _ = talk(*PUBLISHING, accept=False)
    session.refuse_publish("NetStream.Publish.BadName", "no")
    assert session.close_expected
    assert statuses(session) == ["NetStream.Publish.BadName"]
    session.receive_data(chunk(9, b"video", stream=1))
    assert session.events() == []


def test_media_before_it_was_accepted_is_a_breach() -> None:
    for before in ((HELLO + C2, CONNECT, publish()), (HELLO + C2,)):
        session, events = talk(*before, chunk(9, b"video", stream=1), accept=False)
        assert not any(isinstance(event, Media) for event in events)
        assert session.close_expected
        assert isinstance(events[-1], Failed)


@given(
    cid=st.integers(2, 65599), size=st.integers(1, 300), at=st.integers(0, 0xFFFFFFFF), chunk_bytes=st.integers(1, 512)
)
def test_chunk_ids_of_one_two_and_three_bytes_and_extended_timestamps(
    cid: int, size: int, at: int, chunk_bytes: int
) -> None:
    reader = ChunkReader()
    stream = chunk(1, struct.pack(">I", chunk_bytes)) + chunk(
        9, bytes(size), at=at, stream=1, cid=cid, size=chunk_bytes
    )
    assert list(reader.receive(stream)) == [Message(9, 1, at, bytes(size))]


@given(
    message=st.builds(
        Message, st.integers(3, 22), st.integers(0, 9), st.integers(0, 0xFFFFFFFF), st.binary(min_size=1, max_size=900)
    )
)
def test_what_is_written_is_read_back(message: Message) -> None:
    assert list(ChunkReader().receive(write(message, 5))) == [message]


def test_headers_that_repeat_only_what_changed() -> None:
    reader = ChunkReader()
    stream = chunk(9, b"aaaa", at=1000, stream=1, cid=4)
    stream += bytes([1 << 6 | 4]) + (40).to_bytes(3, "big") + (2).to_bytes(3, "big") + b"\x09" + b"bb"
    stream += bytes([2 << 6 | 4]) + (33).to_bytes(3, "big") + b"cc"
    stream += bytes([3 << 6 | 4]) + b"dd"
    assert [(message.timestamp_ms, message.data) for message in reader.receive(stream)] == [
        (1000, b"aaaa"), (1040, b"bb"), (1073, b"cc"), (1106, b"dd"),
    ]  # fmt: skip


def test_messages_of_two_chunk_streams_interleave_and_an_abort_drops_one() -> None:
    reader = ChunkReader()
    video, audio = chunk(9, b"v" * 200, stream=1, cid=4), chunk(8, b"a" * 150, stream=1, cid=5)
    cut = 12 + 128
    woven = video[:cut] + audio[:cut] + video[cut:] + audio[cut:]
    assert [message.type for message in reader.receive(woven)] == [9, 8]
    aborted = video[:cut] + chunk(2, (4).to_bytes(4, "big"), cid=2) + chunk(9, b"new", stream=1, cid=4)
    assert [message.data for message in reader.receive(aborted)] == [b"new"]


def test_an_extended_timestamp_left_out_of_later_chunks_is_understood() -> None:
    at, data = 0x1234567, bytes(range(200)) + bytes(100)
    with_it = chunk(9, data, at=at, stream=1, cid=4)
    second = 12 + 4 + 128
    without = with_it[: second + 1] + with_it[second + 5 : second + 5 + 128]
    third = second + 5 + 128
    without += with_it[third : third + 1] + with_it[third + 5 :]
    assert list(ChunkReader().receive(without)) == list(ChunkReader().receive(with_it)) == [Message(9, 1, at, data)]


def test_set_data_frame_is_taken_off_the_metadata() -> None:
    meta = {"width": 640.0}
    _, events = talk(*PUBLISHING, chunk(18, amf("@setDataFrame", "onMetaData", meta), stream=1, cid=4))
    assert events[-1] == Media(Tag(TagType.SCRIPT, 0, amf("onMetaData", meta)))


def test_timestamps_go_on_past_the_wrap_and_small_steps_back_stay() -> None:
    times = [0xFFFFFFF0, 0xFFFFFFFA, 4, 0, 30]
    _, events = talk(*PUBLISHING, *(chunk(9, b"x", at=at, stream=1, cid=4) for at in times))
    assert [event.tag.timestamp_ms - 0xFFFFFFF0 for event in events if isinstance(event, Media)] == [0, 10, 20, 16, 46]


def test_pings_are_answered_and_windows_acknowledged() -> None:
    session, _ = talk(*PUBLISHING)
    session.data_to_send()
    session.receive_data(chunk(4, b"\x00\x06" + b"\x01\x02\x03\x04", cid=2))
    session.receive_data(chunk(5, (1000).to_bytes(4, "big"), cid=2))
    session.receive_data(chunk(9, bytes(600), stream=1, cid=4))
    sent = list(ChunkReader().receive(session.data_to_send()))
    assert (sent[0].type, sent[0].data) == (4, b"\x00\x07\x01\x02\x03\x04")
    assert 3 in {message.type for message in sent}


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (chunk(9, b"", cid=4)[:4] + (MESSAGE_BYTES_MAX + 1).to_bytes(3, "big") + bytes(10), "bytes"),
        (chunk(1, (0).to_bytes(4, "big"), cid=2), "chunk size"),
        (bytes([3 << 6 | 9]) + bytes(20), "begins with header"),
        (
            b"".join(chunk(9, b"x" * 200, cid=64 + number)[: 13 + 128] for number in range(STREAMS_MAX + 1)),
            "chunk streams",
        ),
        (command("publish", 5, None, "x" * 300), "name"),
        (command("publish", 1, None, "k") + command("publish", 2, None, "k"), "second publish"),
        (chunk(20, b"\x02\x00", cid=3), "middle"),
        (chunk(20, b"\x03\x00\x01a" * 50, cid=3), "deep"),
        (command("createStream", 1, None) * 300, "too many messages"),
    ],
)
def test_a_breach_ends_the_session_with_a_reason(piece: bytes, why: str) -> None:
    session, events = talk(HELLO + C2, CONNECT, piece, accept=False)
    assert session.close_expected
    assert isinstance(events[-1], Failed)
    assert why in events[-1].reason


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        ((HELLO + C2,), ["_error", 1.0, "NetConnection.Connect.Rejected"]),
        ((HELLO + C2, CONNECT), ["onStatus", 0.0, "NetStream.Publish.Failed"]),
        ((HELLO + C2, CONNECT, publish()), ["onStatus", 0.0, "NetStream.Publish.Failed"]),
    ],
)
def test_a_breach_is_answered_with_a_status_that_says_why(before: tuple[bytes, ...], answer: list[Any]) -> None:
    session, _ = talk(*before, chunk(20, b"\x02\x00", cid=3))
    assert session.close_expected
    name, transaction, _, info = told(session)[-1]
    assert [name, transaction, info["code"]] == answer
    assert info["level"] == "error"
    assert "middle of a value" in info["description"]


def test_a_connect_that_is_refused_has_one_answer_and_nothing_after_it_is_heard() -> None:
    session = ServerSession(lambda asked: f"Not {asked.app}.")
    session.receive_data(HELLO + C2 + command("connect", 7, {"app": "other/"}) + publish())
    assert session.close_expected
    assert session.events() == []
    (answer,) = told(session)
    assert answer[:2] == ["_error", 7.0]
    assert (answer[3]["code"], answer[3]["description"]) == ("NetConnection.Connect.Rejected", "Not other.")


def test_who_may_not_publish_yet_takes_little_memory_and_who_may_sends_large_messages() -> None:
    large = chunk(9, bytes(EARLY_BYTES_MAX + 1), stream=1, cid=6)
    session, events = talk(HELLO + C2, CONNECT, large[:20])
    assert session.close_expected, "told by its header, before its bytes are here"
    assert isinstance(events[-1], Failed)
    unfinished = b"".join(chunk(9, bytes(40_000), stream=1, cid=cid, size=30_000)[: 12 + 30_000] for cid in (6, 7, 8))
    session, _ = talk(HELLO + C2, CONNECT, chunk(1, (30_000).to_bytes(4, "big"), cid=2) + unfinished)
    assert session.close_expected
    _, events = talk(*PUBLISHING, large)
    assert isinstance(events[-1], Media)


def test_another_protocol_on_the_port_is_told_at_its_first_byte() -> None:
    _, events = talk(b"GET / HTTP/1.1\r\n")
    assert events == [Failed("RTMP version 71, not 3")]


_dialogue = (
    HELLO + C2 + CONNECT + publish(),
    chunk(1, (700).to_bytes(4, "big"), cid=2)
    + b"".join(
        chunk(9 - number % 2, bytes([number]) * 333, at=40 * number, stream=1, cid=4 + number % 2, size=700)
        for number in range(6)
    )
    + chunk(18, amf("@setDataFrame", "onMetaData", {"a": 1.0}), at=240, stream=1, cid=6, size=700)
    + command("deleteStream", 9, None, 1, size=700),
)


@settings(max_examples=150, deadline=None)
@given(cuts=st.lists(st.integers(1, 6000), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    def run(pieces: list[bytes]) -> list[Event]:
        _, events = talk(*pieces)
        return events

    def split(data: bytes) -> list[bytes]:
        bounds = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
        return [data[a:b] for a, b in pairwise(bounds)]

    whole = run(list(_dialogue))
    assert len(whole) == 10
    assert run(split(_dialogue[0]) + split(_dialogue[1])) == whole


@settings(max_examples=300, deadline=None)
@given(
    opened=st.sampled_from([b"", HELLO, HELLO + C2, HELLO + C2 + CONNECT, HELLO + C2 + CONNECT + publish()]),
    pieces=st.lists(
        st.binary(max_size=400)
        | st.builds(
            lambda kind, data, cid: chunk(kind, data, cid=cid),
            st.integers(0, 22),
            st.binary(min_size=1, max_size=300),
            st.integers(2, 400),
        ),
        max_size=8,
    ),
)
def test_arbitrary_bytes_never_raise(opened: bytes, pieces: list[bytes]) -> None:
    session, _ = talk(opened, *pieces)
    session.data_to_send()


@given(st.binary(max_size=300))
def test_amf0_raises_nothing_but_its_own_error(data: bytes) -> None:
    try:
        amf0.read(data)
    except RtmpError:
        return


def test_amf0_reads_what_encoders_send() -> None:
    ecma = b"\x08\x00\x00\x00\x09\x00\x01a" + b"\x00" + struct.pack(">d", 2) + b"\x00\x00\x09"
    strict = b"\x0a\x00\x00\x00\x02\x01\x01\x05"
    assert amf0.read(b"\x02\x00\x01x" + ecma + strict + b"\x0b" + bytes(10)) == ["x", {"a": 2.0}, [True, None], 0.0]
