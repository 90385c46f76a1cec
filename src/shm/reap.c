/* SPDX-License-Identifier: MIT */
/* Who is dead, and what becomes of what the dead had. */
#include "base/deadline.h"
#include "shm/object.h"
#include "shm/private.h"
#include "shm/sleep.h"

int64_t mpr_test_patience_ns = 1000000000;

enum { REAP_HOOKS_MAX = 8 };
static mpr_reap_fn *reap_hooks[REAP_HOOKS_MAX];

void mpr_slots_on_reap(mpr_reap_fn *fn)
{
    for (int i = 0; i < REAP_HOOKS_MAX; i++) {
        if (reap_hooks[i] == NULL) {
            reap_hooks[i] = fn;
            return;
        }
    }
    MPR_CHECK(!"too many reap hooks");
}

/* ---- who is dead ------------------------------------------------------ */

enum condition { NOBODY, UNBORN, ALIVE, DYING, UNMARKED, DEAD };

/*
 * By a living thread. (A claimer that was late unlocks the mutex of a dead one:
 * no owner, and no death written.)
 */
static bool is_owned(uint32_t life)
{
    return (life & ~(MPR_OS_WORD_WAITERS | MPR_OS_WORD_DIED)) != 0 &&
           !(life & MPR_OS_WORD_DIED);
}

/* Of the process whose id the slot's state named when `word` was read. */
static enum condition condition_of(struct mpr_slot *slot)
{
    _Atomic uint32_t *life = mpr_os_mutex_word(&slot->life);
    if (life != NULL) {
        uint32_t value = atomic_load_explicit(life, memory_order_acquire);
        if (mpr_likely(is_owned(value))) {
            return ALIVE;
        }
    }
    if (slot->thread_only) {
        return DEAD;
    }
    bool left = atomic_load(&slot->left);
    if (slot->namespace != mpr_own_namespace()) {
        return left ? UNMARKED : DEAD; /* its pid says nothing here */
    }
    enum mpr_os_trace trace =
        mpr_os_program_trace(slot->pid, slot->since_boot_ns, slot->program);
    if (trace == MPR_OS_GONE) {
        return DEAD;
    }
    if (left || life == NULL) {
        return UNMARKED;
    }
    /* The kernel has written a death, and nothing speaks against it. */
    return trace == MPR_OS_UNTOLD ? DEAD : DYING;
}

static enum condition condition_of_id(mpr_id id)
{
    struct mpr_slot *slot = mpr_id_slot(id);
    uint64_t before = atomic_load(&slot->state);
    if (before >> 32 != id >> 32) {
        return DEAD;
    }
    switch (mpr_slot_state_of(before)) {
    case MPR_SLOT_EMBRYO:
    case MPR_SLOT_BORN:
        return UNBORN;
    case MPR_SLOT_LIVE:
        break;
    default:
        return DEAD;
    }
    enum condition condition = condition_of(slot);
    return atomic_load(&slot->state) == before ? condition : DEAD;
}

bool mpr_id_is_dead(mpr_id id)
{
    return condition_of_id(id) == DEAD;
}

pid_t mpr_id_pid(mpr_id id)
{
    pid_t pid = mpr_id_slot(id)->pid;
    return mpr_id_is_dead(id) ? 0 : pid;
}

struct mpr_thread *mpr_id_thread_after(mpr_id id, const struct mpr_thread *last)
{
    struct mpr_thread *threads = mpr_family->threads;
    struct mpr_thread *own = mpr_own_record(id);
    uint32_t top = atomic_load(&mpr_family->threads_top);
    if (last == NULL && atomic_load(&own->owner) == id) {
        return own;
    }
    if (!atomic_load(&mpr_id_slot(id)->strays)) {
        return NULL;
    }
    uint32_t i =
        last == NULL || last == own ? 1 : (uint32_t)(last - threads) + 1;
    for (; i < top; i++) {
        if (&threads[i] != own && atomic_load(&threads[i].owner) == id) {
            return &threads[i];
        }
    }
    return NULL;
}

/* ---- reaping ---------------------------------------------------------- */

/* In this order: see the sleeper, who has to notice with either. */
void mpr_deaths_tell(void)
{
    atomic_fetch_add(&mpr_family->deaths, 1);
    mpr_os_wake(&mpr_family->deaths, INT32_MAX);
    mpr_bell_ring(&mpr_family->news, INT_MAX);
}

void mpr_births_tell(void)
{
    mpr_bell_ring(&mpr_family->news, INT_MAX);
}

/*
 * First its locks, so that its hands tell what it really had; then what was on
 * its way back, since the reaper needs those two hands when both are one.
 */
static void reap_thread(struct mpr_thread *self, struct mpr_thread *dead)
{
    struct mpr_guard *guard = (struct mpr_guard *)atomic_load(&dead->guard);
    if (guard != NULL && mpr_guard_needs_repair(guard, dead)) {
        mpr_guard_lock(guard, self, NULL);
        mpr_guard_unlock(guard, self);
    }
    mpr_heap_free_hand(self, dead, MPR_HAND_SPAN);
    mpr_heap_free_hand(self, dead, MPR_HAND_RETURN);
    mpr_object_settle_hands(self, dead);
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        if (hand != MPR_HAND_OBJECT_NEW && hand != MPR_HAND_OBJECT_END) {
            mpr_heap_free_hand(self, dead, (enum mpr_hand)hand);
        }
    }
}

static void forget_thread(struct mpr_thread *dead)
{
    atomic_store(&dead->op, 0);
    atomic_store(&dead->guard, 0);
    atomic_store(&dead->held, 0);
    atomic_store(&dead->asleep_since, 0);
    atomic_store(&dead->asleep_on, NULL);
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        mpr_hand_set(dead, (enum mpr_hand)hand, NULL);
    }
    atomic_store(&dead->owner, 0);
}

/* False also of one who waited: what it may have taken is passed on here. */
static bool owes_all(struct mpr_thread *dead)
{
    uintptr_t op = atomic_load(&dead->op);
    _Atomic uint32_t *word = atomic_load(&dead->asleep_on);
    if (!(op & MPR_OP_WAITS) || word == NULL) {
        return op != 0;
    }
    mpr_os_wake(word, 1);
    return false;
}

/* From the DEAD on. Every step may be repeated; what frees it comes last. */
static void reap_locked(struct mpr_thread *self, struct mpr_slot *slot,
                        uint64_t word)
{
    mpr_id dead = mpr_slot_id(slot, word);
    uint32_t held = (uint32_t)atomic_load(&slot->held);
    struct mpr_thread *thread = NULL;
    bool owes = false;
    while ((thread = mpr_id_thread_after(dead, thread)) != NULL) {
        held += (uint32_t)atomic_load(&thread->held);
        owes |= owes_all(thread);
        reap_thread(self, thread);
    }
    for (int i = 0; i < REAP_HOOKS_MAX && reap_hooks[i] != NULL; i++) {
        reap_hooks[i](mpr_spare_record(), dead);
    }
    if (owes || held != 0) {
        mpr_deaths_tell();
    }
    while ((thread = mpr_id_thread_after(dead, thread)) != NULL) {
        forget_thread(thread);
    }
    atomic_store(&slot->state,
                 mpr_slot_word((uint32_t)(word >> 32), MPR_SLOT_FREE));
    mpr_slot_is_free(slot);
}

/*
 * The last reaper may have been killed inside a guard while it settled the
 * hands of a dead one: these tell the truth once that guard is repaired. False:
 * somebody holds the guard, for long.
 */
static bool take_reaping_over(struct mpr_thread *self)
{
    struct mpr_thread *last = atomic_load(&mpr_family->reaper);
    struct mpr_guard *guard =
        last != NULL ? (struct mpr_guard *)atomic_load(&last->guard) : NULL;
    if (guard != NULL) {
        if (mpr_guard_lock_until(guard, self, NULL, MPROC_NOWAIT) < 0) {
            return false;
        }
        mpr_guard_unlock(guard, self);
    }
    atomic_store(&mpr_family->reaper, self);
    if (!mpr_thread_is_idle(mpr_spare_record())) {
        reap_thread(self, mpr_spare_record());
        forget_thread(mpr_spare_record());
    }
    return true;
}

/* False: it is another's by now, or a child to be that has come. */
static bool make_dead(struct mpr_slot *slot, uint64_t word)
{
    uint64_t dead = mpr_slot_word((uint32_t)(word >> 32), MPR_SLOT_DEAD);
    return atomic_load(&slot->state) == dead ||
           atomic_compare_exchange_strong(&slot->state, &word, dead);
}

enum mpr_reaped mpr_slot_reap(struct mpr_thread *self, struct mpr_slot *slot,
                              uint64_t word)
{
    struct mpr_guard *guard = &mpr_family->slots_guard;
    if (mpr_guard_lock_until(guard, self, NULL, MPROC_NOWAIT) < 0) {
        return MPR_REAP_BUSY;
    }
    enum mpr_reaped done = MPR_REAPED_BY_ANOTHER;
    if (make_dead(slot, word)) {
        done = take_reaping_over(self) ? MPR_REAPED : MPR_REAP_BUSY;
    }
    if (done == MPR_REAPED) {
        reap_locked(self, slot, word);
        atomic_store(&mpr_family->reaper, NULL);
    }
    mpr_guard_unlock(guard, self);
    return done;
}

void mpr_id_reap(struct mpr_thread *self, mpr_id ended)
{
    struct mpr_slot *slot = mpr_id_slot(ended);
    uint64_t word = atomic_load(&slot->state);
    const _Atomic uint32_t *life = mpr_os_mutex_word(&slot->life);
    bool lives = life != NULL && is_owned(atomic_load(life));
    if (!lives && mpr_slot_id(slot, word) == ended &&
        (mpr_slot_state_of(word) == MPR_SLOT_LIVE ||
         mpr_slot_state_of(word) == MPR_SLOT_DEAD)) {
        (void)mpr_slot_reap(self, slot, word);
    }
}

/*
 * The kernel woke one sleeper when the thread ended, and will wake none when
 * the process does: from now on all must look for themselves.
 */
static void tell_unmarked(struct mpr_slot *slot)
{
    uint32_t left = MPR_LEFT;
    if (atomic_load(&slot->left) == left) {
        mpr_deaths_tell();
        atomic_compare_exchange_strong(&slot->left, &left, MPR_LEFT_TOLD);
    }
}

/*
 * A child may be late: the machine is busy, or a debugger holds it. So nobody
 * counts the time in which nobody looked, nor that of the fork itself.
 */
static bool gone_missing(struct mpr_slot *slot, uint64_t word)
{
    if (mpr_slot_state_of(word) == MPR_SLOT_EMBRYO &&
        !mpr_id_is_dead(atomic_load(&slot->parent))) {
        return false;
    }
    int64_t now = mpr_os_now(), missed = 0;
    return !atomic_compare_exchange_strong(&slot->since_boot_ns, &missed,
                                           now) &&
           now - missed > mpr_test_patience_ns;
}

static enum condition condition_at(struct mpr_slot *slot, uint64_t word)
{
    switch (mpr_slot_state_of(word)) {
    case MPR_SLOT_EMBRYO:
    case MPR_SLOT_BORN:
        return gone_missing(slot, word) ? DEAD : UNBORN;
    case MPR_SLOT_LIVE:
        return condition_of(slot);
    case MPR_SLOT_DEAD:
        return DEAD;
    default:
        return NOBODY;
    }
}

struct mpr_census mpr_slots_reap(struct mpr_thread *self)
{
    struct mpr_census census = {0};
    uint32_t top = atomic_load(&mpr_family->slots_top);
    mpr_id own = atomic_load_explicit(&self->owner, memory_order_relaxed);
    enum mpr_reaped done = MPR_REAPED;
    atomic_store(&mpr_family->looked_ns, mpr_os_now());
    for (uint32_t i = 0; i < top && done != MPR_REAP_BUSY; i++) {
        struct mpr_slot *slot = &mpr_family->slots[i];
        if (own != 0 && slot == mpr_id_slot(own)) {
            continue; /* lives: it asks */
        }
        uint64_t word = atomic_load(&slot->state);
        switch (condition_at(slot, word)) {
        case NOBODY:
            break;
        case UNBORN:
            census.unborn = true;
            break;
        case DEAD:
            done = mpr_slot_reap(self, slot, word);
            census.reaped += done == MPR_REAPED;
            census.dying |= done == MPR_REAP_BUSY;
            break;
        case DYING:
            census.dying = true;
            break;
        case UNMARKED:
            census.unmarked = true;
            tell_unmarked(slot);
            break;
        case ALIVE:
            census.living++;
            census.strays |= atomic_load(&slot->strays) != 0;
            break;
        }
    }
    if (done != MPR_REAP_BUSY) {
        atomic_store(&mpr_family->living, census.living);
    }
    return census;
}

static bool has_room(uint32_t more)
{
    uint32_t top = atomic_load(&mpr_family->slots_top);
    uint32_t room = mpr_family->slots_max - top;
    for (uint32_t i = 0; i < top && room < more; i++) {
        room += mpr_slot_state_of(atomic_load(&mpr_family->slots[i].state)) ==
                MPR_SLOT_FREE;
    }
    return room >= more;
}

bool mpr_slots_room(struct mpr_thread *self, uint32_t more)
{
    return has_room(more) ||
           (mpr_slots_reap(self).reaped > 0 && has_room(more));
}

/* ---- watching --------------------------------------------------------- */

static unsigned watch(struct mpr_slot *slot, struct mpr_os_word *word,
                      bool *dead)
{
    uint64_t state = atomic_load(&slot->state);
    _Atomic uint32_t *life = mpr_os_mutex_word(&slot->life);
    if (mpr_slot_state_of(state) != MPR_SLOT_LIVE || life == NULL) {
        return 0;
    }
    uint32_t value = atomic_load(life);
    while (is_owned(value) && !(value & MPR_OS_WORD_WAITERS) &&
           !atomic_compare_exchange_weak(life, &value,
                                         value | MPR_OS_WORD_WAITERS)) {
    }
    if (!is_owned(value)) {
        *dead |= !atomic_load(&slot->left);
        return 0;
    }
    *word = (struct mpr_os_word){life, value | MPR_OS_WORD_WAITERS};
    return 1;
}

unsigned mpr_slot_watch(mpr_id id, struct mpr_os_word *word, bool *dead)
{
    return watch(mpr_id_slot(id), word, dead);
}

unsigned mpr_slots_watch(struct mpr_os_word *words, unsigned room, bool *dead)
{
    uint32_t top = atomic_load(&mpr_family->slots_top);
    uint32_t own = (uint32_t)(mpr_id_slot(mpr_self_id()) - mpr_family->slots);
    unsigned count = 0;
    for (uint32_t i = 1; i < top && count < room; i++) {
        struct mpr_slot *slot = &mpr_family->slots[(own + i) % top];
        count += watch(slot, &words[count], dead);
    }
    return count;
}

bool mpr_slots_lost(const struct mpr_os_word *words, unsigned count)
{
    bool lost = false;
    for (unsigned i = 0; i < count && !lost; i++) {
        lost = !is_owned(atomic_load(words[i].word));
    }
    return lost;
}
