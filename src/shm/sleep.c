/* SPDX-License-Identifier: MIT */
#include "shm/sleep.h"

bool mpr_test_deep_sleep;
unsigned mpr_test_watched_max = MPR_OS_WORDS_MAX - 2;

enum {
    SHALLOW_MS = 50,  /* a sleep that is not yet worth watching others */
    DYING_MS = 1,     /* until a dying process is gone */
    UNMARKED_MS = 80, /* where no death is written by the kernel */
    CROWD_MS = 1000,  /* where there are more than a sleeper watches */
    STRAYS_MS = 1000, /* where one may take a wake-up to its death */
    LOOK_MS = CROWD_MS / 2,
    WATCHED_IN_CROWD = 30,
    SPIN_US = 30,
    SHORT_SLEEP_US = 100,
    YIELD_MIN = 1, /* looks from one yield to the next */
    YIELD_MAX = 32,
    ALONE_NS = 1000, /* a yield takes longer if another runs meanwhile */
};

#define SHALLOW_NS (SHALLOW_MS * INT64_C(1000000))

/* How long this thread's last sleep lasted: a short one was worth a spin. */
static _Thread_local int64_t last_sleep_ns;

void mpr_sleep_begin(struct mpr_sleep *sleep, mproc_deadline until)
{
    *sleep = (struct mpr_sleep){
        .until = until,
        .expired = mpr_deadline_is_nowait(until),
        .deep = mpr_test_deep_sleep,
        .deaths = atomic_load(&mpr_family->deaths),
    };
}

/*
 * This thread's looks while it span since it last let another run, and after
 * how many it does so again.
 */
static _Thread_local struct {
    unsigned looks, most;
} spun = {0, YIELD_MIN};

/*
 * Where there are more who can run than CPUs, one that only looks keeps what it
 * looks for from being done: now and then it lets another run. Where none did,
 * as a yield that returns at once tells, that would only delay the next look.
 */
static void look_again(void)
{
    if (++spun.looks < spun.most) {
        for (int i = 0; i < 8; i++) {
            mpr_pause();
        }
        return;
    }
    int64_t began = mpr_os_now();
    mpr_os_yield();
    bool alone = mpr_os_now() - began < ALONE_NS;
    spun.looks = 0;
    spun.most = !alone                  ? YIELD_MIN
                : spun.most < YIELD_MAX ? 2 * spun.most
                                        : YIELD_MAX;
}

bool mpr_sleep_spin(struct mpr_sleep *sleep)
{
    if (sleep->expired || last_sleep_ns > SHORT_SLEEP_US * 1000) {
        return false;
    }
    int64_t now = mpr_os_now();
    if (sleep->spin_end_ns == 0) {
        sleep->spin_end_ns = mpr_family->cpus > 1 ? now + SPIN_US * 1000 : now;
    }
    look_again();
    return now < sleep->spin_end_ns && now < sleep->until.at_ns;
}

/* Wait on `words` for at most `ms` (0: until the deadline). */
static void wait_slice(struct mpr_sleep *sleep, const struct mpr_os_word *words,
                       unsigned count, int ms)
{
    mproc_deadline slice = sleep->until;
    if (ms > 0) {
        slice = mpr_deadline_earlier(slice,
                                     mpr_deadline_after(mpr_os_now(), ms, 1e6));
    }
    int err = count == 1 ? mpr_os_wait(words[0].word, words[0].seen, slice)
                         : mpr_os_wait_any(words, count, slice);
    if (err == MPROC_ENOTSUP) {
        mproc_deadline poll =
            mpr_deadline_after(mpr_os_now(), UNMARKED_MS, 1e6);
        slice = mpr_deadline_earlier(slice, poll);
        err = mpr_os_wait(words[0].word, words[0].seen, slice);
    }
    if (err == MPROC_ETIMEDOUT && slice.at_ns >= sleep->until.at_ns) {
        sleep->expired = true;
    }
}

/* ---- deep sleep ------------------------------------------------------- */

enum { BELL, NEWS, LIVES }; /* places among the words of a watch */

struct watch {
    struct mpr_os_word word[MPR_OS_WORDS_MAX + 1]; /* the last: is there one? */
    unsigned lives;
    bool all;    /* these are all lives there are */
    bool holder; /* its life is among them */
    bool dead;   /* somebody was met who is */
};

static bool in_crowd(unsigned living)
{
    return living > mpr_test_watched_max;
}

/* In a crowd it is enough that somebody has looked at all slots lately. */
static bool others_look(void)
{
    int64_t looked = atomic_load(&mpr_family->looked_ns);
    return in_crowd(atomic_load(&mpr_family->living)) &&
           mpr_os_now() - looked < LOOK_MS * INT64_C(1000000);
}

static void watch_all(struct watch *watch, const struct mpr_census *census,
                      uint32_t news)
{
    watch->word[NEWS] = (struct mpr_os_word){&mpr_family->news, news};
    watch->lives = mpr_slots_watch(watch->word + LIVES,
                                   mpr_test_watched_max + 1, &watch->dead);
    watch->all = !in_crowd(watch->lives) && watch->lives >= census->living;
    watch->holder = watch->all;
    if (in_crowd(watch->lives)) {
        watch->lives = mpr_test_watched_max;
    }
}

/* Only some: that costs less, and most deaths meet somebody who sleeps. */
static void watch_some(struct watch *watch, uint32_t deaths, mpr_id holder)
{
    struct mpr_os_word *lives = watch->word + LIVES;
    watch->word[NEWS] = (struct mpr_os_word){&mpr_family->deaths, deaths};
    watch->lives = holder ? mpr_slot_watch(holder, lives, &watch->dead) : 0;
    watch->holder = watch->lives == 1;
    watch->lives +=
        mpr_slots_watch(lives + watch->lives, WATCHED_IN_CROWD, &watch->dead);
}

/* 0: as long as nothing happens. */
static int slice_of(const struct watch *watch, const struct mpr_census *census,
                    mpr_id holder)
{
    if (census->dying) {
        return DYING_MS;
    }
    if (holder != 0 && !watch->holder) {
        return UNMARKED_MS;
    }
    if (in_crowd(census->living)) {
        return CROWD_MS;
    }
    if (!watch->all || census->unmarked || census->unborn) {
        return UNMARKED_MS;
    }
    return census->strays && !mpr_test_deep_sleep ? STRAYS_MS : 0;
}

/*
 * Where it is too early to reap, this sleeper stays to do it, since the kernel
 * woke nobody else; but not for long: all have to look then.
 */
static void reap_the_dying(struct mpr_thread *self, bool known)
{
    static _Atomic uint32_t never;
    if (!mpr_slots_reap(self).dying || known) {
        return;
    }
    mpr_os_wait(&never, 0, mpr_deadline_after(mpr_os_now(), DYING_MS, 1e6));
    if (mpr_slots_reap(self).dying) {
        mpr_deaths_tell();
    }
}

/*
 * Who is woken by a death, even together with what it waited for, must reap:
 * the kernel woke nobody else.
 */
static void sleep_deep(struct mpr_sleep *sleep, _Atomic uint32_t *word,
                       uint32_t seen, mpr_id holder)
{
    struct mpr_thread *self = mpr_self_.thread;
    struct watch watch = {.word = {[BELL] = {word, seen}}};
    struct mpr_census census = {.living = UINT_MAX};
    bool look = !others_look();
    uint32_t news = look ? mpr_bell_watch(&mpr_family->news) : 0;
    if (atomic_load(&mpr_family->deaths) != sleep->deaths) {
        return; /* told before `news` was watched, perhaps */
    }
    if (look) {
        census = mpr_slots_reap(self);
        if (census.reaped > 0) {
            return;
        }
    }
    if (in_crowd(census.living)) {
        watch_some(&watch, sleep->deaths, holder);
    } else {
        watch_all(&watch, &census, news);
    }
    if (watch.dead && !census.dying) {
        census = mpr_slots_reap(self);
        if (!census.dying) {
            return;
        }
    }
    int ms = slice_of(&watch, &census, holder);
    wait_slice(sleep, watch.word, LIVES + watch.lives, ms);
    if (ms == DYING_MS || mpr_slots_lost(watch.word + LIVES, watch.lives)) {
        reap_the_dying(self, ms == DYING_MS);
    }
}

void mpr_sleep_on_holder(struct mpr_sleep *sleep, _Atomic uint32_t *word,
                         uint32_t seen, mpr_id holder)
{
    /* Not only by a sleep that times out: there may be none, time and again. */
    int64_t began = mpr_os_now();
    if (began >= sleep->until.at_ns) {
        sleep->expired = true;
        sleep->late = true;
        return;
    }
    uint32_t deaths = atomic_load(&mpr_family->deaths);
    if (deaths != sleep->deaths) {
        sleep->deaths = deaths;
        return;
    }
    if (sleep->deep_at_ns == 0) {
        sleep->deep_at_ns = began + SHALLOW_NS;
    }
    struct mpr_thread *self = mpr_self_.thread;
    atomic_store(&self->asleep_since, sleep->deep_at_ns - SHALLOW_NS);
    atomic_store(&self->asleep_on, word);
    if (sleep->deep || began >= sleep->deep_at_ns) {
        sleep->deep = true;
        sleep_deep(sleep, word, seen, holder);
    } else {
        struct mpr_os_word only = {word, seen};
        wait_slice(sleep, &only, 1, SHALLOW_MS);
    }
    atomic_store(&self->asleep_on, NULL);
    atomic_store(&self->asleep_since, 0);
    last_sleep_ns = mpr_os_now() - began;
}

void mpr_sleep_on(struct mpr_sleep *sleep, _Atomic uint32_t *word,
                  uint32_t seen)
{
    mpr_sleep_on_holder(sleep, word, seen, 0);
}

/* What is added at the end clears WAITERS, and counts a ring. */
static void ring_waiters(_Atomic uint32_t *bell, int n)
{
    if (n < INT_MAX) {
        uint32_t rung = atomic_fetch_add(bell, MPR_BELL_RING) + MPR_BELL_RING;
        bool none_left = mpr_os_wake(bell, n) < n && (rung & MPR_BELL_WAITERS);
        if (!none_left || atomic_load(bell) != rung) {
            return;
        }
    }
    mpr_os_add_and_wake_all(bell, MPR_BELL_RING - MPR_BELL_WAITERS);
}

static void ring_many(_Atomic uint32_t *bell)
{
    uint32_t rung = atomic_fetch_add(bell, MPR_BELL_RING) + MPR_BELL_RING;
    mpr_bell_ring(&mpr_family->many, INT_MAX);
    atomic_compare_exchange_strong(bell, &rung,
                                   rung & ~(uint32_t)MPR_BELL_MANY);
}

void mpr_bell_ring_slow_(_Atomic uint32_t *bell, int n)
{
    uint32_t word = atomic_load(bell);
    if (word & MPR_BELL_WAITERS) {
        ring_waiters(bell, n);
    }
    if (word & MPR_BELL_MANY) {
        ring_many(bell);
    }
}

static int attempt_and_sleep(const struct mpr_waiting *w,
                             struct mpr_sleep *sleep)
{
    bool spins = w->spins == NULL || w->spins(w->user), told = false;
    for (;;) {
        bool spinning = spins && mpr_sleep_spin(sleep);
        if (!spinning && !told && w->sleeps != NULL) {
            w->sleeps(w->user);
            told = true;
        }
        uint32_t seen = spinning ? 0 : mpr_bell_watch(w->bell);
        int err = w->attempt(w->user);
        if (err != w->busy || sleep->expired) {
            return err;
        }
        if (!spinning) {
            mpr_sleep_on(sleep, w->bell, seen);
        }
    }
}

int mpr_sleep_waiting(const struct mpr_waiting *w)
{
    struct mpr_sleep sleep;
    int err = w->attempt(w->user);
    if (mpr_likely(err != w->busy) || mpr_deadline_is_nowait(w->until)) {
        return err;
    }
    mpr_sleep_begin(&sleep, w->until);
    err = attempt_and_sleep(w, &sleep);
    if (err < 0 && (err != w->busy || sleep.late)) {
        mpr_bell_ring(w->bell, 1);
    }
    return err;
}

int mpr_sleep_until(_Atomic uint32_t *bell, mproc_deadline until, int busy,
                    mpr_attempt_fn *attempt, void *user)
{
    const struct mpr_waiting w = {bell, until, busy, attempt, user, NULL, NULL};
    return mpr_sleep_waiting(&w);
}
