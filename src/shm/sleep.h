/* SPDX-License-Identifier: MIT */
/*
 * The one waiting routine. Every blocking call is the same loop:
 *
 *     struct mpr_sleep sleep;
 *     mpr_sleep_begin(&sleep, until);
 *     for (;;) {
 *         uint32_t seen = mpr_bell_watch(&bell);
 *         if (try()) { return done; }
 *         if (sleep.expired) { return MPROC_ETIMEDOUT; }
 *         mpr_sleep_on(&sleep, &bell, seen);
 *     }
 *
 * The last try comes after the deadline, so a wake-up is never eaten by one.
 *
 * A sleep has two stages: 50 ms on the bell alone, then on the bell and the
 * life words of others, so that the kernel wakes one sleeper when one of them
 * dies. Who is woken so, reaps; the reap tells all sleepers where the dead one
 * may have owed somebody a wake-up.
 *
 * That no death is missed, in a family of up to 127 processes: each deep
 * sleeper watches all other lives, and the bell of news, which each birth and
 * each death that is told rings. It watches the bell, looks at all slots, and
 * sleeps on what it saw: who was born before is watched, who is born later ends
 * the sleep. So whoever dies is watched by all who sleep deep; the
 * one that the kernel wakes may be killed too, and then is the next whose death
 * wakes another. No clock is needed, but where a process has strays, threads
 * that have not locked its life: one of those may be woken, and killed when the
 * death of its process has been written, so that nobody hears of the other's.
 * There a deep sleep lasts for 1 s at most.
 *
 * In a crowd, which is more than a sleeper can watch, that would cost every
 * birth a wake-up of all. There a sleeper watches some of its neighbours and
 * who holds what it waits for, which tells most deaths at once, and sleeps on
 * the count of deaths, for 1 s at most. Whoever wakes then looks at all slots,
 * unless another did so in the last half second. So a death is found within
 * 1.5 s by any one sleeper, births wake nobody, and ten thousand sleepers look
 * at all slots twice a second, not ten thousand times.
 */
#ifndef MPR_SHM_SLEEP_H
#define MPR_SHM_SLEEP_H

#include <limits.h>

#include "base/deadline.h"
#include "shm/slot.h"

struct mpr_sleep {
    mproc_deadline until;
    bool expired;
    bool late; /* expired while it was awake, perhaps by a ring of the bell */
    bool deep;
    uint32_t deaths;     /* those known at the last try */
    int64_t deep_at_ns;  /* end of the first stage; 0: not slept yet */
    int64_t spin_end_ns; /* 0: has not begun to spin */
};

void mpr_sleep_begin(struct mpr_sleep *sleep, mproc_deadline until);

/*
 * Sleep while *word == seen. Returns when it may be otherwise, when somebody
 * died, or when the deadline passed (`expired`). Needs a claimed thread.
 */
void mpr_sleep_on(struct mpr_sleep *sleep, _Atomic uint32_t *word,
                  uint32_t seen);

/*
 * As mpr_sleep_on for a thing that `holder` holds: its death ends the sleep in
 * any case.
 */
void mpr_sleep_on_holder(struct mpr_sleep *sleep, _Atomic uint32_t *word,
                         uint32_t seen, mpr_id holder);

/*
 * Before sleeping: true while it is worth to look again at once (for some
 * microseconds, where there is more than one CPU and sleeps have been short).
 */
bool mpr_sleep_spin(struct mpr_sleep *sleep);

/*
 * The loop of every call that tries something until it is no longer `busy`:
 * attempt, spin, watch the bell, attempt again, sleep. The result of the first
 * attempt that is not busy; after one that failed otherwise, or was busy until
 * it was too late, the bell is rung again, for it may have been meant for
 * somebody who can use it. `spins` is asked once, `sleeps` told once, before
 * the bell is watched and the next attempt.
 */
typedef int mpr_attempt_fn(void *user);
struct mpr_waiting {
    _Atomic uint32_t *bell;
    mproc_deadline until;
    int busy;
    mpr_attempt_fn *attempt;
    void *user;
    bool (*spins)(void *user);  /* NULL, or: is it to spin? */
    void (*sleeps)(void *user); /* NULL, or: it spins no more */
};
int mpr_sleep_waiting(const struct mpr_waiting *waiting);
int mpr_sleep_until(_Atomic uint32_t *bell, mproc_deadline until, int busy,
                    mpr_attempt_fn *attempt, void *user);

/*
 * Tests: begin with the second stage, since a timed slice hides lost wakes, and
 * let no strays time that.
 */
extern bool mpr_test_deep_sleep;

/* Tests: a family with more others than this is a crowd. */
extern unsigned mpr_test_watched_max;

/* ---- bells ------------------------------------------------------------ */

/*
 * A bell: a futex word [rings:30 | waiters:1 | many:1]. Who waits sets the flag
 * WAITERS, looks at its condition again, and sleeps on the value it saw. Who
 * changes the condition rings afterwards, which costs a load while nobody
 * waits. The flag stays while sleepers are found, and is cleared by the first
 * ringer that finds none, together with a wake of all, for who fell asleep
 * between: in one step, or who rings while that ringer is stopped would find no
 * flag, and a sleeper would not hear it. The rings only ever count up.
 */
enum { MPR_BELL_MANY = 1, MPR_BELL_WAITERS = 2, MPR_BELL_RING = 4 };

static_assert(MPR_OS_CHILD_CHANGE_ADDS % MPR_BELL_RING == 0, "it rings a bell");

static inline uint32_t mpr_bell_watch(_Atomic uint32_t *bell)
{
    uint32_t seen = atomic_load_explicit(bell, memory_order_seq_cst);
    if (!(seen & MPR_BELL_WAITERS)) {
        seen = atomic_fetch_or_explicit(bell, MPR_BELL_WAITERS,
                                        memory_order_seq_cst) |
               MPR_BELL_WAITERS;
    }
    return seen;
}

void mpr_bell_ring_slow_(_Atomic uint32_t *bell, int n);

/*
 * Wake n of those who wait (INT_MAX: all). The caller's change of the condition
 * must be a sequentially consistent store or be followed by a full barrier.
 */
static inline void mpr_bell_ring(_Atomic uint32_t *bell, int n)
{
    if (mpr_unlikely(atomic_load_explicit(bell, memory_order_seq_cst) &
                     (MPR_BELL_WAITERS | MPR_BELL_MANY))) {
        mpr_bell_ring_slow_(bell, n);
    }
}

/*
 * Waiting for many things at once: the bell mpr_family->many is theirs all.
 * Who waits
 *
 *     1. watches that bell;  2. marks the bell of each thing, which sets MANY
 *     there;  3. looks at all the things;  4. sleeps on what it saw in 1.
 *
 * Who rings a bell with MANY
 *
 *     a. counts a ring in it;  b. rings the family's;  c. clears MANY, if the
 *     word is still what a left.
 *
 * A mark counts a ring as well, so none that came since a is cleared by c: what
 * c clears was marked before a, thus by somebody whose step 1 came before b,
 * and who therefore does not sleep, or is woken, and marks again before it
 * looks again. So whoever finds no MANY after its change owes nobody anything:
 * who marked earlier will look once more. That holds wherever a ringer is
 * stopped: until c the others find MANY and ring the family's bell themselves.
 * A ringer that is killed has `op` set, so all sleepers look again; marks that
 * the dead leave cost one ringer a call. Marks in the bell of a thing that has
 * ended, or was made anew, are no more than that either.
 *
 * `mark` is what the last call for this bell returned, 0 at first: while that
 * stands there nobody has done a or c since.
 */
static inline uint32_t mpr_bell_mark(_Atomic uint32_t *bell, uint32_t mark)
{
    uint32_t word = atomic_load_explicit(bell, memory_order_seq_cst);
    while (mark == 0 || word != mark) {
        uint32_t next = (word + MPR_BELL_RING) | MPR_BELL_MANY;
        if (atomic_compare_exchange_weak_explicit(bell, &word, next,
                                                  memory_order_seq_cst,
                                                  memory_order_seq_cst)) {
            return next;
        }
    }
    return mark;
}

#endif
