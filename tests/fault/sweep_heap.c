/* SPDX-License-Identifier: MIT */
/*
 * The heap, the slots, the reaper and the objects, whose user is killed, or
 * stopped for a while, after any instruction. What must hold afterwards: no
 * block is lost, none is handed out twice, nobody's hands are full but those of
 * the living, and everything can be used.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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
    _Atomic bool paused;
};

static struct scene *scene;

static struct mpr_thread *self(void)
{
    struct mpr_thread *own;
    return mpr_self(&own) == 0 ? own : NULL;
}

/* ---- toys: objects that own a block ------------------------------------ */

static void end_toy(struct mpr_thread *own, struct mpr_thread *whose,
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

static struct toy *make_toy(void)
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

/* ---- before and after -------------------------------------------------- */

static void use_once(size_t size)
{
    mproc_free(mproc_alloc(size));
}

static void *begin(size_t lost_at_most)
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
static size_t tables(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    size_t spans = scene->before.limit / MPR_SPAN_SIZE;
    char *end = (char *)mpr_family->heap + mpr_heap_tables_size(spans);
    range[0] =
        (struct sweep_range){mpr_family, (size_t)(end - (char *)mpr_family)};
    return 1;
}

static void enter(void *ctx)
{
    (void)ctx;
    if (self() == NULL) {
        abort();
    }
}

static volatile sig_atomic_t child_of_bystander;

static void blocked(int signal)
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
static void give_up_soon(void)
{
    signal(SIGALRM, blocked);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 15000}},
              NULL);
}

static size_t blocks_in_use(void)
{
    mproc_heap_info now;
    return mproc_heap_stats(&now) == 0 ? now.blocks : SIZE_MAX;
}

/* Marks many blocks, which must be apart, and gives them back. */
static const char *use_much(size_t size, size_t count)
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

static const char *slots_are_clean(void)
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

static const char *objects_are_good(void)
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

static const char *reap_all(void)
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

static const char *all_is_well(void *ctx, const struct sweep_point *at)
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

/* ---- blocks ----------------------------------------------------------- */

static void *begin_own(void)
{
    return begin(1);
}

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

static void *begin_nothing_lost(void)
{
    return begin(0);
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

/* ---- slots and reapers -------------------------------------------------- */

static int enter_only(void *ctx)
{
    (void)ctx;
    struct mpr_thread *own = self();
    if (own == NULL) {
        return 1;
    }
    for (uint32_t i = 0; i < mpr_family->slots_top; i++) {
        struct mpr_slot *slot = &mpr_family->slots[i];
        if (slot != mpr_id_slot(mpr_self_id()) && slot->pid == getpid() &&
            (uint32_t)atomic_load(&slot->state) == MPR_SLOT_LIVE) {
            return 2; /* wrote itself into another's slot */
        }
    }
    return 0;
}

static void *begin_used_slots(void)
{
    if (begin(0) == NULL) {
        return NULL;
    }
    pid_t pid = fork(); /* so that the next slot is a used one */
    if (pid == 0) {
        self();
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return reap_all() == NULL ? scene : NULL;
}

static int enter_and_die(void *ctx)
{
    (void)ctx;
    pid_t pid = fork();
    if (pid == 0) {
        self();
        kill(getpid(), SIGKILL);
    }
    child_of_bystander = pid;
    give_up_soon();
    return waitpid(pid, NULL, 0) == pid ? 0 : 1;
}

/* A dead one with all hands full, in an operation, holding something. */
static _Noreturn void die_with_full_hands(void)
{
    struct mpr_thread *own = self();
    mpr_op_begin(own, scene->toy);
    mpr_held_add(own, 1);
    mpr_heap_alloc(own, 100, MPR_HAND_SECOND);
    mpr_heap_alloc(own, 100 * KIB, MPR_HAND_SEGMENT);
    mpr_heap_span(own);
    struct toy *toy = mpr_object_new(own, TOY);
    toy->owns = mpr_heap_alloc(own, 100, MPR_HAND_BLOCK);
    mpr_hand_set(own, MPR_HAND_BLOCK, NULL);
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

static void *begin_with_dead(void)
{
    if (begin(0) == NULL) {
        return NULL;
    }
    pid_t pid = fork();
    if (pid == 0) {
        die_with_full_hands();
    }
    waitpid(pid, NULL, 0);
    return scene;
}

static int reap(void *ctx)
{
    (void)ctx;
    mpr_slots_reap(self());
    return 0;
}

static int reap_beside(void *ctx)
{
    give_up_soon();
    enter(ctx);
    return reap(ctx);
}

static int second_reaper(void *ctx)
{
    enter(ctx);
    return reap(ctx);
}

/* While everybody else is dead, the family is full, and a newcomer reaps. */
static void *begin_full_of_dead(void)
{
    if (begin(0) == NULL) {
        return NULL;
    }
    for (int i = 0; i < 7; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (i > 0) {
                self();
                _exit(0);
            }
            die_with_full_hands();
        }
        waitpid(pid, NULL, 0);
    }
    return scene;
}

/* ---- objects ----------------------------------------------------------- */

static int toy_comes_and_goes(void *ctx)
{
    (void)ctx;
    struct toy *toy = make_toy();
    return toy != NULL && mpr_object_end(self(), toy, TOY) ? 0 : 1;
}

static int toys_beside(void *ctx)
{
    give_up_soon();
    enter(ctx);
    return toy_comes_and_goes(ctx);
}

static void *begin_with_toy(void)
{
    if (begin(0) == NULL) {
        return NULL;
    }
    scene->toy = make_toy();
    scene->toy->owns = mproc_alloc(100);
    return scene;
}

static int end_it(void *ctx)
{
    (void)ctx;
    mpr_object_end(self(), scene->toy, TOY);
    return 0;
}

static int end_it_beside(void *ctx)
{
    give_up_soon();
    enter(ctx);
    return end_it(ctx);
}

/* Another ends it as well, and meets the dead one while it does. */
static const char *end_it_too(void *ctx)
{
    (void)ctx;
    atomic_store(&scene->reap_in_end, true);
    mpr_object_end(self(), scene->toy, TOY);
    atomic_store(&scene->reap_in_end, false);
    return NULL;
}

static const char *ended_once(void *ctx, const struct sweep_point *at)
{
    const char *wrong = reap_all();
    if (wrong == NULL && mpr_object_is(scene->toy, TOY)) {
        mpr_object_end(self(), scene->toy, TOY);
    }
    return wrong != NULL ? wrong : all_is_well(ctx, at);
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
    {.name = "enter",
     .setup = begin_used_slots,
     .operation = enter_only,
     .bystander = enter_and_die,
     .check = all_is_well,
     .shared = tables},
    {.name = "enter-first",
     .setup = begin_nothing_lost,
     .operation = enter_only,
     .bystander = enter_and_die,
     .check = all_is_well,
     .shared = tables},
    {.name = "reap",
     .setup = begin_with_dead,
     .prepare = enter,
     .operation = reap,
     .bystander = reap_beside,
     .second = second_reaper,
     .check = all_is_well,
     .shared = tables},
    {.name = "reap-to-enter",
     .setup = begin_full_of_dead,
     .operation = enter_only,
     .check = all_is_well,
     .shared = tables},
    {.name = "toy",
     .setup = begin_own,
     .prepare = enter,
     .operation = toy_comes_and_goes,
     .bystander = toys_beside,
     .check = all_is_well,
     .shared = tables},
    {.name = "end",
     .setup = begin_with_toy,
     .prepare = enter,
     .operation = end_it,
     .bystander = end_it_beside,
     .follow_up = end_it_too,
     .check = ended_once,
     .shared = tables},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
