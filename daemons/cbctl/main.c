#include "admin.h"
#include "cbctl.h"
#include <cb.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { HELP_COLUMN = 26 };

const cbctl_command *cbctl_command_at(size_t i) {
    const cbctl_command *const tables[] = {cbctl_admin_commands, cbctl_file_commands};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        for (const cbctl_command *c = tables[t]; c->group; c++)
            if (i-- == 0) return c;
    }
    return NULL;
}

const cbctl_option *cbctl_option_at(const cbctl_command *c, size_t i) {
    for (size_t l = 0; l < CBCTL_OPTION_LISTS && c->options[l]; l++) {
        for (const cbctl_option *o = c->options[l]; o->name; o++)
            if (i-- == 0) return o;
    }
    return NULL;
}

int cbctl_usage(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("cbctl: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("\nTry \"cbctl --help\".\n", stderr);
    va_end(ap);
    return CBCTL_USAGE;
}

int cbctl_failed(int rc) {
    const char *detail = cb_last_error();
    fprintf(stderr, "cbctl: %s\n", *detail ? detail : cb_strerror(rc));
    return CBCTL_FAILED;
}

void cbctl_json_text(const char *text) {
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') {
            printf("\\%c", *p);
        } else if (*p < 0x20) {
            printf("\\u%04x", *p);
        } else {
            putchar(*p);
        }
    }
    putchar('"');
}

/* ---- help ---- */

static void print_name(const cbctl_command *c) {
    printf("%s%s%s%s%s", c->group, c->name ? " " : "", c->name ? c->name : "", *c->arguments ? " " : "", c->arguments);
}

static void help_table(const char *title, const cbctl_command *table) {
    printf("\n%s:\n", title);
    for (const cbctl_command *c = table; c->group; c++) {
        printf("  ");
        print_name(c);
        printf("\n      %s\n", c->summary);
    }
}

static int help(void) {
    puts("Usage: cbctl COMMAND [OPTION]... [ARGUMENT]...");
    help_table("A daemon that runs, by its admin interface", cbctl_admin_commands);
    help_table("Files, certificates and tokens", cbctl_file_commands);
    puts("\n\"cbctl COMMAND --help\" lists a command's options; cbctl(1) says more.\n"
         "  --help     print this and exit\n"
         "  --version  print the version and exit");
    return CBCTL_OK;
}

/* "  --dir DIR        where the CA lives": lines after the first begin below its text. */
static void help_option(const cbctl_option *o) {
    int used = printf("  --%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    for (const char *line = o->help; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (used >= HELP_COLUMN - 1) {
            putchar('\n');
            used = 0;
        }
        printf("%*s%.*s\n", HELP_COLUMN - used, "", (int)strcspn(line, "\n"), line);
        used = 0;
    }
}

static int help_command(const cbctl_command *c) {
    printf("Usage: cbctl ");
    print_name(c);
    printf("\n%c%s.\n\n", c->summary[0] - 'a' + 'A', c->summary + 1);
    const cbctl_option *o;
    for (size_t i = 0; (o = cbctl_option_at(c, i)); i++)
        help_option(o);
    return CBCTL_OK;
}

static bool wants_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

/* ---- commands ---- */

static int run(const cbctl_command *c, int argc, char **argv) {
    if (wants_help(argc, argv)) return help_command(c);
    return c->admin ? cbctl_admin_main(c, argc, argv) : c->run(argc, argv);
}

static int dispatch(int argc, char **argv) {
    bool group_known = false;
    const cbctl_command *c, *alone = NULL;
    if (argc < 2) return cbctl_usage("no command");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return help();
    if (strcmp(argv[1], "--version") == 0) {
        printf("cbctl %s\n", cb_version_text());
        return CBCTL_OK;
    }
    if (argv[1][0] == '-') return cbctl_usage("%s: options come after the command", argv[1]);
    for (size_t i = 0; (c = cbctl_command_at(i)); i++) {
        if (strcmp(argv[1], c->group) != 0) continue;
        group_known = true;
        if (!c->name) alone = c;
        if (c->name && argc > 2 && strcmp(argv[2], c->name) == 0) return run(c, argc - 2, argv + 2);
    }
    if (alone) return run(alone, argc - 1, argv + 1);
    if (!group_known) return cbctl_usage("no such command: %s", argv[1]);
    if (argc > 2 && wants_help(argc - 1, argv + 1)) return help();
    if (argc == 2) return cbctl_usage("%s: which command?", argv[1]);
    return cbctl_usage("no such command: %s %s", argv[1], argv[2]);
}

int main(int argc, char **argv) {
    int code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("cbctl: standard output");
        if (code == CBCTL_OK) code = CBCTL_FAILED;
    }
    return code;
}
