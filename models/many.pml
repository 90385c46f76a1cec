/* SPDX-License-Identifier: MIT */
/*
 * Waiting for many things at once (mpr_bell_mark in src/shm/sleep.h), with the
 * timed looks switched off: each producer puts something into a thing and rings
 * its bell; each waiter marks the bells of all and takes one. A producer may be
 * killed or stopped before any step; a death in the midst of an operation is
 * told to all sleepers, some time later (models/sleep.pml). What must hold when
 * nobody can go on: no waiter sleeps while there is something to take, but what
 * a stopped producer has put and not rung for.
 *
 * With -DBUG=n it is built wrongly, and must fail:
 *   1  MANY is cleared whatever has happened to the bell meanwhile
 *   2  MANY is cleared before the family's bell is rung
 *   3  a mark sets MANY and counts no ring
 *   4  a waiter watches the family's bell after it has looked at the things
 *   5  a waiter looks at the things before it marks them
 */
#ifndef BUG
#define BUG 0
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef THINGS
#define THINGS 1
#endif
#define WAITERS 2
#define MANY 1      /* in the bell of a thing */
#define WATCHED 1   /* in the family's */
#define RING 2

byte items[THINGS];
byte bell[THINGS];
byte family;
byte deaths;
byte kills = KILLS;
byte untold;             /* deaths */
bool may_stop = true;
byte unrung;             /* by who is stopped */
bool asleep[WAITERS];
bool served[WAITERS];

#if THINGS > 1
#define left() (items[0] + items[1])
#else
#define left() items[0]
#endif

inline wake_all()
{
    d_step {
        for (w : 0 .. WAITERS - 1) { asleep[w] = false };
        w = 0
    }
}

#define STEP(owing)                                                           \
    if                                                                        \
    :: atomic { kills > 0 -> kills--; untold++; goto end }                    \
    :: atomic { may_stop -> may_stop = false; unrung = owing; goto end }      \
    :: skip                                                                   \
    fi

inline ring_family()
{
    if
    :: family & WATCHED ->
        STEP(1);
        atomic { family = family + WATCHED; wake_all() } /* carries: RING */
    :: else
    fi
}

inline clear(which)
{
    d_step {
        if
        :: bell[which] == rung || BUG == 1 -> bell[which] = bell[which] & 254
        :: else
        fi
    }
}

proctype producer(byte which)
{
    byte rung, w;
    STEP(0);
    items[which]++;
    STEP(1);
    if
    :: bell[which] & MANY ->
        STEP(1);
        d_step { bell[which] = bell[which] + RING; rung = bell[which] };
#if BUG == 2
        STEP(1);
        clear(which);
        STEP(0);
        ring_family();
#else
        ring_family();
        STEP(0);
        clear(which);
#endif
        skip
    :: else
    fi;
end:
    atomic { rung = 0 }
}

proctype teller()
{
    byte w;
    do
    :: atomic { untold > 0 -> untold--; deaths++; wake_all() }
    od
}

inline look()
{
    if
    :: atomic { items[first] > 0 -> items[first]--; goto done }
    :: items[first] == 0
    fi
#if THINGS > 1
    ;
    if
    :: atomic { items[1 - first] > 0 -> items[1 - first]--; goto done }
    :: items[1 - first] == 0
    fi
#endif
}

inline watch()
{
    d_step { family = family | WATCHED; seen = family };
}

proctype waiter(byte me; byte first)
{
    byte seen, known, i, mark[THINGS];
    do
    :: known = deaths;
#if BUG != 4
        watch();
#endif
#if BUG == 5
        look();
#endif
        for (i : 0 .. THINGS - 1) {
            d_step {
                if
                :: mark[i] == 0 || bell[i] != mark[i] ->
#if BUG == 3
                    bell[i] = bell[i] | MANY;
#else
                    bell[i] = (bell[i] + RING) | MANY;
#endif
                    mark[i] = bell[i]
                :: else
                fi
            }
        };
        i = 0;
#if BUG != 5
        look();
#endif
#if BUG == 4
        watch();
#endif
        asleep[me] = family == seen && deaths == known;
        !asleep[me];
        seen = 0
    od;
done:
    atomic {
        served[me] = true;
        seen = 0; known = 0; i = 0; mark[0] = 0; mark[THINGS - 1] = 0
    }
}

init
{
    atomic {
        run teller();
        run waiter(0, 0);
        run waiter(1, THINGS - 1);
        run producer(0);
        run producer(THINGS - 1)
#if PRODUCERS > 2
        ;
        run producer(0)
#endif
    };
    timeout;
    d_step {
        assert(served[0] || left() <= unrung);
        assert(served[1] || left() <= unrung)
    }
}
