"""The tree itself: formatting, documents that stay true, schemas, fuzz seeds."""
import json
import re
import shutil
import tempfile
from pathlib import Path

import guard

CLANG_FORMAT = 14  # the version whose output the tree follows; others lay some lines out differently
STATUS = re.compile(r"works|absent|(?:partial|out): \S.*")
PROOF = re.compile(r"`([^`#]+)(?:#([^`]+))?`")


def clang_format():
    """The program of the right version, or None."""
    for name in (f"clang-format-{CLANG_FORMAT}", "clang-format"):
        if shutil.which(name) and f"version {CLANG_FORMAT}." in guard.output(name, "--version")[1]:
            return name
    return None


def unformatted(program, files):
    _, text = guard.output(program, "--dry-run", f"--style=file:{guard.ROOT / '.clang-format'}", *files)
    return [f"{name} is not formatted: run {program} -i {name}"
            for name in sorted(set(re.findall(r"^(\S+?):\d+:\d+: warning: code should be clang-formatted", text, re.M)))]


def coverage_problems(text):
    """Rows of docs/coverage.md: | id | source | feature | figure | kind | module | proof idea | status | proof |.
    A proof is `path` or `path#name`, where name stands in that file; what works, also in part, needs at least one."""
    problems, seen = [], set()
    for line in text.splitlines():
        if not re.match(r"\| *R\d+", line):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 9:
            problems.append(f"docs/coverage.md: {cells[0]}: {len(cells)} columns and not 9")
            continue
        row, status, proof = cells[0], cells[7], cells[8]
        if row in seen:
            problems.append(f"docs/coverage.md: {row} stands twice")
        seen.add(row)
        if not STATUS.fullmatch(status):
            problems.append(f"docs/coverage.md: {row}: status {status!r} is none of: works; absent; partial: what is missing; "
                            "out: why")
        named = PROOF.findall(proof)
        if status.startswith(("works", "partial")) and not named:
            problems.append(f"docs/coverage.md: {row} says {status!r} and names no proof (`path` or `path#name`)")
        for path, name in named:
            file = guard.ROOT / path
            if not file.is_file():
                problems.append(f"docs/coverage.md: {row}: the proof {path} does not exist")
            elif name and not re.search(rf"\b{re.escape(name)}\b", file.read_text(errors="replace")):
                problems.append(f"docs/coverage.md: {row}: {path} has no {name}")
    return problems if seen else ["docs/coverage.md has no rows"]


def dead_links(path, text):
    """Relative links of a Markdown file that lead nowhere."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    return [f"{path.relative_to(guard.ROOT)}: the link to {target} leads nowhere"
            for target in re.findall(r"\]\(([^)\s]+)\)", prose)
            if not re.match(r"[a-z]+:|#", target) and not (path.parent / target.split("#")[0]).exists()]


def test_format():
    program = clang_format()
    if program is None:
        import pytest
        pytest.skip(f"clang-format {CLANG_FORMAT} is not installed (Debian 13 has newer ones only)")
    guard.report(unformatted(program, guard.tracked(".c", ".h")))


def test_coverage_names_real_proofs():
    guard.report(coverage_problems((guard.ROOT / "docs/coverage.md").read_text()))


def test_links_lead_somewhere():
    guard.report([problem for path in guard.tracked(".md") for problem in dead_links(path, path.read_text())])


def test_readme_quotes_the_example():
    quoted = re.search(r"```c\n(.*?)```", (guard.ROOT / "README.md").read_text(), re.S)[1].strip()
    assert quoted in (guard.ROOT / "examples/http3_server.c").read_text(), "README.md: the program differs from examples/http3_server.c"


def test_readme_configuration_is_good():
    quoted = re.search(r"```json\n(.*?)```", (guard.ROOT / "README.md").read_text(), re.S)[1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "edge.json").write_text(quoted)
        made = guard.output("sh", "-c", f"cd {folder} && {guard.BUILD / 'cbctl'} ca dev localhost && "
                                        f"{guard.BUILD / 'cb-edge'} --check -c edge.json")
    assert made[0] == 0, f"README.md: the configuration it shows is refused:\n{made[1]}"


def test_schemas_parse():
    problems = []
    for path in guard.tracked(".schema.json"):
        try:
            schema = json.loads(path.read_text())
        except ValueError as error:
            problems.append(f"{path.relative_to(guard.ROOT)} is not JSON: {error}")
            continue
        if schema.get("type") != "object" or "$schema" not in schema:
            problems.append(f"{path.relative_to(guard.ROOT)} is no JSON Schema of an object ($schema, type)")
    guard.report(problems)


def test_fuzz_targets_have_seeds():
    folder = guard.ROOT / "tests/fuzz"
    guard.report([f"tests/fuzz/corpus/{noun} has no seed: {target.name} replays nothing"
                  for target in sorted(folder.glob("fuzz_*.c"))
                  for noun in [target.stem.removeprefix("fuzz_")]
                  if not any(path.is_file() for path in (folder / "corpus" / noun).glob("*"))])


def test_guard_sees_bad_coverage():
    row = "| R001 | 000 | thing | - | LIB | core | U | {} | {} |\n"
    assert not coverage_problems(row.format("absent", "-"))
    assert not coverage_problems(row.format("works", "`tests/guards/test_tree.py#test_guard_sees_bad_coverage`"))
    assert coverage_problems(row.format("works", "-"))
    assert coverage_problems(row.format("perhaps", "-"))
    assert coverage_problems(row.format("partial", "`README.md`"))
    assert coverage_problems(row.format("partial: no IPv6", "-"))
    assert not coverage_problems(row.format("partial: no IPv6", "`README.md`"))
    assert coverage_problems(row.format("works", "`tests/unit/no_such_file.c`"))
    assert coverage_problems(row.format("works", "`tests/guards/test_tree.py#no_such" + "_test`"))
    assert coverage_problems(row.format("absent", "-") * 2)
    assert coverage_problems("nothing")


def test_guard_sees_dead_link():
    page = guard.ROOT / "README.md"
    assert dead_links(page, "see [x](docs/nowhere.md)")
    assert not dead_links(page, "see [x](https://example.org) and [y](LICENSE) and `[z](not-a-link)`")


def test_guard_sees_bad_format():
    program = clang_format()
    if program is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bad.c"
        file.write_text("int  f ( void ){return 1 ;}\n")
        assert unformatted(program, [file])


if __name__ == "__main__":
    guard.main(globals())
