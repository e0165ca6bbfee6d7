"""A publisher's RTMP session, Sans-IO: bytes in, events out, bytes to send. The shell is `media.rtmp.server`.

`receive_data`, then read `events()` and `data_to_send()`. The session fails its connection and never raises: an error is `Failed`, and
the peer is told why. Nothing that a client sends before `accept_publish` reaches anybody, nor takes more than a little memory: media
then is a breach of the protocol.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from media import enhanced
from media.rtmp import amf0, chunk
from media.rtmp.chunk import ChunkReader, Message
from media.rtmp.errors import RtmpError
from media.rtmp.handshake import Handshake
from media.sample import Tag, TagType

ACKNOWLEDGEMENT: Final = 3
USER_CONTROL: Final = 4
WINDOW_ACK_SIZE: Final = 5
PEER_BANDWIDTH: Final = 6
COMMAND_AMF3: Final = 17
DATA_AMF3: Final = 15
COMMAND: Final = 20

WINDOW_BYTES: Final = 2_500_000
OUT_CHUNK_BYTES: Final = 4096
PUBLISH_STREAM: Final = 1
NAME_CHARS_MAX: Final = 256
MESSAGES_BEFORE_PUBLISH_MAX: Final = 256
CONNECT_TRANSACTION: Final = 1
"""7.2.1.1: "always set to 1"."""


@dataclass(frozen=True, slots=True)
class Connected:
    """`app` without its query; `encoder` is what the client calls itself (`flashVer`)."""

    app: str
    encoder: str


@dataclass(frozen=True, slots=True)
class PublishRequested:
    """Answer with `accept_publish` or `refuse_publish`."""

    app: str
    stream_key: str
    encoder: str


@dataclass(frozen=True, slots=True)
class Media:
    tag: Tag


@dataclass(frozen=True, slots=True)
class Unpublished:
    """The orderly end of what was published."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer broke the protocol; nothing more will come of this session."""

    reason: str


Event = Connected | PublishRequested | Media | Unpublished | Failed
State = Literal["handshake", "connecting", "connected", "asked", "publishing", "ended"]
Judge = Callable[[Connected], str | None]
"""Why this client may not connect; None: it may."""


class ServerSession:
    def __init__(self, judge: Judge = lambda _: None) -> None:
        """`judge` is asked once, before anything is answered: 7.2.1 has one answer to a connect, `_result` or `_error`."""
        self.state: State = "handshake"
        self._judge = judge
        self._handshake = Handshake()
        self._chunks = ChunkReader(early=True)
        self._events: list[Event] = []
        self._out = bytearray()
        self._app = ""
        self._encoder = ""
        self._before_publish = 0
        self._received = 0
        self._acknowledged = 0
        self._window = WINDOW_BYTES
        self._clock = _Unwrap()
        self._may_reconnect = False

    # -- the shell's side -----------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        if self.state == "ended":
            return
        try:
            self._receive(data)
        except RtmpError as error:
            self.fail(f"This server does not understand: {error}.")
            self._events.append(Failed(str(error)))

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    @property
    def close_expected(self) -> bool:
        """Nothing more will be read or said: send what there is and close."""
        return self.state == "ended"

    def accept_publish(self) -> None:
        """From now on media is taken."""
        assert self.state == "asked", self.state
        self.state = "publishing"
        self._chunks.trust()
        self._send(2, Message(USER_CONTROL, 0, 0, (0).to_bytes(2, "big") + PUBLISH_STREAM.to_bytes(4, "big")))
        self._status("status", "NetStream.Publish.Start", "Publishing.")

    def refuse_publish(self, code: str, description: str) -> None:
        """`code` is a NetStream status, e.g. `NetStream.Publish.BadName`."""
        if self.state != "ended":
            self._status("error", code, description)
            self.state = "ended"

    def fail(self, description: str) -> None:
        """It is over: the peer hears why, if it has come so far that it would understand."""
        match self.state:
            case "handshake" | "ended":
                self.state = "ended"
            case "connecting":
                self._reject(CONNECT_TRANSACTION, description)
            case _:
                self.refuse_publish("NetStream.Publish.Failed", description)

    def _reject(self, transaction: float, description: str) -> None:
        info = {"level": "error", "code": "NetConnection.Connect.Rejected", "description": description}
        self._command(0, "_error", transaction, None, info)
        self.state = "ended"

    def request_reconnect(self, description: str, tc_url: str = "") -> bool:
        """Enhanced RTMP, "Reconnect Request": whether the encoder knows of such; then it connects again, to `tc_url` or where it was."""
        if self.state != "publishing" or not self._may_reconnect:
            return False
        info = {"level": "status", "code": "NetConnection.Connect.ReconnectRequest", "description": description}
        self._command(0, "onStatus", 0, None, info | ({"tcUrl": tc_url} if tc_url else {}))
        return True

    # -- the peer's side ------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        self._received += len(data)
        if not self._handshake.is_done():
            self._out += self._handshake.receive(data)
            data = self._handshake.take_rest()
            if self._handshake.is_done():
                self.state = "connecting"
        for message in self._chunks.receive(data):
            self._message(message)
            if self.close_expected:
                return
        if self._received - self._acknowledged >= self._window // 2:
            # 5.4.3. Half a window, so that a peer which waits for it never stops.
            self._acknowledged = self._received
            self._send(2, Message(ACKNOWLEDGEMENT, 0, 0, (self._received & 0xFFFFFFFF).to_bytes(4, "big")))

    def _message(self, message: Message) -> None:
        self._before_publish += self.state != "publishing"
        if self._before_publish > MESSAGES_BEFORE_PUBLISH_MAX:
            raise RtmpError("too many messages without publishing")
        match message.type:
            case TagType.AUDIO | TagType.VIDEO:
                self._media(message, TagType(message.type), message.data)
            case TagType.SCRIPT:
                self._data(message, message.data)
            case 15:
                self._data(message, message.data[1:])
            case 20:
                self._on_command(message, amf0.read(message.data))
            case 17:
                self._on_command(message, amf0.read(message.data[1:]))
            case 5:
                self._window = max(2, min(WINDOW_BYTES, int.from_bytes(message.data[:4], "big")))
            case 4 if message.data[:2] == b"\x00\x06":
                self._send(2, Message(USER_CONTROL, 0, 0, b"\x00\x07" + message.data[2:6]))
            case _:
                return  # acknowledgements, bandwidth, pongs: nothing here depends on them

    def _media(self, message: Message, kind: TagType, data: bytes) -> None:
        if self.state != "publishing":
            if self.state == "connected":
                return  # what was on its way when it unpublished
            raise RtmpError("media before publishing was accepted")
        if data:
            self._events.append(Media(Tag(kind, self._clock(message.timestamp_ms), data)))

    def _data(self, message: Message, data: bytes) -> None:
        if self.state != "publishing":
            return
        first = amf0.end_of_first(data)
        if amf0.read(data[:first]) == ["@setDataFrame"]:
            data = data[first:]
        self._media(message, TagType.SCRIPT, data)

    def _on_command(self, message: Message, values: list[Any]) -> None:
        if not values or not isinstance(values[0], str):
            raise RtmpError("a command without a name")
        name = values[0]
        transaction = values[1] if len(values) > 1 and isinstance(values[1], float) else 0.0
        handler = _COMMANDS.get(name)
        if handler is None:
            return  # e.g. _checkbw, getStreamLength: asked by some, needed by none
        if name != "connect" and self.state == "connecting":
            raise RtmpError(f"{name} before connect")
        handler(self, message, transaction, values)

    def _connect(self, message: Message, transaction: float, values: list[Any]) -> None:
        if self.state != "connecting":
            raise RtmpError("connected twice")
        wanted: Mapping[str, Any] = values[2] if len(values) > 2 and isinstance(values[2], dict) else {}
        self._app = _name(wanted.get("app")).partition("?")[0].strip("/")
        self._encoder = _name(wanted.get("flashVer"))
        asked = Connected(self._app, self._encoder)
        refused = self._judge(asked)
        if refused is not None:
            self._reject(transaction, refused)
            return
        self.state = "connected"
        self._send(2, Message(WINDOW_ACK_SIZE, 0, 0, WINDOW_BYTES.to_bytes(4, "big")))
        self._send(2, Message(PEER_BANDWIDTH, 0, 0, WINDOW_BYTES.to_bytes(4, "big") + b"\x02"))
        self._send(2, Message(chunk.SET_CHUNK_SIZE, 0, 0, OUT_CHUNK_BYTES.to_bytes(4, "big")))
        properties = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31}
        info = {
            "level": "status",
            "code": "NetConnection.Connect.Success",
            "description": "Connected.",
            "objectEncoding": 0,
            # Enhanced RTMP, "Enhancing NetConnection connect Command": what is taken, to encoders of either version.
            "fourCcList": [*enhanced.VIDEO, *enhanced.AUDIO],
            "videoFourCcInfoMap": enhanced.VIDEO,
            "audioFourCcInfoMap": enhanced.AUDIO,
            "capsEx": enhanced.CAPABILITIES,
        }
        self._may_reconnect = bool(int(_caps(wanted.get("capsEx"))) & 1)
        self._command(0, "_result", transaction, properties, info)
        self._events.append(asked)

    def _create_stream(self, message: Message, transaction: float, values: list[Any]) -> None:
        self._command(0, "_result", transaction, None, PUBLISH_STREAM)

    def _acknowledge(self, message: Message, transaction: float, values: list[Any]) -> None:
        """releaseStream and FCPublish: nothing is held that these would release."""
        self._command(0, "_result", transaction, None)
        if values[0] == "FCPublish":
            info = {"code": "NetStream.Publish.Start", "description": "Go on."}
            self._command(0, "onFCPublish", 0, None, info)

    def _publish(self, message: Message, transaction: float, values: list[Any]) -> None:
        if self.state != "connected":
            raise RtmpError("a second publish on one connection")
        self.state = "asked"
        key = _name(values[3] if len(values) > 3 else None).partition("?")[0]
        self._events.append(PublishRequested(self._app, key, self._encoder))

    def _unpublish(self, message: Message, transaction: float, values: list[Any]) -> None:
        if self.state == "publishing":
            self.state = "connected"
            self._events.append(Unpublished())
            self._status("status", "NetStream.Unpublish.Success", "Unpublished.")
        elif self.state == "asked":
            raise RtmpError("unpublished before it was answered")

    def _play(self, message: Message, transaction: float, values: list[Any]) -> None:
        self._status("error", "NetStream.Play.StreamNotFound", "This address is for publishing; watch over HTTPS.")
        self.state = "ended"

    # -- saying -----------------------------------------------------------------------------------------------------

    def _status(self, level: str, code: str, description: str) -> None:
        info = {"level": level, "code": code, "description": description}
        self._command(PUBLISH_STREAM, "onStatus", 0, None, info)

    def _command(self, stream_id: int, *values: Any) -> None:
        self._send(3 if stream_id == 0 else 5, Message(COMMAND, stream_id, 0, amf0.write(*values)))

    def _send(self, chunk_id: int, message: Message) -> None:
        announced = self.state not in ("handshake", "connecting") and message.type == COMMAND
        self._out += chunk.write(
            message, chunk_id, chunk_bytes=OUT_CHUNK_BYTES if announced else chunk.CHUNK_BYTES_FIRST
        )


class _Unwrap:
    """32-bit milliseconds that wrap after 49.7 days, as ones that do not. Small steps back stay steps back."""

    def __init__(self) -> None:
        self._last: int | None = None

    def __call__(self, timestamp_ms: int) -> int:
        if self._last is None:
            self._last = timestamp_ms
        else:
            step = (timestamp_ms - self._last) & 0xFFFFFFFF
            self._last += step - (1 << 32) if step >= 1 << 31 else step
        return self._last


def _caps(value: Any) -> float:
    return value if isinstance(value, int | float) and 0 <= value < 1 << 16 else 0.0


def _name(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > NAME_CHARS_MAX:
        raise RtmpError("a name that is none")
    return value


_COMMANDS: Final[Mapping[str, Callable[[ServerSession, Message, float, list[Any]], None]]] = {
    "connect": ServerSession._connect,
    "releaseStream": ServerSession._acknowledge,
    "FCPublish": ServerSession._acknowledge,
    "createStream": ServerSession._create_stream,
    "publish": ServerSession._publish,
    "FCUnpublish": ServerSession._unpublish,
    "deleteStream": ServerSession._unpublish,
    "closeStream": ServerSession._unpublish,
    "play": ServerSession._play,
    "play2": ServerSession._play,
}
