"""`tallylight events tail|show`: the log as lines a person can read, personal fields closed unless asked for.

Called by `gateways.cli`. It only reads.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
import typer

from eventstore.port import SHARDS, EventStore, Recorded
from gateways.beside import beside

CLOSED: Final = "[personal]"
PAGE: Final = 500
FIELD_CHARS_MAX: Final = 120
STRETCH_MAX: Final = 65_536


def line(recorded: Recorded, *, personal: bool) -> str:
    """Time, shard:position, stream@version, topic and fields, on one line."""
    at = recorded.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    place = f"{recorded.shard}:{recorded.position}"
    who = f" by={recorded.actor}" if recorded.actor else ""
    fields = " ".join(f"{name}={_shown(value)}" for name, value in _fields(recorded.event, personal=personal).items())
    return f"{at}Z {place:>10} {recorded.stream}@{recorded.version} {recorded.topic} {fields}{who}"


def as_json(recorded: Recorded, *, personal: bool) -> str:
    """The same for machines, with everything the log knows of the event."""
    return orjson.dumps(
        {
            "at": recorded.at,
            "shard": recorded.shard,
            "position": recorded.position,
            "stream": recorded.stream,
            "version": recorded.version,
            "topic": recorded.topic,
            "category": recorded.category,
            "actor": recorded.actor,
            "command_id": recorded.command_id,
            "correlation_id": recorded.correlation_id,
            "causation_id": recorded.causation_id,
            "fields": _fields(recorded.event, personal=personal),
        },
        default=str,  # ids as the database's driver brings them
    ).decode()


async def show(stream: str, *, after: int, limit: int, personal: bool, machine: bool) -> int:
    """The events of one stream. The exit code: 1 when it has none."""
    say = as_json if machine else line
    shown = 0
    async with beside() as here:
        while shown < limit:
            page = await here.store.read_stream(stream, after=after, limit=min(PAGE, limit - shown))
            for recorded in page:
                typer.echo(say(recorded, personal=personal))
            shown += len(page)
            if not page:
                break
            after = page[-1].version
    return 0 if shown else 1


async def tail(*, last: int, follow: bool, category: str | None, personal: bool, machine: bool) -> int:
    """The newest events over all shards by time; with `follow` also what comes, until interrupted."""
    say = as_json if machine else line
    async with beside() as here:
        heads = await here.store.heads()
        recent: list[Recorded] = []
        for shard in range(SHARDS):
            recent += await _newest(here.store, shard, heads[shard], last, category)
        recent.sort(key=lambda recorded: (recorded.at, recorded.shard, recorded.position))
        for recorded in recent[len(recent) - min(last, len(recent)) :]:
            typer.echo(say(recorded, personal=personal))
        if follow:
            async for batch in here.store.subscribe(dict(enumerate(heads))):
                for recorded in batch:
                    if category in (None, recorded.category):
                        typer.echo(say(recorded, personal=personal))
    return 0


async def _newest(store: EventStore, shard: int, head: int, last: int, category: str | None) -> list[Recorded]:
    """A shard's last events of a category up to `head`, looked for in ever longer stretches back from there."""
    wanted = None if category is None else [category]
    found: list[Recorded] = []
    upto, width = head, max(last, 1)
    while upto > 0 and len(found) < last:
        after = max(0, upto - width)
        stretch = await store.read_shard(shard, after=after, limit=upto - after, categories=wanted)
        found = [recorded for recorded in stretch if recorded.position <= upto] + found
        upto, width = after, min(2 * width, STRETCH_MAX)
    return found[len(found) - min(last, len(found)) :]


def run_tail(**options: Any) -> int:
    """Until Ctrl-C, which is how one leaves a tail: no failure."""
    try:
        return asyncio.run(tail(**options))
    except KeyboardInterrupt:
        return 0


def _fields(event: Any, *, personal: bool) -> Mapping[str, Any]:
    fields: dict[str, Any] = event.model_dump(mode="json")
    if not personal:
        fields |= {name: CLOSED for name in event.PERSONAL if fields.get(name) is not None}
    return fields


def _shown(value: Any) -> str:
    """Quoted only where a bare word would mislead; long ones cut, for this is a line."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if len(text) > FIELD_CHARS_MAX:
        text = text[:FIELD_CHARS_MAX] + "…"
    if isinstance(value, str) and (not text or not text.isprintable() or any(char in text for char in ' "=')):
        return orjson.dumps(text).decode()
    return text
