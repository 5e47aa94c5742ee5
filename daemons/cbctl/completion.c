/* Completion for shells, written from the table of commands. */
#include "cbctl.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum kind { NOTHING, FILES, FOLDERS };

/* What a value is, by the word that stands for it. */
static enum kind kind_of(const char *value) {
    static const struct {
        const char *word;
        enum kind kind;
    } words[] = {{"FILE", FILES}, {"SEALED", FILES}, {"STEM", FILES},
                 {"KEY", FILES},  {"PATH", FILES},   {"DIR", FOLDERS}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].word, value) == 0) return words[i].kind;
    return NOTHING;
}

static bool takes_files(const cbctl_command *c) {
    return strstr(c->arguments, "FILE") || strstr(c->arguments, "SEALED");
}

/* The first of several rows of a group comes alone. */
static bool first_of_group(size_t i) {
    const char *group = cbctl_command_at(i)->group;
    while (i--)
        if (strcmp(cbctl_command_at(i)->group, group) == 0) return false;
    return true;
}

static void print_words(const char *group) { /* NULL: of all groups; else the names within one */
    const cbctl_command *c;
    const char *before = "";
    for (size_t i = 0; (c = cbctl_command_at(i)); i++) {
        if (group ? strcmp(c->group, group) != 0 || !c->name : !first_of_group(i)) continue;
        printf("%s%s", before, group ? c->name : c->group);
        before = " ";
    }
}

static const char *key_of(const cbctl_command *c, char out[64]) {
    snprintf(out, 64, "%s%s%s", c->group, c->name ? " " : "", c->name ? c->name : "");
    return out;
}

/* ---- bash ---- */

static void bash_value(const cbctl_option *o) {
    if (!o->value) return;
    if (o->choices)
        printf("            --%s) COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return ;;\n", o->name, o->choices);
    else if (kind_of(o->value) == NOTHING)
        printf("            --%s) return ;;\n", o->name);
    else
        printf("            --%s) COMPREPLY=($(compgen %s -- \"$cur\")); compopt -o filenames 2>/dev/null; return ;;\n",
               o->name, kind_of(o->value) == FOLDERS ? "-d" : "-f");
}

static void bash_command(const cbctl_command *c) {
    char key[64];
    const cbctl_option *o;
    printf("        \"%s\")\n            case \"$prev\" in\n", key_of(c, key));
    for (size_t i = 0; (o = cbctl_option_at(c, i)); i++)
        bash_value(o);
    printf("            esac\n            options=\"--help");
    for (size_t i = 0; (o = cbctl_option_at(c, i)); i++)
        printf(" --%s", o->name);
    printf("\"; files=%d ;;\n", takes_files(c));
}

static void bash(void) {
    const cbctl_command *c;
    puts("# cbctl's completion for bash; written by \"cbctl completion bash\".\n"
         "_cbctl() {\n"
         "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
         "    local group=\"${COMP_WORDS[1]}\" command options=\"\" files=0\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        COMPREPLY=($(compgen -W \"");
    print_words(NULL);
    puts(" --help --version\" -- \"$cur\"))\n        return\n    fi\n"
         "    command=\"$group\"\n"
         "    case \"$group\" in");
    for (size_t i = 0; (c = cbctl_command_at(i)); i++) {
        if (!c->name || !first_of_group(i)) continue;
        printf("    %s)\n"
               "        if [ \"$COMP_CWORD\" -eq 2 ]; then COMPREPLY=($(compgen -W \"",
               c->group);
        print_words(c->group);
        puts("\" -- \"$cur\")); return; fi\n"
             "        command=\"$group ${COMP_WORDS[2]}\" ;;");
    }
    puts("    esac\n    case \"$command\" in");
    for (size_t i = 0; (c = cbctl_command_at(i)); i++)
        if (c->run != cbctl_completion) bash_command(c);
    puts("        completion) options=\"bash zsh fish\" ;;\n"
         "    esac\n"
         "    if [ \"$files\" -eq 1 ] && [ \"${cur#-}\" = \"$cur\" ]; then\n"
         "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "        compopt -o filenames 2>/dev/null\n"
         "    else\n"
         "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
         "    fi\n"
         "}\n"
         "complete -F _cbctl cbctl");
}

/* ---- fish and zsh ---- */

/* In single quotes; fish and zsh differ in how one stands within them. zsh: also what _arguments takes for its own. */
static void quoted(const char *text, bool zsh) {
    for (; *text && *text != '\n'; text++) {
        if (*text == '\'')
            fputs(zsh ? "'\\''" : "\\'", stdout);
        else if (*text == '\\' || (zsh && strchr("[]:", *text)))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void fish_option(const cbctl_command *c, const cbctl_option *o) {
    printf("complete -c cbctl -n '__fish_seen_subcommand_from %s", c->group);
    if (c->name) printf("; and __fish_seen_subcommand_from %s", c->name);
    printf("' -l %s", o->name);
    if (o->value) printf(" -r");
    if (o->value && !o->choices && kind_of(o->value) != NOTHING)
        printf(" -F");
    else if (o->value)
        printf(" -f");
    if (o->choices) printf(" -a '%s'", o->choices);
    printf(" -d '");
    quoted(o->help, false);
    puts("'");
}

static void fish(void) {
    const cbctl_command *c;
    const cbctl_option *o;
    puts("# cbctl's completion for fish; written by \"cbctl completion fish\".\ncomplete -c cbctl -f");
    for (size_t i = 0; (c = cbctl_command_at(i)); i++) {
        if (first_of_group(i)) {
            printf("complete -c cbctl -n __fish_use_subcommand -a %s", c->group);
            if (!c->name) {
                printf(" -d '");
                quoted(c->summary, false);
                printf("'");
            }
            putchar('\n');
        }
        if (c->name) {
            printf("complete -c cbctl -n '__fish_seen_subcommand_from %s; and not __fish_seen_subcommand_from ",
                   c->group);
            print_words(c->group);
            printf("' -a %s -d '", c->name);
            quoted(c->summary, false);
            puts("'");
        }
        for (size_t k = 0; (o = cbctl_option_at(c, k)); k++)
            fish_option(c, o);
        if (takes_files(c))
            printf("complete -c cbctl -n '__fish_seen_subcommand_from %s%s%s' -F\n", c->group,
                   c->name ? "; and __fish_seen_subcommand_from " : "", c->name ? c->name : "");
    }
    puts("complete -c cbctl -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'");
}

static void zsh_option(const cbctl_option *o) {
    printf(" \\\n            '*--%s[", o->name);
    quoted(o->help, true);
    printf("]");
    if (o->value) {
        printf(":");
        quoted(o->value, true);
        printf(":");
    }
    if (o->choices)
        printf("(%s)", o->choices);
    else if (o->value && kind_of(o->value) != NOTHING)
        printf(kind_of(o->value) == FOLDERS ? "_files -/" : "_files");
    printf("'");
}

static void zsh(void) {
    const cbctl_command *c;
    const cbctl_option *o;
    char key[64];
    puts("#compdef cbctl\n"
         "# cbctl's completion for zsh; written by \"cbctl completion zsh\".\n"
         "_cbctl() {\n"
         "    local command=\"$words[2]\"\n"
         "    if (( CURRENT == 2 )); then");
    printf("        compadd -- ");
    print_words(NULL);
    puts(" --help --version\n        return\n    fi\n    case \"$command\" in");
    for (size_t i = 0; (c = cbctl_command_at(i)); i++) {
        if (!c->name || !first_of_group(i)) continue;
        printf("    %s)\n        if (( CURRENT == 3 )); then compadd -- ", c->group);
        print_words(c->group);
        puts("; return; fi\n"
             "        command=\"$command $words[3]\"\n"
             "        shift words; (( CURRENT-- )) ;;");
    }
    puts("    esac\n    shift words; (( CURRENT-- ))\n    case \"$command\" in");
    for (size_t i = 0; (c = cbctl_command_at(i)); i++) {
        printf("    \"%s\")\n        _arguments '--help[print how it is used]'", key_of(c, key));
        for (size_t k = 0; (o = cbctl_option_at(c, k)); k++)
            zsh_option(o);
        if (takes_files(c)) printf(" \\\n            '*:file:_files'");
        if (c->run == cbctl_completion) printf(" \\\n            '1:shell:(bash zsh fish)'");
        puts(" ;;");
    }
    puts("    esac\n}\n_cbctl \"$@\"");
}

int cbctl_completion(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    if (argc != 2) return cbctl_usage("completion: for which shell? bash, zsh or fish");
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (strcmp(shells[i].name, argv[1]) != 0) continue;
        shells[i].print();
        return CBCTL_OK;
    }
    return cbctl_usage("completion: \"%s\" is not bash, zsh or fish", argv[1]);
}
