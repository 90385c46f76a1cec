/* SPDX-License-Identifier: MIT */
/*
 * The one waiting routine (src/shm/sleep.h) and the reaping of the dead
 * (src/shm/reap.c), with the timed looks switched off.
 *
 * Each producer puts one thing and rings, each consumer takes one, sleeping in
 * the deep stage while there is none. All but the first consumer may be killed
 * before any step; a producer may be stopped for ever. What must hold when
 * nobody can go on: no consumer sleeps while there is something to take, but
 * what a stopped producer has put and not rung for.
 *
 * A step is what the machine does at once: a load, a store, a
 * compare-and-swap, a call of futex(2). Two things that one process does one
 * after the other are one step where the first concerns nobody else. The guard
 * of the reapers is a robust mutex: free again once its owner is dead. A
 * sleeper who was woken by one word stays on the queues of the others until it
 * runs, so a wake may be spent on it.
 *
 * With -DBUG=n it is built wrongly, and must fail:
 *   1  a reaper does not tell the sleepers
 *   2  who clears the flag of a bell wakes in a second step
 *   3  who is woken does not look for the dead
 *   4  a waiter does not look again after it has set the flag
 *   5  what a thread is about to do is not noted (op)
 */
#ifndef BUG
#define BUG 0
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define PROCESSES (CONSUMERS + PRODUCERS)
#define NOBODY 255

mtype = { LIVE, DIED, GONE };

byte items;              /* what was put and not taken */
byte bell;               /* {rings | flag}, as in the library */
byte deaths;
byte guard = NOBODY;
byte kills = KILLS;
bool may_stop = true;
byte unrung;             /* by who is stopped */
byte dead;               /* who have DIED and are not GONE */
mtype life[PROCESSES] = LIVE;
bool watched[PROCESSES]; /* FUTEX_WAITERS in the life word */
bool op[PROCESSES];
bool asleep[PROCESSES];  /* asleep_on: it owes a wake-up on the bell at most */
bool in_kernel[CONSUMERS];
bool on_bell[CONSUMERS];
bool woken[CONSUMERS];

inline wake_all()
{
    for (w : 0 .. CONSUMERS - 1) {
        woken[w] = woken[w] || in_kernel[w];
        on_bell[w] = false
    }
    w = 0
}

/* FUTEX_WAKE of one on the bell; which one is the kernel's choice. */
inline wake_one(count)
{
    atomic {
        if
        :: on_bell[0] -> on_bell[0] = false; woken[0] = true; count = 1
        :: on_bell[1] -> on_bell[1] = false; woken[1] = true; count = 1
#if CONSUMERS > 2
        :: on_bell[2] -> on_bell[2] = false; woken[2] = true; count = 1
#endif
        :: else -> count = 0
        fi
    }
}

/* The kernel marks the life word and wakes one of those who sleep on it. */
inline killed(who)
{
    {
        kills--;
        dead++;
        life[who] = DIED;
        if
        :: watched[who] && in_kernel[0] && who != 0 -> woken[0] = true
        :: watched[who] && in_kernel[1] && who != 1 -> woken[1] = true
#if CONSUMERS > 2
        :: watched[who] && in_kernel[2] && who != 2 -> woken[2] = true
#endif
        :: else
        fi;
        goto end
    }
}

/* Before a step that others see: `me` may be killed here. */
#define STEP(me, mortal)                                                      \
    if                                                                        \
    :: atomic { mortal && kills > 0 -> killed(me) }                           \
    :: skip                                                                   \
    fi

/* Here a producer may stop for ever, `owing` to ring for what it put. */
#define STOP(owing)                                                           \
    if                                                                        \
    :: atomic { may_stop -> may_stop = false; unrung = owing; goto stopped }  \
    :: skip                                                                   \
    fi

inline ring(me)
{
    if
    :: bell & 1 ->
        d_step { bell = bell + 2; rung = bell };
        STEP(me, true);
        STOP(1);
        wake_one(count);
        if
        :: count == 0 && (rung & 1) ->
            STEP(me, true);
            STOP(0);
            if
            :: bell == rung ->
#if BUG == 2
                bell = bell + 1;
                STEP(me, true);
                STOP(0);
                d_step { wake_all() }
#else
                d_step { bell = bell + 1; wake_all() }
#endif
            :: else
            fi
        :: else
        fi
    :: else
    fi
}

proctype producer(byte me)
{
    byte rung, count, w;
    STEP(me, true);
    d_step { op[me] = BUG != 5; items++ };
    STEP(me, true);
    STOP(1);
    ring(me);
    STEP(me, true);
    d_step { op[me] = false; life[me] = GONE }; /* its end owes nothing */
stopped:
end:
    atomic { rung = 0; count = 0 }
}

/* Reap whoever is found dead. Two stores, and whom that tells. */
inline reap_all(me, mortal)
{
    do
    :: atomic {
            dead > 0 && (guard == NOBODY || life[guard] != LIVE) ->
            guard = me;
            do
            :: life[other] == DIED -> break
            :: else -> other++
            od
        };
        if
        :: asleep[other] ->
            STEP(me, mortal);
            wake_one(w);
            w = 0
        :: op[other] && !asleep[other] && BUG != 1 ->
            STEP(me, mortal);
            deaths++;
            STEP(me, mortal);
            d_step { wake_all() }
        :: else
        fi;
        STEP(me, mortal);
        d_step { life[other] = GONE; dead-- };
        STEP(me, mortal);
        d_step { guard = NOBODY; reaped = true; other = 0 }
    :: dead == 0 -> break
    od
}

proctype consumer(byte me; bool mortal)
{
    byte seen, w, other, known;
    bool reaped;
    d_step { op[me] = BUG != 5; known = deaths };
again:
    STEP(me, mortal);
    d_step { asleep[me] = false; reaped = false; seen = bell | 1; bell = seen };
#if BUG != 4
    /* the attempt, under the guard of the queue */
    STEP(me, mortal);
    if
    :: d_step { items > 0 -> items--; op[me] = false; life[me] = GONE };
        goto end
    :: items == 0
    fi;
#endif
    /* mpr_sleep_on_holder */
    if
    :: d_step { deaths != known -> known = deaths }; goto again
    :: deaths == known
    fi;
    d_step { asleep[me] = true };
    reap_all(me, mortal);
    if
    :: reaped -> goto again
    :: else
    fi;
    /* mpr_slots_watch */
    STEP(me, mortal);
    d_step {
        do
        :: w < PROCESSES && life[w] != DIED ->
            watched[w] = watched[w] || (w != me && life[w] == LIVE);
            w++
        :: else -> break
        od;
        reaped = w < PROCESSES;
        w = 0
    };
    if
    :: reaped -> goto again
    :: else
    fi;
    /* futex_waitv: asleep only if all words are as they were seen */
    d_step {
        woken[me] = bell != seen || deaths != known || dead > 0;
        in_kernel[me] = !woken[me];
        on_bell[me] = !woken[me]
    };
    if
    :: atomic {
            woken[me] ->
            in_kernel[me] = false;
            on_bell[me] = false;
            woken[me] = false
        }
    :: atomic {
            mortal && kills > 0 ->
            in_kernel[me] = false;
            on_bell[me] = false;
            woken[me] = false;
            killed(me)
        }
    fi;
#if BUG != 3
    reap_all(me, mortal);
#endif
    goto again;
end:
    atomic { seen = 0; known = 0; other = 0; reaped = false }
}

init
{
    byte i;
    atomic {
        for (i : 0 .. CONSUMERS - 1) { run consumer(i, i > 0) }
        for (i : CONSUMERS .. PROCESSES - 1) { run producer(i) }
    };
    timeout;
    d_step {
        for (i : 0 .. CONSUMERS - 1) {
            assert(life[i] != LIVE || items <= unrung)
        }
    }
}
