from __future__ import annotations

import pytest

from codespace_kernels.errors import TunnelError
from codespace_kernels.tunnel.management import TunnelEndpoint, management_url
from codespace_kernels.tunnel.relay import proxy_for


@pytest.mark.parametrize(
    ("service_uri", "cluster_id", "expected"),
    [
        ("https://global.rel.tunnels.api.visualstudio.com/", "usw2", "https://usw2.rel.tunnels.api.visualstudio.com/"),
        ("https://usw2.rel.tunnels.api.visualstudio.com/", "usw2", "https://usw2.rel.tunnels.api.visualstudio.com/"),
        ("https://rel.example.com:8443/some/path?x=1", "use", "https://use.rel.example.com:8443/"),
        ("https://cp.example.com/", "use", "https://cp.example.com/"),
        ("http://127.0.0.1:9911/", "127", "http://127.0.0.1:9911/"),
        ("http://localhost/", "usw2", "http://localhost/"),
        ("http://localhost:9911/", "usw2", "http://usw2.localhost:9911/"),
        ("http://localhost:9911/", "localhost", "http://localhost:9911/"),
        ("https://tunnels.local.api.visualstudio.com", "use", "https://tunnels.local.api.visualstudio.com/"),
        ("https://global.rel.example.com/", "", "https://global.rel.example.com/"),
    ],
)
def test_address_of_a_cluster(service_uri, cluster_id, expected):
    assert str(management_url(service_uri, cluster_id)) == expected


@pytest.mark.parametrize("uri", ["", "ftp://x/", "no address", "https:///x"])
def test_address_that_is_none(uri):
    with pytest.raises(TunnelError, match="that is none"):
        management_url(uri, "use")


def endpoint(**fields):
    return {"connectionMode": "TunnelRelay", "clientRelayUri": "wss://relay/", **fields}


def test_local_network_endpoints_do_not_count():
    data = {"endpoints": [endpoint(), endpoint(connectionMode="LocalNetwork")], "ports": [{"portNumber": 16634}]}
    assert TunnelEndpoint.from_json(data) == TunnelEndpoint("wss://relay/", (), frozenset({16634}))


@pytest.mark.parametrize(
    "endpoints", [[endpoint(), endpoint()], [endpoint(clientRelayUri="http://x")], [endpoint(clientRelayUri=None)]]
)
def test_endpoints_that_cannot_be_used(endpoints):
    with pytest.raises(TunnelError, match="no single relay address"):
        TunnelEndpoint.from_json({"endpoints": endpoints})


class TestProxy:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        for name in (
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
        ):
            monkeypatch.delenv(name, raising=False)

    def test_none(self):
        assert proxy_for("relay.example", secure=True) is None

    def test_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "http://user:pw@proxy.example:3128")
        proxy = proxy_for("relay.example", secure=True)
        assert proxy is not None
        assert (proxy.hostname, proxy.port, proxy.username) == ("proxy.example", 3128, "user")
        assert proxy_for("relay.example", secure=False) is None

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "relay.internal"])
    def test_not_for_loopback_and_exceptions(self, monkeypatch, host):
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        monkeypatch.setenv("NO_PROXY", ".internal")
        assert proxy_for(host, secure=True) is None

    def test_of_a_kind_that_is_not_supported(self, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
        with pytest.raises(TunnelError, match=r"socks5://proxy\.example cannot be used"):
            proxy_for("relay.example", secure=True)


@pytest.mark.parametrize("uri", ["http://tunnels.example/", "http://127.0.0.1.example/", "http://10.0.0.1/"])
def test_no_token_is_sent_in_clear(uri):
    with pytest.raises(TunnelError, match="not encrypted"):
        management_url(uri, "usw2")
    with pytest.raises(TunnelError, match="not encrypted"):
        TunnelEndpoint.from_json({"endpoints": [endpoint(clientRelayUri=uri.replace("http", "ws"))]})
    TunnelEndpoint.from_json({"endpoints": [endpoint(clientRelayUri=uri.replace("http", "wss"))]})
