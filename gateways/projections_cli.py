"""`tallylight projections status|rebuild`: what `projections` tells of itself, for a person at a terminal.

Called by `gateways.cli`. The work is done in `projections.queries` and `projections.rebuild`.
"""

from typing import Final

import orjson
import typer

from gateways import garbage
from gateways.beside import beside
from projections.queries import ProjectionStatus, status
from projections.rebuild import AlreadyRebuilding, Progress, Rebuilt, rebuild
from projections.registry import UnknownProjection

TELL_EVERY_S: Final = 1.0


async def show_status(*, machine: bool) -> int:
    """The exit code: 1 when a projection is not live or has parked a shard."""
    async with beside() as here:
        found = await status(here.pool, here.store)
    if machine:
        for one in found:
            told = {
                "name": one.name,
                "state": one.state,
                "position": one.position,
                "lag": one.lag,
                "shards": one.shards,
            }
            typer.echo(orjson.dumps(told).decode())
    else:
        typer.echo(f"{'projection':<16}{'state':<10}{'position':>12}{'lag':>10}")
        for one in found:
            typer.echo(f"{one.name:<16}{one.state:<10}{one.position:>12}{one.lag:>10}")
            for shard in _parked(one):
                typer.echo(f"  {shard}")
    return 0 if all(one.state == "live" and not _parked(one) for one in found) else 1


async def run_rebuild(name: str) -> int:
    garbage.look_seldom()
    told_s = 0.0

    def progress(now: Progress) -> None:
        nonlocal told_s
        if now.seconds - told_s >= TELL_EVERY_S:
            told_s = now.seconds
            typer.echo(f"{now.name}: {now.events} events, position {now.position} of {now.target}", err=True)

    async with beside() as here:
        try:
            outcome = await rebuild(name, pool=here.pool, log=here.store, progress=progress)
        except UnknownProjection as unknown:
            typer.echo(str(unknown), err=True)
            return 2
    match outcome:
        case Rebuilt():
            rate = outcome.events / outcome.seconds if outcome.seconds else 0.0
            typer.echo(f"{name}: {outcome.events} events in {outcome.seconds:.2f} s ({rate:,.0f}/s)")
            return 0
        case AlreadyRebuilding():
            typer.echo(f"{name}: another process is rebuilding it", err=True)
            return 1


def _parked(one: ProjectionStatus) -> list[str]:
    return [f"shard {shard.shard} parked at {shard.position}: {shard.parked}" for shard in one.shards if shard.parked]
