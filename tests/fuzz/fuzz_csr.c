/* Signing requests: nothing that is not signed by its own key, or has a name that is not allowed, is taken. The first
 * byte chooses what is allowed. */
#include "auth/ca_int.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const any[] = {"*"}, *const some[] = {"a.test", ".below.test"},
                             *const uris[] = {"spiffe://td.test/"};
    if (size < 1) return 0;
    cb_csr csr;
    const cb_leaf_opts all = {.size = sizeof all, .names = any, .names_len = 1, .uris = uris, .uris_len = 1};
    const cb_leaf_opts few = {.size = sizeof few, .names = some, .names_len = 2};
    bool strict = data[0] & 1;
    if (cb_csr_read(&csr, (cb_slice){data + 1, size - 1}, strict ? &few : &all) < 0) return 0;
    if (gnutls_x509_crq_verify(csr.crq, 0) < 0) abort();
    for (size_t i = 0; i < csr.names_len && strict; i++) {
        const char *dot = strchr(csr.names[i], '.');
        if (!dot) abort();
    }
    for (size_t i = 0; i < csr.uris_len; i++) {
        if (strict || strncmp(csr.uris[i], uris[0], strlen(uris[0])) != 0) abort();
    }
    cb_csr_clear(&csr);
    return 0;
}
