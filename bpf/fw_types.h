/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The same code in the kernel and in C: tests and fuzzers run the parsers of the datapath with sanitizers. */
#ifndef CB_FW_TYPES_H
#define CB_FW_TYPES_H

#ifdef __bpf__

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* A memcpy() from a packet would be taken to bytes: the compiler knows nothing of its alignment. */
#define FW_LOAD(type, p)         (*(const type *)(const void *)(p))
#define FW_STORE(type, p, value) (*(type *)(void *)(p) = (value))

/* A function of its own, which the verifier looks at once, not anew for each caller. Pointers may be null there. */
#define FW_GLOBAL __noinline

/* Two comparisons of x stay two: the verifier does not follow a range that was shifted. */
#define FW_KEEP(x) __asm__ volatile("" : "+r"(x))

#else

#define FW_KEEP(x) (void)(x)
#define FW_GLOBAL  static inline

#include <linux/types.h>
#include <string.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif

#define FW_LOAD(type, p)                                                                                               \
    __extension__({                                                                                                    \
        type fw_loaded;                                                                                                \
        memcpy(&fw_loaded, (p), sizeof fw_loaded);                                                                     \
        fw_loaded;                                                                                                     \
    })
#define FW_STORE(type, p, value)                                                                                       \
    do {                                                                                                               \
        type fw_stored = (value);                                                                                      \
        memcpy((p), &fw_stored, sizeof fw_stored);                                                                     \
    } while (0)

#endif

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FW_BE16(x) ((__u16)(x))
#define FW_BE32(x) ((__u32)(x))
#define FW_BE64(x) ((__u64)(x))
#define FW_LE32(x) __builtin_bswap32(x)
#define FW_LE64(x) __builtin_bswap64(x)
#else
#define FW_BE16(x) ((__u16)__builtin_bswap16(x))
#define FW_BE32(x) ((__u32)__builtin_bswap32(x))
#define FW_BE64(x) ((__u64)__builtin_bswap64(x))
#define FW_LE32(x) ((__u32)(x))
#define FW_LE64(x) ((__u64)(x))
#endif

#endif
