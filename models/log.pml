/* SPDX-License-Identifier: MIT */
/*
 * The log that queues are made of (src/chan/log.c), and what becomes of the
 * blocks that are in somebody's hand when he is killed: putters bring messages
 * that lie in heap blocks, takers take them, reapers settle what the dead had
 * in hand. All but one reaper may be killed before any store, also while they
 * repair what another left. What must hold: no block is freed twice or while
 * the log names it, messages are taken in order and once, and in the end every
 * block is free but those in the log.
 *
 * Guards are robust mutexes: who locks one whose holder has died repairs first.
 * Allocation and freeing are one step each: they have a protocol of their own.
 *
 * With -DBUG=n it is built wrongly, and must fail:
 *   1  a putter's hand lets go of the block before the message is published
 *   2  a taker's hand takes hold of the block after the message is taken
 *   3  a repair of the tail does not know which hands have been settled
 *   4  a reaper frees what is in hand without looking at the guard first
 *   5  who finds a guard's holder dead does not repair
 *   6  the block of a message is freed before it is taken out of the log
 */
#ifndef BUG
#define BUG 0
#endif
#ifndef KILLS
#define KILLS 2
#endif
#define PUTTERS 2
#define TAKERS 1
#define REAPERS 2
#define PEOPLE (PUTTERS + TAKERS + REAPERS)
#define MESSAGES 3          /* puts of all putters at most, each in a record */
#define BLOCKS 2
#define NOBODY 255
#define NONE 255
#define TAIL 0
#define HEAD 1

mtype = { LIVE, DIED, GONE };

byte kills = KILLS;
mtype life[PEOPLE] = LIVE;
byte hand[PEOPLE] = NONE;   /* a block */
byte noted[PEOPLE] = NONE;  /* the guard it is about to lock, or holds */
bool used[BLOCKS];          /* allocated */
byte record[MESSAGES];      /* which block */
byte tail, head;            /* sequence numbers: the truth */
byte settled;
byte puts;
byte last = NONE;           /* the message taken last */
byte owner[2] = NOBODY;     /* of the guards */
byte hands[2] = NOBODY;     /* whose hands the holder settles */
byte reaping = NOBODY;      /* the slots' guard */

inline killed(who)
{
    kills--;
    life[who] = DIED;
    goto end
}

#define STEP(me)                                                              \
    if                                                                        \
    :: atomic { me > 0 && kills > 0 -> killed(me) }                           \
    :: skip                                                                   \
    fi

/* free of a block in a hand: the hand lets go in the same step */
inline free_hand(whose)
{
    d_step {
        if
        :: hand[whose] != NONE ->
            assert(used[hand[whose]]);
            used[hand[whose]] = false;
            hand[whose] = NONE
        :: else
        fi
    }
}

inline repair(me, which)
{
    if
    :: which == TAIL && (settled != tail || BUG == 3) ->
        if
        :: hands[TAIL] != NOBODY && tail > 0 &&
            hand[hands[TAIL]] != NONE &&
            hand[hands[TAIL]] == record[tail - 1] ->
            STEP(me);
            hand[hands[TAIL]] = NONE
        :: else
        fi;
        STEP(me);
        settled = tail
    :: which == HEAD && head < tail && hands[HEAD] != NOBODY &&
        hand[hands[HEAD]] == record[head] ->
        STEP(me);
        hand[hands[HEAD]] = NONE
    :: else
    fi;
    STEP(me);
    hands[which] = NOBODY
}

inline lock(who, which, whose)
{
    STEP(who);
    noted[who] = which;
    STEP(who);
    if
    :: atomic { owner[which] == NOBODY -> owner[which] = who }
    :: atomic {
            owner[which] != NOBODY && life[owner[which]] != LIVE ->
            owner[which] = who
        };
#if BUG != 5
        repair(who, which);
#endif
        skip
    fi;
    STEP(who);
    hands[which] = whose
}

inline unlock(me, which)
{
    STEP(me);
    hands[which] = NOBODY;
    STEP(me);
    owner[which] = NOBODY;
    STEP(me);
    noted[me] = NONE
}

proctype putter(byte me)
{
    do
    :: atomic { puts < MESSAGES -> puts++ };
        STEP(me);
        if
        :: d_step { !used[0] -> used[0] = true; hand[me] = 0 }
        :: d_step { !used[1] -> used[1] = true; hand[me] = 1 }
        fi;
        lock(me, TAIL, me);
        STEP(me);
        record[tail] = hand[me];
#if BUG == 1
        STEP(me);
        hand[me] = NONE;
#endif
        STEP(me);
        tail++; /* publishes */
        STEP(me);
        hand[me] = NONE;
        STEP(me);
        settled = tail;
        unlock(me, TAIL)
    :: else -> break
    od;
    life[me] = GONE;
end:
    skip
}

proctype taker(byte me)
{
    byte taken;
    do
    :: head < tail ->
        lock(me, HEAD, me);
        if
        :: head < tail ->
#if BUG == 2
            atomic { taken = record[head]; head++ };
            STEP(me);
            hand[me] = taken;
#else
            STEP(me);
            hand[me] = record[head];
#if BUG == 6
            STEP(me);
            free_hand(me);
#endif
            STEP(me);
            d_step {
                assert(last == NONE || head == last + 1);
                last = head;
                head++
            };
#endif
            skip
        :: else
        fi;
        unlock(me, HEAD);
        STEP(me);
        free_hand(me)
    :: timeout -> break
    od;
    life[me] = GONE;
end:
    skip
}

proctype reaper(byte me)
{
    byte dead;
    do
    :: atomic {
            (life[1] == DIED || life[2] == DIED || life[3] == DIED ||
             life[4] == DIED) &&
            (reaping == NOBODY || life[reaping] != LIVE) ->
            reaping = me;
            dead = 1;
            do
            :: life[dead] == DIED -> break
            :: else -> dead++
            od
        };
#if BUG != 4
        if
        :: noted[dead] != NONE -> lock(me, noted[dead], NOBODY);
            unlock(me, noted[dead])
        :: else
        fi;
#endif
        STEP(me);
        free_hand(dead);
        STEP(me);
        d_step { noted[dead] = NONE; life[dead] = GONE };
        STEP(me);
        atomic { reaping = NOBODY; dead = 0 }
    :: timeout -> break
    od;
end:
    skip
}

init
{
    byte i, in_use;
    atomic {
        run reaper(0);
        run reaper(1);
        run taker(2);
        run putter(3);
        run putter(4)
    };
    _nr_pr == 1;
    d_step {
        for (i : 0 .. BLOCKS - 1) { in_use = in_use + used[i] };
        assert(in_use == tail - head);
        for (i : 0 .. PEOPLE - 1) { assert(hand[i] == NONE) }
        assert(settled == tail || owner[TAIL] != NOBODY);
        i = 0;
        for (i : head .. MESSAGES - 1) {
            assert(i >= tail || used[record[i]])
        }
    }
}
