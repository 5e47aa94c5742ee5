/* Interfaces of a cb_forward: where its programs sit. Part of libcb-xdp. */
#include "base/error.h"
#include "base/log.h"
#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MSS_HANDLE = 0xcb, MSS_PRIORITY = 0xcb, PATH_BYTES = 4096 };

/* ---- the program for what leaves (clsact; libbpf 1.1 knows no links there) ---- */

void fw_mss_detach(uint32_t ifindex) {
    DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_EGRESS);
    DECLARE_LIBBPF_OPTS(bpf_tc_opts, o, .handle = MSS_HANDLE, .priority = MSS_PRIORITY);
    (void)bpf_tc_detach(&hook, &o);
}

static int mss_attach(const cb_forward *f, uint32_t ifindex) {
    DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_EGRESS);
    DECLARE_LIBBPF_OPTS(bpf_tc_opts, o, .handle = MSS_HANDLE, .priority = MSS_PRIORITY, .flags = BPF_TC_F_REPLACE);
    int rc = bpf_tc_hook_create(&hook);
    if (rc == 0 || rc == -EEXIST) {
        o.prog_fd = fw_program_mss(f);
        rc = bpf_tc_attach(&hook, &o);
    }
    return rc;
}

static void mss_try(cb_forward *f, fw_interface_entry *i) {
    void *before = fw_quiet();
    int rc = 0;
    if (f->no_mss)
        fw_mss_detach(i->ifindex); /* a predecessor's */
    else
        rc = mss_attach(f, i->ifindex);
    fw_loud(before);
    i->mss = rc == 0 && !f->no_mss;
    if (rc != 0)
        cb_log_line(f->log, CB_LOG_WARN, "forward", "%s: the MSS of SYN-ACKs is not lowered there: errno %d", i->name,
                    -rc);
}

/* ---- attaching ---- */

static uint32_t program_at(uint32_t ifindex) {
    DECLARE_LIBBPF_OPTS(bpf_xdp_query_opts, q);
    if (bpf_xdp_query((int)ifindex, 0, &q) < 0) return 0;
    return q.prog_id ? q.prog_id : q.drv_prog_id ? q.drv_prog_id : q.skb_prog_id ? q.skb_prog_id : q.hw_prog_id;
}

static int occupied(const char *interface, uint32_t id) {
    struct bpf_prog_info info = {.name = "?"};
    uint32_t len = sizeof info;
    int fd = bpf_prog_get_fd_by_id(id);
    if (fd >= 0) {
        (void)bpf_obj_get_info_by_fd(fd, &info, &len);
        close(fd);
    }
    return cb_fail(CB_EEXIST, "%s: another XDP program is there: ID %u, \"%s\"", interface, (unsigned)id, info.name);
}

static int attach_failed(const char *interface, int mode, int err) {
    if (err == EOPNOTSUPP || err == EINVAL || err == ERANGE || err == EMSGSIZE)
        return cb_fail(CB_ENOTSUP,
                       "%s: the driver does not take an XDP program%s (errno %d); its MTU may be too large, or "
                       "its queues too many",
                       interface, mode == CB_FORWARD_NATIVE ? "" : " at all", err);
    if (err == EPERM || err == EACCES)
        return cb_fail(CB_EPERM, "%s: attaching the program: this process lacks CAP_NET_ADMIN", interface);
    return cb_fail_errno(err, "%s: attaching the program", interface);
}

static int link_in(const cb_forward *f, uint32_t ifindex, int mode) {
    DECLARE_LIBBPF_OPTS(bpf_link_create_opts, o,
                        .flags = mode == CB_FORWARD_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
    return bpf_link_create(fw_program(f), (int)ifindex, BPF_XDP, &o);
}

static int link_any(cb_forward *f, fw_interface_entry *i) {
    const uint32_t there = program_at(i->ifindex);
    if (there) return occupied(i->name, there);
    i->mode = i->wanted == CB_FORWARD_GENERIC ? CB_FORWARD_GENERIC : CB_FORWARD_NATIVE;
    i->link = link_in(f, i->ifindex, i->mode);
    const int err = -i->link;
    if (i->link < 0 && i->wanted == CB_FORWARD_AUTO && err != EPERM && err != EBUSY && err != ENODEV) {
        cb_log_line(f->log, CB_LOG_WARN, "forward",
                    "%s: the driver does not take the program (errno %d): it runs in the kernel's stack, and slower",
                    i->name, err);
        i->mode = CB_FORWARD_GENERIC;
        i->link = link_in(f, i->ifindex, i->mode);
    }
    return i->link < 0 ? attach_failed(i->name, i->mode, -i->link) : CB_OK;
}

static int pin_link(const cb_forward *f, const fw_interface_entry *i) {
    char path[PATH_BYTES];
    if (!f->pin_dir) return CB_OK;
    fw_link_path(f->pin_dir, i->ifindex, path, sizeof path);
    (void)unlink(path); /* of an interface that had this number before */
    return bpf_obj_pin(i->link, path) < 0 ? cb_fail_errno(errno, "pin_dir: pinning \"%s\"", path) : CB_OK;
}

static int write_roles(const cb_forward *f, uint32_t ifindex, uint32_t roles) {
    const struct cb_fw_interface v = {.flags = roles};
    return fw_map_put(f, FW_INTERFACES, &ifindex, &v);
}

static void take_off(cb_forward *f, fw_interface_entry *i) {
    char path[PATH_BYTES];
    if (i->link >= 0) {
        (void)bpf_link_detach(i->link);
        close(i->link);
        i->link = -1;
    }
    if (!i->ifindex) return;
    if (i->mss) fw_mss_detach(i->ifindex);
    i->mss = false;
    (void)fw_map_del(f, FW_INTERFACES, &i->ifindex);
    if (!f->pin_dir) return;
    fw_link_path(f->pin_dir, i->ifindex, path, sizeof path);
    (void)unlink(path);
}

/* The roles first: the program passes what comes by an interface that it does not know. */
static int put_on(cb_forward *f, fw_interface_entry *i) {
    i->link = -1;
    int rc = write_roles(f, i->ifindex, i->roles);
    if (rc < 0) return rc;
    void *before = fw_quiet();
    rc = link_any(f, i);
    if (rc == CB_OK) rc = pin_link(f, i);
    if (rc < 0) take_off(f, i);
    fw_loud(before);
    if (rc == CB_OK) mss_try(f, i);
    return rc;
}

static fw_interface_entry *find(const cb_forward *f, const char *name, size_t *at) {
    for (size_t i = 0; i < f->interfaces.n; i++) {
        if (strcmp(fw_interface_at(f, i)->name, name) != 0) continue;
        *at = i;
        return fw_interface_at(f, i);
    }
    return NULL;
}

static int attach_new(cb_forward *f, const char *name, uint32_t ifindex, int mode, uint32_t roles) {
    if (f->interfaces.n >= CB_FORWARD_INTERFACES)
        return cb_fail(CB_ELIMIT, "%s: at most %d interfaces are possible", name, CB_FORWARD_INTERFACES);
    fw_interface_entry *i = fw_list_insert(f, &f->interfaces, f->interfaces.n);
    if (!i) return CB_ENOMEM;
    snprintf(i->name, sizeof i->name, "%s", name);
    i->ifindex = ifindex;
    i->roles = roles;
    i->wanted = mode;
    i->told = true;
    int rc = put_on(f, i);
    if (rc < 0) fw_list_remove(&f->interfaces, f->interfaces.n - 1);
    return rc;
}

/* One that is attached already: other roles at once; another mode by taking it off and putting it on again. */
static int attach_again(cb_forward *f, fw_interface_entry *i, int mode, uint32_t roles) {
    const bool other_mode = mode != CB_FORWARD_AUTO && mode != i->mode && i->ifindex;
    const fw_interface_entry before = *i;
    i->told = true;
    i->wanted = mode;
    i->roles = roles;
    if (!i->ifindex) return CB_OK;
    if (!other_mode) return write_roles(f, i->ifindex, roles);
    take_off(f, i);
    int rc = put_on(f, i);
    if (rc == CB_OK) return rc;
    i->wanted = before.mode; /* back to what worked */
    i->roles = before.roles;
    (void)put_on(f, i);
    return rc;
}

static int attach(cb_forward *f, const char *interface, int mode, uint32_t roles) {
    const uint32_t ifindex = if_nametoindex(interface);
    size_t at;
    fw_attach_watch(f);
    fw_interface_entry *i = find(f, interface, &at);
    if (i) return attach_again(f, i, mode, roles);
    if (!ifindex) return cb_fail(CB_ENOENT, "%s: there is no such interface", interface);
    return attach_new(f, interface, ifindex, mode, roles);
}

int cb_forward_attach(cb_forward *f, const char *interface, int mode, uint32_t roles) {
    if (!interface || !*interface || strlen(interface) >= IF_NAMESIZE)
        return cb_fail(CB_EINVAL, "cb_forward_attach: \"%s\" is not the name of an interface",
                       interface ? interface : "");
    if (mode < CB_FORWARD_AUTO || mode > CB_FORWARD_GENERIC)
        return cb_fail(CB_EINVAL, "cb_forward_attach: mode %d is not one of enum cb_forward_mode", mode);
    if (roles & ~(uint32_t)CB_FORWARD_BOTH)
        return cb_fail(CB_EINVAL, "cb_forward_attach: roles %u has bits that no role has", (unsigned)roles);
    FW_LOCK(f);
    int rc = attach(f, interface, mode, roles ? roles : CB_FORWARD_BOTH);
    FW_UNLOCK(f);
    return rc;
}

int fw_detach_at(cb_forward *f, size_t i) {
    take_off(f, fw_interface_at(f, i));
    fw_list_remove(&f->interfaces, i);
    return CB_OK;
}

int cb_forward_detach(cb_forward *f, const char *interface) {
    size_t at = 0;
    FW_LOCK(f);
    int rc = find(f, interface ? interface : "", &at)
                 ? fw_detach_at(f, at)
                 : cb_fail(CB_ENOENT, "%s: not attached", interface ? interface : "");
    FW_UNLOCK(f);
    return rc;
}

/* ---- interfaces that go and come ---- */

static void watch_one(cb_forward *f, fw_interface_entry *i) {
    const uint32_t now = if_nametoindex(i->name);
    if (i->ifindex && now != i->ifindex) {
        cb_log_line(f->log, CB_LOG_WARN, "forward", "%s is gone: attached again when it comes back", i->name);
        take_off(f, i);
        i->ifindex = 0;
    }
    if (!now || i->ifindex) return;
    i->ifindex = now;
    if (put_on(f, i) < 0) {
        if (!i->refused) cb_log_line(f->log, CB_LOG_WARN, "forward", "%s is back, but: %s", i->name, cb_last_error());
        i->refused = true; /* tried again each time, and said once */
        i->ifindex = 0;
        return;
    }
    i->refused = false;
    f->reattached++;
    cb_log_line(f->log, CB_LOG_INFO, "forward", "%s is back, and attached", i->name);
}

void fw_attach_watch(cb_forward *f) {
    for (size_t i = 0; i < f->interfaces.n; i++)
        watch_one(f, fw_interface_at(f, i));
}

/* ---- taking over ---- */

static int mode_at(uint32_t ifindex) {
    DECLARE_LIBBPF_OPTS(bpf_xdp_query_opts, q);
    if (bpf_xdp_query((int)ifindex, 0, &q) < 0) return CB_FORWARD_NATIVE;
    return q.attach_mode == XDP_ATTACHED_SKB ? CB_FORWARD_GENERIC : CB_FORWARD_NATIVE;
}

/* A pinned link of an interface that is not there any more, or has another program by now, is forgotten. */
static int adopt_link(cb_forward *f, uint32_t ifindex, uint32_t roles) {
    char path[PATH_BYTES], name[IF_NAMESIZE];
    struct bpf_link_info info = {0};
    uint32_t len = sizeof info;
    fw_link_path(f->pin_dir, ifindex, path, sizeof path);
    int fd = bpf_obj_get(path);
    const bool ours = fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == BPF_LINK_TYPE_XDP &&
                      info.xdp.ifindex == ifindex && info.prog_id == program_at(ifindex);
    if (!ours || !if_indextoname(ifindex, name)) {
        if (fd >= 0) close(fd);
        (void)unlink(path);
        return fw_map_del(f, FW_INTERFACES, &ifindex);
    }
    fw_interface_entry *i = fw_list_insert(f, &f->interfaces, f->interfaces.n);
    if (!i) {
        close(fd);
        return CB_ENOMEM;
    }
    memcpy(i->name, name, sizeof i->name);
    i->ifindex = ifindex;
    i->roles = roles;
    i->mode = mode_at(ifindex);
    i->link = fd;
    return CB_OK;
}

static int adopt_links(cb_forward *f) {
    uint32_t ifindex, next, all[CB_FW_INTERFACES];
    struct cb_fw_interface v;
    size_t n = 0;
    for (int rc = bpf_map_get_next_key(fw_map_fd(f, FW_INTERFACES), NULL, &next); rc == 0 && n < CB_FW_INTERFACES;
         rc = bpf_map_get_next_key(fw_map_fd(f, FW_INTERFACES), &ifindex, &next))
        all[n++] = ifindex = next;
    for (size_t i = 0; i < n; i++) {
        if (bpf_map_lookup_elem(fw_map_fd(f, FW_INTERFACES), &all[i], &v) < 0) continue;
        int rc = adopt_link(f, all[i], v.flags);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

/* The programs that the links have now, for the way back. */
static int program_of_link(int link) {
    struct bpf_link_info info = {0};
    uint32_t len = sizeof info;
    if (bpf_obj_get_info_by_fd(link, &info, &len) < 0) return -1;
    return bpf_prog_get_fd_by_id(info.prog_id);
}

int fw_attach_adopt(cb_forward *f) {
    int before[CB_FW_INTERFACES];
    int rc = adopt_links(f);
    size_t done = 0;
    if (rc < 0) return rc;
    for (; done < f->interfaces.n && rc == CB_OK; done++) {
        before[done] = program_of_link(fw_interface_at(f, done)->link);
        if (bpf_link_update(fw_interface_at(f, done)->link, fw_program(f), NULL) < 0)
            rc = cb_fail_errno(errno, "%s: replacing the program", fw_interface_at(f, done)->name);
    }
    for (size_t i = 0; i < done; i++) {
        if (rc < 0 && before[i] >= 0) (void)bpf_link_update(fw_interface_at(f, i)->link, before[i], NULL);
        if (before[i] >= 0) close(before[i]);
    }
    for (size_t i = 0; i < f->interfaces.n && rc == CB_OK; i++)
        mss_try(f, fw_interface_at(f, i));
    return rc;
}

void fw_attach_close(cb_forward *f) {
    void *before = fw_quiet();
    for (size_t i = 0; i < f->interfaces.n; i++) {
        fw_interface_entry *e = fw_interface_at(f, i);
        if (!f->pin_dir)
            take_off(f, e);
        else if (e->link >= 0)
            close(e->link);
    }
    fw_loud(before);
}
