"""The in-process runner of the unit tests tells passes, failures and skips apart: a runner that cannot fail proves nothing."""
import os
import re
import subprocess
import tempfile
from pathlib import Path

import guard

SAMPLE = r"""
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
static int *thing;
static void init(void) { thing = malloc(sizeof *thing); }
static void fini(void) { free(thing); thing = NULL; }
TestSuite(with_fixture, .init = init, .fini = fini);
Test(with_fixture, has_it) { cr_assert_not_null(thing); }
Test(with_fixture, fails_and_tears_down) { cr_assert_eq(1, 2, "one is %d", 1); }
Test(plain, passes) { cr_assert(1); }
Test(plain, torn_down) { cr_assert_null(thing); }
Test(plain, goes_on_after_expect) { cr_expect_str_eq("a", "b"); cr_expect(0, "second"); }
Test(plain, gets_its_signal, .signal = SIGABRT) { abort(); }
Test(plain, misses_its_signal, .signal = SIGABRT) {}
Test(plain, gets_its_status, .exit_code = 3) { exit(3); }
Test(plain, misses_its_status, .exit_code = 3) {}
Test(plain, is_disabled, .disabled = true) { abort(); }
Test(plain, is_skipped) { cr_skip_test("no %s", "moon"); }
"""


def build(folder):
    source, program = Path(folder) / "sample.c", Path(folder) / "sample"
    source.write_text(SAMPLE)
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-g", "-fsanitize=address,undefined", source,
                    guard.ROOT / "tests/support/inproc/runner.c", "-o", program], check=True)
    return program


def test_runner_counts():
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        status, text = guard.output(program)
        assert status == 1 and "5 passed, 4 failed, 2 skipped" in text, text
        assert "one is 1" in text and "second" in text and "is_skipped" in text and "no moon" in text, text
        status, text = guard.output(program, "plain/*passes", "--filter", "*/has_it")
        assert status == 0 and "2 passed, 0 failed, 0 skipped" in text, text
        assert guard.output(program, "--list")[1].split()[0] == "plain/gets_its_signal"
        parts = [guard.output(program, "--list", "--part", f"{k}/3")[1].split() for k in (1, 2, 3)]
        assert sorted(sum(parts, [])) == sorted(guard.output(program, "--list")[1].split()) and all(len(part) in (3, 4) for part in parts), parts
        assert guard.output(program, "--part", "4/3")[0] == guard.output(program, "--part", "0/3")[0] == guard.output(program, "--part", "1")[0] == 2
        assert guard.output(program, "no_such/*")[0] == 1
        assert guard.output(program, "--no-such-option")[0] == 2


SCRATCH = r"""
#include "support/scratch.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
Test(scratch, fails) {
    char folder[SCRATCH_TEXT], file[SCRATCH_TEXT], inside[SCRATCH_TEXT + 8];
    scratch_folder(folder, sizeof folder, "one");
    snprintf(inside, sizeof inside, "%s/file", folder);
    fclose(fopen(inside, "w"));
    close(scratch_file(file, sizeof file, "two"));
    cr_assert_str_neq(folder, file);
    pid_t child = fork();
    if (child == 0) exit(0); /* what is its parent's stays */
    cr_assert(waitpid(child, NULL, 0) == child && access(inside, F_OK) == 0 && access(file, F_OK) == 0);
    printf("made %s\n", folder);
    cr_assert(0, "here");
}
"""


def test_what_a_failed_test_made_goes():
    with tempfile.TemporaryDirectory(prefix="cb") as folder:
        source, program, top = Path(folder) / "sample.c", Path(folder) / "sample", Path(folder) / "tmp"
        source.write_text(SCRATCH)
        top.mkdir()
        tests = guard.ROOT / "tests"
        for runner in ([tests / "support/inproc/runner.c"], ["-lcriterion"]):
            subprocess.run(["gcc", "-D_GNU_SOURCE", "-g", f"-I{tests}", source, tests / "support/scratch.c", *runner, "-o", program], check=True)
            for where in (top, "/" + "x" * 80):  # the second is too long, and not there
                done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, "TMPDIR": str(where)})
                made = re.search("made (.*)", done.stdout)
                assert done.returncode == 1 and "here" in done.stdout + done.stderr and made, (runner, done)
                assert made[1].startswith(f"{top}/cb-one-" if where == top else "/tmp/cb-one-") and not Path(made[1]).exists(), made[1]
            assert not list(top.iterdir()), list(top.iterdir())


if __name__ == "__main__":
    guard.main(globals())
