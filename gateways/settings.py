"""What each role must be told: one class a role, read from `TALLYLIGHT_…` in the environment (or files below /run/secrets).

Loaded by `gateways.roles`, `gateways.cli` and the supervisor, which also writes them for its children. Nothing else in the project
reads the environment. `tallylight doctor` and `compose.yaml` are held to these names by tests.
"""

import base64
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX: Final = "TALLYLIGHT_"
_SECRETS_DIR: Final = Path("/run/secrets")
MASTER_KEY_BYTES: Final = 32

Port = Annotated[int, Field(ge=0, le=65535)]


def default_data_dir() -> Path:
    """Where data is safe and private by custom: /var/lib for root, the XDG data home for anybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/tallylight")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tallylight"


class SettingsInvalid(Exception):
    """The environment does not say what a role must know; the message names each variable and what is wrong with it."""


class Settings(BaseSettings):
    """What every role knows."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        secrets_dir=_SECRETS_DIR if _SECRETS_DIR.is_dir() else None,
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    health_host: str = "127.0.0.1"
    health_port: Port = 0
    """The private port of /healthz, /readyz and /metrics; 0 picks a free one."""

    @classmethod
    def load(cls, **known: Any) -> Self:
        """From the environment, but for what is known already; or `SettingsInvalid`."""
        try:
            return cls(**known)
        except ValidationError as invalid:
            lines = [
                f"{PREFIX}{'_'.join(map(str, error['loc'])).upper()}: {error['msg']}"
                for error in invalid.errors(include_input=False)
            ]
            raise SettingsInvalid("\n".join(lines)) from None


def _key_of_32_bytes(value: SecretStr) -> SecretStr:
    if len(base64.urlsafe_b64decode(value.get_secret_value())) != MASTER_KEY_BYTES:
        raise ValueError(f"must be {MASTER_KEY_BYTES} random bytes in URL-safe base64")
    return value


class Stored(Settings):
    """Roles that reach the event store and the read models (`dsn`) and the personal keys, which live apart (`keys_dsn`)."""

    dsn: SecretStr
    keys_dsn: SecretStr
    master_key: Annotated[SecretStr, AfterValidator(_key_of_32_bytes)]
    """Wraps the personal keys at rest."""
    pool_size: Annotated[int, Field(ge=1, le=100)] = 8

    @property
    def master_key_bytes(self) -> bytes:
        return base64.urlsafe_b64decode(self.master_key.get_secret_value())


class Conveyed(Settings):
    """Roles that speak to the broker."""

    bootstrap_servers: str = "127.0.0.1:9092"
    kafka_partitions: Annotated[int, Field(ge=1, le=64)] = 64
    kafka_replication: Annotated[int, Field(ge=1, le=5)] = 1
    kafka_fetch_wait_ms: Annotated[int, Field(ge=1, le=5000)] = 500
    """Kafka wakes a held fetch when data arrives; Tansu does not, and wants a short wait (design §2)."""


class ApiSettings(Stored, Conveyed):
    host: str = "127.0.0.1"
    api_port: Port = 8001
    public_url: str = "http://localhost:8000"
    """The front's address as people type it."""
    rtmp_public_url: str = "rtmp://localhost:1935/live"
    srt_public_url: str = ""
    """The address broadcasters are told for SRT; empty: none."""
    token_secret: SecretStr
    """Signs access tokens and tickets."""
    playback_secret: SecretStr
    """Signs the tokens by which subscribers play what is theirs alone; the media nodes and the edges check them."""
    sandbox_url: str = "http://127.0.0.1:8004"
    sandbox_secret: SecretStr
    trusted_fronts: str = "127.0.0.1,::1"
    """Addresses or ranges whose X-Forwarded-For names the client: the front's. Attempts to log in are limited per address."""
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    """Recordings older than this are deleted; 0: none are."""
    health_urls: str = ""
    """Other roles' private ports for the aggregated view: `chat=http://…,media=http://…`."""

    def health_of(self) -> dict[str, str]:
        """Role name → base address of its private port."""
        pairs = (entry.partition("=") for entry in self.health_urls.split(",") if entry)
        return {name: url for name, _, url in pairs}


class ChatSettings(Stored, Conveyed):
    host: str = "127.0.0.1"
    chat_port: Port = 8002
    public_url: str = "http://localhost:8000"
    token_secret: SecretStr
    trusted_fronts: str = "127.0.0.1,::1"
    """Addresses or ranges whose X-Forwarded-For names the client: the front's."""
    chat_sockets_per_address_max: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Connections one address may have to a chat pod; 0: any number. A campus or a mobile network may stand behind one address."""


class MediaSettings(Stored, Conveyed):
    host: str = "127.0.0.1"
    media_port: Port = 8003
    """The origin's HTTP port, behind the front."""
    playback_secret: SecretStr
    rtmp_host: str = "127.0.0.1"
    rtmp_port: Port = 1935
    rtmp_connections_per_address_max: Annotated[int, Field(ge=1, le=2_000)] = 100
    """An IPv6 network of /64 counts as one address."""
    rtmps_port: Port = 0
    """RTMP in TLS, with `tls_certificate` and `tls_key`; 0: none."""
    srt_port: Port = 0
    """SRT, a UDP port on the same address; 0: none. It needs libsrt."""
    srt_passphrase: SecretStr = SecretStr("")
    """What every SRT caller must know, 10 to 79 characters; empty: a stream key is enough, and nothing is encrypted."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    archive_url: str = ""
    """An object store as obstore spells it (`s3://bucket/…`); empty: a folder below `data_dir`."""

    @property
    def archive(self) -> str:
        """Where finished segments and their manifests go."""
        return self.archive_url or str(self.data_dir / "archive")

    ffmpeg: str = ""
    """A path; empty: the wheel's own."""
    node: str = "media-1"
    broadcasts_max: Annotated[int, Field(ge=1, le=500)] = 20
    segment_s: Annotated[float, Field(ge=1, le=6)] = 2
    """How long a segment is meant to be: players without low latency stay three of them behind."""
    rewind_s: Annotated[int, Field(ge=0, le=24 * 3600)] = 7_200
    """How far viewers can rewind a live broadcast."""
    resume_s: Annotated[int, Field(ge=0, le=3600)] = 90
    """An encoder that comes back so soon goes on in the same broadcast."""
    rung_height_max: Annotated[int, Field(ge=0, le=4320)] = 1080
    """The highest rendition that is made beside the source."""
    transcode_mpx_s: Annotated[float, Field(ge=0)] = 0
    """What this node can encode, in megapixels a second; 0: a guess from its cores. Beyond it broadcasts get fewer renditions."""
    encoder: Literal["auto", "h264_nvenc", "h264_qsv", "h264_vaapi", "h264_videotoolbox", "libx264"] = "auto"
    ladder: str = ""
    """A JSON file with a table of renditions of your own; empty: ours."""


class RelaySettings(Stored, Conveyed):
    pass


class ProjectorSettings(Stored, Conveyed):
    pass


class SandboxSettings(Settings):
    host: str = "127.0.0.1"
    sandbox_port: Port = 8004
    sandbox_secret: SecretStr
    sandbox_webhook_url: str = ""
    """Where it tells of its charges; empty: nobody."""


class EdgeSettings(Conveyed):
    host: str = "127.0.0.1"
    edge: str = "edge-1"
    """Its name; each edge has one of its own."""
    edge_port: Port = 8005
    playback_secret: SecretStr
    edge_storage_mib: Annotated[int, Field(ge=16, le=1 << 20)] = 1024
    """Memory for cached media."""
    nodes: str = "media-1=127.0.0.1:8003"
    """The media nodes' origins by their names: `media-1=host:port,media-2=host:port`."""


class FrontSettings(Settings):
    """`front_host`: `localhost` for this machine alone, or an address or `0.0.0.0` for others too."""

    front_host: str = "localhost"
    http_port: Port = 8000
    https_port: Port = 8443
    public_url: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: str = ""
    """Address ranges of proxies in front of us whose X-Forwarded-For is believed, comma-separated."""
    api_upstream: str = "127.0.0.1:8001"
    chat_upstream: str = "127.0.0.1:8002"
    media_upstream: str = "127.0.0.1:8003"


class UpSettings(FrontSettings):
    """`tallylight up`: the public ports, and where another Postgres or broker should be used instead of the embedded ones."""

    rtmp_port: Port = 1935
    postgres_port: Port = 0
    broker_port: Port = 0
    dsn: SecretStr | None = None
    keys_dsn: SecretStr | None = None
    bootstrap_servers: str | None = None
