/* SPDX-License-Identifier: MIT */
/*
 * The slots, the reaper and the objects, whose user is killed, or stopped for a
 * while, after any instruction.
 */
#include "heap_scene.h"

/* ---- slots and reapers ------------------------------------------------ */

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

/* ---- objects ---------------------------------------------------------- */

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
