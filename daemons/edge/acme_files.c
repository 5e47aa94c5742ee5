/* What members share of ACME beside the library's own files: thumbprints, and answers to tls-alpn-01. */
#include "acme.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_BYTES = 32768, ANSWERS_MAX = 1024 };

static const char tail[] = ".alpn01";

const char *edge_acme_stem(char out[EDGE_ACME_STEM], const char *name, const char *more) {
    snprintf(out, EDGE_ACME_STEM, "%.260s%s", name, more);
    for (char *p = out; *p; p++) {
        if (*p == '*' || *p == ':' || *p == '/') *p = '_';
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    }
    return out;
}

bool edge_acme_path(char out[PATH_MAX], const edge_conf *c, const edge_certificate_conf *cert) {
    const char *const *names = cert->names.at;
    char stem[EDGE_ACME_STEM];
    int n = snprintf(out, PATH_MAX, "%s/%s/%s", c->acme->dir, cert->issuer, edge_acme_stem(stem, names[0], ".pem"));
    return n > 0 && n < PATH_MAX;
}

static int failed(const char *path) {
    char text[PATH_MAX + 100];
    snprintf(text, sizeof text, "%s: %s", path, strerror(errno));
    return cb_error_set(CB_EUSER, text);
}

static bool put_text(int fd, const char *text) {
    for (size_t left = strlen(text); left;) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        text += n;
        left -= (size_t)n;
    }
    return true;
}

int edge_acme_put(const char *dir, const char *name, const char *before, const char *text) {
    char path[PATH_MAX], fresh[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path ||
        snprintf(fresh, sizeof fresh, "%s/%s~", dir, name) >= (int)sizeof fresh) {
        errno = ENAMETOOLONG;
        return failed(dir);
    }
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return failed(fresh);
    bool good = put_text(fd, before) && put_text(fd, "\n") && put_text(fd, text) && fsync(fd) == 0;
    int error = errno;
    close(fd);
    if (good && rename(fresh, path) == 0) return CB_OK;
    if (!good) errno = error;
    error = errno;
    unlink(fresh);
    errno = error;
    return failed(path);
}

void edge_acme_remove(const char *dir, const char *name) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path) unlink(path);
}

/* A whole file as text, of less than cap bytes. False: there is none that fits. */
static bool read_text(char *out, size_t cap, const char *dir, const char *name) {
    char path[PATH_MAX];
    size_t len = 0;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return false;
    ssize_t n;
    while (len < cap - 1 && ((n = read(fd, out + len, cap - 1 - len)) > 0 || (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    close(fd);
    out[len] = '\0';
    return len > 0 && len < cap - 1;
}

void edge_acme_line(char *out, size_t cap, const char *dir, const char *name) {
    if (!read_text(out, cap, dir, name)) *out = '\0';
    out[strcspn(out, "\n")] = '\0';
}

static bool ends_with(const char *file, const char *end) {
    const size_t n = strlen(file), len = strlen(end);
    return n > len && strcmp(file + n - len, end) == 0;
}

static bool is_answer(const char *file) {
    return ends_with(file, tail);
}

void edge_acme_drop_answers(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));)
        if (is_answer(e->d_name) || ends_with(e->d_name, ".alpn01~")) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

static bool take_answer(edge_acme *a, char ***names, size_t *len, const char *dir, const char *file) {
    static char text[ANSWER_BYTES]; /* of the one ACME thread */
    char *pem = NULL, **grown;
    if (*len == ANSWERS_MAX || !read_text(text, sizeof text, dir, file) || !(pem = strchr(text, '\n'))) return false;
    *pem++ = '\0';
    if (cb_alpn01_set(a->alpn01, text, pem) < 0) {
        edge_say_of(a->edge->log, CB_LOG_WARN, "acme", "%s/%s: %s", dir, file, cb_last_error());
        return false;
    }
    grown = realloc(*names, (*len + 1) * sizeof *grown);
    if (grown) *names = grown;
    if (!grown || !(grown[*len] = strdup(text))) return false;
    ++*len;
    return true;
}

static bool is_in(char *const *names, size_t len, const char *name) {
    for (size_t i = 0; i < len; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

void edge_acme_follow_answers(edge_acme *a) {
    char **names = NULL;
    size_t len = 0;
    for (const edge_acme_issuer *i = a->issuers; i; i = i->next) {
        DIR *d = i->handle || i->conf->challenge != EDGE_TLS_ALPN_01 ? NULL : opendir(i->dir);
        for (struct dirent *e; d && (e = readdir(d));)
            if (is_answer(e->d_name)) take_answer(a, &names, &len, i->dir, e->d_name);
        if (d) closedir(d);
    }
    for (size_t i = 0; i < a->shown_len; i++) {
        if (!is_in(names, len, a->shown[i])) cb_alpn01_set(a->alpn01, a->shown[i], NULL);
        free(a->shown[i]);
    }
    free(a->shown);
    a->shown = names;
    a->shown_len = len;
}
