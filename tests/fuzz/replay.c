/* Runs a fuzz target over files and folders of inputs, without libFuzzer: `fuzz_json tests/fuzz/corpus/json`. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs;

static int run_file(const char *path, size_t size) {
    /* Exactly as large as the input, so that the address sanitizer sees each byte read past it. */
    uint8_t *data = malloc(size > 0 ? size : 1);
    FILE *file = fopen(path, "rb");
    int rc = -1;

    if (data && file && fread(data, 1, size, file) == size) {
        LLVMFuzzerTestOneInput(data, size);
        inputs++;
        rc = 0;
    } else {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    }
    if (file) fclose(file);
    free(data);
    return rc;
}

static int run_path(const char *path);

static int run_folder(const char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    char child[4096];
    int rc = 0;

    if (!dir) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        int n = snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof child || run_path(child) != 0) rc = -1;
    }
    closedir(dir);
    return rc;
}

static int run_path(const char *path) {
    struct stat st;

    if (stat(path, &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    return S_ISDIR(st.st_mode) ? run_folder(path) : run_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv) {
    int bad = 0;

    for (int i = 1; i < argc; i++)
        bad |= run_path(argv[i]) != 0;
    printf("%lu inputs\n", inputs);
    if (inputs == 0) {
        fprintf(stderr, "no input was replayed: give files or folders that hold some\n");
        return 1;
    }
    return bad;
}
