"""The cases of the QUIC interop runner, by its names, against independent programs, in both roles: gtlsclient fetches from cb-edge
("server"), our clients fetch from gtlsserver ("client"). What the network does to them is done by a relay. The same names in virtual time,
also those that would take minutes here, are in tests/unit/test_interop_cases.c; docs/interop.md has the whole matrix."""

import random
import re
import time

import pytest

from conftest import TOP, compile_c, free_port, peer, program, run
from quicpeers import edge, gtlsclient, gtlsserver, sha, wait_udp, www  # noqa: F401 (fixtures)
from relay import DOWN, UP, Relay

CHACHA = "--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"


@pytest.fixture
def relay():
    """start(port, ...) puts a Relay before a port; all are closed after the test."""
    started = []

    def start(port, **options):
        started.append(Relay(port, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def quic_get(tmp_path_factory):
    return compile_c(TOP / "tests/interop/quic_get.c", tmp_path_factory.mktemp("quic_get"))


@pytest.fixture
def quic_serve(spawn, pki, tmp_path_factory):
    """start(mode) runs a server on cb_quic_* with an option that cb-edge does not have; its port."""

    def start(mode):
        port = free_port()
        spawn(compile_c(TOP / "tests/interop/quic_serve.c", tmp_path_factory.mktemp("quic_serve")), f"127.0.0.1:{port}", pki["cert"], pki["key"], mode)
        wait_udp(port)
        return port

    return start


@pytest.fixture
def fetch(pki, tmp_path, www):
    """fetch(port, path, *options, via=port): http_client gets a file over HTTP/3 and must get it right."""

    def start(port, path="file", *options, via=None, host="127.0.0.1"):
        got = tmp_path / "fetched"
        done = run(program("http_client"), "-3", "--ca", pki["ca"], "-o", got, "--connect", f"{host}:{via or port}", *options,
                   f"https://localhost:{port}/{path}")
        assert done.returncode == 0, done.stderr
        assert sha(got) == sha(www / path)
        return done.stderr

    return start


def packets(log, way, kind):
    """How many packets of a kind are in a log of gtlsclient or gtlsserver; way: "rx" or "tx"."""
    return len(re.findall(rf"pkt {way} .*type={kind}\b", log))


def certificate(log, way):
    """Bytes of the Handshake CRYPTO frames of the server: with a certificate some 800, without 200."""
    return sum(int(n) for n in re.findall(rf"frm {way} \d+ Handshake CRYPTO\(0x06\) offset=\d+ len=(\d+)", log))


# ---- handshakes ----

def test_handshake_server(edge, relay, tmp_path, www):
    _, port = edge()
    way = relay(port)
    gtlsclient(way.port, tmp_path, path="small")
    assert "retry" not in way.kinds[DOWN] and "vn" not in way.kinds[DOWN] and "initial" in way.kinds[UP]


def test_handshake_client(gtlsserver, relay, fetch):
    port = gtlsserver()
    way = relay(port)
    fetch(port, "small", via=way.port)
    assert "retry" not in way.kinds[DOWN] and "vn" not in way.kinds[DOWN] and "initial" in way.kinds[UP]


def test_retry_server(quic_serve, relay, tmp_path):
    port = quic_serve("retry")
    way = relay(port)
    got, log = gtlsclient(way.port, tmp_path, path="small", log=True)
    assert got.read_bytes() == b"small\n"
    assert way.kinds[DOWN].count("retry") == 1 and packets(log, "tx", "Initial") >= 2


def test_retry_client(gtlsserver, relay, fetch):
    port = gtlsserver("-V")
    way = relay(port)
    fetch(port, via=way.port)
    assert way.kinds[DOWN].count("retry") == 1


def test_chacha20_server(edge, tmp_path, www):
    _, port = edge()
    got, log = gtlsclient(port, tmp_path, CHACHA, log=True)
    assert sha(got) == sha(www / "file")
    assert "cipher suite is CHACHA20-POLY1305" in log


def test_chacha20_client(gtlsserver, fetch):
    port = gtlsserver(CHACHA, log=True)
    fetch(port)
    assert "cipher suite is CHACHA20-POLY1305" in gtlsserver.process.output()


def test_longrtt_server(edge, relay, tmp_path):
    _, port = edge()
    way = relay(port, delay=0.75)
    gtlsclient(way.port, tmp_path, path="small")
    assert way.kinds[UP].count("initial") >= 2


def test_longrtt_client(gtlsserver, relay, fetch):
    port = gtlsserver()
    way = relay(port, delay=0.75)
    fetch(port, "small", via=way.port)
    assert way.kinds[UP].count("initial") >= 2


def test_v2_server(quic_serve, tmp_path):
    """The client begins with version 1, and the server, which prefers version 2, moves it there."""
    port = quic_serve("v2")
    got, log = gtlsclient(port, tmp_path, "--available-versions=0x1,0x6b3343cf", path="small", log=True)
    assert got.read_bytes() == b"small\n"
    assert re.search(r"pkt tx .*version=0x00000001 type=Initial", log) and "the negotiated version is 0x6b3343cf" in log
    assert re.search(r"pkt rx .*version=0x6b3343cf type=Handshake", log)


def test_v2_from_the_first_packet_server(edge, tmp_path, www):
    _, port = edge()
    got, log = gtlsclient(port, tmp_path, "-v", "0x6b3343cf", log=True)
    assert sha(got) == sha(www / "file")
    assert re.search(r"pkt rx .*version=0x6b3343cf type=Handshake", log)


def test_v2_client(gtlsserver, fetch):
    port = gtlsserver("--preferred-versions=0x6b3343cf", log=True)
    fetch(port)
    log = gtlsserver.process.output()
    assert re.search(r"pkt rx .*version=0x00000001 type=Initial", log) and "the negotiated version is 0x6b3343cf" in log


def test_versionnegotiation_server(edge):
    _, port = edge()
    done = run(peer("gtlsclient"), "-v", "0x1a2a3a4a", "--no-quic-dump", "--timeout=5s", "127.0.0.1", port, f"https://localhost:{port}/small")
    log = done.stdout + done.stderr
    assert "VN v=0x00000001" in log and "VN v=0x6b3343cf" in log, log[-2000:]


def test_resumption_server(edge, tmp_path):
    _, port = edge()
    state = [f"--session-file={tmp_path}/session", f"--tp-file={tmp_path}/tp"]
    _, first = gtlsclient(port, tmp_path, *state, "--wait-for-ticket", path="small", log=True)
    _, second = gtlsclient(port, tmp_path, *state, path="small", log=True)
    assert 0 < certificate(second, "rx") < certificate(first, "rx") / 2


def test_resumption_client(gtlsserver, fetch, tmp_path):
    port = gtlsserver(log=True)
    fetch(port, "small", "--sessions", tmp_path / "sessions")
    first = certificate(gtlsserver.process.output(), "tx")
    fetch(port, "small", "--sessions", tmp_path / "sessions")
    second = certificate(gtlsserver.process.output(), "tx") - first
    assert 0 < second < first / 2


def test_zerortt_server(edge, tmp_path):
    process, port = edge(tls={"early_data": True})
    state = [f"--session-file={tmp_path}/session", f"--tp-file={tmp_path}/tp"]
    gtlsclient(port, tmp_path, *state, "--wait-for-ticket", path="small")
    _, log = gtlsclient(port, tmp_path, *state, "-n", "40", path="small", log=True)
    assert packets(log, "tx", "0RTT") >= 1 and "Early data was rejected" not in log
    early = set(re.findall(r"frm tx \d+ 0RTT STREAM\(0x[0-9a-f]+\) id=(0x[0-9a-f]*[048c]) ", log))
    assert len(early) == 40, f"{len(early)} of 40 requests went early"
    assert process.alive()


def test_zerortt_client(gtlsserver, relay, fetch, tmp_path):
    port = gtlsserver()
    way = relay(port)
    options = ["--sessions", tmp_path / "sessions", "--early"]
    fetch(port, "small", *options, via=way.port)
    assert "0rtt" not in way.kinds[UP]
    fetch(port, "small", *options, via=way.port)
    assert "0rtt" in way.kinds[UP]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A certificate far larger than three times a client's first packet."""
    folder = tmp_path_factory.mktemp("large")
    names = [".".join(f"{n:02}{part}".ljust(60, "x") for part in "abc") + ".test" for n in range(40)]
    done = run(program("cbctl"), "ca", "dev", "--dir", folder, "localhost", "127.0.0.1", *names)
    assert done.returncode == 0, done.stderr
    return {"ca": folder / "ca.pem", "cert": folder / "localhost.pem", "key": folder / "localhost-key.pem"}


def starved(relay, port):
    """A relay that loses the client's second to seventh packet; .said is what the server said before its client had proven its address,
    .over whether that was ever more than three times what it had received."""
    def judge(way, number, data):
        if way == UP:
            return None if 2 <= number <= 7 else data
        if "handshake" not in one.kinds[UP]:
            one.said += len(data)
            one.over = one.over or one.said > 3 * one.bytes[UP]
        return data

    one = relay(port, judge=judge)
    one.said, one.over = 0, False
    return one


def test_amplificationlimit_server(edge, relay, large, tmp_path):
    _, port = edge(tls={"certificates": [{"cert_file": str(large["cert"]), "key_file": str(large["key"])}]})
    way = starved(relay, port)
    got, log = gtlsclient(way.port, tmp_path, path="small", log=True)
    assert got.read_bytes() == b"small\n"
    assert certificate(log, "rx") > 2 * 3600, "too small a certificate for this test"
    assert way.said > 2400 and not way.over


def test_amplificationlimit_client(gtlsserver, relay, large, pki, www, tmp_path):
    port = gtlsserver(pki=large)
    way = starved(relay, port)
    done = run(program("http_client"), "-3", "--ca", large["ca"], "-o", tmp_path / "got", "--connect", f"127.0.0.1:{way.port}",
               f"https://localhost:{port}/small")
    assert done.returncode == 0, done.stderr
    assert sha(tmp_path / "got") == sha(www / "small") and way.said > 2400


# ---- transfers ----

SMALL_WINDOWS = ["--max-data=131072", "--max-stream-data-bidi-local=65536", "--max-stream-data-bidi-remote=65536"]


def test_transfer_server(edge, tmp_path, www):
    _, port = edge()
    got, log = gtlsclient(port, tmp_path, *SMALL_WINDOWS, log=True)
    assert sha(got) == sha(www / "file")
    assert re.search(r"frm tx \d+ 1RTT MAX_DATA", log) and re.search(r"frm tx \d+ 1RTT MAX_STREAM_DATA", log)


def test_transfer_client(gtlsserver, fetch):
    port = gtlsserver(*SMALL_WINDOWS, log=True)
    fetch(port)
    log = gtlsserver.process.output()
    assert re.search(r"frm rx \d+ 1RTT MAX_DATA", log) and re.search(r"frm rx \d+ 1RTT MAX_STREAM_DATA", log)


def test_multiplexing_server(edge):
    _, port = edge()
    done = run(peer("gtlsclient"), "-q", "--exit-on-all-streams-close", "-n", 1999, "--timeout=20s", "127.0.0.1", port, f"https://localhost:{port}/small")
    assert done.returncode == 0, done.stderr[-2000:]


def test_multiplexing_client(gtlsserver, pki, tmp_path):
    port = gtlsserver("--max-streams-bidi=100", log=True)
    load = compile_c(TOP / "tests/bench/h3load.c", tmp_path)
    done = run(load, "-n", 1999, "-c", 1, "-m", 32, "-3", "--ca", pki["ca"], f"https://localhost:{port}/small")
    assert done.returncode == 0, done.stderr
    assert '"failed": 0' in done.stdout or '"failed":0' in done.stdout, done.stdout
    assert len(re.findall(r"Negotiated ALPN is h3", gtlsserver.process.output())) == 1, "more than one connection"


@pytest.mark.parametrize("path", ["small", "file"])
def test_http3_server(edge, tmp_path, www, path):
    _, port = edge()
    got, _ = gtlsclient(port, tmp_path, path=path)
    assert sha(got) == sha(www / path)


@pytest.mark.parametrize("path", ["small", "file"])
def test_http3_client(gtlsserver, fetch, path):
    fetch(gtlsserver(), path)


def silence(after, seconds):
    """Nothing gets through for some time, from the packet `after` of the server on."""
    since = []

    def judge(way, number, data):
        if way == DOWN and number == after:
            since.append(time.monotonic())
        return None if since and time.monotonic() < since[0] + seconds else data

    return judge


def test_blackhole_server(edge, relay, tmp_path, www):
    _, port = edge()
    way = relay(port, judge=silence(500, 2))
    got, _ = gtlsclient(way.port, tmp_path)
    assert sha(got) == sha(www / "file")
    assert way.came[DOWN] > len(way.kinds[DOWN])


def test_blackhole_client(gtlsserver, relay, fetch):
    port = gtlsserver()
    way = relay(port, judge=silence(500, 2))
    fetch(port, via=way.port)
    assert way.came[DOWN] > len(way.kinds[DOWN])


def lose(share, corrupt=False):
    numbers = random.Random(7)

    def judge(way, number, data):
        if numbers.random() >= share:
            return data
        return data[:-1] + bytes([data[-1] ^ 1]) if corrupt else None

    return judge


@pytest.mark.parametrize("corrupt", [pytest.param(False, id="transferloss"), pytest.param(True, id="transfercorruption")])
def test_transferloss_and_transfercorruption_server(edge, relay, tmp_path, www, corrupt):
    _, port = edge()
    way = relay(port, judge=lose(0.02, corrupt))
    got, _ = gtlsclient(way.port, tmp_path)
    assert sha(got) == sha(www / "file")


@pytest.mark.parametrize("corrupt", [pytest.param(False, id="transferloss"), pytest.param(True, id="transfercorruption")])
def test_transferloss_and_transfercorruption_client(gtlsserver, relay, fetch, corrupt):
    port = gtlsserver()
    way = relay(port, judge=lose(0.02, corrupt))
    fetch(port, via=way.port)


def test_keyupdate_server(edge, tmp_path, www):
    _, port = edge()
    got, log = gtlsclient(port, tmp_path, "--key-update=5ms", log=True)
    assert sha(got) == sha(www / "file")
    for way in ("rx", "tx"):
        phases = set(re.findall(rf"pkt {way} .*type=1RTT k=([01])", log))
        assert phases == {"0", "1"}, f"{way}: {phases}"


def test_keyupdate_client(gtlsserver, quic_get, pki):
    port = gtlsserver(log=True)
    done = run(quic_get, f"127.0.0.1:{port}", pki["ca"], "/file", "key-update")
    assert done.returncode == 0 and int(done.stdout.split()[1]) >= 1, done
    log = gtlsserver.process.output()
    for way in ("rx", "tx"):
        phases = set(re.findall(rf"pkt {way} .*type=1RTT k=([01])", log))
        assert phases == {"0", "1"}, f"{way}: {phases}"


def test_ecn_server(edge, relay, tmp_path):
    _, port = edge()
    way = relay(port)
    _, log = gtlsclient(way.port, tmp_path, log=True)
    assert 2 in way.marks[DOWN] and 2 in way.marks[UP]
    assert re.search(r"frm rx \d+ 1RTT ACK\(0x03\) ect0=[1-9]", log), "no ACK_ECN came"


def test_ecn_client(gtlsserver, relay, quic_get, pki):
    port = gtlsserver(log=True)
    way = relay(port)
    done = run(quic_get, f"127.0.0.1:{way.port}", pki["ca"], "/file")
    assert done.returncode == 0 and done.stdout.split()[4] == "1", done
    assert 2 in way.marks[DOWN] and 2 in way.marks[UP]
    assert re.search(r"frm rx \d+ 1RTT ACK\(0x03\) ect0=[1-9]", gtlsserver.process.output()), "no ACK_ECN came"


# ---- addresses ----

def test_ipv6_server(edge, tmp_path, www):
    _, port = edge(host="[::1]")
    got, _ = gtlsclient(port, tmp_path, host="::1")
    assert sha(got) == sha(www / "file")


def test_ipv6_client(gtlsserver, fetch):
    port = gtlsserver(host="::1")
    fetch(port, host="[::1]")


def rebinding(relay, port, hosts):
    """A relay whose port, or address, changes in the middle of a file: once for each of hosts."""
    def judge(way, number, data):
        if way == UP and number % 60 == 0 and left:
            one.rebind(left.pop(0))
        return data

    left = list(hosts)
    one = relay(port, judge=judge)
    return one


REBINDINGS = [pytest.param([None, None], id="rebind-port"), pytest.param(["127.0.0.2", "127.0.0.3"], id="rebind-addr")]


@pytest.mark.parametrize("hosts", REBINDINGS)
def test_rebind_port_and_rebind_addr_server(edge, relay, tmp_path, www, hosts):
    """The server challenges the new path: the client, which knows nothing of it, answers."""
    _, port = edge()
    way = rebinding(relay, port, hosts)
    got, log = gtlsclient(way.port, tmp_path, log=True)
    assert sha(got) == sha(www / "file")
    assert len(re.findall(r"frm rx \d+ 1RTT PATH_CHALLENGE", log)) >= 2


@pytest.mark.parametrize("hosts", REBINDINGS)
def test_rebind_port_and_rebind_addr_client(gtlsserver, relay, fetch, hosts):
    port = gtlsserver(log=True)
    way = rebinding(relay, port, hosts)
    fetch(port, via=way.port)
    assert len(re.findall(r"frm rx \d+ 1RTT PATH_RESPONSE", gtlsserver.process.output())) >= 2


def test_connectionmigration_server(edge, tmp_path, www):
    _, port = edge()
    got, log = gtlsclient(port, tmp_path, "--change-local-addr=5ms", log=True)
    assert sha(got) == sha(www / "file")
    assert re.search(r"frm rx \d+ 1RTT PATH_RESPONSE", log)


def test_connectionmigration_client(gtlsserver, quic_get, pki):
    port = gtlsserver(log=True)
    done = run(quic_get, f"127.0.0.1:{port}", pki["ca"], "/file", "migrate")
    assert done.returncode == 0 and int(done.stdout.split()[1]) >= 1, done
    log = gtlsserver.process.output()
    assert re.search(r"frm rx \d+ 1RTT PATH_RESPONSE", log)
    assert len(set(re.findall(r"pkt rx pkn=\d+ dcid=(0x[0-9a-f]+) type=1RTT", log))) >= 2, "the connection ID did not change"
