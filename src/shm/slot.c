/* SPDX-License-Identifier: MIT */
#include "shm/slot.h"

#include "base/deadline.h"
#include "shm/heap.h"
#include "shm/object.h"
#include "shm/private.h"

_Thread_local struct mpr_self mpr_self_
    __attribute__((tls_model("initial-exec")));

int64_t mpr_test_patience_ns = 1000000000;

static pthread_key_t thread_key;
static bool slot_per_thread;

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

void mpr_test_slot_per_thread(bool on)
{
    slot_per_thread = on;
}

/* ---- the state word --------------------------------------------------- */

static uint64_t state_word(uint32_t generation, enum mpr_slot_state state)
{
    return (uint64_t)generation << 32 | state;
}

static enum mpr_slot_state state_of(uint64_t word)
{
    return (enum mpr_slot_state)(uint32_t)word;
}

static mpr_id id_of(const struct mpr_slot *slot, uint64_t word)
{
    uint64_t number = (uint64_t)(slot - mpr_family->slots) + 1;
    return (word >> 32) << 32 | number << 1;
}

/* ---- claiming --------------------------------------------------------- */

/* What a claimer tells of its process; before LIVE. */
static void describe(struct mpr_slot *slot)
{
    slot->namespace = mpr_os_pid_namespace();
    slot->program = mpr_os_program();
    slot->since_boot_ns = mpr_os_boot_now();
    slot->pid = mpr_os_pid();
    slot->thread_only = slot_per_thread;
    atomic_store_explicit(&slot->left, MPR_STAYS, memory_order_relaxed);
    atomic_store_explicit(&slot->held, 0, memory_order_relaxed);
}

/* What died in it was the last one's life, or a thread's: no harm is done. */
static bool lock_life(struct mpr_slot *slot)
{
    enum mpr_os_lock got = mpr_os_mutex_trylock(&slot->life);
    if (got == MPR_OS_OWNER_DIED) {
        mpr_os_mutex_repaired(&slot->life);
    }
    return got != MPR_OS_BUSY;
}

/*
 * Locks the life of a free slot: it stays free until the caller makes it his.
 * `*word` is its state then.
 */
static bool lock_free(struct mpr_slot *slot, uint64_t *word)
{
    *word = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (state_of(*word) != MPR_SLOT_FREE || !lock_life(slot)) {
        return false;
    }
    /* Another may have claimed it since, and died: what it told stays. */
    if (atomic_load(&slot->state) == *word) {
        return true;
    }
    mpr_os_mutex_unlock(&slot->life);
    return false;
}

static bool claim(struct mpr_slot *slot)
{
    uint64_t word;
    if (!lock_free(slot, &word)) {
        return false;
    }
    describe(slot);
    atomic_store(&slot->state,
                 state_word((uint32_t)(word >> 32) + 1, MPR_SLOT_LIVE));
    return true;
}

/*
 * A life mutex must be initialised before anyone tries it, so a slot that was
 * never used comes into reach only under the guard.
 */
static bool more_slots(void)
{
    static struct mpr_thread nobody; /* the slots' guard notes nothing */
    struct mpr_family *family = mpr_family;
    mpr_guard_lock(&family->slots_guard, &nobody, NULL);
    uint32_t top = atomic_load(&family->slots_top);
    bool more = top < family->slots_max;
    if (more) {
        mpr_os_mutex_init(&family->slots[top].life);
        atomic_store(&family->slots_top, top + 1);
    }
    mpr_guard_unlock(&family->slots_guard, &nobody);
    return more;
}

static struct mpr_slot *find_slot(bool (*take)(struct mpr_slot *slot))
{
    uint32_t i = 0;
    while (i < atomic_load(&mpr_family->slots_top) || more_slots()) {
        if (take(&mpr_family->slots[i])) {
            return &mpr_family->slots[i];
        }
        i++;
    }
    return NULL;
}

/*
 * The first record is nobody's: for who reaps before it has one, and for the
 * hooks of every reaper, whose own hands may be full.
 */
static struct mpr_thread *spare_record(void)
{
    return &mpr_family->threads[0];
}

static struct mpr_thread *claim_thread(mpr_id id)
{
    struct mpr_family *family = mpr_family;
    _Atomic uint64_t *serials = (_Atomic uint64_t *)&spare_record()->serial;
    for (uint32_t i = 1; i < family->threads_max; i++) {
        struct mpr_thread *thread = &family->threads[i];
        mpr_id nobody = 0;
        if (atomic_load_explicit(&thread->owner, memory_order_relaxed) != 0) {
            continue;
        }
        /* first in reach of reapers, then owned */
        uint32_t top = atomic_load(&family->threads_top);
        while (top <= i && !atomic_compare_exchange_weak(&family->threads_top,
                                                         &top, i + 1)) {
        }
        if (!atomic_compare_exchange_strong(&thread->owner, &nobody, id)) {
            continue;
        }
        thread->tid = mpr_os_tid();
        thread->serial = atomic_fetch_add(serials, 1) + 1;
        return thread;
    }
    return NULL;
}

/*
 * The thread that locked the life mutex has ended before its process: lock it
 * in its place, once the kernel has written that death.
 */
static bool take_life_over(struct mpr_slot *slot)
{
    if (!lock_life(slot)) {
        return false;
    }
    atomic_store(&slot->left, MPR_STAYS);
    return true;
}

/* The process whose life mutex this thread locked. */
static _Thread_local mpr_id life_of_mine;

/* This process lives since its fork, and has not called the library. */
static bool unannounced;

static int claim_slot(struct mpr_process_page *page, mpr_id *id)
{
    if (page->slot != NULL && !slot_per_thread) {
        if (unannounced) {
            unannounced = false;
            mpr_deaths_tell(); /* who sleeps may not watch this life yet */
        }
        if (atomic_load(&page->slot->left) && take_life_over(page->slot)) {
            life_of_mine = page->id;
        }
        *id = page->id;
        return 0;
    }
    struct mpr_slot *slot = find_slot(claim);
    if (slot == NULL) {
        return MPROC_EAGAIN;
    }
    *id = id_of(slot, atomic_load(&slot->state));
    life_of_mine = *id;
    mpr_deaths_tell(); /* who sleeps does not watch this life yet */
    if (page->slot == NULL) {
        page->id = *id;
        page->slot = slot;
    }
    return 0;
}

static int claim_locked(void)
{
    struct mpr_process_page *page = mpr_process_page_;
    struct mpr_self *self = &mpr_self_;
    bool mine = self->thread != NULL && page->slot != NULL &&
                (self->id == page->id || slot_per_thread) &&
                atomic_load(&self->thread->owner) == self->id;
    mpr_id id = self->id;
    if (!mine || atomic_load(&page->slot->left)) {
        int err = claim_slot(page, &id);
        if (err < 0) {
            return err;
        }
    }
    if (!mine) {
        struct mpr_thread *thread = claim_thread(id);
        if (thread == NULL) {
            return MPROC_EAGAIN;
        }
        self->thread = thread;
        self->id = id;
    }
    if (pthread_setspecific(thread_key, self) != 0) {
        return MPROC_ENOMEM;
    }
    /* While the life is being taken over every call comes by here. */
    page->token = atomic_load(&page->slot->left) ? 0 : page->id;
    self->token = page->token;
    return 0;
}

int mpr_self_claim_(struct mpr_thread **out)
{
    int err = mpr_family_use();
    for (int tries = 0; err == 0; tries++) {
        mpr_private_lock();
        err = claim_locked();
        mpr_private_unlock();
        if (err != MPROC_EAGAIN || tries == 1) {
            break;
        }
        /* full: perhaps of dead ones */
        if (mpr_slots_reap(spare_record()).reaped == 0) {
            break;
        }
        err = 0;
    }
    if (err == 0) {
        *out = mpr_self_.thread;
    }
    return err;
}

/* Nothing in hand, no guard, in no operation. */
static bool is_idle(struct mpr_thread *thread)
{
    uintptr_t any = atomic_load(&thread->op) | atomic_load(&thread->guard);
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        any |= (uintptr_t)mpr_hand(thread, (enum mpr_hand)hand);
    }
    return any == 0;
}

/*
 * What a thread held for its process stays counted. While it is counted twice
 * the thread is in an operation: the count means nothing then.
 */
static void give_record_back(struct mpr_thread *thread, struct mpr_slot *slot)
{
    uintptr_t outer = mpr_op_begin(thread, slot);
    atomic_fetch_add(&slot->held, atomic_load(&thread->held));
    atomic_store(&thread->held, 0);
    mpr_op_end(thread, outer);
    atomic_store_explicit(&thread->owner, 0, memory_order_release);
}

/*
 * Who locked the life mutex says that its end is not the process's, before the
 * kernel writes that death.
 */
static void leave_life(struct mpr_process_page *page)
{
    mpr_id life = life_of_mine;
    life_of_mine = 0;
    if (life != 0 && life == page->id && !page->slot->thread_only) {
        mpr_private_lock();
        atomic_store(&page->slot->left, MPR_LEFT);
        page->token = 0;
        mpr_private_unlock();
    }
}

/*
 * A thread ends. One that ends in the midst of a call, which is possible in the
 * user's code that a call runs, leaves its record to the reaper.
 */
static void thread_ends(void *value)
{
    struct mpr_self *self = value;
    struct mpr_thread *thread = self->thread;
    struct mpr_process_page *page = mpr_process_page_;
    leave_life(page);
    if (thread == NULL || page->slot == NULL ||
        atomic_load(&thread->owner) != self->id ||
        (self->id != page->id && !slot_per_thread)) {
        return;
    }
    struct mpr_slot *slot = mpr_id_slot(self->id);
    *self = (struct mpr_self){0};
    if (!slot->thread_only && is_idle(thread)) {
        give_record_back(thread, slot);
    }
}

int mpr_slots_hook_threads(void)
{
    return pthread_key_create(&thread_key, thread_ends) == 0 ? 0 : MPROC_ENOMEM;
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
    if (slot->namespace != mpr_os_pid_namespace()) {
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
    switch (state_of(before)) {
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

/* ---- reaping ---------------------------------------------------------- */

void mpr_deaths_tell(void)
{
    atomic_fetch_add(&mpr_family->deaths, 1);
    mpr_os_wake(&mpr_family->deaths, INT32_MAX);
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
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        mpr_hand_set(dead, (enum mpr_hand)hand, NULL);
    }
    atomic_store(&dead->owner, 0);
}

/* From the DEAD on. Every step may be repeated; what frees it comes last. */
static void reap_locked(struct mpr_thread *self, struct mpr_slot *slot,
                        uint64_t word)
{
    mpr_id dead = id_of(slot, word);
    uint32_t top = atomic_load(&mpr_family->threads_top);
    struct mpr_thread *threads = mpr_family->threads;
    uint32_t held = (uint32_t)atomic_load(&slot->held);
    bool owes = false;
    for (uint32_t i = 1; i < top; i++) {
        if (atomic_load(&threads[i].owner) == dead) {
            held += (uint32_t)atomic_load(&threads[i].held);
            owes |= atomic_load(&threads[i].op) != 0;
            reap_thread(self, &threads[i]);
        }
    }
    for (int i = 0; i < REAP_HOOKS_MAX && reap_hooks[i] != NULL; i++) {
        reap_hooks[i](spare_record(), dead);
    }
    if (owes || held != 0) {
        mpr_deaths_tell();
    }
    for (uint32_t i = 1; i < top; i++) {
        if (atomic_load(&threads[i].owner) == dead) {
            forget_thread(&threads[i]);
        }
    }
    atomic_store(&slot->state,
                 state_word((uint32_t)(word >> 32), MPR_SLOT_FREE));
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
    if (!is_idle(spare_record())) {
        reap_thread(self, spare_record());
        forget_thread(spare_record());
    }
    return true;
}

enum reaped { REAPED, REAPED_BY_ANOTHER, BUSY };

/* False: it is another's by now, or a child to be that has come. */
static bool make_dead(struct mpr_slot *slot, uint64_t word)
{
    uint64_t dead = state_word((uint32_t)(word >> 32), MPR_SLOT_DEAD);
    return atomic_load(&slot->state) == dead ||
           atomic_compare_exchange_strong(&slot->state, &word, dead);
}

/* `word`: as it was found to be a dead one's. */

static enum reaped reap(struct mpr_thread *self, struct mpr_slot *slot,
                        uint64_t word)
{
    struct mpr_guard *guard = &mpr_family->slots_guard;
    if (mpr_guard_lock_until(guard, self, NULL, MPROC_NOWAIT) < 0) {
        return BUSY;
    }
    enum reaped done = REAPED_BY_ANOTHER;
    if (make_dead(slot, word)) {
        done = take_reaping_over(self) ? REAPED : BUSY;
    }
    if (done == REAPED) {
        reap_locked(self, slot, word);
        atomic_store(&mpr_family->reaper, NULL);
    }
    mpr_guard_unlock(guard, self);
    return done;
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
    if (state_of(word) == MPR_SLOT_EMBRYO &&
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
    switch (state_of(word)) {
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
    enum reaped done = REAPED;
    for (uint32_t i = 0; i < top && done != BUSY; i++) {
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
            done = reap(self, slot, word);
            census.reaped += done == REAPED;
            census.dying |= done == BUSY;
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
            break;
        }
    }
    return census;
}

static bool any_free(void)
{
    uint32_t top = atomic_load(&mpr_family->slots_top);
    bool any = top < mpr_family->slots_max;
    for (uint32_t i = 0; i < top && !any; i++) {
        any =
            state_of(atomic_load(&mpr_family->slots[i].state)) == MPR_SLOT_FREE;
    }
    return any;
}

bool mpr_slots_room(struct mpr_thread *self)
{
    return any_free() || (mpr_slots_reap(self).reaped > 0 && any_free());
}

unsigned mpr_slots_watch(struct mpr_os_word *words, unsigned room, bool *dead)
{
    uint32_t top = atomic_load(&mpr_family->slots_top);
    uint32_t own = (uint32_t)(mpr_id_slot(mpr_self_id()) - mpr_family->slots);
    unsigned count = 0;
    for (uint32_t i = 1; i < top && count < room; i++) {
        struct mpr_slot *slot = &mpr_family->slots[(own + i) % top];
        uint64_t state = atomic_load(&slot->state);
        _Atomic uint32_t *life = mpr_os_mutex_word(&slot->life);
        if (state_of(state) != MPR_SLOT_LIVE || life == NULL) {
            continue;
        }
        uint32_t value = atomic_load(life);
        while (is_owned(value) && !(value & MPR_OS_WORD_WAITERS) &&
               !atomic_compare_exchange_weak(life, &value,
                                             value | MPR_OS_WORD_WAITERS)) {
        }
        if (!is_owned(value)) {
            *dead |= !atomic_load(&slot->left);
            continue;
        }
        words[count].word = life;
        words[count++].seen = value | MPR_OS_WORD_WAITERS;
    }
    return count;
}

/* ---- forks ------------------------------------------------------------ */

static mpr_inherit_fn *inherit;
static int32_t heritage; /* of this process; under its private lock */

/* Of a thread that forks: the child's id, and what it inherits. */
static _Thread_local struct {
    bool without;
    mpr_id id;
    int32_t count;
} embryo;

void mpr_slots_on_fork(mpr_inherit_fn *fn)
{
    MPR_CHECK(inherit == NULL);
    inherit = fn;
}

void mpr_heritage_begin(void)
{
    mpr_private_lock();
}

void mpr_heritage_end(int32_t n)
{
    heritage += n;
    mpr_private_unlock();
}

void mpr_fork_without_heritage(bool on)
{
    embryo.without = on;
}

/* By find_slot, so that the slot tells all before it is an embryo's. */
static bool conceive(struct mpr_slot *slot)
{
    uint64_t word;
    if (!lock_free(slot, &word)) {
        return false;
    }
    slot->pid = 0;
    slot->thread_only = false;
    atomic_store(&slot->since_boot_ns, 0);
    atomic_store(&slot->left, 0);
    atomic_store(&slot->held, 1);
    atomic_store(&slot->parent, mpr_self_id());
    atomic_store(&slot->state,
                 state_word((uint32_t)(word >> 32) + 1, MPR_SLOT_EMBRYO));
    mpr_os_mutex_unlock(&slot->life);
    return true;
}

/* Of the state word of its slot: is that child still to come? */
static bool is_unborn(uint64_t word, mpr_id id)
{
    return word >> 32 == id >> 32 && (state_of(word) == MPR_SLOT_EMBRYO ||
                                      state_of(word) == MPR_SLOT_BORN);
}

bool mpr_id_is_unborn(mpr_id id)
{
    return is_unborn(atomic_load(&mpr_id_slot(id)->state), id);
}

void mpr_slots_before_fork(void)
{
    mpr_id before = embryo.id;
    embryo.id = 0;
    if (heritage == 0 || embryo.without || slot_per_thread ||
        claim_locked() < 0) {
        return;
    }
    struct mpr_thread *self = mpr_self_.thread;
    if (before != 0 && mpr_id_is_unborn(before)) {
        mpr_slots_reap(self); /* look after it: perhaps that fork failed */
    }
    struct mpr_slot *slot = find_slot(conceive);
    if (slot == NULL && mpr_slots_reap(self).reaped > 0) {
        slot = find_slot(conceive);
    }
    if (slot != NULL) {
        embryo.id = id_of(slot, atomic_load(&slot->state));
        embryo.count = inherit(self, mpr_self_id(), embryo.id);
    }
}

void mpr_slots_after_fork(void)
{
    if (embryo.id != 0) {
        uint32_t generation = (uint32_t)(embryo.id >> 32);
        uint64_t word = state_word(generation, MPR_SLOT_EMBRYO);
        atomic_compare_exchange_strong(&mpr_id_slot(embryo.id)->state, &word,
                                       state_word(generation, MPR_SLOT_BORN));
    }
}

void mpr_fork_failed(void)
{
    mpr_id id = embryo.id;
    embryo.id = 0;
    if (id != 0) {
        struct mpr_slot *slot = mpr_id_slot(id);
        uint64_t word = atomic_load(&slot->state);
        if (is_unborn(word, id)) {
            reap(mpr_self_.thread, slot, word);
        }
    }
}

/* The life of the embryo, unless that was given up before the child came. */
static bool lock_embryo(struct mpr_slot *slot, mpr_id id)
{
    const mproc_deadline patience = mpr_deadline_after(mpr_os_now(), 1, 1e9);
    if (!mpr_id_is_unborn(id)) {
        return false;
    }
    switch (mpr_os_mutex_lock(&slot->life, patience)) {
    case MPR_OS_BUSY: /* by who wanted to claim it, and was stopped */
        return false;
    case MPR_OS_OWNER_DIED:
        mpr_os_mutex_repaired(&slot->life);
        break;
    case MPR_OS_LOCKED:
        break;
    }
    return true;
}

static bool be_born(mpr_id id, int32_t count)
{
    struct mpr_slot *slot = mpr_id_slot(id);
    uint64_t live = state_word((uint32_t)(id >> 32), MPR_SLOT_LIVE);
    if (!lock_embryo(slot, id)) {
        return false;
    }
    uint64_t word = atomic_load(&slot->state);
    while (is_unborn(word, id)) {
        describe(slot);
        atomic_store(&slot->held, count);
        if (atomic_compare_exchange_strong(&slot->state, &word, live)) {
            return true;
        }
    }
    mpr_os_mutex_unlock(&slot->life);
    return false;
}

void mpr_slots_in_child(void)
{
    mpr_id id = embryo.id;
    embryo.id = 0;
    embryo.without = false;
    life_of_mine = 0;
    heritage = 0;
    unannounced = false;
    if (id == 0 || !be_born(id, embryo.count)) {
        return;
    }
    struct mpr_slot *slot = mpr_id_slot(id);
    struct mpr_process_page *page = mpr_process_page_;
    page->id = id;
    page->slot = slot;
    life_of_mine = id;
    heritage = embryo.count;
    unannounced = true;
    mpr_os_wake(mpr_os_low_half(&slot->state), INT32_MAX);
    mpr_self_ = (struct mpr_self){0};
    pthread_setspecific(thread_key, &mpr_self_);
}

void mpr_id_await_birth(struct mpr_thread *self, mpr_id id)
{
    struct mpr_slot *slot = mpr_id_slot(id);
    uint64_t word = atomic_load(&slot->state);
    if (is_unborn(word, id)) {
        mproc_deadline slice = mpr_deadline_after(mpr_os_now(), 80, 1e6);
        mpr_os_wait(mpr_os_low_half(&slot->state), (uint32_t)word, slice);
        mpr_slots_reap(self);
    }
}
