/* SPDX-License-Identifier: MIT */
/* The same values through three queues; each gives them in its own order. */
#include <mproc.h>
#include <stdio.h>

static const int values[] = {3, 1, 4, 1, 5, 9, 2, 6};

enum { VALUES = sizeof values / sizeof values[0] };

struct item {
    int value;
    char mark; /* the first 1 is a, the second b: equals keep their order */
};

static int put_all(mproc_queue *q, int order)
{
    int bad = 0;
    for (int i = 0; i < VALUES; i++) {
        struct item item = {values[i], (char)('a' + i)};
        bad |= order == MPROC_PRIORITY
                   ? mproc_queue_put_priority(q, item.value, &item, sizeof item,
                                              MPROC_FOREVER)
                   : mproc_queue_put(q, &item, sizeof item, MPROC_FOREVER);
    }
    return bad;
}

static int show(const char *name, int order)
{
    mproc_queue *q;
    struct item item;
    int left = VALUES;
    if (mproc_queue_new(&q, &(mproc_queue_opts){.order = order}) < 0 ||
        put_all(q, order) < 0) {
        return 1;
    }
    printf("%-8s", name);
    for (; left > 0; left--) {
        if (MPROC_GET(q, struct item, &item) < 0) {
            break;
        }
        printf(" %d%c", item.value, item.mark);
    }
    printf("\n");
    mproc_queue_free(q);
    return left;
}

int main(void)
{
    return show("fifo", MPROC_FIFO) | show("lifo", MPROC_LIFO) |
           show("priority", MPROC_PRIORITY);
}
