#include "transport/quic_cc.h"
#include "base/error.h"
#include <ngtcp2/ngtcp2.h>
#include <strings.h>

static const struct {
    const char *name;
    int algo;
} table[] = {
    [CB_CC_CUBIC] = {"cubic", NGTCP2_CC_ALGO_CUBIC},
    [CB_CC_RENO] = {"reno", NGTCP2_CC_ALGO_RENO},
    [CB_CC_BBR] = {"bbr", NGTCP2_CC_ALGO_BBR},
    [CB_CC_BBRV3] = {"bbrv3", NGTCP2_CC_ALGO_CUBIC}, /* the governor, above another */
};
enum { CCS = sizeof table / sizeof table[0] };

int cb_cc_parse(const char *name) {
    for (int i = CB_CC_CUBIC; name && i < CCS; i++) {
        if (strcasecmp(name, table[i].name) == 0) return i;
    }
    return cb_fail(CB_EINVAL, "congestion control \"%s\": not one of cubic, reno, bbr, bbrv3", name ? name : "");
}

const char *cb_cc_name(int cc) {
    if (cc == CB_CC_DEFAULT) return "default";
    return cc > 0 && cc < CCS ? table[cc].name : "unknown";
}

int cb_quic_cc_algo(int cc) {
    return cc > 0 && cc < CCS ? table[cc].algo : NGTCP2_CC_ALGO_CUBIC;
}

int cb_quic_cc_choose(int option, const char *environment) {
    if (option < 0 || option >= CCS) return cb_fail(CB_EINVAL, "congestion control %d: no such number", option);
    if (option != CB_CC_DEFAULT) return option;
    if (!environment || !*environment) return CB_CC_CUBIC;
    int cc = cb_cc_parse(environment);
    return cc < 0 ? cb_fail(CB_EINVAL, "environment CBR_CC: %s", cb_last_error()) : cc;
}
