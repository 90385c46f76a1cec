/* SPDX-License-Identifier: MIT */
/*
 * Barrier: a fixed number of parties wait for each other, again and again.
 * Python: Barrier.
 *
 * It belongs to the family: any process of it and any thread may use it, and
 * anyone ends it, once, when nobody uses it. It costs no descriptor.
 *
 * A barrier fills, party by party, and when all have arrived lets them go and
 * fills anew. Instead it may break: by the deadline of one who waits, by abort,
 * by an action that fails, or by a death. Then all who wait get MPROC_EBROKEN,
 * and so does everybody who comes, until the barrier is reset.
 *
 * On deaths. A process that dies, by any signal at any instruction, blocks
 * nobody: while one of its threads waits or runs the action, the barrier breaks
 * within 100 ms. One that dies before it arrives, or after the others were let
 * go, breaks nothing. A process that is stopped, not dead, only delays.
 *
 * Calls do not block unless they say so; none may be made by a signal handler.
 * A handle that is NULL, freed or of another kind: MPROC_EINVAL where an int is
 * returned, else false or 0.
 */
#ifndef MPROC_BARRIER_H
#define MPROC_BARRIER_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_barrier mproc_barrier;

/*
 * Options of a barrier; zero is the default.
 *
 * action  called each time when all have arrived, before any of them goes on:
 *         by the last one to arrive, in its process and its thread, with the
 *         pointer `user`. Both must mean there what they mean to the maker, as
 *         they do among processes that were forked. 0: the parties go on;
 *         anything else breaks the barrier. It must return. It may use the
 *         library, but not wait on this barrier; a child forked in it must not
 *         return from it.
 * user    passed to the action
 */
typedef struct mproc_barrier_opts {
    int (*action)(void *user);
    void *user;
} mproc_barrier_opts;
MPROC_NO_PADDING_(mproc_barrier_opts, sizeof(int (*)(void *)) + sizeof(void *));

/* mproc_barrier_new with the size of the caller's options; call that. */
MPROC_API int mproc_barrier_new_sized(mproc_barrier **out, unsigned parties,
                                      const mproc_barrier_opts *opts,
                                      size_t opts_size);

/*
 * Make a barrier for `parties` threads, of one process or of several. `opts`
 * NULL means no action. Python: Barrier(parties, action).
 *
 * 0              *out is the barrier; end it with mproc_barrier_free
 * MPROC_EINVAL   out is NULL, or parties is 0 or above 536870911
 * MPROC_ENOMEM   the shared heap is full
 * MPROC_ENOTSUP  an option that this version does not know is set
 */
static inline int mproc_barrier_new(mproc_barrier **out, unsigned parties,
                                    const mproc_barrier_opts *opts)
{
    return mproc_barrier_new_sized(out, parties, opts, sizeof *opts);
}

/*
 * Arrive, and wait until all have. Blocks until then, or until `until`: also
 * while the action runs, which then goes on in vain. Who comes while an action
 * runs for others waits for its end first. Python: Barrier.wait().
 *
 * 0                all have arrived. *index, if index is not NULL, is a number
 *                  from 0 to parties - 1, another for each of them, in order of
 *                  arrival
 * MPROC_ETIMEDOUT  not all had arrived, or the action had not ended, at the
 *                  deadline; the barrier is broken by it. It is not if the
 *                  caller had not arrived, because an action ran for others
 * MPROC_EBROKEN    the barrier is broken, or was broken or reset while this
 *                  waited; also if it was this call whose action failed
 * MPROC_EINVAL     freed while this waited
 */
MPROC_API int mproc_barrier_wait(mproc_barrier *b, unsigned *index,
                                 mproc_deadline until);

/*
 * Break the barrier, until it is reset; an action that runs goes on in vain.
 * Python: Barrier.abort().
 *
 * 0  it is broken
 */
MPROC_API int mproc_barrier_abort(mproc_barrier *b);

/*
 * Make the barrier empty and whole again. Who waits gets MPROC_EBROKEN; who
 * comes from now on, does not. Python: Barrier.reset().
 *
 * 0  it is
 */
MPROC_API int mproc_barrier_reset(mproc_barrier *b);

/* How many it is for. Python: Barrier.parties. */
MPROC_API unsigned mproc_barrier_parties(const mproc_barrier *b);

/*
 * How many have arrived and wait, at one moment of the call; 0 while it is
 * broken. Python: Barrier.n_waiting.
 */
MPROC_API unsigned mproc_barrier_n_waiting(const mproc_barrier *b);

/* Whether it is broken, at one moment of the call. Python: Barrier.broken. */
MPROC_API bool mproc_barrier_broken(const mproc_barrier *b);

/*
 * End the barrier; NULL is taken. Once, by anyone, when nobody uses it: who
 * still waits for it then gets MPROC_EINVAL.
 */
MPROC_API void mproc_barrier_free(mproc_barrier *b);

#ifdef __cplusplus
}
#endif

#endif
