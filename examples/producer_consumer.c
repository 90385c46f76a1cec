/* SPDX-License-Identifier: MIT */
/*
 * Three bakers put named buns in a queue; a consumer process eats them until it
 * takes an empty message. Each bun is eaten once, those of one baker in order.
 */
#include <mproc.h>
#include <stdio.h>
#include <time.h>

enum { BAKERS = 3, BUNS = 5, BAKING_MS = 10 };

struct bun {
    int baker;
    int number;
    char name[32];
};

static mproc_queue *shelf; /* every process sees it at the same address */

static int bake(void *arg)
{
    struct bun bun = {.baker = *(int *)arg};
    const struct timespec baking = {.tv_nsec = BAKING_MS * 1000000L};
    for (bun.number = 1; bun.number <= BUNS; bun.number++) {
        nanosleep(&baking, NULL);
        snprintf(bun.name, sizeof bun.name, "bun %d of %s", bun.number,
                 mproc_process_name(mproc_process_current()));
        printf("baked %s\n", bun.name);
        int err = mproc_queue_put(shelf, &bun, sizeof bun, MPROC_FOREVER);
        if (err < 0) {
            printf("cannot put %s: %s\n", bun.name, mproc_strerror(err));
            return 1;
        }
    }
    return 0;
}

static int eat(void *arg)
{
    (void)arg;
    int eaten[BAKERS] = {0};
    int bad = 0;
    struct bun bun;
    size_t size;
    for (;;) {
        if (mproc_queue_get(shelf, &bun, sizeof bun, &size, MPROC_FOREVER) <
            0) {
            return 1;
        }
        if (size == 0) { /* the sentinel */
            break;
        }
        printf("ate %s\n", bun.name);
        bad |= bun.number != ++eaten[bun.baker];
    }
    for (int i = 0; i < BAKERS; i++) {
        bad |= eaten[i] != BUNS;
    }
    printf("the consumer is done\n");
    return bad;
}

/* Waits for the end of a process. True: it ended well. */
static bool ended_well(mproc_process *p)
{
    int code = 1;
    bool well = mproc_process_join(p, MPROC_FOREVER) == 0 &&
                mproc_process_exitcode(p, &code) == 0 && code == 0;
    mproc_process_free(p);
    return well;
}

int main(void)
{
    mproc_process *consumer;
    mproc_process *bakers[BAKERS];
    bool good = true;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_queue_new(&shelf, NULL) < 0 ||
        mproc_process_new(&consumer, eat, NULL,
                          &(mproc_process_opts){.daemon = 1}) < 0 ||
        mproc_process_start(consumer) < 0) {
        return 1;
    }
    for (int i = 0; i < BAKERS; i++) {
        char name[] = "baker A";
        name[6] = (char)(name[6] + i);
        mproc_process_opts opts = {.name = name, .arg_size = sizeof i};
        if (mproc_process_new(&bakers[i], bake, &i, &opts) < 0 ||
            mproc_process_start(bakers[i]) < 0) {
            return 1;
        }
    }
    for (int i = 0; i < BAKERS; i++) {
        good &= ended_well(bakers[i]);
    }
    if (mproc_queue_put(shelf, NULL, 0, MPROC_FOREVER) < 0 ||
        !ended_well(consumer) || !mproc_queue_empty(shelf)) {
        return 1;
    }
    mproc_queue_free(shelf);
    return good ? 0 : 1;
}
