/* list.h - lists that grow by one: what the readers of tokenizer.json's parts collect into. */
#ifndef CT_TOK_LIST_H
#define CT_TOK_LIST_H

#include <stdlib.h>

/* Makes room for one more after `count` items; returns the list, or NULL (it is then unchanged). A
 * list's room is the least power of two that holds it, so that no capacity need be kept. */
static inline void *ct_list_grow(void *items, size_t count, size_t item_size)
{
    if ((count & (count - 1)) != 0) return items;
    size_t room = count ? count * 2 : 1;
    return room > (size_t)-1 / 2 / item_size ? NULL : realloc(items, room * item_size);
}

#endif
