"""What `tallylight up` tells its roles, so that they find each other and the engines, and what it tells its user, so that he finds it.

Called by the supervisor; pure but for a look at the environment, in which the user's own word about secrets and addresses stands.
"""

import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from gateways import front, ports
from gateways.engines.broker import PARTITIONS
from gateways.folder import DataFolder, Running
from gateways.settings import PREFIX, UpSettings

FETCH_WAIT_MS: Final = 20  # Tansu does not wake a held fetch (design §2)


def role_environment(
    settings: UpSettings,
    folder: DataFolder,
    engines: Running,
    *,
    ports_of: Mapping[str, int],
    health_of: Mapping[str, int],
) -> dict[str, object]:
    """Settings for every role, by their names; a role takes what it knows."""
    secrets = folder.secrets()
    embedded = {"kafka_partitions": PARTITIONS, "kafka_fetch_wait_ms": FETCH_WAIT_MS, "kafka_replication": 1}
    return {
        "data_dir": folder.path,
        "log_format": "json" if settings.log_format == "json" else "console",  # they see a pipe, not our terminal
        "host": ports.HOST,
        "health_host": ports.HOST,
        "health_urls": ",".join(f"{name}=http://{ports.HOST}:{port}" for name, port in health_of.items()),
        "dsn": engines.dsn,
        "keys_dsn": engines.keys_dsn,
        "bootstrap_servers": engines.bootstrap_servers,
        **({} if settings.bootstrap_servers else embedded),
        **_unless_set(
            token_secret=secrets.token_secret,
            master_key=secrets.master_key,
            sandbox_secret=secrets.sandbox_secret,
            playback_secret=secrets.playback_secret,
            rtmp_host=ports.HOST if settings.front_host == front.LOCAL else settings.front_host,
            rtmp_public_url=engines.rtmp_url,
        ),
        "public_url": engines.public_url,
        "rtmp_port": settings.rtmp_port,
        **{f"{name}_port": port for name, port in ports_of.items()},
        "sandbox_url": f"http://{ports.HOST}:{ports_of['sandbox']}",
        "sandbox_webhook_url": f"http://{ports.HOST}:{ports_of['api']}/webhooks/sandbox",
    }


def rtmp_url(settings: UpSettings) -> str:
    """Where OBS sends to, on the host by which people know us."""
    host = urlsplit(front.public_url(settings)).hostname or front.LOCAL
    return f"rtmp://{f'[{host}]' if ':' in host else host}:{settings.rtmp_port}/live"


def welcome(settings: UpSettings, *, ready_after_s: float) -> str:
    """All a newcomer needs to know."""
    url, secure = front.public_url(settings), front.secure_url(settings)
    lines = [
        f"Tallylight is ready after {ready_after_s:.1f} s.",
        "",
        f"  Watch      {url}/" + (f"   (HTTP/2: {secure}/)" if secure else ""),
        f"  Broadcast  {rtmp_url(settings)}   with your channel's stream key, from {url}/dashboard",
        f"  API        {url}/docs",
        f"  Data       {settings.data_dir}",
        "",
        "  Ctrl-C stops everything. `tallylight events tail` shows what happens, `tallylight demo` goes on air with a test picture.",
    ]
    return "\n".join(lines)


def _unless_set(**settings: object) -> dict[str, object]:
    """Those of the settings that the environment leaves open."""
    return {name: value for name, value in settings.items() if f"{PREFIX}{name.upper()}" not in os.environ}
