"""The encoder that a machine has: found by encoding, in an order of preference. Only libx264 is really run here."""

from collections.abc import Sequence

import pytest

from media import ffmpeg
from media.encoders import CANDIDATES, choose, probe_command
from media.ladder import LADDER
from media.sample import AudioTrack, VideoTrack

VIDEO = VideoTrack("avc1.64001f", b"", 1920, 1080, 60.0)
AUDIO = AudioTrack("mp4a.40.2", b"", 48_000, 2)


@pytest.mark.parametrize("has", [candidate.name for candidate in CANDIDATES])
def test_the_first_that_works_is_taken(has: str) -> None:
    asked: list[str] = []

    def run(command: Sequence[str]) -> bool:
        name = command[command.index("-c:v") + 1]
        asked.append(name)
        return name == has

    assert choose(ffmpeg.binary(), run=run).name == has
    assert asked == [candidate.name for candidate in CANDIDATES][: len(asked)]


def test_one_that_is_named_is_taken_without_a_question() -> None:
    def run(command: Sequence[str]) -> bool:
        raise AssertionError(command)

    assert choose(ffmpeg.binary(), "h264_qsv", run=run).name == "h264_qsv"


def test_where_nothing_works_libx264_is_what_there_is() -> None:
    assert choose(ffmpeg.binary(), run=lambda _: False).name == "libx264"


def test_the_real_ffmpeg_finds_an_encoder_that_works_here() -> None:
    chosen = choose(ffmpeg.binary())
    assert chosen in CANDIDATES


@pytest.mark.parametrize("encoder", CANDIDATES, ids=lambda it: str(it.name))
def test_every_encoder_is_told_where_frames_come_from_and_where_its_key_frames_are(encoder: object) -> None:
    from media.encoders import Encoder

    assert isinstance(encoder, Encoder)
    command = ffmpeg.command(ffmpeg.binary(), VIDEO, [(LADDER[1], 7), (LADDER[2], 8)], audio=AUDIO, encoder=encoder)
    assert command.count(encoder.name) == 2
    assert command.count("source") == 2
    rates = [command[index + 1] for index, word in enumerate(command) if word == "-g"]
    assert rates == ["120", "60"], "two seconds, at each rung's own rate"
    device = probe_command(ffmpeg.binary(), encoder)
    for name in encoder.inputs:
        assert f"-{name}" in command[: command.index("-i")]
        assert f"-{name}" in device[: device.index("-i")]
    if encoder.upload:
        assert "hwupload" in " ".join(command)
