/* SPDX-License-Identifier: MIT */
/*
 * Events whose user is killed, or stopped for a while, after any instruction.
 */
#include "sync_scene.h"

static void *event_scene(void)
{
    if (new_scene() == NULL || mproc_event_new(&scene->event) < 0) {
        return NULL;
    }
    mproc_event_free(scene->event);
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_event_new(&scene->event) < 0
               ? NULL
               : scene;
}

static void *watched_event_scene(void)
{
    return with_one_beside(event_scene());
}

static int event_set(void *ctx)
{
    struct scene *s = ctx;
    return finish(VICTIM, mproc_event_set(s->event));
}

static int event_sleeper(void *ctx)
{
    struct scene *s = ctx;
    await_go(SLEEPER);
    return finish(SLEEPER, mproc_event_wait(s->event, MPROC_FOREVER));
}

/* Clears it, too: who waited when it was set reports it set all the same. */
static int event_bystander(void *ctx)
{
    struct scene *s = ctx;
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    int err = mproc_event_set(s->event);
    return finish(BYSTANDER, err < 0 ? err : mproc_event_clear(s->event));
}

static const char *set_if_clear(void *ctx)
{
    struct scene *s = ctx;
    bool set = mproc_event_is_set(s->event);
    atomic_store(&s->part[ROUND].done, !set);
    if (!s->paused && !set && !comes_to_rest(SLEEPER)) {
        return "the sleeper returned without a set";
    }
    return set || s->paused || mproc_event_set(s->event) == 0 ? NULL : "no set";
}

static const char *check_set(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    const char *wrong = on_its_side(at, !atomic_load(&s->part[ROUND].done));
    mproc_event_free(s->event);
    return wrong != NULL ? wrong : nothing_left(s);
}

/* ---- the cases -------------------------------------------------------- */

static const struct sweep_case cases[] = {
    {.name = "event set, first call",
     COMMON,
     .setup = watched_event_scene,
     .prepare = be_new,
     .operation = event_set,
     .sleeper = event_sleeper,
     .follow_up = set_if_clear,
     .check = check_set},
    {.name = "event set, new thread",
     COMMON,
     .setup = watched_event_scene,
     .prepare = be_new_thread,
     .operation = event_set,
     .sleeper = event_sleeper,
     .follow_up = set_if_clear,
     .check = check_set},
    {.name = "event set",
     COMMON,
     .setup = watched_event_scene,
     .prepare = let_sleeper_sleep,
     .operation = event_set,
     .sleeper = event_sleeper,
     .bystander = event_bystander,
     .follow_up = set_if_clear,
     .check = check_set},
};

int main(int argc, char **argv)
{
    return play(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
