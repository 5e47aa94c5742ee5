"""cbctl as a person runs it: what it prints, its exit codes, and certificates that OpenSSL accepts."""

import json
import re
import stat

import pytest
from conftest import TOP, peer, program, run


def test_ca_dev_makes_what_openssl_accepts(tmp_path):
    ca = tmp_path / "ca"
    for kind in ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "ed25519"):
        got = run(program("cbctl"), "ca", "dev", "--dir", ca, "--json", "--days", "7", "--key-type", kind, "localhost", "::1", "*.example.org")
        assert got.returncode == 0, got.stderr
        paths = json.loads(got.stdout)
        assert stat.S_IMODE((ca / "localhost-key.pem").stat().st_mode) == 0o600
        for check in (["-verify_hostname", "a.example.org"], ["-verify_ip", "::1"], ["-purpose", "sslserver"], ["-purpose", "sslclient"]):
            verified = run(peer("openssl"), "verify", "-x509_strict", "-CAfile", paths["ca"], *check, paths["certificate"])
            assert verified.returncode == 0, verified.stderr
        assert run(peer("openssl"), "verify", "-CAfile", paths["ca"], "-verify_hostname", "other", paths["certificate"]).returncode != 0


@pytest.mark.parametrize("words, code, says", [
    ([], 2, "no command"),
    (["nothing"], 2, "no such command: nothing"),
    (["--socket", "x", "status"], 2, "--socket: options come after the command"),
    (["ca"], 2, "which command"),
    (["ca", "dev"], 2, "NAME"),
    (["ca", "dev", "--days", "0", "x"], 2, "--days"),
    (["ca", "dev", "--days", "many", "x"], 2, "--days"),
    (["ca", "dev", "--dir"], 2, "needs a value"),
    (["ca", "dev", "--key-type", "dsa", "x"], 2, "--key-type"),
    (["ca", "dev", "--unknown", "x"], 2, "--unknown"),
    (["ca", "dev", "--dir", "{tmp}/ca", "no such name"], 2, "no such name"),
    (["ca", "dev", "--dir", "/proc/nowhere/ca", "localhost"], 1, "/proc/nowhere/ca"),
    (["audit"], 2, "which command"),
    (["audit", "verify"], 2, "one FILE"),
    (["audit", "verify", "--head", "7", "x"], 2, "NUMBER:HASH"),
    (["audit", "verify", "--key", "xyz", "x"], 2, "--key"),
    (["audit", "verify", "{tmp}/absent"], 1, "No such file"),
    (["audit", "show", "--outcome", "odd", "x"], 2, "--outcome"),
    (["audit", "show", "--format", "syslog:a b", "x"], 2, "--format"),
    (["audit", "show", "--format", "xml", "x"], 2, "--format"),
    (["audit", "show", "--since", "x"], 2, "--since"),
    (["policy"], 2, "which command"),
    (["policy", "check"], 2, "one FILE"),
    (["policy", "check", "{tmp}/absent"], 1, "No such file"),
    (["policy", "schema", "x"], 2, "no argument"),
    (["policy", "explain", "--source", "10.0.0", "x"], 2, "--source"),
    (["policy", "explain", "--target", "host", "x"], 2, "--target"),
    (["policy", "explain", "--time", "now", "x"], 2, "--time"),
    (["policy", "explain", "--claim", "acr", "x"], 2, "--claim"),
    (["policy", "explain", "--tenant"], 2, "needs a value"),
    (["seal"], 2, "which command"),
    (["seal", "close", "--purpose", "x", "a", "b"], 2, "--key is missing"),
    (["seal", "open", "--key", "x", "a"], 2, "--purpose is missing"),
    (["seal", "open", "--key", "{tmp}/absent", "--purpose", "x", "a"], 1, "{tmp}/absent"),
    (["seal", "show", "--key", "x", "a"], 2, "--key"),
    (["seal", "show", "/etc/passwd"], 1, "not a sealed file"),
    (["tickets"], 2, "which command"),
    (["tickets", "turn"], 2, "one FILE"),
    (["tickets", "turn", "--lead-s", "x", "{tmp}/t"], 2, "--lead-s"),
    (["tickets", "turn", "--rotate-s", "10", "--lead-s", "10", "{tmp}/t"], 1, "lead_s"),
    (["tickets", "turn", "{tmp}"], 1, "{tmp}"),
    (["tickets", "show", "{tmp}/absent"], 1, "No such file"),
    (["tickets", "show", "/etc/passwd"], 1, "not a ring"),
    (["tickets", "show", "--secrets", "x"], 2, "--secrets"),
])
def test_mistakes(tmp_path, words, code, says):
    got = run(program("cbctl"), *[w.replace("{tmp}", str(tmp_path)) for w in words])
    assert (got.returncode, got.stdout) == (code, ""), got
    assert says.replace("{tmp}", str(tmp_path)) in got.stderr and got.stderr.startswith("cbctl: ")


def test_help_and_version():
    for words in (["--help"], ["ca", "--help"], ["ca", "dev", "--help"]):
        got = run(program("cbctl"), *words)
        assert got.returncode == 0 and "Usage: cbctl" in got.stdout and got.stderr == ""
    assert run(program("cbctl"), "--version").stdout.startswith("cbctl ")
    with open("/dev/full", "w") as full:
        import subprocess
        assert subprocess.run([program("cbctl"), "--help"], stdout=full, stderr=subprocess.PIPE).returncode == 1


def test_a_ring_of_ticket_keys(tmp_path):
    ring = tmp_path / "tickets"
    states = lambda: [key["state"] for key in json.loads(run(program("cbctl"), "tickets", "show", "--json", ring).stdout)]
    for options, expected in (([], ["in use"]), ([], ["in use"]), (["--force"], ["in use", "opens only"]),
                              (["--lead-s", "600", "--force"], ["next", "in use", "opens only"])):
        assert run(program("cbctl"), "tickets", "turn", *options, ring).returncode == 0
        assert states() == expected, options
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600 and ring.stat().st_size == 128
    shown = run(program("cbctl"), "tickets", "show", ring).stdout
    assert len(shown.splitlines()) == 3 and ring.read_bytes()[16:48].hex() not in shown


def test_an_audit_log_is_verified_and_shown(tmp_path):
    log = tmp_path / "log"
    whole = (TOP / "tests/fuzz/corpus/audit/three_records").read_bytes()
    log.write_bytes(whole)
    verify = lambda *options: run(program("cbctl"), "audit", "verify", "--json", *options, log)
    sound = json.loads(verify().stdout)
    assert sound["sound"] and sound["records"] == 3 and sound["tail_bytes"] == 0
    assert verify("--head", sound["head"], "--key", sound["key"]).returncode == 0
    assert json.loads(verify("--key", "00" * 32).stdout)["flaw"] == 6
    shown = [json.loads(line) for line in run(program("cbctl"), "audit", "show", log).stdout.splitlines()]
    assert [r["seq"] for r in shown] == [3, 4, 5] and shown[0]["tenant"] == "acme" and shown[0]["before"] == "01" + "00" * 31
    assert run(program("cbctl"), "audit", "show", "--tenant", "other", log).stdout == ""
    line = run(program("cbctl"), "audit", "show", "--format", "syslog:edge1", log).stdout.splitlines()[0]
    assert re.match(r'<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z edge1 cb-audit - - \[audit@32473 seq="3" outcome="done" actor="', line)
    assert 'detail="{\\"from\\":' in line and line.endswith('}"]')
    log.write_bytes(whole.replace(b"acme", b"acmf", 1))
    broken = verify()
    assert broken.returncode == 1 and json.loads(broken.stdout)["seq"] == 4 and "at byte" in broken.stderr
    log.write_bytes(whole[:-128])
    assert verify().returncode == 0 and json.loads(verify().stdout)["tail_bytes"] > 0
    cut = verify("--head", sound["head"])
    assert cut.returncode == 1 and json.loads(cut.stdout)["flaw"] == 7


POLICY = """{"rules": [
  // who reads
  {"name": "read", "effect": "allow", "tenants": ["*"], "methods": ["GET"], "paths": ["/v1/**"],
   "claims": [{"path": "/realm_access/roles", "any": ["reader"]}]},
  {"name": "ops", "effect": "allow", "tenants": ["acme"], "roles": ["operator"], "verbs": ["reload"], "mtls": "present"},
  {"name": "not-from-there", "effect": "deny", "tenants": ["*"], "sources": ["192.0.2.0/24", "2001:db8::/32"]},
  {"name": "tunnel", "effect": "allow", "tenants": ["acme"], "targets": ["*.example.org:443", "[fd00::/8]:22"],
   "times": [{"days": ["wed"]}]}]}"""


def test_a_policy_is_checked_and_explains_itself(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(POLICY)

    def explain(*words):
        got = run(program("cbctl"), "policy", "explain", "--json", "--time", "2026-11-25T12:00:00Z", "--source", "198.51.100.1", *words, file)
        said = json.loads(got.stdout)
        assert got.returncode == (0 if said["allowed"] else 3), got
        return said["allowed"], said["rule"], said["reason"], {rule["rule"]: rule["failed"] for rule in said["rules"]}

    assert run(program("cbctl"), "policy", "check", file).stdout == "4 rules\n"
    read = ["--tenant", "acme", "--method", "GET", "--path", "/v1/a?b", "--claim", "/realm_access/roles=reader"]
    assert explain(*read)[:3] == (True, "read", "rule")
    allowed, rule, reason, failed = explain(*read, "--method", "POST")
    assert (allowed, rule, reason) == (False, None, "no-rule")
    assert failed == {"read": ["methods"], "ops": ["roles", "verbs", "mtls"], "not-from-there": ["sources"], "tunnel": ["targets"]}
    assert explain(*read, "--source", "2001:db8::1")[:3] == (False, "not-from-there", "rule")
    assert explain(*read[2:])[:3] == (False, None, "no-tenant")
    assert explain(*read, "--path", "/v1/../x")[:3] == (False, None, "unclear-path")
    assert explain("--tenant", "acme", "--verb", "reload", "--role", "viewer", "--role", "operator", "--mtls")[:2] == (True, "ops")
    assert explain("--tenant", "acme", "--target", "[fd00::1]:22")[:2] == (True, "tunnel")
    assert explain("--tenant", "acme", "--target", "[fd00::1]:22", "--time", "2026-11-26T12:00:00Z")[0] is False
    assert explain("--tenant", "acme", "--target", "127.1:443")[2] == "unclear-target"
    got = run(program("cbctl"), "policy", "explain", "--source", "::1", *read, file)
    assert got.returncode == 0 and got.stdout.splitlines()[-1] == 'allowed by "read"' and "DOES NOT FIT" in got.stdout
    assert json.loads(run(program("cbctl"), "policy", "schema").stdout)["title"] == "libcb policy"


def test_mistakes_in_a_policy_have_their_places(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(POLICY.replace('"/v1/**"', '"v1"').replace("fd00::/8", "fd00::1/8"))
    got = run(program("cbctl"), "policy", "check", file)
    assert got.returncode == 1 and got.stdout == ""
    assert f"{file}:3:87: /rules/0/paths/0: " in got.stderr and "/rules/3/targets/1: " in got.stderr
    got = run(program("cbctl"), "policy", "check", "--json", file)
    assert got.returncode == 1 and [e["pointer"] for e in json.loads(got.stdout)["errors"]] == ["/rules/0/paths/0", "/rules/3/targets/1"]
    assert run(program("cbctl"), "policy", "explain", "--tenant", "acme", file).returncode == 1


def test_files_are_sealed_and_keys_turn(tmp_path):
    plain, sealed, key, new = (tmp_path / name for name in ("plain", "sealed", "key", "new"))
    plain.write_bytes(bytes(range(256)) * 9)

    def seal(*words, code=0):
        got = run(program("cbctl"), "seal", *words, binary=True)
        assert got.returncode == code, got.stderr
        return got.stdout if code == 0 else got.stderr.decode()

    seal("close", "--key", key, "--make-key", "--purpose", "state", plain, sealed)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (key, sealed)] == [0o600, 0o600]
    assert seal("open", "--key", key, "--purpose", "state", sealed) == plain.read_bytes()
    assert 'sealed as "state", not as "other"' in seal("open", "--key", key, "--purpose", "other", sealed, code=1)
    shown = json.loads(seal("show", "--json", sealed))
    assert shown["purpose"] == "state" and shown["on_token"] is False
    renew = ("renew", "--key", new, "--make-key", "--old-key", key, "--purpose", "state", sealed)
    assert seal(*renew) == f"{sealed}: sealed again\n".encode()
    assert seal(*renew) == f"{sealed}: kept\n".encode()
    assert shown["key"] != json.loads(seal("show", "--json", sealed))["key"]
    assert "which is not here" in seal("open", "--key", key, "--purpose", "state", sealed, code=1)
    assert seal("open", "--key", new, "--purpose", "state", sealed) == plain.read_bytes()
    damaged = bytearray(sealed.read_bytes())
    damaged[-1] ^= 1
    sealed.write_bytes(damaged)
    assert "was changed" in seal("open", "--key", new, "--purpose", "state", sealed, code=1)
    key.chmod(0o640)
    assert "0600" in seal("open", "--key", key, "--purpose", "state", sealed, code=1)
