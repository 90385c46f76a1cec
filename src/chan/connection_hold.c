/* SPDX-License-Identifier: MIT */
/*
 * Beginning to hold an end, ceasing to, and who does.
 *
 * That a process holds an end is told by its word there, and counted twice
 * beside: for its death to be told to all (mpr_held_add), from before the word
 * is there until after it says closed; and as its heritage, between whose two
 * calls no fork happens, so that a fork meets the word and the count together.
 */
#include <string.h>

#include "chan/connection.h"

/* ---- holding ---------------------------------------------------------- */

/* One try with the guard locked. */
static int hold_locked(const struct mpr_connection_call *call, bool *added)
{
    if (!mpr_connection_unchanged(call)) {
        return MPROC_EINVAL;
    }
    const _Atomic mpr_id *word = mpr_end_find(call->end, mpr_self_id());
    if (word != NULL) {
        return mpr_end_load(word) & MPR_HOLDER_CLOSED ? MPROC_EINVAL : 0;
    }
    mpr_held_add(call->self, 1);
    int err = mpr_end_add(call->end, call->self, mpr_self_id());
    *added = err == 0;
    if (!*added) {
        mpr_held_add(call->self, -1);
    }
    return err;
}

int mpr_connection_hold_slowly(const struct mpr_connection_call *call)
{
    struct mpr_thread *self = call->self;
    bool added = false;
    int err;
    mpr_heritage_begin();
    do {
        err = mpr_guard_lock_until(&call->pipe->guard, self, self, call->until);
        if (err == 0) {
            err = hold_locked(call, &added);
            mpr_guard_unlock(&call->pipe->guard, self);
        }
    } while (err == MPROC_EAGAIN && mpr_end_fetch_chunk(self) == 0);
    mpr_heritage_end(added);
    if (mpr_hand(self, MPR_HAND_SECOND) != NULL) {
        mpr_heap_free_hand(self, self, MPR_HAND_SECOND);
    }
    return err == MPROC_EAGAIN ? MPROC_ENOMEM : err;
}

void mpr_pipe_hold_in(const void *bytes, size_t size)
{
    const mproc_deadline soon = mpr_deadline_after(mpr_os_now(), 1, 1e9);
    struct mpr_connection_call call;
    for (size_t at = 0; at + sizeof(void *) <= size; at += sizeof(void *)) {
        mproc_connection *c;
        memcpy(&c, (const char *)bytes + at, sizeof(void *));
        if (mpr_connection_begin(&call, c, soon, MPROC_EAGAIN) == 0) {
            mpr_connection_end(&call, 0);
        }
    }
}

/* ---- close ------------------------------------------------------------ */

/* With the guard locked. EINVAL: another thread was faster. */
static int give_up(const struct mpr_connection_call *call)
{
    _Atomic mpr_id *word = mpr_connection_unchanged(call)
                               ? mpr_end_find(call->end, mpr_self_id())
                               : NULL;
    if (word == NULL || mpr_end_load(word) & MPR_HOLDER_CLOSED) {
        return MPROC_EINVAL;
    }
    atomic_store(word, mpr_self_id() | MPR_HOLDER_CLOSED);
    return 0;
}

int mproc_connection_close(mproc_connection *c)
{
    struct mpr_connection_call call;
    int err = mpr_connection_begin(&call, c, MPROC_FOREVER, MPROC_ETIMEDOUT);
    if (err < 0) {
        return err;
    }
    mpr_heritage_begin();
    mpr_guard_lock(&call.pipe->guard, call.self, call.self);
    err = give_up(&call);
    mpr_guard_unlock(&call.pipe->guard, call.self);
    mpr_heritage_end(err == 0 ? -1 : 0);
    if (err == 0) {
        mpr_held_add(call.self, -1);
        mpr_pipe_ring(call.pipe); /* who waits must watch those who are left */
        mpr_pipe_settle(call.pipe, call.self, call.tag, MPROC_FOREVER);
        mpr_watch_close(c, call.tag);
        mpr_watch_settle(call.self, call.other);
    }
    return mpr_connection_end(&call, err);
}

/* ---- who is there ----------------------------------------------------- */

/* What was found at the other end, in the order of what to answer with. */
struct peers {
    pid_t other;
    mpr_id unborn;
    pid_t own;
};

static struct peers look_for_peers(const struct mpr_connection_call *call)
{
    struct peers found = {0, 0, 0};
    mpr_guard_lock(&call->pipe->guard, call->self, call->self);
    struct mpr_end_words words = mpr_end_words(call->other);
    const _Atomic mpr_id *at = NULL;
    while (mpr_connection_unchanged(call) &&
           (at = mpr_end_next_word(&words)) != NULL) {
        mpr_id word = mpr_end_load(at);
        if (!mpr_end_holds(word)) {
            continue;
        }
        if (word == mpr_self_id()) {
            found.own = mpr_os_pid();
        } else if (mpr_id_is_unborn(word)) {
            found.unborn = word;
        } else if (found.other == 0) {
            found.other = mpr_id_pid(word);
        }
    }
    mpr_guard_unlock(&call->pipe->guard, call->self);
    return found;
}

int mproc_connection_peer_pid(mproc_connection *c, pid_t *out)
{
    struct mpr_connection_call call;
    int err = out == NULL ? MPROC_EINVAL
                          : mpr_connection_begin(&call, c, MPROC_FOREVER,
                                                 MPROC_ETIMEDOUT);
    if (err < 0) {
        return err;
    }
    struct peers found = look_for_peers(&call);
    while (found.other == 0 && found.unborn != 0) {
        mpr_id_await_birth(call.self, found.unborn);
        found = look_for_peers(&call);
    }
    pid_t pid = found.other != 0 ? found.other : found.own;
    if (pid == 0) {
        return mpr_connection_end(&call,
                                  mpr_connection_still(&call, MPROC_EPIPE));
    }
    *out = pid;
    return mpr_connection_end(&call, 0);
}
