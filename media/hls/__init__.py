"""Low-latency HLS (draft-pantos-hls-rfc8216bis): samples to parts and segments, the window players see, the playlists' text.

No I/O in here; `media.origin` serves it.
"""
