#include <cb/base.h>
#include <string.h>

cb_slice cb_slice_str(const char *text) {
    return text ? (cb_slice){(const uint8_t *)text, strlen(text)} : (cb_slice){NULL, 0};
}
