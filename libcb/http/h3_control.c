#include "http/h3_control.h"
#include "base/error.h"

enum { STEP_TYPE, STEP_LENGTH, STEP_ELEMENT, STEP_BEHIND_ELEMENT, STEP_PAYLOAD };
enum { CANCEL_PUSH = 0x03, GOAWAY = 0x07, MAX_PUSH_ID = 0x0d, UPDATE_REQUEST = 0xf0700, UPDATE_PUSH = 0xf0701 };
enum { FRAME_ERROR = 0x106, ID_ERROR = 0x108, STREAMS = 64 };

bool cb_h3_varint_add(cb_h3_varint *v, uint8_t byte) {
    if (v->begun) {
        v->value = v->value << 8 | byte;
        v->need--;
    } else {
        v->begun = true;
        v->need = (uint8_t)((1 << (byte >> 6)) - 1);
        v->value = byte & 63;
    }
    if (v->need) return false;
    v->begun = false;
    return true;
}

void cb_h3_control_init(cb_h3_control *c) {
    *c = (cb_h3_control){.id = -1};
}

int cb_h3_control_find(cb_h3_control *c, int64_t id, cb_slice *data) {
    const uint64_t bit = id / 4 < STREAMS ? (uint64_t)1 << id / 4 : 0;
    unsigned at = 0;
    if (!data->len) return CB_OK;
    while (at < c->n_pending && c->pending[at].id != id)
        at++;
    if (at == c->n_pending && (c->seen & bit)) return CB_OK; /* of another type */
    if (!bit || at == sizeof c->pending / sizeof *c->pending)
        return cb_fail(CB_ELIMIT, "many unidirectional streams and no control stream");
    if (at == c->n_pending) {
        c->pending[c->n_pending++].id = id;
        c->pending[at].type = (cb_h3_varint){0};
        c->seen |= bit;
    }
    while (data->len) {
        const uint8_t byte = *data->base++;
        data->len--;
        if (!cb_h3_varint_add(&c->pending[at].type, byte)) continue;
        if (c->pending[at].type.value == 0) c->id = id;
        c->pending[at] = c->pending[--c->n_pending];
        break;
    }
    return CB_OK;
}

static bool is_update(const cb_h3_control *c) {
    return c->type == UPDATE_REQUEST || c->type == UPDATE_PUSH;
}

static bool is_number(const cb_h3_control *c) {
    return c->type == CANCEL_PUSH || c->type == GOAWAY || c->type == MAX_PUSH_ID;
}

/* The number is there, or the frame has ended inside it. */
static uint16_t check_number(cb_h3_control *c, bool whole) {
    if (!whole || c->left) return FRAME_ERROR;
    if (c->type == CANCEL_PUSH) return ID_ERROR; /* nobody promises anything here */
    if (c->type != MAX_PUSH_ID) return 0;
    if (c->v.value < c->max_push) return ID_ERROR; /* RFC 9114, 7.2.7 */
    c->max_push = c->v.value;
    return 0;
}

static void begin_payload(cb_h3_control *c) {
    c->left = c->v.value;
    c->step = !c->left ? STEP_TYPE : is_update(c) || is_number(c) ? STEP_ELEMENT : STEP_PAYLOAD;
    if (!c->left && is_number(c)) c->error = FRAME_ERROR;
}

static void element_byte(cb_h3_control *c, bool whole) {
    c->left--;
    if (!whole && c->left) return;
    if (is_number(c)) c->error = check_number(c, whole);
    c->v.begun = false; /* also when the frame ends inside it: an error, which nghttp3 finds for PRIORITY_UPDATE */
    c->step = c->left ? STEP_BEHIND_ELEMENT : STEP_TYPE;
}

static void frame_byte(cb_h3_control *c, uint8_t byte) {
    const bool whole = cb_h3_varint_add(&c->v, byte);
    if (c->step == STEP_ELEMENT) {
        element_byte(c, whole);
    } else if (!whole) {
        return;
    } else if (c->step == STEP_TYPE) {
        c->type = c->v.value;
        c->step = STEP_LENGTH;
    } else {
        begin_payload(c);
    }
}

bool cb_h3_control_feed(cb_h3_control *c, cb_slice data) {
    while (data.len && !c->error) {
        if (c->step < STEP_BEHIND_ELEMENT) {
            frame_byte(c, *data.base++);
            data.len--;
            continue;
        }
        const size_t n = data.len < c->left ? data.len : (size_t)c->left;
        data.base += n;
        data.len -= n;
        c->left -= n;
        c->step = c->left ? STEP_PAYLOAD : STEP_TYPE;
    }
    return c->step == STEP_BEHIND_ELEMENT;
}
