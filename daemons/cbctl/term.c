#include "term.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ENTER "\033[?1049h\033[?25l\033[H\033[2J"
#define LEAVE "\033[0m\033[?25h\033[?1049l"

/* There is one terminal, and signal handlers must find it. */
static struct {
    struct termios before;
    volatile sig_atomic_t open, anew;
    unsigned char keys[64];
    size_t n, at;
    bool ended;
    sigset_t while_waiting;
} term;

/* ---- in and out; also from signal handlers ---- */

static void put(const char *text, size_t len) {
    while (len) {
        const ssize_t n = write(STDOUT_FILENO, text, len);
        if (n < 0 && errno != EINTR) return;
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        }
    }
}

static void enter(void) {
    struct termios raw = term.before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    put(ENTER, sizeof ENTER - 1);
    term.open = 1;
    term.anew = 1;
}

void cbctl_term_close(void) {
    if (!term.open) return;
    term.open = 0;
    put(LEAVE, sizeof LEAVE - 1);
    tcsetattr(STDIN_FILENO, TCSANOW, &term.before);
}

/* ---- signals ---- */

static void on_end(int number) {
    const int saved = errno;
    cbctl_term_close();
    raise(number); /* the handler is gone (SA_RESETHAND), and it comes when this one returns */
    errno = saved;
}

static void handle(int number, void (*fn)(int), int flags) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = fn;
    a.sa_flags = flags;
    sigfillset(&a.sa_mask);
    sigaction(number, &a, NULL);
}

static void on_stop(int number) {
    const int saved = errno;
    (void)number;
    cbctl_term_close();
    raise(SIGSTOP);
    enter(); /* it goes on */
    errno = saved;
}

static void on_resize(int number) {
    (void)number;
    term.anew = 1;
}

static void watch_signals(void) {
    static const int ends[] = {SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2,
                               SIGABRT, SIGSEGV, SIGBUS, SIGFPE,  SIGILL,  SIGSYS,  SIGXCPU};
    sigset_t held;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        handle(ends[i], on_end, (int)SA_RESETHAND);
    handle(SIGTSTP, on_stop, 0);
    handle(SIGWINCH, on_resize, 0);
    sigemptyset(&held); /* so that none comes between looking and waiting */
    sigaddset(&held, SIGWINCH);
    sigaddset(&held, SIGTSTP);
    sigprocmask(SIG_BLOCK, &held, &term.while_waiting);
}

bool cbctl_term_open(void) {
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &term.before) < 0) return false;
    atexit(cbctl_term_close);
    watch_signals();
    enter();
    return true;
}

/* ---- size and keys ---- */

static unsigned from_environment(const char *name, unsigned otherwise) {
    const char *text = getenv(name);
    const unsigned long n = text ? strtoul(text, NULL, 10) : 0;
    return n > 0 && n < 10000 ? (unsigned)n : otherwise;
}

void cbctl_term_size(unsigned *columns, unsigned *rows) {
    struct winsize w;
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row;
    *columns = known ? w.ws_col : from_environment("COLUMNS", 80);
    *rows = known ? w.ws_row : from_environment("LINES", 24);
}

bool cbctl_term_wait(int fd, int64_t ms) {
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = term.ended ? -1 : STDIN_FILENO, .events = POLLIN}};
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (term.at == term.n && !term.anew && ppoll(p, 2, ms < 0 ? NULL : &t, &term.while_waiting) > 0 && p[1].revents) {
        const ssize_t n = read(STDIN_FILENO, term.keys, sizeof term.keys);
        term.ended = n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN);
        term.n = n > 0 ? (size_t)n : 0;
        term.at = 0;
    }
    const bool anew = term.anew;
    term.anew = 0;
    return anew;
}

/* "\033[A" and its kind. */
static int escape_key(void) {
    static const struct {
        const char *text;
        int key;
    } keys[] = {{"[A", KEY_UP},         {"[B", KEY_DOWN}, {"OA", KEY_UP},  {"OB", KEY_DOWN},  {"[5~", KEY_PAGE_UP},
                {"[6~", KEY_PAGE_DOWN}, {"[H", KEY_HOME}, {"[F", KEY_END}, {"[1~", KEY_HOME}, {"[4~", KEY_END}};
    const size_t left = term.n - term.at;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const size_t n = strlen(keys[i].text);
        if (left < n || memcmp(term.keys + term.at, keys[i].text, n) != 0) continue;
        term.at += n;
        return keys[i].key;
    }
    if (!left || (term.keys[term.at] != '[' && term.keys[term.at] != 'O')) return 033; /* the key itself */
    while (++term.at < term.n && (term.keys[term.at] < 0x40 || term.keys[term.at] > 0x7e))
        continue; /* one that we do not know, up to its last byte */
    if (term.at < term.n) term.at++;
    return cbctl_term_key();
}

int cbctl_term_key(void) {
    if (term.at == term.n) return term.ended ? KEY_ENDED : KEY_NONE;
    const int c = term.keys[term.at++];
    return c == 033 ? escape_key() : c;
}
