"""Tokens through the binding, and in both directions against PyJWT (where python3-jwt is installed)."""

import json
import subprocess
import time

import pytest

import cb
import cb.jwt

SECRET = b"a secret of exactly 32 bytes ...."
KEYS = {
    "RS256": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "PS256": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ES256": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ES384": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ES512": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "EdDSA": ["genpkey", "-algorithm", "ED25519"],
}


@pytest.fixture(scope="module")
def pem():
    """A private key and its public half, as PEM, for each algorithm."""
    made = {}
    for alg, command in KEYS.items():
        private = subprocess.run(["openssl", *command], check=True, capture_output=True).stdout
        made[alg] = private, subprocess.run(["openssl", "pkey", "-pubout"], input=private, check=True, capture_output=True).stdout
    return made


def claims(**more):
    return {"iss": "me", "aud": ["a", "b"], "sub": "joe", "exp": int(time.time()) + 60, **more}


@pytest.mark.parametrize("alg", KEYS)
def test_sign_and_verify(pem, alg):
    private, public = pem[alg]
    want = claims(roles={"admin": ["x", 1, -2.5, True, None]}, name="J\u00f6 \U0001f600", scope="read write")
    with cb.jwt.Signer(pem=private, kid="1", alg=alg) as signer:
        text = signer.sign(want)
        keys = [cb.jwt.Keys(pem=public, kid="1", alg=alg), cb.jwt.Keys(json=signer.jwk, rsa_alg=alg if alg in ("RS256", "PS256") else None)]
    for each in keys:
        token = cb.jwt.verify(text, each, issuer="me", audience="b")
        assert token.claims == want
        assert token.has("roles", "admin") and token.has_scope("read") and not token.has_scope("rea")


def test_refusals_name_their_reason(pem):
    private, public = pem["ES256"]
    signer, keys = cb.jwt.Signer(pem=private), cb.jwt.Keys(pem=public)
    for reason, want, rules in (("expired", claims(exp=1), {}), ("audience", claims(), {"audience": "c"}), ("issuer", claims(), {"issuer": "you"}),
                                ("type", claims(), {"typ": "at+jwt"})):
        with pytest.raises(cb.jwt.Refused) as got:
            cb.jwt.verify(signer.sign(want), keys, **{"issuer": "me", "audience": "a", **rules})
        assert got.value.reason == reason
    with pytest.raises(cb.Error):
        cb.jwt.verify(signer.sign(claims()), keys)
    assert cb.jwt.Keys(json=json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": "A" * 43}]})).notes[0].startswith("keys[0]")


@pytest.mark.parametrize("alg", KEYS)
def test_against_pyjwt(pem, alg):
    pyjwt = pytest.importorskip("jwt", reason="python3-jwt is not installed")
    private, public = pem[alg]
    want = claims(nbf=int(time.time()) - 5)
    theirs = pyjwt.encode(want, private, algorithm=alg)
    assert cb.jwt.verify(theirs, cb.jwt.Keys(pem=public, alg=alg), issuer="me", audience="a").claims == want
    ours = cb.jwt.Signer(pem=private, alg=alg).sign(want)
    assert pyjwt.decode(ours, public, algorithms=[alg], audience="a", issuer="me") == want


def test_hs256_against_pyjwt():
    pyjwt = pytest.importorskip("jwt", reason="python3-jwt is not installed")
    keys, signer = cb.jwt.Keys(secret=SECRET, alg="HS256"), cb.jwt.Signer(secret=SECRET, alg="HS256")
    want = claims()
    assert cb.jwt.verify(pyjwt.encode(want, SECRET, algorithm="HS256"), keys, issuer="me", audience="a").claims == want
    assert pyjwt.decode(signer.sign(want), SECRET, algorithms=["HS256"], audience="a") == want


def test_pss_with_another_salt_is_refused(pem, tmp_path):
    """RFC 7518 3.5: the salt is as long as the hash. OpenSSL makes one with another."""
    import base64

    private, public = pem["PS256"]
    (tmp_path / "key.pem").write_bytes(private)
    signer = cb.jwt.Signer(pem=private, alg="PS256")
    signed = signer.sign(claims()).rsplit(".", 1)[0]
    for salt, good in (("32", True), ("20", False), ("0", False), ("max", False)):
        sig = subprocess.run(["openssl", "dgst", "-sha256", "-sign", tmp_path / "key.pem", "-sigopt", "rsa_padding_mode:pss", "-sigopt",
                              f"rsa_pss_saltlen:{salt}"], input=signed.encode(), check=True, capture_output=True).stdout
        token = signed + "." + base64.urlsafe_b64encode(sig).rstrip(b"=").decode()
        if good:
            cb.jwt.verify(token, cb.jwt.Keys(pem=public, alg="PS256"), issuer="me", audience="a")
            continue
        with pytest.raises(cb.jwt.Refused) as got:
            cb.jwt.verify(token, cb.jwt.Keys(pem=public, alg="PS256"), issuer="me", audience="a")
        assert got.value.reason == "signature", salt
