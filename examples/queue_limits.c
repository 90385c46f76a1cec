/* SPDX-License-Identifier: MIT */
/*
 * A queue for three: what put and get answer when it is full, and when it is
 * empty, at once and after a while.
 */
#include <mproc.h>
#include <stdio.h>
#include <string.h>

enum { ROOM = 3, PATIENCE_MS = 20 };

static mproc_queue *queue;

static void show(const char *what, int err)
{
    printf("%s: %s, qsize %zu%s%s\n", what, mproc_error_name(err),
           mproc_queue_qsize(queue), mproc_queue_full(queue) ? ", full" : "",
           mproc_queue_empty(queue) ? ", empty" : "");
}

static int put(const char *what, const char *text, mproc_deadline until)
{
    int err = mproc_queue_put(queue, text, strlen(text) + 1, until);
    show(what, err);
    return err;
}

static int get(const char *what, mproc_deadline until)
{
    char text[16];
    size_t size;
    int err = mproc_queue_get(queue, text, sizeof text, &size, until);
    if (err == 0) {
        printf("got %s\n", text);
    }
    show(what, err);
    return err;
}

int main(void)
{
    int bad = 0;
    mproc_deadline until;

    if (mproc_queue_new(&queue, &(mproc_queue_opts){.maxsize = ROOM}) < 0) {
        return 1;
    }
    for (int i = 0; i < ROOM; i++) {
        static const char *const texts[ROOM] = {"one", "two", "three"};
        bad |= put("put", texts[i], MPROC_FOREVER) != 0;
    }
    bad |= put("put at once", "four", MPROC_NOWAIT) != MPROC_EFULL;
    until = mproc_in_ms(PATIENCE_MS);
    bad |= put("put for a while", "four", until) != MPROC_EFULL;
    bad |= mproc_in_ms(0).at_ns < until.at_ns; /* no sooner than that */

    for (int i = 0; i < ROOM; i++) {
        bad |= get("get", MPROC_FOREVER) != 0;
    }
    bad |= get("get at once", MPROC_NOWAIT) != MPROC_EEMPTY;
    until = mproc_in_ms(PATIENCE_MS);
    bad |= get("get for a while", until) != MPROC_EEMPTY;
    bad |= mproc_in_ms(0).at_ns < until.at_ns;
    mproc_queue_free(queue);
    return bad;
}
