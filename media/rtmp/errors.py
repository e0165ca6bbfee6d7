"""The one thing that any bytes can make the RTMP core raise."""


class RtmpError(Exception):
    """The peer broke the protocol: its connection ends. The text is for our log and never holds a stream key."""
