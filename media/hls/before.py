"""What a broadcast had before this process took it over: its cuts, so that numbers go on, and its segments, so that they can be rewound to.

`media.takeover` makes it of a manifest; `media.hls.live` begins with it. The bytes are in the archive.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from media.hls.cuts import Cut
from media.hls.window import Entry


@dataclass(frozen=True, slots=True)
class Former:
    """One rendition's: `init` of an entry counts `inits`, and `codecs` names those of all of them."""

    entries: tuple[Entry, ...]
    inits: tuple[bytes, ...]
    codecs: str


@dataclass(frozen=True, slots=True)
class Before:
    """`apart`: the source's own cuts, where it had left those of the others. `longest_s`: of the common segments."""

    cuts: tuple[Cut, ...]
    apart: tuple[Cut, ...]
    longest_s: float
    renditions: Mapping[str, Former]
