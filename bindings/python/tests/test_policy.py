"""Policies and audit logs from Python."""

import json

import cb
import cb.audit
import cb.jwt
import cb.policy
import pytest

RULES = {"rules": [
    {"name": "read", "effect": "allow", "tenants": ["acme"], "methods": ["GET"], "paths": ["/v1/**"],
     "claims": [{"path": "/realm_access/roles", "any": ["reader"]}]},
    {"name": "ops", "effect": "allow", "tenants": ["acme"], "roles": ["operator"], "verbs": ["*"], "mtls": "present"},
    {"name": "tunnel", "effect": "allow", "tenants": ["*"], "targets": ["*.example.org:443"], "times": [{"days": ["wed"]}]},
    {"name": "not-from", "effect": "deny", "tenants": ["*"], "sources": ["192.0.2.0/24"]}]}


def test_decides_and_explains():
    secret = b"a secret of exactly 32 bytes ..."
    text = cb.jwt.Signer(secret=secret, alg="HS256").sign({"iss": "me", "aud": "api", "exp": 2000000000, "realm_access": {"roles": ["reader"]}})
    token = cb.jwt.verify(text, cb.jwt.Keys(secret=secret, alg="HS256"), issuer="me", audience="api")
    with cb.policy.Policy(json.dumps(RULES)) as policy:
        here = {"source": "198.51.100.1"}
        assert policy.decide("acme", method="GET", path="/v1/x", token=token, **here) == (True, "rule", "read")
        assert policy.decide("acme", method="GET", path="/v1/x", **here) == (False, "no-rule", None)
        assert policy.decide("acme", verb="reload", roles=["viewer", "operator"], mtls=True, **here).rule == "ops"
        assert policy.decide("acme", verb="reload", roles=["operator"], mtls=True, source="192.0.2.9") == (False, "rule", "not-from")
        assert policy.decide("", verb="reload", **here).reason == "no-tenant"
        assert policy.decide("acme", path="/v1/../x", **here).reason == "unclear-path"
        assert policy.decide("x", target=("a.example.org", 443), now=1700000000 + 86400, **here).allowed  # a Wednesday
        decision, steps = policy.explain("acme", method="POST", path="/v1/x", token=token, **here)
        assert not decision.allowed and [s.rule for s in steps] == ["read", "ops", "tunnel", "not-from"]
        assert steps[0] == ("read", "allow", False, ("tenants", "claims", "methods", "paths"), ("methods",))


def test_mistakes_are_told(tmp_path):
    with pytest.raises(cb.Error, match="/rules/0/effect"):
        cb.policy.Policy('{"rules": [{"name": "a", "effect": "maybe", "tenants": ["x"]}]}')
    with pytest.raises(cb.Error, match="absent"):
        cb.policy.Policy(file=tmp_path / "absent")
    with pytest.raises(ValueError):
        cb.policy.Policy()


def test_an_audit_log(tmp_path):
    path, heads = tmp_path / "log", tmp_path / "head"
    with cb.audit.Audit(path, tmp_path / "key", head_file=heads) as log:
        first = log.write("ada", "acme", "route.set", "/routes/web", detail="by hand", after=b"\1" * 32)
        log.rotate()
        assert log.write("ada", "acme", "key.turn", outcome="denied") > first
        head, key = log.head, log.key
        with pytest.raises(cb.Error, match="tenant"):
            log.write("ada", "", "x")
    assert heads.read_text() == head + "\n"
    report = cb.audit.verify(path, head=head, key=key)
    assert (report.records, report.first_file, report.file, report.head, report.key) == (2, 1, 2, head, key)
    records = list(cb.audit.read(path))
    assert [(r.action, r.outcome) for r in records] == [(b"route.set", "done"), (b"key.turn", "denied")] and records[0].after == b"\1" * 32
    damaged = path.read_bytes().replace(b"key.turn", b"key.burn")
    path.write_bytes(damaged)
    with pytest.raises(cb.Error, match="at byte"):
        cb.audit.verify(path)
