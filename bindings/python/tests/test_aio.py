"""The Python bindings over real sockets on loopback: a server handler and a client, in each HTTP version."""

import asyncio
import hashlib
import os

import pytest

import cb
import cb.aio
import cb.metrics

VERSIONS = [pytest.param(cb.HTTP_1, id="h1"), pytest.param(cb.HTTP_2, id="h2"), pytest.param(cb.HTTP_3, id="h3")]


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    with cb.CA(directory / "ca") as ca:
        cert, key = ca.issue("localhost", "127.0.0.1", "::1")
        return {"ca": ca.ca_file, "cert": cert, "key": key}


async def handler(request):
    if request.path == "/hello":
        return cb.aio.Response(200, {"content-type": "text/plain"}, b"hello from python\n")
    if request.path == "/echo":
        return cb.aio.Response(200, {"x-method": request.method}, request)
    if request.path == "/digest":
        digest = hashlib.sha256()
        async for chunk in request:
            digest.update(chunk)
            await asyncio.sleep(0)
        return cb.aio.Response(200, body=digest.hexdigest().encode())
    if request.path == "/boom":
        raise RuntimeError("boom")
    if request.path == "/half":
        async def half():
            yield b"x" * 1000
            raise ValueError("the source broke")
        return cb.aio.Response(200, {"content-length": "2000"}, half())
    return cb.aio.Response(404, body=b"no such thing\n")


def serve(pki, test, versions=0):
    async def main():
        with cb.Identity(pki["cert"], pki["key"]) as identity:
            async with cb.aio.Server("127.0.0.1:0", identity, handler) as server:
                async with cb.aio.Client(ca_file=pki["ca"], versions=versions) as client:
                    return await asyncio.wait_for(test(client, "https://localhost:" + server.address.rsplit(":", 1)[1]), 30)

    return asyncio.run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_get(pki, version):
    async def test(client, base):
        response = await client.get(base + "/hello")
        assert (response.status, response.version) == (200, version)
        assert response.header("Content-Type") == "text/plain"
        assert await response.read() == b"hello from python\n"
        assert (await client.get(base + "/nothing")).status == 404

    serve(pki, test, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_bodies_both_ways_are_exact(pki, version):
    data = os.urandom(3 * 1024 * 1024)

    async def pieces():
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    async def test(client, base):
        response = await client.post(base + "/digest", pieces())
        assert (await response.read()).decode() == hashlib.sha256(data).hexdigest()
        response = await client.post(base + "/echo", data)
        assert response.header("x-method") == "POST"
        assert hashlib.sha256(await response.read()).digest() == hashlib.sha256(data).digest()

    serve(pki, test, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_many_at_once(pki, version):
    async def test(client, base):
        async def one(i):
            response = await client.post(base + "/echo", b"%d" % i)
            return await response.read()

        assert await asyncio.gather(*(one(i) for i in range(100))) == [b"%d" % i for i in range(100)]

    serve(pki, test, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_failures_are_errors(pki, version):
    async def test(client, base):
        assert (await client.get(base + "/boom")).status == 500
        with pytest.raises(cb.Error):  # the reset may overtake the head
            await (await client.get(base + "/half")).read()
        assert (await client.get(base + "/hello")).status == 200  # others are unharmed

    serve(pki, test, version)


def test_alt_svc_and_a_changed_network(pki):
    """The first request goes over TCP; the server's Alt-Svc leads to HTTP/3, unless it is not wanted."""
    async def main(**options):
        with cb.Identity(pki["cert"], pki["key"]) as identity:
            async with cb.aio.Server("127.0.0.1:0", identity, handler) as server:
                async with cb.aio.Client(ca_file=pki["ca"], follow_network=True, h3_head_start=0.2, h3_retry=1, **options) as client:
                    versions = []
                    for _ in range(30):
                        response = await client.get("https://localhost:" + server.address.rsplit(":", 1)[1] + "/hello")
                        assert await response.read() == b"hello from python\n"
                        versions.append(response.version)
                        await asyncio.sleep(0.01)
                    client.network_changed()
                    return versions, client.stats()

    versions, stats = asyncio.run(main())
    assert versions[0] == cb.HTTP_2 and versions[-1] == cb.HTTP_3, versions
    assert stats["opened_h2"] == 1 and stats["opened_h3"] == 1 and stats["network_changes"] >= 1, stats
    versions, stats = asyncio.run(main(alt_svc=False))
    assert set(versions) == {cb.HTTP_2} and stats["opened_h3"] == 0, stats


def test_untrusted_server_is_refused(pki):
    async def main():
        with cb.Identity(pki["cert"], pki["key"]) as identity:
            async with cb.aio.Server("127.0.0.1:0", identity, handler) as server:
                async with cb.aio.Client() as client:
                    with pytest.raises(cb.Error) as caught:
                        await client.get("https://localhost:" + server.address.rsplit(":", 1)[1] + "/hello")
                    assert caught.value.name.startswith(("CB_ETLS", "CB_EAUTH")), caught.value

    asyncio.run(main())


def test_sessions_in_a_file(pki, tmp_path):
    """A second client, with a store read anew, resumes; a file that is open to others is not used."""
    file = tmp_path / "sessions"

    async def main():
        with cb.Identity(pki["cert"], pki["key"]) as identity:
            async with cb.aio.Server("127.0.0.1:0", identity, handler) as server:
                base = "https://localhost:" + server.address.rsplit(":", 1)[1]
                for _ in range(2):
                    with cb.Sessions(file) as sessions:
                        async with cb.aio.Client(ca_file=pki["ca"], sessions=sessions, early_data=True) as client:
                            assert await (await client.get(base + "/hello")).read() == b"hello from python\n"
                            await asyncio.sleep(0.05)
                        sessions.flush()
                    sizes.append(file.stat().st_size)

    sizes = []
    asyncio.run(main())
    assert file.stat().st_mode & 0o777 == 0o600
    assert sizes[0] > 500 and abs(sizes[1] - sizes[0]) < 200, sizes  # a full handshake brings two tickets; resuming takes one and brings one
    file.chmod(0o644)
    with cb.Sessions(file) as sessions:
        with pytest.raises(cb.Error, match="others may read"):
            sessions.flush()


def test_bad_arguments_name_what_is_wrong(tmp_path):
    with pytest.raises(cb.Error) as caught:
        cb.Identity(tmp_path / "none.pem", tmp_path / "none-key.pem")
    assert "none.pem" in str(caught.value)

    async def main():
        async with cb.aio.Client() as client:
            with pytest.raises(cb.Error) as caught:
                await client.get("ftp://localhost/")
            assert "ftp" in str(caught.value)

    asyncio.run(main())


def test_version():
    assert cb.version().count(".") == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_both_sides_know_each_other(pki, tmp_path, version):
    async def who(request):
        peer = request.peer
        assert peer.matches("spiffe://td.test/") and not peer.matches("localhost")
        assert hashlib.sha256(peer.chain[0]).digest() == peer.cert_sha256
        return cb.aio.Response(200, body=peer.spiffe_id.encode())

    async def main(identity, me):
        async with cb.aio.Server("127.0.0.1:0", identity, who, client_certificates="require") as server:
            base = "https://localhost:" + server.address.rsplit(":", 1)[1]
            async with cb.aio.Client(identity=me, versions=version) as client:
                response = await asyncio.wait_for(client.get(base + "/"), 30)
                assert "localhost" in response.peer.dns and response.peer.expires > response.peer.not_before
                assert await response.read() == b"spiffe://td.test/me"
            async with cb.aio.Client(ca_file=pki["ca"], versions=version) as client:
                with pytest.raises(cb.Error):
                    await asyncio.wait_for(client.get(base + "/"), 30)

    with cb.CA(os.path.dirname(pki["ca"])) as ca:
        cert, key = ca.issue(uris=["spiffe://td.test/me"], profile="svid")
    with cb.Identity(pki["cert"], pki["key"], pki["ca"]) as identity, cb.Identity(cert, key, pki["ca"]) as me:
        asyncio.run(main(identity, me))


def test_a_revoked_client_does_not_get_in(pki, tmp_path):
    async def who(request):
        return cb.aio.Response(200, body=request.peer.spiffe_id.encode())

    async def main(ca, identity, me, serial):
        async with cb.aio.Server("127.0.0.1:0", identity, who) as server:
            base = "https://localhost:" + server.address.rsplit(":", 1)[1]
            async with cb.aio.Client(identity=me) as client:
                response = await asyncio.wait_for(client.get(base + "/"), 30)
                assert await response.read() == b"spiffe://td.test/me"
                ca.revoke(serial)
                ca.crl()
                assert identity.refresh() and not identity.refresh()
                response = await asyncio.wait_for(client.get(base + "/"), 30)
                assert response.status == 421, "an open connection outlived the revocation"
                await response.read()
                with pytest.raises(cb.Error):
                    await asyncio.wait_for(client.get(base + "/"), 30)

    with cb.CA(tmp_path / "clients") as ca:
        cert, key = ca.issue(uris=["spiffe://td.test/me"], profile="svid")
        ca.crl()
        serial = (tmp_path / "clients" / "index").read_text().splitlines()[1].split("\t")[1]
        with cb.Identity(pki["cert"], pki["key"]) as identity, cb.Identity(cert, key, pki["ca"]) as me:
            with pytest.raises(cb.Error, match="one pin only"):
                identity.trust(ca.ca_file, pins=["AAAA"])
            identity.trust(ca.ca_file, crl_file=tmp_path / "clients" / "ca.crl", names=["spiffe://td.test/"], clients="require")
            asyncio.run(main(ca, identity, me, serial))


def test_an_asyncio_loop_counts(pki):
    async def hello(request):
        return cb.aio.Response(200, body=b"hello")

    async def main(metrics):
        cb.aio.count_into(metrics)
        with cb.Identity(pki["cert"], pki["key"]) as identity:
            async with cb.aio.Server("127.0.0.1:0", identity, hello):
                with pytest.raises(RuntimeError, match="before the first"):
                    cb.aio.count_into(metrics)
                await asyncio.sleep(0.05)
                assert "cb_loops 1\n" in metrics.render()

    with cb.metrics.Registry() as metrics:
        asyncio.run(main(metrics))
        assert metrics.find("cb_loop_turns").value() > 0
