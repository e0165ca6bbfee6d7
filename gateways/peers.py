"""Who is at the other end, as the front saw them: the address by which attempts and connections are limited."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

IPV6_PREFIX: Final = 64


def counted_as(host: str) -> str:
    """The address itself; of IPv6 the network: whoever has one address of it has them all."""
    address = _address(host)
    if address is None:
        return host
    return str(address if isinstance(address, IPv4Address) else ip_network((address, IPV6_PREFIX), strict=False))


class Fronts:
    """The addresses or ranges whose X-Forwarded-For is believed, comma-separated as in the settings; `*`: everybody's."""

    def __init__(self, trusted: str) -> None:
        self._trusted: list[IPv4Network | IPv6Network] = [
            ip_network(entry.strip(), strict=False)
            for entry in trusted.replace("*", "0.0.0.0/0,::/0").split(",")
            if entry.strip()
        ]

    def client(self, peer: str, forwarded: Sequence[str]) -> str | None:
        """Whose request it is, of a connection from `peer` with these X-Forwarded-For headers; None where a front asks for itself."""
        if not self._trusts(peer):
            return peer
        named = [entry.strip() for header in forwarded for entry in header.split(",") if entry.strip()]
        # The last one that no front of ours stands behind: what is before it, the client may have made up.
        return next((host for host in reversed(named) if not self._trusts(host)), named[0] if named else None)

    def _trusts(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._trusted)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """None for what is none; one of IPv4 that comes as IPv6 is one of IPv4."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
