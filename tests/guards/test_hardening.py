"""What the linker made: programs are position independent, relocations are read-only at start, no stack is executable."""
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


def test_guard_sees_a_weak_program():
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "x.c", Path(folder) / "x"
        source.write_text("int main(void) { return 0; }\n")
        subprocess.run(["gcc", "-no-pie", "-Wl,-z,execstack,-z,lazy,-z,norelro", source, "-o", program], check=True)
        assert len(weak(program, True)) == 3


if __name__ == "__main__":
    guard.main(globals())
