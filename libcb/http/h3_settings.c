#include "http/h3_settings.h"

enum { STREAM_TYPE, FRAME_TYPE, FRAME_LENGTH, ID, VALUE, DONE };
enum { CONTROL_STREAM = 0x00, SETTINGS_FRAME = 0x04, ENABLE_CONNECT_PROTOCOL = 0x08 };

static uint8_t next(cb_h3_settings *s) {
    switch (s->state) {
    case STREAM_TYPE:
        return s->value == CONTROL_STREAM ? FRAME_TYPE : DONE;
    case FRAME_TYPE:
        return s->value == SETTINGS_FRAME ? FRAME_LENGTH : DONE;
    case FRAME_LENGTH:
        s->left = s->value;
        return s->left ? ID : DONE;
    case ID:
        s->id = s->value;
        return s->left ? VALUE : DONE;
    case VALUE:
        if (s->id == ENABLE_CONNECT_PROTOCOL) {
            s->connect = s->value == 1;
            s->bad = s->bad || s->value > 1; /* RFC 8441, 3 */
        }
        return s->left ? ID : DONE;
    default:
        return DONE;
    }
}

void cb_h3_settings_feed(cb_h3_settings *s, cb_slice in) {
    for (size_t i = 0; i < in.len && s->state != DONE; i++) {
        uint8_t byte = in.base[i];
        if (s->state >= ID && s->left-- == 0) {
            s->state = DONE;
            return;
        }
        if (!s->need) {
            s->value = byte & 0x3f;
            s->need = (uint8_t)((1U << (byte >> 6)) - 1);
        } else {
            s->value = s->value << 8 | byte;
            s->need--;
        }
        if (!s->need) s->state = next(s);
    }
}
