/* Runs Criterion test files inside one process, in place of libcriterion.
 *
 * Criterion's Test() macro puts a pointer to each test into a section of the program and calls a few functions of the
 * library. This file reads the section and supplies the functions. That makes the same test files cheap under
 * sanitizers, valgrind and callgrind: there is no exec and no message channel for each test.
 *
 *   unit_inproc [--list] [--filter GLOB] [--part K/N] [--verbose] [--timeout SECONDS] [GLOB...]
 *
 * --part K/N: of what the filters select every Nth test, from the Kth on: N processes beside each other run them all.
 * Tests of the suite "processes" run first, the others by name. A glob matches "suite/test". Tests that expect a signal
 * or an exit status run in a forked child. Parameterised tests and theories are not supported and are named as skipped.
 */
#include <criterion/criterion.h>
#include <fnmatch.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILTERS 32
/* The suite of tests whose children start threads: sanitizers only bear that while the process has none, and libuv's
 * pool, once it is there, stays. */
#define FORKING         "processes"
#define DEFAULT_TIMEOUT 120 /* seconds a test; sanitizers on a busy machine are slow */

extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak)), *__stop_cr_sts[] __attribute__((weak));

struct criterion_options criterion_options;

enum outcome { PASSED, FAILED, SKIPPED };

static struct {
    const struct criterion_test *test;
    const struct criterion_suite *suite;
    pthread_t thread;
    pid_t process;
    jmp_buf *unwind; /* where a failed assertion goes; NULL outside of a test */
    enum outcome outcome;
    char reason[256]; /* of a skip */
    char name[256];
} now;

static struct {
    const char *filters[MAX_FILTERS];
    int filters_len;
    unsigned timeout, part, parts;
    int list, verbose;
} opts = {.timeout = DEFAULT_TIMEOUT, .part = 1, .parts = 1};

/* ---- what the macros of Criterion call ---- */

static void unwind(void) __attribute__((noreturn));
static void unwind(void) {
    if (getpid() != now.process) { /* a child of the test: it must not go on with the tests that follow */
        fflush(NULL);
        _exit(125);
    }
    if (!now.unwind || !pthread_equal(pthread_self(), now.thread)) {
        fprintf(stderr, "%s: an assertion that ends the test failed outside of the test's own thread\n", now.name);
        abort();
    }
    longjmp(*now.unwind, 1);
}

void cri_asserts_passed_incr(void) {}

void criterion_send_assert(struct criterion_assert_stats *stats) {
    if (stats->passed) return;
    now.outcome = FAILED;
    fprintf(stderr, "%s:%u: %s: %s\n", stats->file, stats->line, now.name, stats->message);
}

void criterion_abort_test(void) {
    now.outcome = FAILED;
    unwind();
}

void criterion_continue_test(void) {
    now.outcome = FAILED;
}

void criterion_skip_test(const char *format, ...) {
    va_list args;

    va_start(args, format);
    vsnprintf(now.reason, sizeof now.reason, format, args);
    va_end(args);
    if (now.outcome == PASSED) now.outcome = SKIPPED;
    unwind();
}

void criterion_test_die(const char *message, ...) {
    va_list args;

    va_start(args, message);
    vfprintf(stderr, message, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

int cr_vasprintf(char **out, const char *format, va_list args) {
    return vasprintf(out, format, args);
}

int cr_asprintf(char **out, const char *format, ...) {
    va_list args;

    va_start(args, format);
    int n = vasprintf(out, format, args);
    va_end(args);
    return n;
}

void cr_asprintf_free(char *text) {
    free(text);
}

/* The text of an assertion that has no message of its own. The macros pass the expression where there is one. */
char *cr_translate_assert_msg(int index, ...) {
    const char *expression;
    char *text = NULL;
    va_list args;

    va_start(args, index);
    expression = va_arg(args, const char *);
    va_end(args);
    int n = index == CRITERION_ASSERT_MSG_FAIL ? asprintf(&text, "the test failed by its own word")
                                               : asprintf(&text, "this does not hold: %s", expression);
    return n < 0 ? NULL : text;
}

void criterion_internal_test_setup(void) {
    if (now.suite && now.suite->data && now.suite->data->init) now.suite->data->init();
    if (now.test->data->init) now.test->data->init();
}

void criterion_internal_test_main(void (*body)(void)) {
    jmp_buf here;
    jmp_buf *outer = now.unwind;

    now.unwind = &here;
    if (setjmp(here) == 0) body();
    now.unwind = outer; /* so that the teardown runs after a failure too */
}

void criterion_internal_test_teardown(void) {
    if (now.test->data->fini) now.test->data->fini();
    if (now.suite && now.suite->data && now.suite->data->fini) now.suite->data->fini();
}

/* ---- the runner ---- */

static double seconds(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void on_alarm(int signum) {
    static const char text[] = ": no end within the time limit\n";

    (void)signum;
    if (write(STDERR_FILENO, now.name, strlen(now.name)) < 0 || write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(3);
    abort();
}

static const struct criterion_suite *suite_of(const struct criterion_test *test) {
    for (struct criterion_suite **s = __start_cr_sts; s && s < __stop_cr_sts; s++)
        if (*s && strcmp((*s)->name, test->category) == 0) return *s;
    return NULL;
}

static void run_here(void) {
    jmp_buf here;

    now.unwind = &here;
    if (setjmp(here) == 0) now.test->test();
    now.unwind = NULL;
}

/* For a test that is meant to end its process: by a signal or with an exit status. */
static void run_in_child(int want_signal, int want_status) {
    int status = 0;

    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (want_signal) signal(want_signal, SIG_DFL);
        now.process = getpid();
        run_here();
        fflush(NULL);
        _exit(now.outcome == FAILED ? 125 : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        fprintf(stderr, "%s: cannot fork\n", now.name);
        now.outcome = FAILED;
    } else if (want_signal ? !WIFSIGNALED(status) || WTERMSIG(status) != want_signal
                           : !WIFEXITED(status) || WEXITSTATUS(status) != want_status) {
        fprintf(stderr, "%s: expected %s %d, got wait status 0x%x\n", now.name, want_signal ? "signal" : "exit status",
                want_signal ? want_signal : want_status, (unsigned)status);
        now.outcome = FAILED;
    }
}

static void run(const struct criterion_test *test) {
    const struct criterion_test_extra_data *data = test->data;

    now.test = test;
    now.suite = suite_of(test);
    now.thread = pthread_self();
    now.process = getpid();
    now.outcome = PASSED;
    now.reason[0] = '\0';
    snprintf(now.name, sizeof now.name, "%s/%s", test->category, test->name);
    const struct criterion_test_extra_data *suite = now.suite ? now.suite->data : NULL;

    if (data->disabled || (suite && suite->disabled)) {
        now.outcome = SKIPPED;
        snprintf(now.reason, sizeof now.reason, "disabled");
    } else if (data->kind_ != CR_TEST_NORMAL) {
        now.outcome = SKIPPED;
        snprintf(now.reason, sizeof now.reason, "parameterised: runs with libcriterion only");
    } else {
        int want_signal = data->signal ? data->signal : suite ? suite->signal : 0;
        int want_status = data->exit_code ? data->exit_code : suite ? suite->exit_code : 0;
        alarm(opts.timeout);
        if (want_signal || want_status)
            run_in_child(want_signal, want_status);
        else
            run_here();
        alarm(0);
    }
}

static int selected(const char *name) {
    for (int i = 0; i < opts.filters_len; i++)
        if (fnmatch(opts.filters[i], name, 0) == 0) return 1;
    return opts.filters_len == 0;
}

static int by_name(const void *a, const void *b) {
    const struct criterion_test *x = *(struct criterion_test *const *)a;
    const struct criterion_test *y = *(struct criterion_test *const *)b;
    int order = (strcmp(y->category, FORKING) == 0) - (strcmp(x->category, FORKING) == 0);

    if (order == 0) order = strcmp(x->category, y->category);
    return order ? order : strcmp(x->name, y->name);
}

/* The tests that the filters select, by name, those that fork first. Sanitizers may put padding between the pointers of
 * the section. */
__attribute__((no_sanitize("address"))) static struct criterion_test **collect(size_t *len) {
    size_t room = (size_t)(__stop_cr_tst - __start_cr_tst), n = 0;
    struct criterion_test **tests = calloc(room + 1, sizeof *tests);

    if (!tests) abort();
    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++) {
        if (!*t) continue;
        snprintf(now.name, sizeof now.name, "%s/%s", (*t)->category, (*t)->name);
        if (selected(now.name)) tests[n++] = *t;
    }
    qsort(tests, n, sizeof *tests, by_name);
    *len = 0;
    for (size_t i = opts.part - 1; i < n; i += opts.parts)
        tests[(*len)++] = tests[i];
    return tests;
}

static int is_part(const char *text) {
    char end;
    return sscanf(text, "%u/%u%c", &opts.part, &opts.parts, &end) == 2 && opts.part > 0 && opts.part <= opts.parts;
}

static int parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *filter = argv[i];

        if (strcmp(argv[i], "--list") == 0) {
            opts.list = 1;
            continue;
        }
        if (strcmp(argv[i], "--verbose") == 0) {
            opts.verbose = 1;
            continue;
        }
        if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc) {
            opts.timeout = (unsigned)strtoul(argv[++i], NULL, 10);
            continue;
        }
        if (strcmp(argv[i], "--part") == 0 && i + 1 < argc && is_part(argv[i + 1])) {
            i++;
            continue;
        }
        if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc) filter = argv[++i];
        if (filter[0] == '-' || opts.filters_len == MAX_FILTERS) {
            fprintf(stderr,
                    "usage: %s [--list] [--filter GLOB] [--part K/N] [--verbose] [--timeout SECONDS] [GLOB...]\n",
                    argv[0]);
            return -1;
        }
        opts.filters[opts.filters_len++] = filter;
    }
    return 0;
}

int main(int argc, char **argv) {
    static const char *const words[] = {"ok", "FAILED", "skipped"};
    unsigned counts[3] = {0, 0, 0};
    size_t len = 0;

    if (parse(argc, argv) != 0) return 2;
    struct criterion_test **tests = collect(&len);
    signal(SIGALRM, on_alarm);
    for (size_t i = 0; i < len; i++) {
        if (opts.list) {
            printf("%s/%s\n", tests[i]->category, tests[i]->name);
            continue;
        }
        double start = seconds();
        run(tests[i]);
        counts[now.outcome]++;
        if (opts.verbose || now.outcome != PASSED)
            printf("%-7s %s (%.1f ms)%s%s\n", words[now.outcome], now.name, (seconds() - start) * 1e3,
                   now.reason[0] ? ": " : "", now.reason);
        fflush(stdout);
    }
    free(tests);
    if (opts.list) return 0;
    printf("%u passed, %u failed, %u skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    if (len == 0) fprintf(stderr, "no test matches\n");
    return counts[FAILED] != 0 || len == 0;
}
