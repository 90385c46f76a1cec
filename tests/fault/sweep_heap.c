/* SPDX-License-Identifier: MIT */
/*
 * The heap, whose user is killed, or stopped for a while, after any
 * instruction.
 */
#include "heap_scene.h"

#include <string.h>

static int small_block(void *ctx)
{
    (void)ctx;
    char *p = mproc_alloc(100);
    if (p == NULL) {
        return 1;
    }
    mproc_free(p);
    return 0;
}

static int large_block(void *ctx)
{
    (void)ctx;
    char *p = mproc_alloc(100 * KIB);
    if (p == NULL) {
        return 1;
    }
    mproc_free(p);
    return 0;
}

/* Both, marked, while the victim is stopped. */
static int use_blocks(void *ctx)
{
    (void)ctx;
    give_up_soon();
    const char *wrong = use_much(104, BYSTANDERS);
    wrong = wrong != NULL ? wrong : use_much(100 * KIB, 3);
    wrong = wrong != NULL ? wrong : use_much(32768, 5);
    return wrong != NULL ? 1 : 0;
}

/* What is in hand until it is given back is never lost. */
static int block_in_hand(size_t size)
{
    struct mpr_thread *own = self();
    if (mpr_heap_alloc(own, size, MPR_HAND_BLOCK) == NULL) {
        return 1;
    }
    mpr_heap_free_hand(own, own, MPR_HAND_BLOCK);
    return 0;
}

static int small_in_hand(void *ctx)
{
    (void)ctx;
    return block_in_hand(100);
}

/* The first of its class: a span comes, for the class. */
static int first_in_hand(void *ctx)
{
    (void)ctx;
    return block_in_hand(32768);
}

static int large_in_hand(void *ctx)
{
    (void)ctx;
    return block_in_hand(100 * KIB);
}

static void *begin_four(void)
{
    return begin(4);
}

/* Two spans come to a class, and one of them goes back. */
static int spans_come_and_go(void *ctx)
{
    (void)ctx;
    void *p[4];
    for (int i = 0; i < 4; i++) {
        p[i] = mproc_alloc(32768);
        if (p[i] == NULL) {
            return 1;
        }
    }
    for (int i = 0; i < 4; i++) {
        mproc_free(p[i]);
    }
    return 0;
}

/* The heap is full but for what stayed with the classes. */
static void *begin_full(void)
{
    if (begin(1) == NULL) {
        return NULL;
    }
    for (size_t size = 8192; size <= 32768; size += 4096) {
        use_once(size);
    }
    size_t rest = scene->before.limit;
    while ((scene->block = mproc_alloc(rest)) == NULL) {
        rest -= MPR_SPAN_SIZE;
    }
    return scene;
}

static int take_from_classes(void *ctx)
{
    (void)ctx;
    char *p = mproc_alloc(MPR_SPAN_SIZE);
    if (p == NULL) {
        return 1;
    }
    mproc_free(p);
    return 0;
}

static const char *well_when_freed(void *ctx, const struct sweep_point *at)
{
    const char *wrong = reap_all();
    mproc_free(scene->block);
    return wrong != NULL ? wrong : all_is_well(ctx, at);
}

static void *begin_with(size_t size)
{
    if (begin(0) != NULL) {
        scene->block = mproc_alloc(size);
        memset(scene->block, 1, size);
        return scene;
    }
    return NULL;
}

static void *begin_with_small(void)
{
    return begin_with(100);
}

static void *begin_with_large(void)
{
    return begin_with(100 * KIB);
}

static int free_anothers(void *ctx)
{
    (void)ctx;
    mproc_free(scene->block);
    return 0;
}

/* Killed before it was freed it is in use still, whole, and can be freed. */
static const char *freed_or_not(void *ctx, const struct sweep_point *at)
{
    const char *wrong = reap_all();
    if (wrong == NULL && mpr_heap_block_size(scene->block) != 0) {
        if (at->finished) {
            return "it was not freed";
        }
        if (*(char *)scene->block != 1) {
            return "a block in use was wiped";
        }
        mproc_free(scene->block);
    }
    return wrong != NULL ? wrong : all_is_well(ctx, at);
}

static void *begin_realloc(void)
{
    return begin(1);
}

static int reallocate(void *ctx)
{
    (void)ctx;
    char *p = mproc_alloc(100);
    char *q = p != NULL ? mproc_realloc(p, 100 * KIB) : NULL;
    mproc_free(q);
    return q != NULL ? 0 : 1;
}

static const struct sweep_case cases[] = {
    {.name = "small",
     .setup = begin_own,
     .prepare = enter,
     .operation = small_block,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
    {.name = "large",
     .setup = begin_own,
     .prepare = enter,
     .operation = large_block,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
    {.name = "hand-small",
     .setup = begin_nothing_lost,
     .prepare = enter,
     .operation = small_in_hand,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
    {.name = "hand-first",
     .setup = begin_nothing_lost,
     .prepare = enter,
     .operation = first_in_hand,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
    {.name = "hand-large",
     .setup = begin_nothing_lost,
     .prepare = enter,
     .operation = large_in_hand,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
    {.name = "spans",
     .setup = begin_four,
     .prepare = enter,
     .operation = spans_come_and_go,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
    {.name = "full",
     .setup = begin_full,
     .prepare = enter,
     .operation = take_from_classes,
     .check = well_when_freed,
     .shared = tables},
    {.name = "free-small",
     .setup = begin_with_small,
     .prepare = enter,
     .operation = free_anothers,
     .bystander = use_blocks,
     .check = freed_or_not,
     .shared = tables},
    {.name = "free-large",
     .setup = begin_with_large,
     .prepare = enter,
     .operation = free_anothers,
     .bystander = use_blocks,
     .check = freed_or_not,
     .shared = tables},
    {.name = "realloc",
     .setup = begin_realloc,
     .prepare = enter,
     .operation = reallocate,
     .bystander = use_blocks,
     .check = all_is_well,
     .shared = tables},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
