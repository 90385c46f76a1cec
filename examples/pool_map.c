/* SPDX-License-Identifier: MIT */
/*
 * Ways to run one function on many items: map, map_async, starmap (the items
 * are structs), imap, imap_unordered; in chunks of several sizes.
 */
#include <mproc.h>
#include <stdio.h>
#include <string.h>

enum { WORKERS = 3, ITEMS = 10 };

static int square(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    return mproc_reply_set(reply, &(int){n * n}, sizeof(int));
}

/* Two arguments, in one struct. */
struct pair {
    int x, y;
};

static int multiply(const void *arg, size_t size, mproc_reply *reply)
{
    const struct pair *p = arg;
    (void)size;
    return mproc_reply_set(reply, &(int){p->x * p->y}, sizeof(int));
}

/* Numbers one by one, as if there were no end of them in memory. */
static int next_number(void *user, const void **item, size_t *size)
{
    int *n = user;
    if (*n == ITEMS - 1) {
        return MPROC_EOF;
    }
    ++*n;
    *item = n;
    *size = sizeof *n;
    return 0;
}

/* True: all squares, in order. */
static bool print(const char *way, size_t chunk, const int out[ITEMS])
{
    bool good = true;
    printf("%s in chunks of %zu:", way, chunk);
    for (int i = 0; i < ITEMS; i++) {
        printf(" %d", out[i]);
        good &= out[i] == i * i;
    }
    printf("\n");
    return good;
}

static bool show_map(mproc_pool *pool, mproc_batch batch)
{
    int out[ITEMS] = {0};
    batch.out = out;
    return mproc_pool_map(pool, &batch, MPROC_FOREVER) == 0 &&
           print("map", batch.chunk, out);
}

static bool show_map_async(mproc_pool *pool, mproc_batch batch)
{
    int out[ITEMS] = {0};
    mproc_result *result;
    batch.out = out;
    if (mproc_pool_map_async(pool, &batch, &result) < 0) {
        return false;
    }
    /* … other work, meanwhile … */
    int err = mproc_result_get(result, NULL, 0, NULL, MPROC_FOREVER);
    mproc_result_free(result);
    return err == 0 && print("map_async", batch.chunk, out);
}

static bool show_starmap(mproc_pool *pool, mproc_batch batch)
{
    struct pair pairs[ITEMS];
    int out[ITEMS] = {0};
    for (int i = 0; i < ITEMS; i++) {
        pairs[i] = (struct pair){.x = i, .y = i};
    }
    batch.fn = multiply;
    batch.in = pairs;
    batch.in_size = sizeof pairs[0];
    batch.out = out;
    return mproc_pool_map(pool, &batch, MPROC_FOREVER) == 0 &&
           print("starmap", batch.chunk, out);
}

/* Each reply goes where its item was: ordered ones come in that order. */
static bool show_imap(mproc_pool *pool, size_t chunk, bool ordered)
{
    int last = -1, out[ITEMS] = {0}, err;
    bool in_order = true;
    size_t at = 0;
    const mproc_outcome *o;
    mproc_iter *it;
    const mproc_batch batch = {
        .fn = square, .next = next_number, .user = &last, .chunk = chunk};
    if ((ordered ? mproc_pool_imap(pool, &batch, &it)
                 : mproc_pool_imap_unordered(pool, &batch, &it)) < 0) {
        return false;
    }
    while ((err = mproc_iter_next(it, &o, MPROC_FOREVER)) == 0) {
        in_order &= o->index == at++;
        if (o->status == 0 && o->index < ITEMS) {
            memcpy(&out[o->index], o->data, sizeof out[0]);
        }
    }
    mproc_iter_free(it);
    return err == MPROC_EOF && at == ITEMS && (in_order || !ordered) &&
           print(ordered ? "imap" : "imap_unordered", chunk, out);
}

int main(void)
{
    mproc_pool *pool;
    int numbers[ITEMS];
    bool good = true;
    if (mproc_pool_new(&pool, &(mproc_pool_opts){.workers = WORKERS}) < 0) {
        return 1;
    }
    for (int i = 0; i < ITEMS; i++) {
        numbers[i] = i;
    }
    for (size_t chunk = 1; chunk <= 2 * ITEMS; chunk *= 4) {
        mproc_batch batch = {.fn = square,
                             .in = numbers,
                             .in_size = sizeof numbers[0],
                             .count = ITEMS,
                             .out_size = sizeof(int),
                             .chunk = chunk};
        good &= show_map(pool, batch) && show_map_async(pool, batch) &&
                show_starmap(pool, batch) && show_imap(pool, chunk, true) &&
                show_imap(pool, chunk, false);
    }
    mproc_pool_free(pool);
    return good ? 0 : 1;
}
