/* cb-edge: a reverse proxy for HTTP/1.1, HTTP/2 and HTTP/3. */
#include "telemetry.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: cb-edge --config FILE [--check]\n"
    "       cb-edge --schema | --version | --help\n"
    "\n"
    "  -c, --config FILE  the configuration: JSON with comments (see cb-edge(8))\n"
    "      --check        read and check it, print every mistake, and exit\n"
    "      --schema       print the JSON Schema of the configuration\n"
    "      --version      print the version\n"
    "\n"
    "SIGHUP reloads, SIGUSR2 upgrades (a new process takes over without losing a connection), SIGTERM and\n"
    "SIGINT end gracefully, SIGUSR1 reopens the logs.\n";

/* What the environment asks of QUIC (CBR_CC, CBR_AEAD) is refused here as it would be at the start: by an endpoint. */
static int check_environment(void) {
    cb_loop *loop = NULL;
    cb_quic_endpoint *e = NULL;
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_quic_client(&e, loop, NULL, CB_OPTS(cb_quic_opts, .alpn = "h3"));
    if (rc < 0) fprintf(stderr, "cb-edge: %s\n", cb_last_error());
    cb_quic_endpoint_free(e);
    cb_loop_free(loop);
    return rc;
}

static int check(const char *file) {
    edge_source from = {.name = file};
    edge_snapshot *s = NULL;
    char *text = NULL;
    int rc = edge_source_read(&from, &text, file);
    if (rc == CB_OK) rc = edge_snapshot_load(&s, &from, NULL);
    if (rc == CB_OK && (rc = edge_check_user(s->conf)) < 0) fprintf(stderr, "%s: %s\n", file, edge_why());
    if (rc == CB_OK) rc = edge_parts_check(s, &from);
    if (rc == CB_OK) rc = check_environment();
    edge_snapshot_unref(s);
    free(text);
    if (rc == CB_OK) printf("%s: good\n", file);
    return rc < 0;
}

static int print_schema(void) {
    char *text = NULL;
    int rc = cb_config_schema_json(&text, &edge_schema);
    if (rc < 0) fprintf(stderr, "cb-edge: %s\n", cb_last_error());
    if (rc == CB_OK) fputs(text, stdout);
    cb_config_text_free(text);
    return rc < 0;
}

int main(int argc, char **argv) {
    enum { CHECK = 256, SCHEMA, VERSION };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, CHECK},
        {"schema", no_argument, NULL, SCHEMA},    {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    const char *file = NULL;
    bool only_check = false;
    for (int c; (c = getopt_long(argc, argv, "c:h", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            file = optarg;
            break;
        case CHECK:
            only_check = true;
            break;
        case SCHEMA:
            return print_schema();
        case VERSION:
            printf("cb-edge %s\n", cb_version_text());
            return 0;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!file || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    return only_check ? check(file) : edge_run(file, argv) < 0;
}
