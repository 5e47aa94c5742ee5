/* cbctl audit list: the audit log of a daemon that runs, by its admin interface. */
#include "admin.h"
#include <string.h>
#include <time.h>

enum { PATH_BYTES = 2048, DEFAULT_MOST = 100 };

/* Adds ?name=text or &name=text. False: no room for it. */
static bool add(char *path, const char *name, const char *text) {
    const size_t n = strlen(path);
    if (!text) return true;
    const int head = snprintf(path + n, PATH_BYTES - n, "%c%s=", strchr(path, '?') ? '&' : '?', name);
    if (head < 0 || (size_t)head >= PATH_BYTES - n) return false;
    return cbctl_url_encode(path + n + head, PATH_BYTES - n - (size_t)head, text, "") >= 0;
}

/* "2h" ago, or "@1700000000" seconds since 1970. False: it is neither. */
static bool read_since(char *out, size_t cap, const char *text) {
    const int64_t ago_ms = *text == '@' ? 0 : cbctl_duration_ms(text);
    const int64_t at =
        *text == '@' ? cbctl_number(text + 1, 0, INT64_MAX / 1000000) : (int64_t)time(NULL) - ago_ms / 1000;
    if (ago_ms < 0 || at < 0) return false;
    snprintf(out, cap, "%lld", (long long)at);
    return true;
}

int cbctl_audit_list(cbctl_admin *a) {
    char path[PATH_BYTES] = "/v1/audit", since[24];
    const cbctl_args *g = &a->args;
    if (g->n_words) return cbctl_usage("audit list: what is \"%s\"?", g->words[0]);
    if (g->since && !read_since(since, sizeof since, g->since))
        return cbctl_usage("--since: \"%s\" is neither a time ago, such as 30m or 2h, nor @SECONDS since 1970",
                           g->since);
    if (!add(path, "actor", g->actor) || !add(path, "action", g->action) || !add(path, "outcome", g->outcome) ||
        !add(path, "since", g->since ? since : NULL))
        return cbctl_usage("--actor, --action, --outcome: too long");
    return cbctl_show_pages(a, path, DEFAULT_MOST);
}
