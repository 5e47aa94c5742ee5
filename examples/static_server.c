/* static_server - serves the files of a directory over HTTP/1.1, /2 and /3.
 *   static_server LISTEN DIRECTORY               clear text
 *   static_server LISTEN CERT KEY DIRECTORY      TLS and QUIC
 * No symbolic links, no names that begin with a dot, nothing outside of the directory. */
#include <cb.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct sending {
    int fd;
    off_t at, size;
};

static cb_field field(const char *name, const char *value) {
    return (cb_field){cb_slice_str(name), cb_slice_str(value)};
}

static const char *type_of(const char *name) {
    static const char *const types[][2] = {{".html", "text/html; charset=utf-8"},
                                           {".css", "text/css"},
                                           {".js", "text/javascript"},
                                           {".txt", "text/plain; charset=utf-8"},
                                           {".json", "application/json"},
                                           {".svg", "image/svg+xml"},
                                           {".png", "image/png"},
                                           {".jpg", "image/jpeg"},
                                           {".webp", "image/webp"},
                                           {".woff2", "font/woff2"},
                                           {".wasm", "application/wasm"},
                                           {".pdf", "application/pdf"}};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcmp(dot, types[i][0]) == 0) return types[i][1];
    return "application/octet-stream";
}

static int hex(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Takes the query off and decodes %XX; 0 when that leaves no path. */
static int decode(cb_slice path, char *out, size_t cap) {
    size_t n = 0;
    for (size_t i = 0; i < path.len && path.base[i] != '?'; i++) {
        int c = path.base[i];
        if (c == '%') {
            int high = i + 2 < path.len ? hex(path.base[i + 1]) : -1, low = high < 0 ? -1 : hex(path.base[i + 2]);
            if (low < 0) return 0;
            c = high * 16 + low;
            i += 2;
        }
        if (c == 0 || n + 1 >= cap) return 0;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return out[0] == '/';
}

/* Opens one name after the other, so that nothing can lead out; changes path. -1 and errno. */
static int open_beneath(int dir, char *path) {
    int fd = dir;
    for (char *rest = path, *name; fd >= 0 && (name = strsep(&rest, "/"));) {
        if (!*name) continue;
        int next = -1;
        if (*name == '.')
            errno = EACCES;
        else
            next = openat(fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        int why = errno;
        if (fd != dir) close(fd);
        errno = why;
        fd = next;
    }
    return fd == dir ? -1 : fd;
}

static int pump(cb_exchange *x, void *user) {
    struct sending *s = user;
    char block[65536];
    while (s->at < s->size) {
        size_t room = cb_exchange_room(x);
        ssize_t n = pread(s->fd, block, room && room < sizeof block ? room : sizeof block, s->at);
        if (n <= 0) return CB_ESYS; /* it became shorter: the exchange is reset */
        int64_t taken = cb_exchange_write(x, (cb_slice){(const uint8_t *)block, (size_t)n});
        if (taken < 0) return taken == CB_EAGAIN ? CB_OK : (int)taken;
        s->at += taken;
    }
    return cb_exchange_finish(x);
}

static void sent(cb_exchange *x, int rc, void *user) {
    struct sending *s = user;
    (void)x;
    (void)rc;
    close(s->fd);
    free(s);
}

static int refuse(cb_exchange *x, int fd, int status, const char *text) {
    if (fd >= 0) close(fd);
    return cb_exchange_send_text(x, status, text);
}

static int serve(cb_exchange *x, void *user) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_writable = pump, .on_close = sent};
    char path[1024], type[1100], length[32];
    struct stat st;
    cb_slice method = cb_exchange_method(x);
    const int head = method.len == 4 && memcmp(method.base, "HEAD", 4) == 0;
    if (!head && !(method.len == 3 && memcmp(method.base, "GET", 3) == 0)) return refuse(x, -1, 405, "405\n");
    if (!decode(cb_exchange_path(x), path, sizeof path - sizeof "index.html")) return refuse(x, -1, 400, "400\n");
    if (path[strlen(path) - 1] == '/') strcat(path, "index.html");
    snprintf(type, sizeof type, "%s", type_of(path));
    int fd = open_beneath(*(int *)user, path);
    if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? refuse(x, -1, 404, "404\n") : refuse(x, -1, 403, "403\n");
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return refuse(x, fd, 404, "404\n");

    struct sending *s = malloc(sizeof *s);
    if (!s) return refuse(x, fd, 503, "503\n");
    *s = (struct sending){fd, 0, st.st_size};
    snprintf(length, sizeof length, "%lld", (long long)st.st_size);
    const cb_field fields[] = {field("content-type", type), field("content-length", length)};
    cb_exchange_handle(x, &ops, s); /* from here on `sent` cleans up */
    int rc = cb_exchange_reply(x, 200, fields, 2);
    if (rc < 0 || head) return rc < 0 ? rc : cb_exchange_finish(x);
    return pump(x, s);
}

static void quit(cb_loop *loop, void *server) {
    (void)loop;
    cb_http_server_drain(server, 5000);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = serve};
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_http_server *server = NULL;
    int dir = argc == 3 || argc == 5 ? open(argv[argc - 1], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir < 0) {
        fprintf(stderr, "usage: static_server LISTEN [CERT KEY] DIRECTORY\n");
        return 2;
    }
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK && argc == 5)
        rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK)
        rc = cb_http_server_new(
            &server, loop, CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me, .ops = &ops, .user = &dir));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, server);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGINT, quit, server);
    if (rc == CB_OK) printf("serving %s on %s\n", argv[argc - 1], cb_http_server_address(server)), fflush(stdout);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "static_server: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_server_free(server);
    cb_identity_unref(me);
    cb_loop_free(loop);
    close(dir);
    return rc < 0;
}
