/* curl_h3 - fetches URLs one after the other over HTTP/3 only, with libcurl: an independent client (its QUIC is ngtcp2
 * too, its HTTP and connection handling are not). Built by test_h3_peers.py where libcurl has HTTP/3.
 *
 *   curl_h3 ca.pem [-u bytes] URL...      -u: POST that many bytes
 *
 * Prints for each: status, HTTP version, bytes received, new connections made. Exit 77: this libcurl has no HTTP/3. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct upload {
    long long left;
};

static size_t take(char *data, size_t size, size_t n, void *total) {
    (void)data;
    *(long long *)total += (long long)(size * n);
    return size * n;
}

static size_t give(char *data, size_t size, size_t n, void *user) {
    struct upload *up = user;
    size_t len = size * n;
    if ((long long)len > up->left) len = (size_t)up->left;
    memset(data, 'u', len);
    up->left -= (long long)len;
    return len;
}

static int fetch(CURL *curl, const char *url, const char *ca, long long upload) {
    struct upload up = {upload};
    long long received = 0;
    long status = 0, version = 0, connects = 0;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CAINFO, ca);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_3ONLY);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &received);
    if (upload > 0) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)upload);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, give);
        curl_easy_setopt(curl, CURLOPT_READDATA, &up);
    }
    CURLcode rc = curl_easy_perform(curl);
    if (rc != CURLE_OK) {
        fprintf(stderr, "curl_h3: %s: %s\n", url, curl_easy_strerror(rc));
        return 1;
    }
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &version);
    curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &connects);
    printf("%ld %s %lld %ld\n", status, version == CURL_HTTP_VERSION_3 ? "HTTP/3" : "other", received, connects);
    return 0;
}

int main(int argc, char **argv) {
    if (!(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_HTTP3)) return 77;
    if (argc < 3) return 2;
    long long upload = 0;
    int at = 2, rc = 0;
    if (argc > 4 && strcmp(argv[2], "-u") == 0) {
        upload = atoll(argv[3]);
        at = 4;
    }
    CURL *curl = curl_easy_init();
    for (; curl && at < argc && rc == 0; at++)
        rc = fetch(curl, argv[at], argv[1], upload);
    curl_easy_cleanup(curl);
    return curl ? rc : 1;
}
