import socket

import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import addresses

HAS_IPV6 = socket.has_ipv6
try:
    with socket.create_server(("::1", 0), family=socket.AF_INET6):
        pass
except OSError:
    HAS_IPV6 = False
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this host has no IPv6")


def places(sockets):
    found = [made.getsockname()[:2] for made in sockets]
    addresses.close(sockets)
    return found


def answers(*found):
    """A resolver that knows these addresses."""
    return lambda _, port, type: [
        (socket.AF_INET6 if ":" in a else socket.AF_INET, type, 6, "", (a, port)) for a in found
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.1"])
def test_an_address_is_listened_at_alone(host):
    ((address, port),) = places(addresses.listening(host, 0))
    assert address == {"127.1": "127.0.0.1"}.get(host, host)
    assert port > 0


@needs_ipv6
def test_an_address_of_ipv6_is_listened_at_alone():
    sockets = addresses.listening("::1", 0)
    assert addresses.only_here(sockets)
    assert [address for address, _ in places(sockets)] == ["::1"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["127.0.0.1"], ["127.0.0.1"]),
        (["127.0.0.1", "127.0.0.1"], ["127.0.0.1"]),
        (["127.0.0.1", "127.0.0.3"], ["127.0.0.1", "127.0.0.3"]),
        (["192.0.2.1", "127.0.0.1"], ["127.0.0.1"]),
        (["127.0.0.1", "0.0.0.0", "::"], ["127.0.0.1"]),
        (["2001:db8::1", "127.0.0.1"], ["127.0.0.1"]),
        (["::ffff:127.0.0.1", "127.0.0.1"], ["127.0.0.1"]),
        pytest.param(["::1", "127.0.0.1"], ["::1", "127.0.0.1"], marks=needs_ipv6),
    ],
)
def test_of_a_names_addresses_those_of_this_host_are_listened_at(monkeypatch, found, expected):
    monkeypatch.setattr(socket, "getaddrinfo", answers(*found))
    assert [address for address, _ in places(addresses.listening("node0", 0))] == expected


@pytest.mark.parametrize("elsewhere", [["192.0.2.1"], ["192.0.2.1", "2001:db8::1"], ["0.0.0.0"]])
def test_a_name_of_another_host_is_refused(monkeypatch, elsewhere):
    monkeypatch.setattr(socket, "getaddrinfo", answers(*elsewhere))
    with pytest.raises(UserError) as refused:
        addresses.listening("node0", 4000)
    assert str(refused.value) == (
        f"--coordinator=node0:4000: {', '.join(elsewhere)} is not an address of this host, on "
        "which process 0 runs; give process 0 one of this host's addresses, and the others the one "
        "at which they reach it"
    )


def test_a_name_that_nobody_knows_is_refused(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"node0 cannot be resolved on this host \(Name or"):
        addresses.listening("node0", 4000)


def test_where_one_address_is_taken_none_is_left_open(monkeypatch):
    with socket.create_server(("127.0.0.3", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", answers("127.0.0.2", "127.0.0.3"))
        with pytest.raises(UserError, match=f"port {port} of this host cannot be used"):
            addresses.listening("node0", port)
        with socket.create_server(("127.0.0.2", port)):
            pass


def test_an_address_is_named_as_on_the_command_line():
    assert addresses.named("node0", 4000) == "node0:4000"
    assert addresses.named("::1", 4000) == "[::1]:4000"
