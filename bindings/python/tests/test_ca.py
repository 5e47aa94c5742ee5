"""The private authority from Python."""

import os

import cb
import pytest


def test_issue_below_an_intermediate_and_revoke(tmp_path):
    with cb.CA(tmp_path / "root", path_len=1) as root, cb.CA(tmp_path / "ca", parent=root, permitted=["example.org"]) as ca:
        certificate, key = ca.issue("a.example.org", uris=["spiffe://example.org/web"], profile="svid")
        assert open(certificate).read().count("BEGIN CERTIFICATE") == 2, "leaf and intermediate"
        assert os.stat(key).st_mode & 0o777 == 0o600
        with pytest.raises(cb.Error, match="name constraints"):
            ca.issue("elsewhere.test")
        with pytest.raises(cb.Error, match="not a signing request"):
            ca.sign(b"nonsense", names=["a.example.org"])
        serial = (tmp_path / "ca" / "index").read_text().splitlines()[1].split("\t")[1]
        ca.revoke(serial, 1)
        with pytest.raises(cb.Error, match="revoked already"):
            ca.revoke(serial)
        assert "BEGIN X509 CRL" in ca.crl()


def test_ocsp(tmp_path):
    with cb.CA(tmp_path / "ca") as ca:
        certificate, _ = ca.issue("a.example.org")
        cert, key = ca.issue("responder", profile="ocsp")
        with cb.Ocsp(tmp_path / "ca") as own, cb.Ocsp(tmp_path / "ca", cert, key, valid_s=600) as delegated:
            for responder in (own, delegated):
                answer = responder.staple(open(certificate, "rb").read())
                assert answer.status == 0 and answer.cacheable and answer.der[:1] == b"\x30" and answer.next_update > answer.this_update
            assert answer.next_update == answer.this_update + 600
            assert own.respond(b"nonsense").status == 1
            before = own.staple(open(certificate, "rb").read()).der
            ca.revoke((tmp_path / "ca" / "index").read_text().splitlines()[1].split("\t")[1])
            own.refresh()
            assert len(own.staple(open(certificate, "rb").read()).der) != len(before), "revoked is said with its time"
            with pytest.raises(cb.Error, match="not a PEM certificate"):
                own.staple(b"nonsense")


def test_renew(tmp_path):
    with cb.CA(tmp_path / "ca") as ca:
        certificate, key = ca.issue("a.example.org")
        before = open(certificate).read(), open(key).read()
        kept = ca.renew(certificate, if_due=True)
        assert not kept.renewed and kept.renew_at < kept.expires and open(certificate).read() == before[0]
        assert ca.renew(certificate).renewed
        assert open(certificate).read() != before[0] and open(key).read() != before[1]
        cb.Identity(certificate, key).close()
        with pytest.raises(cb.Error, match="not issued by"):
            ca.renew(ca.ca_file)


def test_keys_on_tokens_are_asked_for_by_url(tmp_path):
    with pytest.raises(cb.Error, match="no pkcs11: URL"):
        cb.CA(tmp_path / "ca", key_url="/etc/key.pem")
    with pytest.raises(cb.Error, match="does not belong into a URL"):
        cb.CA(tmp_path / "ca", key_url="pkcs11:token=none;object=none?pin-value=1234")
    assert not (tmp_path / "ca" / "ca.pem").exists()
