#include "base/version.h"
#include <cb/base.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

uint32_t cb_version(void) {
    return (uint32_t)CB_VERSION_MAJOR << 16 | (uint32_t)CB_VERSION_MINOR << 8 | (uint32_t)CB_VERSION_PATCH;
}

const char *cb_version_text(void) {
    return TEXT(CB_VERSION_MAJOR) "." TEXT(CB_VERSION_MINOR) "." TEXT(CB_VERSION_PATCH);
}
