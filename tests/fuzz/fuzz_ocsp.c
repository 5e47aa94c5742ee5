/* OCSP requests: whatever comes, there is an answer that GnuTLS can read, and a signed one only to what GnuTLS reads as
 * a request within the limits. The first byte chooses between a body and a path. */
#include <cb/ca.h>
#include <gnutls/ocsp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW = 1800000000 };

/* The authority's key and certificate are fixed, so that seeds stay what they are. */
static const char ca_pem[] = "-----BEGIN CERTIFICATE-----\n"
                             "MIIBtDCCAVqgAwIBAgIQdMIVO7az+sZt0C7EF1n4/zAKBggqhkjOPQQDAjAnMQ4w\n"
                             "DAYDVQQKEwVsaWJjYjEVMBMGA1UEAxMMUHJpdmF0ZSByb290MCAXDTI2MTEyNTIw\n"
                             "MDgzMFoYDzIxMjYxMTAxMjEwODMwWjAnMQ4wDAYDVQQKEwVsaWJjYjEVMBMGA1UE\n"
                             "AxMMUHJpdmF0ZSByb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXldN04gt\n"
                             "+rJGXvDKyle6c2OrvW3fl/X6VXgvSN7mEPCVDPeifSRQTS8sqIRMuYkaXvfQay5p\n"
                             "yhRuuwzwFc9ZzKNmMGQwEgYDVR0TAQH/BAgwBgEB/wIBATAOBgNVHQ8BAf8EBAMC\n"
                             "AQYwHQYDVR0OBBYEFJ5Of3KfSUJ1pspq+GSCVpZer33NMB8GA1UdIwQYMBaAFJ5O\n"
                             "f3KfSUJ1pspq+GSCVpZer33NMAoGCCqGSM49BAMCA0gAMEUCIGe9mZWcjpGR4U47\n"
                             "YZg/Vec/gRPCia1e+QOb1/nwJqnxAiEA6b0x1jnuWrMeiPpwXOYFGk3Hpw21xVWE\n"
                             "awZZrKrOTA0=\n"
                             "-----END CERTIFICATE-----\n";
static const char key_pem[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MIGUAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBHoweAIBAQQhAPuErcVkvhr4o+5R\n"
                              "0M4Hs5rdNF6vlOJIfUl4rUI8itm2oAoGCCqGSM49AwEHoUQDQgAEXldN04gt+rJG\n"
                              "XvDKyle6c2OrvW3fl/X6VXgvSN7mEPCVDPeifSRQTS8sqIRMuYkaXvfQay5pyhRu\n"
                              "uwzwFc9ZzA==\n"
                              "-----END PRIVATE KEY-----\n";
static const char index_text[] = "libcb ca index 1\n"
                                 "issued\t446d0e821336b451d137cc2b5294b5ce\t1795640610\t1795727310\t0\ta.test\n"
                                 "issued\t781c0c05d2446a223fc738b6fe4c183d\t1795640610\t1795727310\t0\tb.test\n"
                                 "revoked\t446d0e821336b451d137cc2b5294b5ce\t1795640910\t4\n";

static void put(const char *dir, const char *name, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

static cb_ocsp *make(void) {
    char dir[] = "/tmp/cb-fuzz-ocsp-XXXXXX", path[128];
    static const char *const names[] = {"ca.pem", "ca-key.pem", "index"};
    const char *const texts[] = {ca_pem, key_pem, index_text};
    cb_ocsp *r = NULL;
    if (!mkdtemp(dir)) abort();
    for (size_t i = 0; i < 3; i++) {
        put(dir, names[i], texts[i]);
    }
    if (cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = dir)) < 0) {
        fprintf(stderr, "%s\n", cb_last_error());
        abort();
    }
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static cb_ocsp *r;
    static uint8_t from_path[CB_OCSP_REQUEST_BYTES];
    if (!r) r = make();
    if (size < 1) return 0;
    cb_slice request = {data + 1, size - 1};
    if (data[0] & 1) {
        int64_t len = cb_ocsp_path(from_path, sizeof from_path, request);
        if (len < 0) return 0;
        request = (cb_slice){from_path, (size_t)len};
    }
    cb_ocsp_answer a = {.size = sizeof a};
    if (cb_ocsp_respond(r, request, NOW, &a) < 0) return 0; /* no memory */
    gnutls_ocsp_resp_t resp;
    const gnutls_datum_t der = {(uint8_t *)(uintptr_t)a.der.base, (unsigned)a.der.len};
    if (gnutls_ocsp_resp_init(&resp) < 0) return 0;
    if (gnutls_ocsp_resp_import(resp, &der) < 0 || gnutls_ocsp_resp_get_status(resp) != a.status) abort();
    if (a.cacheable && a.status != CB_OCSP_OK) abort();
    if (a.next_update_s - a.this_update_s > 3600) abort();
    gnutls_ocsp_resp_deinit(resp);
    return 0;
}
