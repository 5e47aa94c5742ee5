/* Intrusive doubly linked list: the head is a node of its own, an unlinked node points to itself. */
#ifndef CB_BASE_LIST_H
#define CB_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cb_list {
    struct cb_list *next, *prev;
} cb_list;

#define CB_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void cb_list_init(cb_list *l) {
    l->next = l->prev = l;
}
static inline bool cb_list_empty(const cb_list *l) {
    return l->next == l;
}
static inline void cb_list_add_tail(cb_list *head, cb_list *node) {
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}
static inline void cb_list_del(cb_list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    cb_list_init(node);
}

#endif
