"""cb/oidc.h against oidc-provider, an independent OpenID provider that runs on Node.

It is installed once, from the lock file in oidc/, into out/peers/oidc-provider."""

import html
import http.client
import json
import re
import subprocess
import time
import urllib.parse

import pytest
from conftest import TOP, compile_c, free_port, npm_modules, peer, program, run

HERE = TOP / "tests" / "interop" / "oidc"
API = "https://api.example"
BACK = "http://127.0.0.1/back"
SECRET = "secret=a secret: with/odd+characters"
CLIENT_KEY = {"kty": "EC", "crv": "P-256", "kid": "mine", "alg": "ES256", "use": "sig", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
              "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
CLIENT_KEY_D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"  # RFC 7515 A.3


@pytest.fixture(scope="session")
def modules():
    """The folder with oidc-provider."""
    return npm_modules(HERE, "oidc-provider")


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
    return compile_c(TOP / "tests" / "interop" / "oidc_client.c", tmp_path_factory.mktemp("oidc"))


class Idp:
    def __init__(self, port, client):
        self.port, self.issuer, self.client = port, f"http://127.0.0.1:{port}", client

    def command(self, *words):
        return [self.client, self.issuer, *words]

    def __call__(self, *words, good=True):
        """Runs oidc_client to its end; its values by name, of those that come again the last."""
        got = run(*self.command(*words))
        assert (got.returncode == 0) == good, got.stdout + got.stderr
        return dict(line.split("=", 1) for line in got.stdout.splitlines())

    def test(self, what):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("POST", f"/test/{what}")
        return int(connection.getresponse().read())


@pytest.fixture
def idp(modules, binary, spawn, tmp_path):
    port = free_port()
    (tmp_path / "public.json").write_text(json.dumps(CLIENT_KEY))
    (tmp_path / "private.json").write_text(json.dumps({**CLIENT_KEY, "d": CLIENT_KEY_D}))
    spawn("node", HERE / "provider.js", modules, port, tmp_path / "public.json").wait_for("ready", seconds=30)
    return Idp(port, binary)


class Browser:
    """As much of one as the provider's pages need: cookies, forms, redirects."""

    def __init__(self, port):
        self.port, self.cookies = port, {}

    def send(self, url, fields=None):
        """(status, location or None, body)"""
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if fields is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        path = parts.path + ("?" + parts.query if parts.query else "")
        connection.request("GET" if fields is None else "POST", path,
                           None if fields is None else urllib.parse.urlencode(fields), headers)
        answer = connection.getresponse()
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.split(";")[0]
        return answer.status, answer.getheader("location"), answer.read().decode()

    def follow(self, url, fields=None):
        """Follows redirects and fills in every form, until the provider sends us elsewhere (that URL), or to a page without a
        form (its text)."""
        for _ in range(30):
            status, location, body = self.send(url, fields)
            fields = None
            if location:
                url = urllib.parse.urljoin(url, location)
                if not url.startswith(f"http://127.0.0.1:{self.port}/"):
                    return url
                continue
            form = re.search(r'<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>', body, re.S)
            assert status < 400, body
            if not form:
                return body
            fields = {}
            for tag in re.findall(r"<input[^>]*>", form[2]):
                name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
                if name:
                    fields[name[1]] = html.unescape(value[1]) if value else ""
            fields.update({name: value for name, value in (("login", "joe"), ("password", "x")) if name in fields})
            url = urllib.parse.urljoin(url, html.unescape(form[1]))
        raise AssertionError("no end of redirects")


def start(idp, *words):
    return subprocess.Popen([str(word) for word in idp.command(*words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_until(process, name):
    """The values that it prints, up to the one of that name."""
    got = {}
    while name not in got:
        line = process.stdout.readline()
        assert line, got
        key, _, value = line.rstrip("\n").partition("=")
        got[key] = value
    return got


@pytest.mark.parametrize("who", [["id=service", SECRET], ["id=poster", "secret=posted secret", "auth=3"], ["id=keyed", "key"]],
                         ids=["secret-basic", "secret-post", "private-key"])
def test_client_credentials(idp, tmp_path, who):
    who = [f"key={tmp_path}/private.json" if word == "key" else word for word in who]
    got = idp(*who, "credentials", "read", API)
    assert got["token_type"] == "Bearer" and got["lifetime"] == "300" and got["access_token"].count(".") == 2
    opaque = idp(*who, "credentials", "", "")
    assert "." not in opaque["access_token"]


def test_refusals_are_told(idp):
    assert idp("id=service", "secret=wrong", "credentials", "", "", good=False)["error"] == "invalid_client"
    got = idp("id=service", SECRET, "credentials", "", "no-url", good=False)
    assert got["error"] == "invalid_target" and "resource indicator" in got["failed"], got
    assert idp("id=web", "refresh", "nonsense", good=False)["error"] == "invalid_grant"


def log_in(idp, scope="openid offline_access"):
    process = start(idp, "id=web", "login", BACK, scope)
    try:
        url = read_until(process, "url")["url"]
        back = Browser(idp.port).follow(url)
        assert back.startswith(BACK + "?"), back
        out, _ = process.communicate(back.partition("?")[2] + "\n", timeout=30)
        assert process.returncode == 0, out
        return dict(line.split("=", 1) for line in out.splitlines())
    finally:
        process.kill()
        process.wait()


def test_login_refresh_introspection_and_revocation(idp):
    tokens = log_in(idp)
    assert tokens["subject"] == "joe"
    fresh = idp("id=web", "refresh", tokens["refresh_token"])
    assert fresh["access_token"] != tokens["access_token"] and fresh["subject"] == "joe"
    keep = fresh.get("refresh_token", tokens["refresh_token"])
    token = fresh["access_token"]
    got = idp("id=service", SECRET, "introspect", token, token, token)
    assert got["active"] == "joe" and got["asked"] == "1"
    idp("id=web", "revoke", token)
    assert idp("id=service", SECRET, "introspect", token)["refused"] == "inactive"
    idp("id=web", "revoke", keep)
    assert idp("id=web", "refresh", keep, good=False)["error"] == "invalid_grant"


@pytest.mark.parametrize("change, why", [(lambda q: q.replace("state=", "state=x"), "state"),
                                         (lambda q: q.replace("iss=", "iss=x"), "another issuer"),
                                         (lambda q: re.sub(r"&?iss=[^&]*", "", q), "without issuer"),
                                         (lambda q: "error=access_denied&" + re.sub(r"code=[^&]*&?", "", q), "access_denied")],
                         ids=["state", "issuer", "no-issuer", "denied"])
def test_answers_of_others_are_refused(idp, change, why):
    process = start(idp, "id=web", "login", BACK, "openid")
    try:
        back = Browser(idp.port).follow(read_until(process, "url")["url"])
        out, _ = process.communicate(change(back.partition("?")[2]) + "\n", timeout=30)
        assert process.returncode == 1 and why in out, out
    finally:
        process.kill()
        process.wait()


def test_a_stolen_code_is_worth_nothing(idp):
    process = start(idp, "id=web", "login", BACK, "openid")
    other = start(idp, "id=web", "login", BACK, "openid")
    try:
        back = Browser(idp.port).follow(read_until(process, "url")["url"])
        state = urllib.parse.parse_qs(urllib.parse.urlsplit(read_until(other, "url")["url"]).query)["state"][0]
        # Somebody who gets a code into another login has not its verifier (RFC 7636).
        stolen = re.sub(r"state=[^&]*", f"state={state}", back.partition("?")[2])
        out, _ = other.communicate(stolen + "\n", timeout=30)
        assert "error=invalid_grant" in out, out
    finally:
        for one in (process, other):
            one.kill()
            one.wait()


def test_device_flow(idp):
    process = start(idp, "id=tv", "device", "openid")
    try:
        shown = read_until(process, "url_complete")
        assert shown["user_code"] in shown["url_complete"]
        page = Browser(idp.port).follow(shown["url_complete"])
        assert "Sign-in Success" in page, page
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and "subject=joe" in out, out
    finally:
        process.kill()
        process.wait()


class Watch:
    def __init__(self, idp):
        self.process = start(idp, "watch", API)

    def __call__(self, token):
        self.process.stdin.write(token + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def until(self, token, want, seconds=30):
        end = time.monotonic() + seconds
        while (got := self(token)) != want:
            assert time.monotonic() < end, f"{got}, not {want}"
            time.sleep(0.02)


@pytest.fixture
def watch(idp):
    watch = Watch(idp)
    yield watch
    watch.process.stdin.close()
    assert watch.process.wait(30) == 0
    watch.process.stdout.close()


def token_of(idp):
    return idp("id=service", SECRET, "credentials", "read", API)["access_token"]


def test_keys_turn_and_nobody_is_refused(idp, watch):
    first = token_of(idp)
    watch.until(first, "good=rsa-1")
    idp.test("keys?use=1,2")  # published, not used yet
    fetches = idp.test("count")
    end = time.monotonic() + 30
    while idp.test("count") < fetches + 2:  # refresh_s has gone by, without a token that asked for it
        assert watch(first) == "good=rsa-1" and time.monotonic() < end
        time.sleep(0.05)
    idp.test("keys?use=2,1")
    second = token_of(idp)
    assert watch(second) == "good=rsa-2", "known before its first token"
    idp.test("keys?use=2")
    fetches = idp.test("count")
    while idp.test("count") < fetches + 2:
        assert watch(first) == "good=rsa-1" and watch(second) == "good=rsa-2", "in its grace time"
        time.sleep(0.05)


def test_a_key_without_notice_is_fetched_for_its_first_token(idp, watch):
    watch.until(token_of(idp), "good=rsa-1")
    idp.test("keys?use=2")
    watch.until(token_of(idp), "good=rsa-2")


def test_an_outage_refuses_nobody(idp, watch):
    token = token_of(idp)
    watch.until(token, "good=rsa-1")
    idp.test("refuse?on=1")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert watch(token) == "good=rsa-1"
        time.sleep(0.02)
    idp.test("refuse?on=0")
    watch.until(token, "good=rsa-1")


def cbctl(idp, *words):
    return run(program("cbctl"), "auth", "token", "--issuer", idp.issuer, "--loopback-http", *words)


def test_cbctl_gets_tokens(idp, tmp_path):
    (tmp_path / "secret").write_text(SECRET.partition("=")[2] + "\n")
    got = cbctl(idp, "--client-id", "service", "--secret-file", tmp_path / "secret", "--scope", "read", "--resource", API)
    assert got.returncode == 0 and got.stdout.count(".") == 2 and got.stdout.count("\n") == 1, got.stderr
    got = cbctl(idp, "--client-id", "keyed", "--key-file", tmp_path / "private.json", "--json")
    assert got.returncode == 0, got.stderr
    value = json.loads(got.stdout)
    assert value["token_type"] == "Bearer" and 0 < value["expires_at"] - time.time() <= 300
    (tmp_path / "secret").write_text("wrong")
    got = cbctl(idp, "--client-id", "service", "--secret-file", tmp_path / "secret")
    assert got.returncode == 1 and "invalid_client" in got.stderr and not got.stdout


@pytest.mark.parametrize("words, why", [(["--client-id", "a"], "how do we show it"), (["--device"], "who are we"),
                                        (["--client-id", "a", "--secret-file", "/nonexistent"], "No such file"),
                                        (["--client-id", "a", "--device", "x"], "what is"), (["--nonsense"], "unknown option --nonsense"),
                                        (["--account", "/dev/null"], "key file")],
                         ids=["no-secret", "no-client", "no-file", "word", "option", "account"])
def test_cbctl_tells_mistakes(words, why):
    got = run(program("cbctl"), "auth", "token", "--issuer", "https://127.0.0.1:1", *words)
    assert got.returncode in (1, 2) and why in got.stderr, got.stderr


def test_cbctl_device_flow(idp, spawn):
    process = spawn(program("cbctl"), "auth", "token", "--issuer", idp.issuer, "--loopback-http", "--client-id", "tv", "--device", "--json",
                    "--scope", "openid")
    end = time.monotonic() + 20
    while not (url := re.search(r"or open (\S+)\n", process.output())):
        assert time.monotonic() < end and process.alive(), process.output()
        time.sleep(0.01)
    assert "Sign-in Success" in Browser(idp.port).follow(url[1])
    process.wait_for('"subject": "joe"', seconds=30)
    assert process.popen.wait(30) == 0
