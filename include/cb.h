/* cb.h - all of libcb's public headers. */
#ifndef CB_H
#define CB_H

#include <cb/access_log.h>
#include <cb/acme.h>
#include <cb/admin.h>
#include <cb/audit.h>
#include <cb/auth.h>
#include <cb/authn.h>
#include <cb/base.h>
#include <cb/ca.h>
#include <cb/config.h>
#include <cb/document.h>
#include <cb/group.h>
#include <cb/handoff.h>
#include <cb/health.h>
#include <cb/http.h>
#include <cb/json.h>
#include <cb/lb.h>
#include <cb/lb_node.h>
#include <cb/log_writer.h>
#include <cb/loop.h>
#include <cb/metrics.h>
#include <cb/monitor.h>
#include <cb/oidc.h>
#include <cb/opa.h>
#include <cb/packet.h>
#include <cb/peer.h>
#include <cb/policy.h>
#include <cb/proxy.h>
#include <cb/quic.h>
#include <cb/quic_lb.h>
#include <cb/renewal.h>
#include <cb/resolver.h>
#include <cb/revisions.h>
#include <cb/seal.h>
#include <cb/sim.h>
#include <cb/store.h>
#include <cb/tls.h>
#include <cb/trace.h>

#endif
