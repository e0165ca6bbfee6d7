"""What RTMP messages mean (RTMP 1.0, 5.4, 6.2, 7.1): typed values from chunk-stream messages, and back. The session speaks these.

A message type nobody here has a use for is `Ignored`; one that is broken raises `RtmpError`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from media.rtmp import amf0
from media.rtmp.chunk import SET_CHUNK_SIZE, Message
from media.rtmp.errors import RtmpError
from media.sample import TagType

COMMAND_BYTES_MAX: Final = 64 << 10
SCRIPT_BYTES_MAX: Final = 1 << 20

CONTROL_CHUNK_STREAM: Final = 2
COMMAND_CHUNK_STREAM: Final = 3

_ACKNOWLEDGEMENT, _USER_CONTROL, _WINDOW_SIZE, _PEER_BANDWIDTH = 3, 4, 5, 6
_AMF3_DATA, _AMF3_COMMAND, _AMF0_COMMAND, _AGGREGATE = 15, 17, 20, 22
_STREAM_BEGIN, _PING_REQUEST, _PING_RESPONSE = 0, 6, 7
_LIMIT_DYNAMIC: Final = 2
_TAG_HEADER_BYTES: Final = 11


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The peer has received so many of our bytes, modulo 2^32."""

    received: int


@dataclass(frozen=True, slots=True)
class WindowSize:
    """The peer wants an acknowledgement each time it has sent so many bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class PeerBandwidth:
    """The peer limits what we may send unacknowledged."""

    size: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    timestamp: int


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    transaction: float
    arguments: list[amf0.Value]

    def text(self, index: int) -> str:
        """An argument that should be a string; empty where it is missing or something else."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Media:
    """An FLV tag body, its time in ms modulo 2^32."""

    type: TagType
    timestamp: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ignored:
    pass


Incoming = Acknowledgement | WindowSize | PeerBandwidth | PingRequest | Command | Media | Ignored


def parse(message: Message) -> Iterator[Incoming]:
    """What the message says: one thing, or an aggregate's many."""
    read = _READERS.get(message.type)
    return read(message) if read else iter((Ignored(),))


def _acknowledgement(message: Message) -> Iterator[Incoming]:
    yield Acknowledgement(_number(message.payload))


def _window_size(message: Message) -> Iterator[Incoming]:
    yield WindowSize(_number(message.payload))


def _peer_bandwidth(message: Message) -> Iterator[Incoming]:
    yield PeerBandwidth(_number(message.payload))


def _user_control(message: Message) -> Iterator[Incoming]:
    # 7.1.7: 2 bytes of event type, then its data. Only a ping wants anything from us.
    event = message.payload[:2]
    if len(event) < 2:
        raise RtmpError("a user control message is cut short")
    if int.from_bytes(event) == _PING_REQUEST:
        yield PingRequest(_number(message.payload[2:]))


def _command(message: Message) -> Iterator[Incoming]:
    if len(message.payload) > COMMAND_BYTES_MAX:
        raise RtmpError(f"a command of {len(message.payload)} bytes is too long")
    # A command of type 17 has one byte more in front; what follows is AMF 0 until a value says otherwise.
    values = amf0.decode(message.payload[1:] if message.type == _AMF3_COMMAND else message.payload)
    match values:
        case [str(name), float(transaction), *arguments]:
            yield Command(name, transaction, arguments)
        case [str(name), *arguments]:
            yield Command(name, 0.0, arguments)
        case _:
            raise RtmpError("a command without a name")


def _media(message: Message) -> Iterator[Incoming]:
    # Empty audio and video messages are sent as keep-alives; they are no tags.
    if message.payload:
        yield Media(TagType(message.type), message.timestamp, message.payload)


def _script(message: Message) -> Iterator[Incoming]:
    if len(message.payload) > SCRIPT_BYTES_MAX:
        raise RtmpError(f"metadata of {len(message.payload)} bytes are too long")
    payload = message.payload[1:] if message.type == _AMF3_DATA else message.payload
    first = amf0.Decoder(payload)
    name = first.value()
    if name == "@setDataFrame":
        # It tells a server to keep the rest, which is the script tag's body, for those who join later.
        payload = payload[first.at :]
    if payload and name != "@clearDataFrame":
        yield Media(TagType.SCRIPT, message.timestamp, payload)


def _aggregate(message: Message) -> Iterator[Incoming]:
    """7.1.6: FLV tags with their headers and back pointers. Their times are shifted so that the first has the message's own."""
    payload, at, shift = message.payload, 0, None
    while at + _TAG_HEADER_BYTES <= len(payload):
        kind, size = payload[at] & 0x1F, int.from_bytes(payload[at + 1 : at + 4])
        timestamp = payload[at + 7] << 24 | int.from_bytes(payload[at + 4 : at + 7])
        if shift is None:
            shift = message.timestamp - timestamp
        body = payload[at + _TAG_HEADER_BYTES : at + _TAG_HEADER_BYTES + size]
        if len(body) < size:
            raise RtmpError("an aggregate message is cut short")
        if kind in (TagType.AUDIO, TagType.VIDEO, TagType.SCRIPT):
            yield from parse(Message(kind, message.stream_id, (timestamp + shift) & 0xFFFF_FFFF, body))
        at += _TAG_HEADER_BYTES + size + 4


def _number(payload: bytes) -> int:
    if len(payload) < 4:
        raise RtmpError("a control message is cut short")
    return int.from_bytes(payload[:4])


_READERS: Final[dict[int, Callable[[Message], Iterator[Incoming]]]] = {
    _ACKNOWLEDGEMENT: _acknowledgement,
    _USER_CONTROL: _user_control,
    _WINDOW_SIZE: _window_size,
    _PEER_BANDWIDTH: _peer_bandwidth,
    TagType.AUDIO: _media,
    TagType.VIDEO: _media,
    TagType.SCRIPT: _script,
    _AMF3_DATA: _script,
    _AMF3_COMMAND: _command,
    _AMF0_COMMAND: _command,
    _AGGREGATE: _aggregate,
}


# -- what a server says ---------------------------------------------------------------------------------------------


def _control(kind: int, payload: bytes) -> Message:
    return Message(kind, 0, 0, payload, CONTROL_CHUNK_STREAM)


def set_chunk_size(size: int) -> Message:
    return _control(SET_CHUNK_SIZE, size.to_bytes(4))


def acknowledgement(received: int) -> Message:
    return _control(_ACKNOWLEDGEMENT, (received & 0xFFFF_FFFF).to_bytes(4))


def window_size(size: int) -> Message:
    return _control(_WINDOW_SIZE, size.to_bytes(4))


def peer_bandwidth(size: int) -> Message:
    return _control(_PEER_BANDWIDTH, size.to_bytes(4) + bytes((_LIMIT_DYNAMIC,)))


def stream_begin(stream_id: int) -> Message:
    return _control(_USER_CONTROL, _STREAM_BEGIN.to_bytes(2) + stream_id.to_bytes(4))


def ping_response(timestamp: int) -> Message:
    return _control(_USER_CONTROL, _PING_RESPONSE.to_bytes(2) + timestamp.to_bytes(4))


def command(stream_id: int, name: str, transaction: float, *arguments: amf0.Encodable) -> Message:
    payload = amf0.encode(name, transaction, *arguments)
    return Message(_AMF0_COMMAND, stream_id, 0, payload, COMMAND_CHUNK_STREAM)
