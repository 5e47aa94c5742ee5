#include "transport/fiber.h"
#include "base/error.h"
#include "base/mem.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* The sanitizers have to know which stack is in use. */
#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FIBER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum { STACK = 256 << 10 }; /* of address space; a handshake touches a tenth of it */

struct cb_fiber {
    ucontext_t inside, outside;
    void (*fn)(void *arg);
    void *arg;
    uint8_t *memory; /* a page that nothing may touch, and the stack above it */
    size_t size, guard;
    bool returned;
    const void *outer_stack; /* of who runs it: for the sanitizer only */
    size_t outer_size;
    void *shadow[2];
    void *thread[2];
};

/* --- what sanitizers are told. `in`: from outside to inside --- */

static void before_switch(cb_fiber *f, bool in, bool last) {
#ifdef FIBER_ASAN
    if (in) {
        __sanitizer_start_switch_fiber(&f->shadow[0], f->memory + f->guard, f->size - f->guard);
    } else {
        __sanitizer_start_switch_fiber(last ? NULL : &f->shadow[1], f->outer_stack, f->outer_size);
    }
#endif
#ifdef FIBER_TSAN
    if (in) f->thread[0] = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->thread[in ? 1 : 0], 0);
#endif
    (void)f;
    (void)in;
    (void)last;
}

/* `came_in`: we are inside now. */
static void after_switch(cb_fiber *f, bool came_in, bool first) {
#ifdef FIBER_ASAN
    if (came_in) {
        __sanitizer_finish_switch_fiber(first ? NULL : f->shadow[1], &f->outer_stack, &f->outer_size);
    } else {
        __sanitizer_finish_switch_fiber(f->shadow[0], NULL, NULL);
    }
#endif
    (void)f;
    (void)came_in;
    (void)first;
}

/* makecontext() passes ints only. */
static void entry(unsigned high, unsigned low) {
    cb_fiber *f = (cb_fiber *)(uintptr_t)((uint64_t)high << 32 | low);
    after_switch(f, true, true);
    f->fn(f->arg);
    f->returned = true;
    before_switch(f, false, true);
    setcontext(&f->outside);
}

int cb_fiber_new(cb_fiber **out) {
    cb_fiber *f = cb_mem_new(&cb_alloc_libc, sizeof *f);
    if (!f) return cb_fail(CB_ENOMEM, "no memory for a stack");
    f->guard = (size_t)sysconf(_SC_PAGESIZE);
    f->size = STACK + f->guard;
    f->memory =
        mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (f->memory == MAP_FAILED || mprotect(f->memory, f->guard, PROT_NONE) < 0) {
        if (f->memory != MAP_FAILED) munmap(f->memory, f->size);
        cb_mem_free(&cb_alloc_libc, f);
        return cb_fail(CB_ENOMEM, "no memory for a stack");
    }
#ifdef FIBER_TSAN
    f->thread[1] = __tsan_create_fiber(0);
#endif
    *out = f;
    return CB_OK;
}

bool cb_fiber_start(cb_fiber *f, void (*fn)(void *arg), void *arg) {
    uint64_t self = (uint64_t)(uintptr_t)f;
    f->fn = fn;
    f->arg = arg;
    f->returned = false;
    getcontext(&f->inside);
    f->inside.uc_stack.ss_sp = f->memory + f->guard;
    f->inside.uc_stack.ss_size = f->size - f->guard;
    f->inside.uc_link = NULL; /* it leaves by itself */
    makecontext(&f->inside, (void (*)(void))entry, 2, (unsigned)(self >> 32), (unsigned)self);
    return cb_fiber_go_on(f);
}

bool cb_fiber_go_on(cb_fiber *f) {
    before_switch(f, true, false);
    swapcontext(&f->outside, &f->inside);
    after_switch(f, false, false);
    return f->returned;
}

void cb_fiber_wait(cb_fiber *f) {
    before_switch(f, false, false);
    swapcontext(&f->inside, &f->outside);
    after_switch(f, true, false);
}

void cb_fiber_free(cb_fiber *f) {
    if (!f) return;
#ifdef FIBER_TSAN
    __tsan_destroy_fiber(f->thread[1]);
#endif
    munmap(f->memory, f->size);
    cb_mem_free(&cb_alloc_libc, f);
}
