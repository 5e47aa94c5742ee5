/* process_*: what Prometheus' own clients show of a process. */
#include "telemetry/system.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void memory(cb_system *s) {
    char *text = cb_system_read(s, s->proc, "self/statm"), *rest = NULL;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (!text) return;
    uint64_t total = strtoull(text, &rest, 10), resident = strtoull(rest, NULL, 10);
    cb_system_show(s, CB_F_PROCESS_VIRTUAL, NULL, total * page);
    cb_system_show(s, CB_F_PROCESS_RESIDENT, NULL, resident * page);
}

/* The n-th field of stat (from 1), behind the name, which may hold anything. */
static uint64_t stat_field(const char *text, int n) {
    const char *p = strrchr(text, ')');
    for (int at = 2; p && at < n; at++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

static void threads_and_start(cb_system *s) {
    enum { THREADS = 20, START_TICKS = 22 };
    uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK), begin = 0;
    char *text = cb_system_read(s, s->proc, "self/stat");
    if (!text) return;
    cb_system_show(s, CB_F_PROCESS_THREADS, NULL, stat_field(text, THREADS));
    begin = stat_field(text, START_TICKS) * 100 / hz;
    text = cb_system_read(s, s->proc, "stat");
    const char *boot = text ? strstr(text, "\nbtime ") : NULL;
    if (boot) cb_system_show(s, CB_F_PROCESS_START, NULL, strtoull(boot + 7, NULL, 10) * 100 + begin);
}

static void descriptors(cb_system *s) {
    char path[PATH_MAX];
    struct rlimit limit;
    uint64_t n = 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        cb_system_show(s, CB_F_PROCESS_MAX_FDS, NULL,
                       limit.rlim_cur == RLIM_INFINITY ? INT64_MAX : (uint64_t)limit.rlim_cur);
    if (snprintf(path, sizeof path, "%s/self/fd", s->proc) >= (int)sizeof path) return;
    DIR *d = opendir(path);
    if (!d) return;
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    cb_system_show(s, CB_F_PROCESS_FDS, NULL, n > 0 ? n - 1 : 0); /* this folder itself was open */
}

void cb_system_process(cb_system *s) {
    struct timespec cpu;
    struct rusage used;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0)
        cb_system_show(s, CB_F_PROCESS_CPU, NULL, (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec);
    if (getrusage(RUSAGE_SELF, &used) == 0) {
        cb_system_show(s, CB_F_PROCESS_FAULTS, "minor", (uint64_t)used.ru_minflt);
        cb_system_show(s, CB_F_PROCESS_FAULTS, "major", (uint64_t)used.ru_majflt);
        cb_system_show(s, CB_F_PROCESS_SWITCHES, "voluntary", (uint64_t)used.ru_nvcsw);
        cb_system_show(s, CB_F_PROCESS_SWITCHES, "involuntary", (uint64_t)used.ru_nivcsw);
    }
    cb_system_show(s, CB_F_BUILD, cb_version_text(), 1);
    memory(s);
    threads_and_start(s);
    descriptors(s);
}
