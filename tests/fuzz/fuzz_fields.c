/* Field syntax: the predicates agree with each other, and a section keeps what it was given. */
#include "base/error.h"
#include "http/fields.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const cb_slice all = {data, size};
    cb_slice list = all, item;
    size_t items = 0;
    while (cb_list_next(&list, &item)) {
        items++;
        if (!item.len || item.base < data || item.base + item.len > data + size) abort();
    }
    if (items > size) abort();
    if (cb_content_length(all) < -1) abort();
    if (cb_content_length(all) >= 0 && !cb_field_value_ok(all)) {
        for (size_t i = 0; i < size; i++)
            if (!strchr("0123456789, \t", data[i])) abort();
    }
    if (cb_authority_ok(all) && (memchr(data, '@', size) || memchr(data, '/', size) || memchr(data, ' ', size)))
        abort();
    if (cb_target_ok(all) && memchr(data, '#', size)) abort();
    if (cb_method_ok(all) && !cb_field_name_ok(all)) abort();

    cb_fields f;
    cb_fields_init(&f, NULL, 4096, 32);
    size_t at = 0, added = 0;
    while (at + 2 <= size) { /* a length of each, then the bytes */
        size_t n = data[at] & 31, v = data[at + 1];
        at += 2;
        if (n + v > size - at) break;
        if (cb_fields_add(&f, (cb_slice){data + at, n}, (cb_slice){data + at + n, v}) < 0) break;
        at += n + v;
        added++;
    }
    cb_fields_seal(&f);
    if (f.len != added || f.bytes > 4096) abort();
    for (size_t i = 0; i < f.len; i++)
        for (size_t k = 0; k < f.at[i].name.len; k++)
            if (f.at[i].name.base[k] >= 'A' && f.at[i].name.base[k] <= 'Z') abort();
    cb_fields_get(&f, "host");
    cb_fields_free(&f);
    return 0;
}
