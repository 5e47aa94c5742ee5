"""The guides: every program in them compiles and links, every edge configuration passes `cb-edge --check`, every Python block
compiles. C blocks without a main() are pieces: they are compiled with the usual headers in front of them."""
import functools
import getpass
import grp
import json
import os
import re
import tempfile
from pathlib import Path

import guard

GUIDES = sorted((guard.ROOT / "docs/guide").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
PRELUDE = "#include <cb.h>\n#include <poll.h>\n#include <pthread.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.S)
FILES = re.compile(r'"(\w+_file|path|user|group)"(\s*:\s*)"([^"]*)"')


def blocks(path, language):
    """(where, text) of each fenced block of the language."""
    text = path.read_text()
    return [(f"{path.relative_to(guard.ROOT) if path.is_relative_to(guard.ROOT) else path.name}:{text.count(chr(10), 0, found.start()) + 1}",
             found[2]) for found in BLOCK.finditer(text) if found[1] == language]


# ---- C ----

def c_problem(where, text):
    flags = ["-x", "c", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", guard.ROOT / "include"]
    whole = re.search(r"\bint main\(", text)
    with tempfile.TemporaryDirectory() as folder:
        end = [*flags, "-", "-o", f"{folder}/program", "-L", guard.BUILD, "-lcb", "-pthread"] if whole else [
            *flags, "-Wno-unused-function", "-Wno-unused-variable", "-fsyntax-only", "-"]
        status, said = guard.output("cc", *end, stdin=text if whole else PRELUDE + text)
    return [f"{where}: this C does not compile:\n{said}"] if status != 0 else []


# ---- configurations of cb-edge ----

@functools.lru_cache(maxsize=None)
def members():
    """Names of the root object's members."""
    return frozenset(json.loads((guard.ROOT / "daemons/edge/config.schema.json").read_text())["properties"])


def plain(text):
    """JSON with comments as Python values; None when it is not JSON."""
    try:
        return json.loads(TOKEN.sub(lambda m: m[0] if m[0][0] == '"' else " ", text))
    except ValueError:
        return None


def looks_like_edge(value):
    """By its members: one of cb-edge's at least, so that a misspelt one beside it is still found."""
    return isinstance(value, dict) and bool(set(value) & members())


def with_files(text, folder):
    """The same with files that exist and a user that is ours."""
    def other(found):
        name, value = found[1], found[3]
        if name == "path" and not value.endswith(".log"):
            return found[0]  # of a route
        if name == "group" and "/" not in value and value != "cb-edge":
            return found[0]  # of a route
        if name == "key_file" and value.endswith("/pop.key"):
            return f'"{name}"{found[2]}{json.dumps(f"{folder}/pop_key")}'  # of a PoP: no private key
        put = {"cert_file": f"{folder}/ca/localhost.pem", "key_file": f"{folder}/ca/localhost-key.pem",
               "ca_file": f"{folder}/ca/ca.pem", "issuer_file": f"{folder}/ca/ca.pem", "client_ca_file": f"{folder}/ca/ca.pem", "user": getpass.getuser(),
               "group": grp.getgrgid(os.getgid()).gr_name}.get(name, f"{folder}/{name}")
        return f'"{name}"{found[2]}{json.dumps(put)}'
    return FILES.sub(other, text)


def make_files(folder):
    """What with_files() names and no program makes. keys_file is a key that signs tokens and an API key at once."""
    keys = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "key": "0" * 12, "hash": "0" * 64, "sub": "a"}
    rules = {"rules": [{"name": "all", "effect": "allow", "tenants": ["*"]}]}
    for name, text in (("keys_file", json.dumps(keys)), ("hash_key_file", "x" * 32), ("cid_key_file", "x" * 16), ("pop_key", "x" * 32), ("client_secret_file", "secret"), ("token_file", "token"), ("authorization_file", "Bearer token"), ("revocations_file", ""),
                       ("policy_file", json.dumps(rules))):
        (Path(folder) / name).write_text(text)
        (Path(folder) / name).chmod(0o600)


def whole(text, value):
    """A piece of a configuration, with what it lacks put before it."""
    lacks = [] if "listeners" in value else ['"listeners": {"x": {"address": ":8443"}}']
    return re.sub(r"\{", "{" + "".join(part + ", " for part in lacks), text, count=1)


def edge_problem(where, text):
    value = plain(text)
    if value is None:
        return [f"{where}: this is not JSON (with comments)"]
    if not looks_like_edge(value):
        return []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "edge.json"
        file.write_text(whole(with_files(text, folder), value))
        make_files(folder)
        status, said = guard.output(guard.BUILD / "cbctl", "ca", "dev", "--dir", f"{folder}/ca", "localhost")
        if status == 0:
            status, said = guard.output(guard.BUILD / "cb-edge", "--check", "-c", file)
    return [f"{where}: cb-edge refuses this configuration:\n{said}"] if status != 0 else []


# ---- Python ----

def python_problem(where, text):
    try:
        compile(text, where, "exec")
    except SyntaxError as error:
        return [f"{where}: this Python does not compile: {error}"]
    return []


def problems(language, check):
    found = [block for path in GUIDES for block in blocks(path, language)]
    assert found, f"docs/guide has no {language} block: the fences have changed, or this test looks for the wrong thing"
    guard.report([problem for where, text in found for problem in check(where, text)])


def test_guides_exist():
    guard.report([f"docs/guide/{name} is missing" for name in ("auth.md", "edge.md", "embedding.md", "python.md", "simulation.md")
                  if not (guard.ROOT / "docs/guide" / name).is_file()])


def test_c_compiles():
    problems("c", c_problem)


def test_configurations_are_good():
    problems("json", edge_problem)


def test_defaults_are_those_of_the_schema():
    """What edge.md shows as the limits is what they are."""
    schema = json.loads((guard.ROOT / "daemons/edge/config.schema.json").read_text())
    shown = next(value["limits"] for _, text in blocks(guard.ROOT / "docs/guide/edge.md", "json")
                 for value in [plain(text)] if value and "limits" in value)
    assert shown == {name: member["default"] for name, member in schema["properties"]["limits"]["properties"].items()}


def test_every_member_is_shown():
    """A member that is new in the schema must get into edge.md."""
    schema = json.loads((guard.ROOT / "daemons/edge/config.schema.json").read_text())
    text = (guard.ROOT / "docs/guide/edge.md").read_text()
    names = set()

    def walk(node):
        for name, member in node.get("properties", {}).items():
            names.add(name)
            walk(member)
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                walk(node[key])
    walk(schema)
    guard.report([f"docs/guide/edge.md does not mention {name}" for name in sorted(names) if name not in text])


def test_every_reason_is_explained():
    text = (guard.ROOT / "docs/guide/edge.md").read_text()
    source = (guard.ROOT / "libcb/http/proxy_pass.c").read_text()
    reasons = set(re.findall(r'refuse\(pass, [^;]*?"(\w+)"\)', source)) | set(
        re.findall(r'\(failure\)\{\d+, (?:sent \? )?"(\w+)"', source)) | set(re.findall(r'reason = [^;]*?"(\w+)"', source))
    assert len(reasons) > 15, "libcb/http/proxy_pass.c gives its reasons in another way now"
    guard.report([f"docs/guide/edge.md does not explain the reason {name}" for name in sorted(reasons) if f"`{name}`" not in text])


def test_python_compiles():
    problems("python", python_problem)


def test_guard_sees_broken_blocks():
    assert c_problem("x", "#include <cb.h>\nint main(void) { return cb_no_such_call(); }\n")
    assert c_problem("x", "static void f(void) { cb_loop_stop(1, 2); }\n")
    assert not c_problem("x", "#include <cb.h>\nint main(void) { return !cb_version(); }\n")
    assert not c_problem("x", "static void f(cb_loop *loop) { cb_loop_stop(loop); }\n")
    good = '{"listeners": {"https": {"address": ":8443", "tls": {"certificates": [{"cert_file": "a", "key_file": "b"}]}}}} // yes\n'
    assert not edge_problem("x", good)
    assert edge_problem("x", good.replace("address", "adress"))
    assert edge_problem("x", '{"limits": {"max_fields": "many"}}\n')
    assert edge_problem("x", '{"limits": {}, "limitz": {}}\n')
    assert not edge_problem("x", '{"limits": {"max_fields": 7}}\n')
    assert edge_problem("x", "{\n")
    assert not edge_problem("x", '{"something": "else"}\n')
    assert python_problem("x", "async def f(:\n")
    assert not python_problem("x", "async def f():\n    await g()\n")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.md"
        page.write_text("text\n\n```c\nint x;\n```\n\n```\nno language\n```\n")
        assert blocks(page, "c") == [("page.md:3", "int x;\n")]


if __name__ == "__main__":
    guard.main(globals())
