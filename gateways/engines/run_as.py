"""As whom Postgres runs. It refuses to be root, and we neither add system users nor open anybody's folders for it.

Called by `gateways.engines.postgres`. Three ways, the first that works here:
`DIRECT` for a normal user; `NAMESPACE` for root, in a user namespace in which root appears as a normal user (files stay ours,
nothing is opened); `UNPRIVILEGED` where namespaces are blocked: an unprivileged system user that exists already, in a folder it can reach.
"""

import os
import pwd
import shutil
import subprocess
from enum import Enum
from functools import cache
from typing import Final

from gateways.engines.process import EngineFailed, dying_with_parent

_CANDIDATES: Final = ("postgres", "daemon", "nobody")


class RunAs(Enum):
    DIRECT = "direct"
    NAMESPACE = "namespace"
    UNPRIVILEGED = "unprivileged"


@cache
def unprivileged() -> pwd.struct_passwd:
    """A user of this system that is not root; initdb insists that its user has a name."""
    for name in _CANDIDATES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    for entry in pwd.getpwall():
        if entry.pw_uid != 0:
            return entry
    raise EngineFailed("Postgres cannot run as root, and this system has no other user at all.")


@cache
def choose() -> RunAs:
    """The way that works on this machine for whoever runs us."""
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return RunAs.DIRECT
    if shutil.which("unshare") and _works([*prefix(RunAs.NAMESPACE), "true"]):
        return RunAs.NAMESPACE
    if os.geteuid() == 0 and shutil.which("setpriv"):
        return RunAs.UNPRIVILEGED
    raise EngineFailed(
        "Postgres cannot run here: as root it needs util-linux's `unshare` or `setpriv`; as a user without a name, user namespaces."
        " Run as a normal user, or set TALLYLIGHT_DSN to a Postgres of your own."
    )


def prefix(run_as: RunAs, *, parent_death: str | None = None) -> list[str]:
    """The command prefix that runs what follows as chosen, optionally dying with its parent."""
    guard = dying_with_parent(parent_death) if parent_death else []
    match run_as:
        case RunAs.DIRECT:
            return guard
        case RunAs.NAMESPACE:
            user = unprivileged()
            return ["unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--", *guard]
        case RunAs.UNPRIVILEGED:
            user = unprivileged()
            drop = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups", "--"]
            return [*drop, *guard]


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _works(command: list[str]) -> bool:
    return (
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10).returncode == 0
    )
