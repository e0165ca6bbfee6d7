"""Whole conversations as OBS, Streamlabs Desktop, FMLE and a phone hold them (`dialogues` says what these are and are not)."""

import asyncio
from typing import Any

import pytest

from media.flv import Began, Demuxer, Frame
from media.port import Grant
from media.rtmp import amf0
from media.rtmp.chunk import ChunkReader
from media.rtmp.session import Connected, Event, Media, PublishRequested, ServerSession, Unpublished
from media.sample import TagType
from tests.media.rtmp.dialogues import COMMAND, DIALOGUES, HANDSHAKE, KEY, Dialogue
from tests.media.rtmp.test_server import GRANTS, serving
from tests.media.tags import tags

HANDSHAKE_BYTES = 1 + 2 * 1536
every_dialogue = pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda it: it.name)


def said(out: bytes) -> list[str]:
    """What a client finds in what the server sent so far: names, names with their transactions, codes."""
    found = [HANDSHAKE] if len(out) >= HANDSHAKE_BYTES else []
    for message in ChunkReader().receive(out[HANDSHAKE_BYTES:]):
        if message.type == COMMAND:
            values: list[Any] = amf0.read(message.data)
            found += [values[0], f"{values[0]} {values[1]:g}"]
            found += [it["code"] for it in values[2:] if values[0] == "onStatus" and isinstance(it, dict)]
    return found


def held(dialogue: Dialogue, *, step_bytes: int) -> list[Event]:
    """The session's events, if every answer that a client waits for came when it did."""
    session, out, events = ServerSession(), b"", list[Event]()
    for step in dialogue.steps:
        assert not step.waits_for or step.waits_for in said(out), step.waits_for
        for at in range(0, len(step.sends), step_bytes):
            session.receive_data(step.sends[at : at + step_bytes])
            for event in session.events():
                events.append(event)
                if isinstance(event, PublishRequested):
                    session.accept_publish()
            out += session.data_to_send()
    assert not session.close_expected
    return events


@every_dialogue
@pytest.mark.parametrize("step_bytes", [1 << 20, 1460])
def test_an_encoder_is_understood_from_its_first_word_to_its_last(dialogue: Dialogue, step_bytes: int) -> None:
    connected, asked, *media, unpublished = held(dialogue, step_bytes=step_bytes)
    assert connected == Connected("live", dialogue.flash_version)
    assert asked == PublishRequested("live", KEY, dialogue.flash_version)
    assert unpublished == Unpublished()
    received = [event.tag for event in media if isinstance(event, Media)]
    assert received[0].type == TagType.SCRIPT
    assert received[1:] == [tag for tag in tags(seconds=1, gop=30) if tag.type != TagType.SCRIPT]

    demuxer = Demuxer()
    found = [it for tag in received for it in demuxer.receive(tag)]
    (began,) = [it for it in found if isinstance(it, Began)]
    assert began.encoder == dialogue.encoder
    assert began.video is not None
    assert began.audio is not None
    assert sum(isinstance(it, Frame) and it.sample.kind == "video" for it in found) == 30


@every_dialogue
async def test_an_encoder_publishes_to_the_real_server(dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRANTS, KEY, Grant(channel_id="c1", channel="ann"))
    async with serving() as (port, broadcasts), asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        out = b""
        for step in dialogue.steps:
            while step.waits_for and step.waits_for not in said(out):
                data = await reader.read(65_536)
                assert data, f"closed, though it waits for {step.waits_for}"
                out += data
            writer.write(step.sends)
        (sink,) = broadcasts.sinks
        assert await sink.closed == "unpublished"
        assert len(sink.tags) == len(tags(seconds=1, gop=30))
        writer.close()
