"""What the linker made: programs are position independent, relocations are read-only at start, no stack is executable."""
import re
import subprocess
import tempfile
from pathlib import Path

import guard


def weak(path, program):
    _, segments = guard.output("readelf", "-lW", path)
    _, dynamic = guard.output("readelf", "-dW", path)
    problems = []
    if "GNU_RELRO" not in segments or "NOW" not in dynamic:
        problems.append(f"{path} has no full RELRO: link with -Wl,-z,relro,-z,now")
    stack = next((line for line in segments.splitlines() if "GNU_STACK" in line), "RWE")
    if "RWE" in stack:
        problems.append(f"{path} has an executable stack")
    if program and "Position-Independent Executable" not in segments:
        problems.append(f"{path} is not position independent")
    return problems


def test_built_files_are_hardened():
    library = guard.BUILD / "libcb.so"
    assert library.exists(), f"{library} is not built"
    programs = [path for path in [*guard.BUILD.glob("cb-*"), *guard.BUILD.glob("cbctl"), *guard.BUILD.glob("examples/*")]
                if path.is_file()]
    guard.report(weak(library, False) + [problem for path in programs for problem in weak(path, True)])


def constructors(library):
    """Code of the library's own that runs when it is loaded. The C runtime adds one entry, frame_dummy."""
    _, sections = guard.output("readelf", "-SW", library)
    size = re.search(r"\.init_array\s+INIT_ARRAY\s+\S+\s+\S+\s+(\S+)", sections)
    entries = int(size[1], 16) // 8 if size else 0
    return [f"{library} runs {entries - 1} functions when it is loaded: libcb has no global state to set up"] if entries > 1 else []


def test_loading_runs_nothing():
    library = guard.BUILD / "libcb.so"
    assert library.exists(), f"{library} is not built"
    guard.report(constructors(library))


def test_guard_sees_a_constructor():
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "x.c", Path(folder) / "x.so"
        for text, count in ("int x;\n", 0), ("int x; __attribute__((constructor)) static void f(void) { x = 1; }\n", 1):
            source.write_text(text)
            subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
            assert len(constructors(library)) == count


def test_guard_sees_a_weak_program():
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "x.c", Path(folder) / "x"
        source.write_text("int main(void) { return 0; }\n")
        subprocess.run(["gcc", "-no-pie", "-Wl,-z,execstack,-z,lazy,-z,norelro", source, "-o", program], check=True)
        assert len(weak(program, True)) == 3


if __name__ == "__main__":
    guard.main(globals())
