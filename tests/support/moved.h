/* How far metrics moved. A test gives its loops a registry of its own, which begins at zero:
 *
 *     EXPECT_MOVED(m, 3, "cb_udp_socket_datagrams", "in");
 *     EXPECT_MOVED(m, 1, "cb_quic_handshake_seconds");     (of a histogram: how many values)
 */
#ifndef MOVED_H
#define MOVED_H

#include <cb/metrics.h>
#include <criterion/criterion.h>

/* The value of a series in its unit, 0 when there is no such series; then one label value each, NULL at the end. The
 * test fails when there is no such family. */
double moved(cb_metrics *m, const char *name, ...) __attribute__((sentinel));

/* Runs the collectors, as a scrape does. */
void moved_scrape(cb_metrics *m);

#define EXPECT_MOVED(m, n, ...)                                                                                        \
    do {                                                                                                               \
        double got_ = moved((m), __VA_ARGS__, NULL), want_ = (double)(n);                                              \
        cr_assert(got_ == want_, "%s: %.9g instead of %.9g", #__VA_ARGS__, got_, want_);                               \
    } while (0)
/* For times and what depends on how a run went. */
#define EXPECT_MOVED_IN(m, least, most, ...)                                                                           \
    do {                                                                                                               \
        double got_ = moved((m), __VA_ARGS__, NULL), least_ = (double)(least), most_ = (double)(most);                 \
        cr_assert(got_ >= least_ && got_ <= most_, "%s: %.9g, not in %.9g to %.9g", #__VA_ARGS__, got_, least_,        \
                  most_);                                                                                              \
    } while (0)

/* The sum of the values in a histogram, in its unit: its series, as with moved(). */
double moved_sum(cb_metrics *m, const char *name, ...) __attribute__((sentinel));

#endif
