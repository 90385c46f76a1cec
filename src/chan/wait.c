/* SPDX-License-Identifier: MIT */
/*
 * Waiting for many things: by the bell of all who do, or, when there are
 * descriptors among them, by poll. What a thing is, its class knows.
 */
#include <mproc/wait.h>

#include <stdlib.h>

#include "base/deadline.h"
#include "chan/pipe.h"
#include "chan/pump.h"
#include "shm/object.h"
#include "shm/sleep.h"

/* ---- waitables -------------------------------------------------------- */

/* What the words of a waitable are. */
enum { SORT, HANDLE, TAG };
enum { SKIPPED, DESCRIPTOR, OBJECT /* + enum mpr_object_type */ };

static mproc_waitable waitable_of(enum mpr_object_type type, const void *handle,
                                  uint64_t tag)
{
    mproc_waitable w = {{0}};
    w.private_[SORT] = OBJECT + (uint64_t)type;
    w.private_[HANDLE] = (uintptr_t)handle;
    w.private_[TAG] = tag;
    return w;
}

mproc_waitable mproc_waitable_queue(const mproc_queue *q)
{
    return waitable_of(MPR_QUEUE, q, mpr_object_tag(q, MPR_QUEUE));
}

mproc_waitable mproc_waitable_connection(const mproc_connection *c)
{
    return waitable_of(MPR_PIPE, c, mpr_connection_tag(c));
}

mproc_waitable mproc_waitable_process(const mproc_process *p)
{
    return waitable_of(MPR_PROCESS, p, mpr_object_tag(p, MPR_PROCESS));
}

mproc_waitable mproc_waitable_event(const mproc_event *e)
{
    return waitable_of(MPR_EVENT, e, mpr_object_tag(e, MPR_EVENT));
}

mproc_waitable mproc_waitable_result(const mproc_result *r)
{
    return waitable_of(MPR_RESULT, r, mpr_object_tag(r, MPR_RESULT));
}

mproc_waitable mproc_waitable_fd(int fd)
{
    mproc_waitable w = {{0}};
    w.private_[SORT] = DESCRIPTOR;
    w.private_[HANDLE] = (uint64_t)(int64_t)fd;
    return w;
}

/* ---- a call ----------------------------------------------------------- */

/* One of the things. `polled`: its place among the descriptors, or 0. */
struct thing {
    const struct mpr_object_wait *wait; /* NULL: no object */
    const void *handle;
    uint64_t tag;
    void *hold;
    uint32_t moment;
    uint32_t mark;
    size_t polled;
};

/* The first of `fds` is the poller's flag. */
struct call {
    struct mpr_thread *self;
    struct thing *things;
    size_t count;
    struct pollfd *fds;
    size_t fds_count;
    size_t bells;   /* how many of the things have one */
    size_t holds;   /* how many have a descriptor that must be held */
    size_t first;   /* where looking begins */
    bool unsure;    /* at the last look something could not be told */
    bool unwatched; /* something should have a descriptor and has none */
    struct mpr_poller poller;
};

enum { FEW = 16, LOOK_AGAIN_MS = 20, NO_DESCRIPTOR_MS = 5 };

static void poll_for(struct call *call, struct thing *thing, int fd)
{
    thing->polled = call->fds_count;
    call->fds[call->fds_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static int read_thing(struct call *call, struct thing *thing,
                      const mproc_waitable *what)
{
    uint64_t sort = what->private_[SORT];
    *thing = (struct thing){.tag = what->private_[TAG]};
    if (sort == SKIPPED) {
        return 0;
    }
    if (sort == DESCRIPTOR) {
        int fd = (int)(int64_t)what->private_[HANDLE];
        poll_for(call, thing, fd);
        return fd < 0 ? MPROC_EINVAL : 0;
    }
    if (sort - OBJECT < MPR_OBJECT_TYPES) {
        thing->wait = mpr_object_wait_of((enum mpr_object_type)(sort - OBJECT));
    }
    if (thing->wait == NULL) {
        return MPROC_EINVAL;
    }
    thing->handle = (const void *)(uintptr_t)what->private_[HANDLE];
    call->bells += thing->wait->bell != NULL;
    call->holds += thing->wait->hold != NULL;
    return 0;
}

static int read_things(struct call *call, const mproc_waitable *what)
{
    int err = 0;
    call->fds[0] = (struct pollfd){.fd = -1, .events = POLLIN};
    call->fds_count = 1;
    for (size_t i = 0; i < call->count && err == 0; i++) {
        err = read_thing(call, &call->things[i], &what[i]);
    }
    return err;
}

/* ---- looking ---------------------------------------------------------- */

static int told_by_poll(const struct pollfd *polled)
{
    if (polled->revents & POLLNVAL) {
        return MPROC_EINVAL;
    }
    return polled->revents != 0 ? 0 : MPROC_ETIMEDOUT;
}

static int look_at(struct call *call, struct thing *thing)
{
    struct pollfd *polled = &call->fds[thing->polled];
    int told = thing->polled > 0 ? told_by_poll(polled) : MPROC_ETIMEDOUT;
    if (thing->wait == NULL) {
        return told;
    }
    if (told == MPROC_EINVAL) { /* a user has closed what is held here */
        polled->fd = -1;
        call->unwatched = true;
    }
    int err = thing->wait->look(call->self, thing->handle, thing->tag,
                                &thing->moment);
    return err == MPROC_ETIMEDOUT && told == 0 ? 0 : err;
}

/* The first that is ready, or what is wrong with one. */
static int look(struct call *call, size_t *ready)
{
    int found = MPROC_ETIMEDOUT;
    call->unsure = false;
    if (call->fds_count > 1) {
        int err = mpr_os_poll(call->fds, call->fds_count, MPROC_NOWAIT);
        if (err < 0 && err != MPROC_ETIMEDOUT) {
            return err;
        }
    }
    for (size_t k = 0, i = call->first; k < call->count; k++, i++) {
        i = i < call->count ? i : 0;
        int err = look_at(call, &call->things[i]);
        if (err == 0 && found != 0) {
            found = 0;
            *ready = i;
        } else if (err == MPROC_EAGAIN) {
            call->unsure = true;
        } else if (err < 0 && err != MPROC_ETIMEDOUT) {
            return err;
        }
    }
    return found;
}

static void mark_all(struct call *call)
{
    for (size_t i = 0; i < call->count && call->bells > 0; i++) {
        struct thing *thing = &call->things[i];
        if (thing->wait != NULL && thing->wait->bell != NULL) {
            thing->mark =
                mpr_bell_mark(thing->wait->bell(thing->handle), thing->mark);
        }
    }
}

static mproc_deadline within(mproc_deadline until, int ms)
{
    return mpr_deadline_earlier(until,
                                mpr_deadline_after(mpr_os_now(), ms, 1e6));
}

/* ---- by the bell ------------------------------------------------------ */

static void sleep_on_bell(const struct call *call, struct mpr_sleep *sleep,
                          uint32_t seen)
{
    if (call->unsure) {
        mproc_deadline soon = within(sleep->until, LOOK_AGAIN_MS);
        mpr_os_wait(&mpr_family->many, seen, soon);
        sleep->expired = mpr_os_now() >= sleep->until.at_ns;
    } else {
        mpr_sleep_on(sleep, &mpr_family->many, seen);
    }
}

static int wait_by_bell(struct call *call, size_t *ready, mproc_deadline until)
{
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, until);
    for (;;) {
        bool spinning = mpr_sleep_spin(&sleep);
        uint32_t seen = 0;
        if (!spinning) {
            seen = mpr_bell_watch(&mpr_family->many);
            mark_all(call);
        }
        int err = look(call, ready);
        if (err != MPROC_ETIMEDOUT || sleep.expired) {
            return err;
        }
        if (!spinning) {
            sleep_on_bell(call, &sleep, seen);
        }
    }
}

/* ---- by poll ---------------------------------------------------------- */

static bool is_held(const struct thing *thing)
{
    return thing->wait != NULL && thing->wait->hold != NULL;
}

static void hold_all(struct call *call)
{
    for (size_t i = 0; i < call->count && call->holds > 0; i++) {
        struct thing *thing = &call->things[i];
        if (is_held(thing)) {
            int fd = thing->wait->hold(thing->handle, &thing->hold);
            poll_for(call, thing, fd);
            call->unwatched |= fd < 0;
        }
    }
}

static void release_all(struct call *call)
{
    for (size_t i = 0; i < call->count && call->holds > 0; i++) {
        struct thing *thing = &call->things[i];
        if (is_held(thing)) {
            thing->wait->release(thing->hold);
        }
    }
}

static mproc_deadline next_look(const struct call *call, mproc_deadline until)
{
    if (call->unwatched) {
        return within(until, NO_DESCRIPTOR_MS);
    }
    return call->unsure ? within(until, LOOK_AGAIN_MS) : until;
}

static int poll_until(struct call *call, size_t *ready, mproc_deadline until)
{
    for (bool expired = false;;) {
        mpr_os_flag_lower(call->poller.flag);
        mark_all(call);
        int err = look(call, ready);
        if (err != MPROC_ETIMEDOUT || expired) {
            return err;
        }
        err = mpr_os_poll(call->fds, call->fds_count, next_look(call, until));
        if (err < 0 && err != MPROC_ETIMEDOUT) {
            return err;
        }
        expired = mpr_os_now() >= until.at_ns;
    }
}

static int wait_by_poll(struct call *call, size_t *ready, mproc_deadline until)
{
    int err = mpr_pump_enter(&call->poller);
    if (err < 0) {
        return err;
    }
    call->fds[0].fd = call->poller.flag;
    hold_all(call);
    if (call->bells > 0) {
        err = mpr_pump_run();
    }
    if (err == 0) {
        err = poll_until(call, ready, until);
    }
    release_all(call);
    mpr_pump_leave(&call->poller);
    return err;
}

/* ---- in turn ---------------------------------------------------------- */

/*
 * Each call on the set of the last one begins behind what that one found, each
 * on another anywhere: so nothing is passed over for ever, whatever the order
 * of sets and calls.
 */
static _Thread_local struct {
    const mproc_waitable *what;
    size_t count;
    size_t next;
    uint64_t chance;
} turn;

static size_t begin_turn(const mproc_waitable *what, size_t count)
{
    if (turn.what == what && turn.count == count) {
        return turn.next;
    }
    turn.chance = turn.chance * UINT64_C(6364136223846793005) +
                  UINT64_C(1442695040888963407);
    return count > 0 ? (size_t)(turn.chance >> 33) % count : 0;
}

static void end_turn(const mproc_waitable *what, size_t count, size_t found)
{
    turn.what = what;
    turn.count = count;
    turn.next = found + 1;
}

/* ---- mproc_wait ------------------------------------------------------- */

static int wait_for(struct call *call, size_t *found, mproc_deadline until)
{
    int err = look(call, found);
    bool polls = call->fds_count > 1 || call->holds > 0;
    if (err != MPROC_ETIMEDOUT || mpr_deadline_is_nowait(until)) {
        return err;
    }
    if (!polls && call->bells == 0 && mpr_deadline_is_forever(until)) {
        return MPROC_EDEADLK;
    }
    return polls ? wait_by_poll(call, found, until)
                 : wait_by_bell(call, found, until);
}

static int wait_in_turn(struct call *call, const mproc_waitable *what,
                        size_t *ready, mproc_deadline until)
{
    size_t found = 0;
    int err = read_things(call, what);
    if (err == 0) {
        call->first = begin_turn(what, call->count);
        err = wait_for(call, &found, until);
    }
    if (err == 0) {
        end_turn(what, call->count, found);
        if (ready != NULL) {
            *ready = found;
        }
    }
    return err;
}

int mproc_wait(const mproc_waitable *what, size_t count, size_t *ready,
               mproc_deadline until)
{
    static const mproc_waitable none;
    struct thing few[FEW];
    struct pollfd few_fds[FEW + 1];
    struct call call = {.count = count, .things = few, .fds = few_fds};
    if (what == NULL && count > 0) {
        return MPROC_EINVAL;
    }
    if (what == NULL) {
        what = &none;
    }
    int err = mpr_self(&call.self);
    if (err < 0 || count <= FEW) {
        return err < 0 ? err : wait_in_turn(&call, what, ready, until);
    }
    if (count > SIZE_MAX / sizeof *what) {
        return MPROC_EINVAL;
    }
    call.things = calloc(count, sizeof *call.things);
    call.fds = calloc(count + 1, sizeof *call.fds);
    err = call.things != NULL && call.fds != NULL
              ? wait_in_turn(&call, what, ready, until)
              : MPROC_ENOMEM;
    free(call.things);
    free(call.fds);
    return err;
}
