"""Writes the seeds of the corpus anew, from what real encoders sent: `python -m tests.fuzz.seeds`. Small, for they are committed."""

from media.fmp4.writer import init_segment
from media.rtmp import amf0, chunk
from media.rtmp.chunk import Message
from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TAG, TYPES
from tests.media.encoded import fragmented_mp4
from tests.media.recorded import encoded
from tests.media.tags import tags

BODY_BYTES_MAX = 300
COMMAND = 20


def main() -> None:
    sent = tags(seconds=1, gop=15, size="64x36", rate=15)[:24]
    rendition, _, _ = encoded()
    commands = [
        amf0.write(
            "connect",
            1,
            {"app": "live", "flashVer": "x", "tcUrl": "rtmp://h/live", "fourCcList": ["hvc1"], "capsEx": 1},
        ),
        amf0.write("releaseStream", 2, None, "key"),
        amf0.write("createStream", 4, None),
        amf0.write("publish", 5, None, "key", "live"),
    ]
    messages = [chunk.write(Message(COMMAND, 0, 0, body), 3) for body in commands]
    messages += [chunk.write(Message(tag.type, 1, tag.timestamp_ms, tag.data[:BODY_BYTES_MAX]), 4) for tag in sent]
    plain = b"".join(TAG.pack(TYPES.index(it.type), it.timestamp_ms, len(it.data)) + it.data for it in sent)
    jumping = b"".join(
        TAG.pack(TYPES.index(it.type), (it.timestamp_ms * 7919 + n * 3_600_000 * (n % 3)) % 2**32, len(it.data))
        + it.data
        for n, it in enumerate(sent)
    )
    write("rtmp", session=b"\x08" + b"".join(messages), bytewise=b"\x01" + b"".join(messages[:3]))
    write("amf", **{f"command{number}": body for number, body in enumerate(commands)})
    write("flv", plain=plain[:12_000], jumping=jumping[:12_000])
    write(
        "fmp4", init=init_segment(rendition.video, rendition.audio), ffmpeg=fragmented_mp4(seconds=1, gop=30)[:12_000]
    )
    write(
        "query",
        both=b"_HLS_msn=12&_HLS_part=3&_HLS_skip=YES",
        twice=b"_HLS_msn=1&_HLS_msn=2",
        odd=b"_HLS_part=-1&_HLS_msn=%31",
    )


def write(target: str, **seeds: bytes) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
