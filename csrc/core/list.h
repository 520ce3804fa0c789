/* Intrusive doubly linked list: no allocation, O(1) everywhere. The caller locks.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NL_LIST_H
#define NL_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nl_list { struct nl_list *next, *prev; } nl_list;

#define NL_ITEM(ptr, type, field) ((type *)(void *)((char *)(ptr) - offsetof(type, field)))

static inline void nl_list_init(nl_list *l)             { l->next = l->prev = l; }
static inline bool nl_list_empty(const nl_list *l)      { return l->next == l; }

static inline void nl_list_push(nl_list *l, nl_list *item)      /* at the end */
{
    item->prev = l->prev;
    item->next = l;
    l->prev->next = item;
    l->prev = item;
}

static inline void nl_list_del(nl_list *item)           /* twice is harmless: the item is left linked to itself */
{
    item->prev->next = item->next;      /* who frees an item has taken it off. NOLINT(clang-analyzer-unix.Malloc) */
    item->next->prev = item->prev;
    nl_list_init(item);
}

#endif
