"""Debian's nginx as a peer, in a folder and on ports of its own. Used by the benchmarks of the media plane."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateways.engines.process import listening

_HEAD: Final = """
{load}
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; {user}
events {{ worker_connections 8192; }}
"""
_HTTP: Final = """
http {{
  access_log off; keepalive_requests 1000000; sendfile on; tcp_nopush off; tcp_nodelay on;
  types {{ application/vnd.apple.mpegurl m3u8; video/mp4 mp4 m4s; video/mp2t ts; }}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {http}
}}
"""


@contextmanager
def nginx(
    folder: Path, *, port: int, http: str = "", rtmp: str = "", core: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs until left; `http` and `rtmp` are what stands in those blocks, `port` one of those it must listen on."""
    folder.mkdir(parents=True, exist_ok=True)
    load = "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;" if rtmp else ""
    user = "user root;" if Path("/proc/self").owner() == "root" else ""
    text = _HEAD.format(load=load, folder=folder, user=user)
    if rtmp:
        text += f"rtmp {{ {rtmp} }}\n"
    if http:
        text += _HTTP.format(folder=folder, http=http)
    config = folder / "nginx.conf"
    config.write_text(text)
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    process = subprocess.Popen([*pinned, binary, "-p", str(folder), "-c", str(config)])
    try:
        while not listening("127.0.0.1", port):
            if process.poll() is not None:
                raise RuntimeError((folder / "error.log").read_text())
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(10)
