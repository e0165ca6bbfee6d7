"""The little of WebVTT (W3C) that storyboards and chapters need."""


def stamp(seconds: float) -> str:
    """A cue's time: hours, minutes, seconds and milliseconds."""
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{ms:03}"
