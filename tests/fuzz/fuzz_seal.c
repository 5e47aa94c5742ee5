/* Any bytes as an envelope: refused, or opened to what seals to the same content again. */
#include <cb/seal.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t secret[32] = "the first secret, of 32 bytes  ";
    static cb_seal *seal;
    cb_seal_label label = {.size = sizeof label};
    uint8_t *plain = NULL;
    size_t len = 0;
    if (!seal && cb_seal_new(&seal, CB_OPTS(cb_seal_opts, .secret = {secret, sizeof secret})) < 0) abort();
    const int known = cb_seal_label_read(&label, (cb_slice){data, size});
    int rc = cb_seal_open(seal, known == CB_OK ? label.purpose : "x", (cb_slice){data, size}, &plain, &len, NULL);
    if ((rc == CB_OK) != (plain != NULL) || (rc == CB_OK && known != CB_OK)) abort();
    cb_seal_free(plain, len);
    return 0;
}
