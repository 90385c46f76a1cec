/* SPDX-License-Identifier: MIT */
/*
 * Where sweeps of shm/ take place. What must hold after each death: no block is
 * lost, none is handed out twice, nobody's hands are full but those of the
 * living, and everything can be used.
 */
#ifndef FAULT_HEAP_SCENE_H
#define FAULT_HEAP_SCENE_H

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mproc/shared.h>

#include "shm/object.h"
#include "sweep.h"

#define KIB ((size_t)1024)
#define TOY MPR_POOL

enum { TOYS_MADE = 3, MARKED = 600, BYSTANDERS = 20 };

struct toy {
    struct mpr_object object;
    void *owns;
};

/* In memory that all who take part share. */
struct scene {
    mproc_heap_info before;
    void *block; /* made by the round, for another to free */
    struct toy *toy;
    size_t lost_at_most; /* blocks that were the dead user's own */
    _Atomic size_t kept; /* at most, by a bystander that gave up */
    _Atomic bool reap_in_end;
};

static struct scene *scene;

static inline struct mpr_thread *self(void)
{
    struct mpr_thread *own;
    return mpr_self(&own) == 0 ? own : NULL;
}

/* ---- toys: objects that own a block ----------------------------------- */

static inline void end_toy(struct mpr_thread *own, struct mpr_thread *whose,
                           struct mpr_object *object)
{
    struct toy *toy = (struct toy *)object;
    if (atomic_exchange(&scene->reap_in_end, false)) {
        mpr_slots_reap(own);
    }
    if (mpr_hand(whose, MPR_HAND_BLOCK) == NULL) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, toy->owns);
    }
    toy->owns = NULL;
    mpr_heap_free_hand(own, whose, MPR_HAND_BLOCK);
}

static const struct mpr_object_class toys = {
    .type = TOY, .size = sizeof(struct toy), .end = end_toy};

static inline struct toy *make_toy(void)
{
    struct mpr_thread *own = self();
    struct toy *toy = mpr_object_new(own, TOY);
    if (toy == NULL) {
        return NULL;
    }
    toy->owns = NULL;
    mpr_object_publish(own, toy);
    return toy;
}

/* ---- before and after ------------------------------------------------- */

static inline void use_once(size_t size)
{
    mproc_free(mproc_alloc(size));
}

static inline void *begin(size_t lost_at_most)
{
    const mproc_config config = {.heap_max = 4096 * KIB, .processes_max = 8};
    mpr_object_register(&toys);
    scene = mmap(NULL, sizeof *scene, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (scene == MAP_FAILED || mproc_configure(&config) < 0 || self() == NULL) {
        return NULL;
    }
    use_once(100);
    use_once(100 * KIB);
    mpr_object_end(self(), make_toy(), TOY);
    scene->lost_at_most = lost_at_most;
    return mproc_heap_stats(&scene->before) == 0 ? scene : NULL;
}

/* What processes share but the contents of blocks. */
static inline size_t tables(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    size_t spans = scene->before.limit / MPR_SPAN_SIZE;
    char *end = (char *)mpr_family->heap + mpr_heap_tables_size(spans);
    range[0] =
        (struct sweep_range){mpr_family, (size_t)(end - (char *)mpr_family)};
    return 1;
}

static inline void enter(void *ctx)
{
    (void)ctx;
    if (self() == NULL) {
        abort();
    }
}

static volatile sig_atomic_t child_of_bystander;

static inline void blocked(int signal)
{
    (void)signal;
    atomic_store(&scene->kept, BYSTANDERS);
    if (child_of_bystander > 0) {
        kill(child_of_bystander, SIGKILL);
        waitpid(child_of_bystander, NULL, 0);
    }
    _exit(SWEEP_WOULD_BLOCK);
}

/* A guard has no deadline: who waits for a stopped holder gives up so. */
static inline void give_up_soon(void)
{
    signal(SIGALRM, blocked);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 15000}},
              NULL);
}

static inline size_t blocks_in_use(void)
{
    mproc_heap_info now;
    return mproc_heap_stats(&now) == 0 ? now.blocks : SIZE_MAX;
}

/* Marks many blocks, which must be apart, and gives them back. */
static inline const char *use_much(size_t size, size_t count)
{
    static size_t *marked[MARKED];
    for (size_t i = 0; i < count; i++) {
        marked[i] = mproc_alloc(size);
        if (marked[i] == NULL) {
            return "there is less memory than before";
        }
        marked[i][0] = i;
        marked[i][size / sizeof(size_t) - 1] = i;
    }
    for (size_t i = 0; i < count; i++) {
        if (marked[i][0] != i || marked[i][size / sizeof(size_t) - 1] != i) {
            return "a block was handed out twice";
        }
        mproc_free(marked[i]);
    }
    return NULL;
}

static inline const char *slots_are_clean(void)
{
    struct mpr_thread *own = self();
    for (uint32_t i = 0; i < mpr_family->slots_top; i++) {
        uint64_t state = atomic_load(&mpr_family->slots[i].state);
        bool ours = &mpr_family->slots[i] == mpr_id_slot(mpr_self_id());
        if (!ours && (uint32_t)state != MPR_SLOT_FREE) {
            return "a slot was not reaped";
        }
    }
    for (uint32_t i = 0; i < mpr_family->threads_max; i++) {
        struct mpr_thread *thread = &mpr_family->threads[i];
        if (thread != own && atomic_load(&thread->owner) != 0) {
            return "a thread record was lost";
        }
        for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
            if (mpr_hand(thread, (enum mpr_hand)hand) != NULL) {
                return "a hand is not empty";
            }
        }
    }
    return NULL;
}

static inline const char *objects_are_good(void)
{
    struct toy *toy[TOYS_MADE];
    for (int i = 0; i < TOYS_MADE; i++) {
        toy[i] = make_toy();
        if (toy[i] == NULL) {
            return "no object can be made";
        }
        toy[i]->owns = toy[i];
    }
    for (int i = 0; i < TOYS_MADE; i++) {
        if (toy[i]->owns != toy[i]) {
            return "an object was handed out twice";
        }
        toy[i]->owns = NULL;
        mpr_object_end(self(), toy[i], TOY);
    }
    return NULL;
}

static inline const char *reap_all(void)
{
    for (int i = 0; i < 3000; i++) {
        struct mpr_census census = mpr_slots_reap(self());
        if (census.reaped == 0 && !census.dying && !census.unmarked) {
            return NULL;
        }
        usleep(census.dying ? 1000 : 0);
    }
    return "a dead process is not noticed";
}

static inline const char *all_is_well(void *ctx, const struct sweep_point *at)
{
    (void)ctx;
    const char *wrong = reap_all();
    wrong = wrong != NULL ? wrong : slots_are_clean();
    size_t lost = blocks_in_use() - scene->before.blocks;
    size_t may = at->finished ? 0 : scene->lost_at_most;
    if (wrong == NULL && lost > may + atomic_load(&scene->kept)) {
        wrong = "blocks are lost, or freed twice";
    }
    wrong = wrong != NULL ? wrong : use_much(104, MARKED);
    wrong = wrong != NULL ? wrong : use_much(32768, 20);
    wrong = wrong != NULL ? wrong : use_much(100 * KIB, 8);
    wrong = wrong != NULL ? wrong : objects_are_good();
    if (wrong == NULL && blocks_in_use() != scene->before.blocks + lost) {
        wrong = "blocks are lost later";
    }
    return wrong;
}

static inline void *begin_own(void)
{
    return begin(1);
}

static inline void *begin_nothing_lost(void)
{
    return begin(0);
}

#endif
