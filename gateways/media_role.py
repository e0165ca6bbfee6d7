"""The role `media`: RTMP in, LL-HLS out, recordings kept. It owns the broadcasts connected to it and plays on without the event plane.

Run by `gateways.roles`. The only place where the media plane is wired to the event plane.
"""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from obstore.exceptions import BaseError
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from gateways import bootstrap
from gateways.health import Readiness
from gateways.media_deletions import Deletions
from gateways.media_events import StoreEventPlane
from gateways.media_hidden import Closed, Hidden
from gateways.presence_sender import PresenceSender
from gateways.serving import serve
from gateways.settings import MediaSettings, SettingsInvalid
from gateways.stream_metrics import StreamMetrics
from media import encoders, ffmpeg
from media.archive import Archive
from media.clips import Clips
from media.deletion import destroy
from media.facts import restore
from media.hls.live import LiveRegistry
from media.ladder import LADDER, Room, read_ladder
from media.lease import Leases
from media.origin import Origin
from media.pipeline import Broadcasts, Node, Reporter
from media.playback import Gate, Signer, TokenInAddress
from media.port import Started
from media.recovery import LOOK_S, recover
from media.rtmp.server import RtmpServer
from media.slate import Slates
from media.spool import Spool
from media.srt import Authorise, SrtServer, SrtUnavailable
from media.storyboard import Storyboards
from media.vod import Vod

log = structlog.get_logger()

DRAIN_S_MAX: Final = 5.0
MPX_S_PER_CORE: Final = 30.0
"""What a core encodes in real time with some left for the rest: `make bench NAME=transcode_realtime`."""


async def run_media(settings: MediaSettings, readiness: Readiness) -> None:
    async with bootstrap.services(settings) as opened:
        presence = PresenceSender(settings.node, settings.bootstrap_servers)
        plane = StoreEventPlane(opened.store, presence.seen, clock=bootstrap.clock)
        archive = Archive.open(settings.archive, node=settings.node)
        # Node and start: no media address of this process was ever another's.
        run = f"{time.time_ns() // 1_000_000:x}"
        leases = Leases(archive, run=run, now=bootstrap.clock)
        registry = LiveRegistry(
            epoch=f"{settings.node}-{run}",
            clock=time.monotonic,
            rewind_s=settings.rewind_s,
            segment_s=settings.segment_s,
        )
        gate = Gate(Signer(settings.playback_secret.get_secret_value()))
        closed = Closed(archive, gate, opened.store)
        await closed.remember()
        await closed.look()  # before anything is served
        vod = Vod(archive, gate=gate)
        origin = Origin(registry, watching=plane.watching, past=vod.object, gate=gate)
        binary = ffmpeg.binary(settings.ffmpeg)
        storyboards = Storyboards(archive, vod, binary)
        encoder = await asyncio.to_thread(encoders.choose, binary, settings.encoder)
        log.info("encoder.chosen", encoder=encoder.name)
        async with _spool(settings, plane, archive) as spool:
            reporter = Reporter(spool.put)
            node = Node(
                registry,
                archive,
                reporter,
                name=settings.node,
                binary=binary,
                top_height=settings.rung_height_max,
                now=bootstrap.clock,
                new_id=bootstrap.new_id,
                slates=Slates(binary, loop_s=settings.segment_s),
                room=Room(settings.transcode_mpx_s or MPX_S_PER_CORE * (os.cpu_count() or 1)),
                ladder=read_ladder(Path(settings.ladder)) if settings.ladder else LADDER,
                encoder=encoder,
                leases=leases,
                recorded=storyboards.make_of,
            )
            broadcasts = Broadcasts(node, most=settings.broadcasts_max, resume_s=settings.resume_s)
            plane.is_on = broadcasts.is_on
            readiness.show("/broadcasts", lambda: [it.model_dump() for it in broadcasts.health()])
            REGISTRY.register(StreamMetrics(broadcasts.health))

            async def look(begun: Sequence[Started] = ()) -> None:
                await recover(
                    archive,
                    spool.put,
                    begun=begun,
                    is_live=broadcasts.is_live,
                    now=bootstrap.clock(),
                    leases=leases,
                    resume_s=settings.resume_s,
                )

            await look(spool.begun)
            rtmp = RtmpServer(
                lambda key, peer: plane.authorise(key, peer=peer),
                broadcasts,
                per_address_max=settings.rtmp_connections_per_address_max,
            )
            port = await rtmp.start(settings.rtmp_host, settings.rtmp_port)
            log.info("rtmp.listens", port=port)
            if settings.rtmps_port:
                port = await rtmp.start(settings.rtmp_host, settings.rtmps_port, tls=_tls(settings))
                log.info("rtmps.listens", port=port)
            srt = _srt(settings, lambda key, peer: plane.authorise(key, peer=peer), broadcasts, binary)
            draining = set[asyncio.Task[int]]()

            def drain() -> None:
                """An operator's `kill -USR1`: what is on moves to other nodes, where its encoders know how to."""
                broadcasts.drain()  # first: other nodes may have it before its encoder is asked to go there
                if srt is not None:
                    srt.drain()
                draining.add(asyncio.create_task(rtmp.drain()))

            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, drain)

            models = opened.read_models
            clips = Clips(archive, models.cut, binary, gate=gate)

            async def forget(broadcast_id: str) -> None:
                # Clips outlive it: what nobody has looked at yet is cut now.
                for clip_id in await models.clips_of(broadcast_id):
                    await clips.keep(clip_id)
                vod.forget(broadcast_id)
                await destroy(archive, broadcast_id)

            parts = (
                presence.run(),
                Deletions(models.deleted_broadcasts, forget).run(),
                Deletions(models.deleted_clips, clips.destroy).run(),
                Hidden(archive, vod, models.unpublished_broadcasts).run(),
                closed.run(),
                _looking(look),
            )
            beside = [asyncio.create_task(part) for part in parts]
            app = Starlette(routes=[*origin.routes(), *storyboards.routes(), *vod.routes(), *clips.routes()])
            try:
                await serve(TokenInAddress(app), settings.host, settings.media_port, readiness, stopping=origin.close)
            finally:
                # What is on ends in order: encoders are told, recordings closed, facts told.
                await rtmp.close()
                if srt is not None:
                    await srt.close()
                await broadcasts.close()
                await reporter.close()
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)


def _srt(settings: MediaSettings, authorise: Authorise, broadcasts: Broadcasts, binary: Path) -> SrtServer | None:
    """Listening, where a port is set."""
    if not settings.srt_port:
        return None
    passphrase = settings.srt_passphrase.get_secret_value()
    try:
        server = SrtServer(authorise, broadcasts, binary=binary, passphrase=passphrase)
    except (SrtUnavailable, ValueError) as fault:
        raise SettingsInvalid(f"TALLYLIGHT_SRT_PORT, TALLYLIGHT_SRT_PASSPHRASE: {fault}") from None
    log.info("srt.listens", port=server.start(settings.rtmp_host, settings.srt_port))
    return server


def _tls(settings: MediaSettings) -> ssl.SSLContext:
    if settings.tls_certificate is None or settings.tls_key is None:
        raise SettingsInvalid("TALLYLIGHT_RTMPS_PORT: needs TALLYLIGHT_TLS_CERTIFICATE and TALLYLIGHT_TLS_KEY")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context


async def _looking(look: Callable[[], Awaitable[None]]) -> None:
    """For broadcasts that other nodes lost, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            await look()
        except (BaseError, OSError) as fault:
            log.info("recovery.wait", why=repr(fault)[:200])


@asynccontextmanager
async def _spool(settings: MediaSettings, plane: StoreEventPlane, archive: Archive) -> AsyncIterator[Spool]:
    folder = settings.data_dir / "spool" / settings.node
    os.makedirs(folder, mode=0o700, exist_ok=True)
    spool = Spool(folder, plane.record, lambda it: restore(archive.store, it.broadcast_id, it.apart, it.first))
    await spool.start()
    try:
        yield spool
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                await spool.drained()
        except TimeoutError:
            log.warning("spool.kept", why="the event plane is away; the next start tells what is left")
    finally:
        await spool.close()
