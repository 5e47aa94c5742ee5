/* budget_paths - runs the hot paths under callgrind, which writes one dump for each: budget_paths CERT KEY CA [NAME...]
 * Without callgrind it only shows that they run. */
#include "paths.h"
#include <string.h>
#include <valgrind/callgrind.h>

const char *budget_cert, *budget_key, *budget_ca;

static bool wanted(const path *p, char **names) {
    if (!*names) return true;
    while (*names && strcmp(*names, p->name) != 0)
        names++;
    return *names != NULL;
}

static void measure(const path *p) {
    char label[64];
    if (p->prepare) p->prepare();
    p->run(p->warm);
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    p->run(p->count);
    snprintf(label, sizeof label, "path %s %zu", p->name, p->count);
    CALLGRIND_DUMP_STATS_AT(label);
    CALLGRIND_STOP_INSTRUMENTATION;
    if (p->clean) p->clean();
    printf("%s\n", p->name);
}

int main(int argc, char **argv) {
    const path *const lists[] = {paths_base, paths_http, paths_quic};
    if (argc < 4) {
        fprintf(stderr, "usage: budget_paths CERT KEY CA [NAME...]\n");
        return 2;
    }
    budget_cert = argv[1];
    budget_key = argv[2];
    budget_ca = argv[3];
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const path *p = lists[i]; p->name; p++)
            if (wanted(p, argv + 4)) measure(p);
    return 0;
}
