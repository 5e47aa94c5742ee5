"""A real browser fetches a page and a script's request through cb-edge: over HTTP/3, and over HTTP/2 when QUIC is off. Its net log says
what really happened on the network."""

import base64
import hashlib
import json
import re
import subprocess

import pytest

from conftest import free_port, peer, program, run, wait_tcp

PAGE = b"""<!doctype html><h1 id=t>loading</h1><script>
fetch("/data").then(r => r.arrayBuffer()).then(b => {
  document.getElementById("t").textContent = "got " + b.byteLength + " via " + performance.getEntriesByType("navigation")[0].nextHopProtocol;
});
</script>"""


def key_hash(cert):
    """What --ignore-certificate-errors-spki-list takes: the base64 SHA-256 of the public key. The certificate of a development CA is
    trusted for this key only, nothing is switched off."""
    public = run("openssl", "x509", "-in", cert, "-pubkey", "-noout").stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=public.encode(), capture_output=True, check=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def net_log(path, port):
    """[(type of event, its parameters)] of Chromium's net log, and of those the jobs that connect to us."""
    log = json.loads(path.read_text())
    names = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    events = [(names[event["type"]], event.get("params", {})) for event in log["events"]]
    return events, [params for name, params in events if name == "HTTP_STREAM_JOB" and params.get("destination") == f"https://127.0.0.1:{port}"]


def check_h3(path, port):
    """One QUIC session of version 1 with HTTP/3 on it carried everything: no job over TCP, and the server did not end it."""
    events, jobs = net_log(path, port)
    names = [name for name, _ in events]
    assert jobs and all(job["using_quic"] for job in jobs), jobs
    sessions = [params for name, params in events if name == "QUIC_SESSION" and params.get("port") == port]
    assert len(sessions) == 1, sessions
    assert ("QUIC_SESSION_VERSION_NEGOTIATED", {"version": "RFCv1"}) in events
    for name in ("QUIC_SESSION_HANDSHAKE_DONE_FRAME_RECEIVED", "HTTP3_SETTINGS_RECEIVED", "HTTP3_PEER_CONTROL_STREAM_CREATED"):
        assert name in names, f"no {name}"
    assert names.count("HTTP3_HEADERS_DECODED") >= 2 and "HTTP2_SESSION" not in names
    closed = [params for name, params in events if name == "QUIC_SESSION_CLOSED"]
    assert not any(params.get("from_peer") for params in closed), closed


def check_h2(path, port):
    events, jobs = net_log(path, port)
    names = [name for name, _ in events]
    assert jobs and not any(job["using_quic"] for job in jobs), jobs
    assert "HTTP2_SESSION" in names and "QUIC_SESSION" not in names


@pytest.mark.parametrize("protocol", ["h3", "h2"])
def test_page(spawn, pki, tmp_path, protocol):
    chromium = peer("chromium")
    www = tmp_path / "www"
    www.mkdir()
    (www / "page.html").write_bytes(PAGE)
    (www / "data").write_bytes(b"d" * 100_000)
    origin_port, port = free_port(), free_port()
    spawn(program("static_server"), f"127.0.0.1:{origin_port}", www)
    wait_tcp(origin_port)
    config = tmp_path / "edge.json"
    config.write_text(json.dumps({
        "workers": 2,
        "listeners": {"main": {"address": f"127.0.0.1:{port}",
                               "tls": {"certificates": [{"cert_file": str(pki["cert"]), "key_file": str(pki["key"])}]}}},
        "groups": {"files": {"origins": [{"url": f"http://127.0.0.1:{origin_port}"}]}},
        "routes": [{"group": "files"}],
    }))
    spawn(program("cb-edge"), "--config", config).wait_for("ready with")
    quic = [f"--origin-to-force-quic-on=127.0.0.1:{port}"] if protocol == "h3" else ["--disable-quic"]
    done = run(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
               f"--user-data-dir={tmp_path}/profile", f"--log-net-log={tmp_path}/net.json", *quic,
               f"--ignore-certificate-errors-spki-list={key_hash(pki['cert'])}", "--virtual-time-budget=10000", "--dump-dom",
               f"https://127.0.0.1:{port}/page.html", timeout=60)
    shown = re.search(r'<h1 id="t">(.*?)</h1>', done.stdout)
    assert shown and shown[1] == f"got 100000 via {protocol}", done.stdout + done.stderr[-2000:]
    {"h3": check_h3, "h2": check_h2}[protocol](tmp_path / "net.json", port)
