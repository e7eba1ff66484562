"""The addresses that process 0's name means, and sockets that listen there and nowhere else."""

import errno
import ipaddress
import socket

from fedvlr_jax.errors import UserError

_BACKLOG = 128


def named(host: str, port: int) -> str:
    """HOST:PORT as a user writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address that a name of this host means, and at no other.

    A name may mean several, as localhost means one of IPv4 and one of IPv6.

    Raises:
        UserError: the name means no address of this host, or the port is taken.
    """
    what = f"--coordinator={named(host, port)}"
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what}: {host} cannot be resolved on this host ({reason})") from None
    # An address that is found twice is listened at once.
    addresses = list(dict.fromkeys((family, address) for family, *_, address in resolved))
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            if (made := _listening_at(family, address, what)) is not None:
                sockets.append(made)
    except UserError:
        close(sockets)
        raise
    if not sockets:
        elsewhere = ", ".join(str(address[0]) for _, address in addresses)
        raise UserError(
            f"{what}: {elsewhere} is not an address of this host, on which process 0 runs; give "
            "process 0 one of this host's addresses, and the others the one at which they reach it"
        )
    return sockets


def only_here(sockets: list[socket.socket]) -> bool:
    """Whether processes of this host alone can reach these sockets."""
    return all(_ip(made.getsockname()[0]).is_loopback for made in sockets)


def close(sockets: list[socket.socket]) -> None:
    """Close all."""
    for made in sockets:
        made.close()


def _listening_at(family: int, address: tuple, what: str) -> socket.socket | None:
    """None where the address is none of this host's."""
    if _ip(address[0]).is_unspecified:
        return None
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # a kernel without IPv6
        return None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        # EINVAL: an address of IPv4 written as one of IPv6.
        if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
            return None
        raise UserError(
            f"{what}: port {address[1]} of this host cannot be used ({error.strerror}), expected "
            "a free one"
        ) from None
    return made


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address.partition("%")[0])
