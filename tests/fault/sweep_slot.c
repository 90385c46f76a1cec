/* SPDX-License-Identifier: MIT */
/*
 * A process that is stopped in its first call, after any instruction, while
 * another thread of it gives something: a thread that has no record, as in a
 * signal handler. Its process may be killed next, so if it has a slot by then,
 * all who sleep must have been told that there is one more life to watch.
 */
#include "sync_scene.h"

enum answer { NONE, TOLD, UNTOLD, REFUSED };

/* Between the bystander and the other thread; in memory that all share. */
static struct talk {
    _Atomic uint32_t asked;
    _Atomic uint32_t answer;
    uint32_t news; /* the bell before the victim came, with a waiter at it */
} * talk;

static void *newcomer_scene(void)
{
    struct scene *s = new_scene();
    talk = shared_memory(sizeof *talk);
    if (s == NULL || talk == NULL || mproc_event_new(&s->event) < 0 ||
        mproc_heap_stats(&s->before) < 0) {
        return NULL;
    }
    talk->news = mpr_bell_watch(&mpr_family->news);
    return s;
}

/* Blocks a signal as a handler does, and so claims nothing. */
static void *give_when_asked(void *unused)
{
    (void)unused;
    while (atomic_load(&talk->asked) == 0) {
        mpr_os_wait(&talk->asked, 0, MPROC_FOREVER);
    }
    bool lives = atomic_load(&mpr_process_page_)->slot != NULL;
    int err = mproc_event_set(scene->event);
    bool told = atomic_load(&mpr_family->news) != talk->news;
    atomic_store(&talk->answer, err < 0          ? REFUSED
                                : lives && !told ? UNTOLD
                                                 : TOLD);
    mpr_os_wake(&talk->answer, 1);
    return NULL;
}

static void have_another_thread(void *unused)
{
    pthread_t thread;
    sigset_t all, before;
    (void)unused;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (pthread_create(&thread, NULL, give_when_asked, NULL) != 0) {
        abort();
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int make_first_call(void *unused)
{
    struct mpr_thread *self;
    (void)unused;
    return finish(VICTIM, mpr_self(&self));
}

/* Without a call of the library's: its own birth would be told. */
static int ask(void *unused)
{
    (void)unused;
    atomic_store(&talk->asked, 1);
    mpr_os_wake(&talk->asked, 1);
    while (atomic_load(&talk->answer) == NONE && !past(SOON)) {
        mpr_os_wait(&talk->answer, NONE, SOON);
    }
    return atomic_load(&talk->answer) == NONE;
}

static const char *check_told(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    (void)at;
    if (atomic_load(&talk->answer) != TOLD) {
        return atomic_load(&talk->answer) == UNTOLD
                   ? "it gave, and nobody knows that it lives"
                   : "the other thread could not give";
    }
    if (!mproc_event_is_set(s->event)) {
        return "what it gave was lost";
    }
    mproc_event_free(s->event);
    return nothing_left(s);
}

static const struct sweep_case cases[] = {
    {.name = "first call, another thread gives",
     COMMON,
     .setup = newcomer_scene,
     .prepare = have_another_thread,
     .operation = make_first_call,
     .bystander = ask,
     .check = check_told,
     .pause_only = true},
};

int main(int argc, char **argv)
{
    return play(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
