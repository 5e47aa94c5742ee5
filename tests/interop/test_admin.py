"""cb/admin.h from the outside: curl, Python's http.client and a validator of OpenAPI documents against examples/admin.c."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import TOP, npm_modules, peer, program, run
from test_edge import edge, origin  # noqa: F401: fixtures
from test_edge_admin import asked  # noqa: F401: a fixture

METHODS = {"get", "put", "post", "patch", "delete"}


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket, by a client that is not ours."""

    def __init__(self, path):
        super().__init__("kettle", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


def ask(path, method, target, body=None, **fields):
    connection = Unix(path)
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    if body is not None:
        headers.setdefault("content-type", "application/json")
        body = body if isinstance(body, (bytes, str)) else json.dumps(body)
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), json.loads(text) if text else None


@pytest.fixture
def kettle(spawn, tmp_path):
    path = str(tmp_path / "kettle.sock")
    process = spawn(program("admin"), path)
    process.wait_for("unix:")
    return {"path": path, "process": process}


def test_by_curl(kettle):
    curl = [peer("curl"), "-sS", "--unix-socket", kettle["path"]]
    assert json.loads(run(*curl, "http://kettle/v1/kettle").stdout) == {"degrees": 20}
    done = run(*curl, "-i", "-X", "PUT", "-H", 'if-match: "1"', "-H", "content-type: application/json", "-d", '{"degrees": 90}',
               "http://kettle/v1/kettle")
    assert "200 OK" in done.stdout and 'etag: "2"' in done.stdout and '{"degrees":90}' in done.stdout, done
    done = run(*curl, "-o", "/dev/null", "-w", "%{http_code} %{content_type}", "-X", "PUT", "-H", 'if-match: "1"', "-H", "content-type: application/json",
               "-d", '{"degrees": 50}', "http://kettle/v1/kettle")
    assert done.stdout == "412 application/problem+json", done
    done = run(*curl, "--http2-prior-knowledge", "-w", " %{http_version}", "http://kettle/readyz")
    assert done.stdout == '{"ok":true,"live":true,"ready":true} 2', done


def test_changes_and_their_mistakes(kettle):
    path = kettle["path"]
    status, fields, got = ask(path, "PUT", "/v1/kettle", {"degrees": 101})
    assert status == 400 and fields["content-type"] == "application/problem+json"
    assert got["title"] == "Bad Request" and got["errors"][0]["pointer"] == "/degrees", got
    for _ in range(2):
        status, fields, got = ask(path, "PUT", "/v1/kettle", {"degrees": 60}, idempotency_key='"a"')
        assert (status, fields["etag"], got) == (200, '"2"', {"degrees": 60})
    assert ask(path, "PUT", "/v1/kettle", {"degrees": 61}, idempotency_key='"a"')[0] == 422
    assert ask(path, "DELETE", "/v1/kettle")[1]["allow"] == "GET, HEAD, PUT"
    assert ask(path, "GET", "/v1/kettle", if_none_match='"2"')[0] == 304


def test_who_has_no_role(kettle):
    """Another user may knock where the socket lets them, and gets no further."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    path = kettle["path"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); " \
             "s.sendall(b'GET /v1/kettle HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n'); print(s.recv(4096).decode())"
    for folder in [os.path.dirname(path)] + [os.path.dirname(path).rsplit("/", n)[0] for n in range(1, 4)]:
        if os.stat(folder).st_uid == os.getuid() and folder != "/tmp":
            os.chmod(folder, 0o755)
    as_other = dict(user=4000, group=4000, extra_groups=[])
    shut = subprocess.run(["/usr/bin/python3", "-c", script, path], capture_output=True, text=True, timeout=20, **as_other)
    assert "PermissionError" in shut.stderr, shut
    os.chmod(path, 0o666)
    shut = subprocess.run(["/usr/bin/python3", "-c", script, path], capture_output=True, text=True, timeout=20, **as_other)
    assert "403 Forbidden" in shut.stdout and "uid:4000 has no role here" in shut.stdout, shut


def test_events(kettle):
    curl = [peer("curl"), "-sSN", "--unix-socket", kettle["path"], "http://kettle/v1/events"]
    listener = subprocess.Popen(curl, stdout=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: [lines.append(line.rstrip("\n")) for line in listener.stdout])
    reader.start()
    end = time.monotonic() + 30
    while "retry: 1000" not in lines and time.monotonic() < end:
        time.sleep(0.01)
    for degrees in (30, 40):
        assert ask(kettle["path"], "PUT", "/v1/kettle", {"degrees": degrees})[0] == 200
    while sum(line.startswith("data:") for line in lines) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    kettle["process"].send(signal.SIGTERM)  # the stream ends as a whole, and so does the program
    assert listener.wait(30) == 0
    reader.join(10)
    listener.stdout.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert events == [{"degrees": 30, "by": f"uid:{os.getuid()}"}, {"degrees": 40, "by": f"uid:{os.getuid()}"}], lines
    numbers = [int(line.rsplit("-", 1)[1]) for line in lines if line.startswith("id: ")]
    assert numbers == [1, 2], lines
    assert kettle["process"].stop() == 0
    assert not os.path.exists(kettle["path"])


def test_a_second_one_leaves_the_first_alone(kettle, spawn):
    second = spawn(program("admin"), kettle["path"])
    assert second.popen.wait(30) == 1
    assert "a process listens there" in second.output()
    assert ask(kettle["path"], "GET", "/livez")[0] == 200
    kettle["process"].stop(signal.SIGKILL)
    third = spawn(program("admin"), kettle["path"])  # what a killed one left is replaced
    third.wait_for("unix:")
    assert ask(kettle["path"], "GET", "/livez")[0] == 200


# ---- the description ----

def lint(document):
    """What an OpenAPI document of ours must be beside valid; a list of what it is not."""
    wrong, ids = [], set()
    if document.get("openapi") != "3.1.0":
        wrong.append("openapi is not 3.1.0")
    for path, item in document["paths"].items():
        in_path = set(re.findall(r"\{([^}]+)\}", path))
        for method, operation in item.items():
            name = f"{method} {path}"
            if method not in METHODS:
                wrong.append(f"{name}: no method")
                continue
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", operation.get("operationId", "")) or operation["operationId"] in ids:
                wrong.append(f"{name}: operationId is missing, odd, or there twice")
            ids.add(operation.get("operationId"))
            if not operation.get("summary"):
                wrong.append(f"{name}: no summary")
            responses = operation.get("responses", {})
            if responses.get("default") != {"$ref": "#/components/responses/Problem"}:
                wrong.append(f"{name}: no problem among its responses")
            if not any(re.fullmatch(r"2(XX|\d\d)", status) for status in responses):
                wrong.append(f"{name}: no success among its responses")
            parameters = operation.get("parameters", [])
            named = [(p["in"], p["name"]) for p in parameters]
            if len(set(named)) != len(named):
                wrong.append(f"{name}: a parameter twice")
            if {n for where, n in named if where == "path"} != in_path or any(not p.get("required") for p in parameters if p["in"] == "path"):
                wrong.append(f"{name}: its parameters are not those of the path")
            wrong += [f"{name}: {p['name']}: no schema" for p in parameters if not isinstance(p.get("schema"), dict)]
            if "requestBody" in operation and not operation["requestBody"].get("content"):
                wrong.append(f"{name}: a body of no type")
            if method == "get" and "requestBody" in operation:
                wrong.append(f"{name}: a body")

    def refs(at, where="#"):
        if isinstance(at, dict):
            if isinstance(at.get("$ref"), str) and at["$ref"].startswith("#/components/"):
                found = document
                for part in at["$ref"][2:].split("/"):
                    found = found.get(part, {}) if isinstance(found, dict) else {}
                if not found:
                    wrong.append(f"{where}: {at['$ref']} leads nowhere")
            for key, value in at.items():
                refs(value, f"{where}/{key}")
        elif isinstance(at, list):
            for i, value in enumerate(at):
                refs(value, f"{where}/{i}")

    refs(document)
    problem = document["components"]["schemas"]["Problem"]
    if not {"type", "title", "status"} <= set(problem["properties"]):
        wrong.append("Problem is none of RFC 9457")
    return wrong


def test_the_description_says_what_there_is(kettle):
    status, fields, document = ask(kettle["path"], "GET", "/v1/openapi.json")
    assert status == 200 and fields["content-type"] == "application/json"
    assert lint(document) == []
    assert document["info"]["title"] == "kettle"
    assert {"/livez", "/readyz", "/healthz", "/v1/openapi.json", "/v1/whoami", "/v1/events", "/v1/kettle"} == set(document["paths"])
    put = document["paths"]["/v1/kettle"]["put"]
    assert put["x-roles"] == ["operator", "admin"]
    assert put["requestBody"]["content"]["application/json"]["schema"]["properties"]["degrees"]["maximum"] == 100
    assert {"Idempotency-Key", "If-Match"} <= {p["name"] for p in put["parameters"]}
    for path, item in document["paths"].items():  # nothing is described that is not there, and nothing else may be done
        for method in METHODS - set(item):
            assert ask(kettle["path"], method.upper(), path)[0] == 405, (method, path)


def judge(document, folder):
    """The verdict of a validator that is not ours."""
    modules = npm_modules(TOP / "tests/interop/openapi", "openapi-validator")
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    return run(peer("node"), TOP / "tests/interop/openapi/validate.mjs", modules.parent, file)


def test_the_description_is_valid(kettle, tmp_path):
    document = ask(kettle["path"], "GET", "/v1/openapi.json")[2]
    got = judge(document, tmp_path)
    assert got.returncode == 0 and got.stdout.strip() == "valid 3.1", got
    del document["paths"]["/v1/kettle"]["put"]["responses"]["2XX"]["description"]  # it does judge
    assert judge(document, tmp_path).returncode == 1


def test_the_description_of_cb_edge(asked, origin, tmp_path):  # noqa: F811: fixtures
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    document = asked.get("/v1/openapi.json")
    assert lint(document) == []
    got = judge(document, tmp_path)
    assert got.returncode == 0 and got.stdout.strip() == "valid 3.1", got


def test_lint_sees_bad_documents():
    good = {"operationId": "a", "summary": "x", "responses": {"200": {}, "default": {"$ref": "#/components/responses/Problem"}}}
    base = {"openapi": "3.1.0", "components": {"schemas": {"Problem": {"properties": {"type": 1, "title": 1, "status": 1}}}, "responses": {"Problem": {"x": 1}}}}
    assert lint({**base, "paths": {"/a": {"get": good}}}) == []
    bad = [{**good, "operationId": ""}, {**good, "summary": ""}, {**good, "responses": {"200": {}}},
           {**good, "responses": {"default": good["responses"]["default"]}}, {**good, "parameters": [{"in": "path", "name": "b", "required": True, "schema": {}}]},
           {**good, "parameters": [{"in": "query", "name": "b"}]}, {**good, "requestBody": {"content": {"a/b": {}}}},
           {**good, "x": {"$ref": "#/components/schemas/None"}}]
    for operation in bad:
        assert lint({**base, "paths": {"/a": {"get": operation}}}), operation
    assert lint({**base, "paths": {"/a": {"get": good, "put": good}}}), "an ID twice"
