/* SPDX-License-Identifier: MIT */
#include "shm/slot.h"

#include "base/deadline.h"
#include "shm/heap.h"
#include "shm/object.h"
#include "shm/private.h"

_Thread_local struct mpr_self mpr_self_
    __attribute__((tls_model("initial-exec")));

static pthread_key_t thread_key;
static bool slot_per_thread;

void mpr_test_slot_per_thread(bool on)
{
    slot_per_thread = on;
}

/* ---- claiming --------------------------------------------------------- */

uint64_t mpr_own_namespace(void)
{
    struct mpr_process_page *page = mpr_process_page_;
    uint64_t namespace = atomic_load(&page->namespace);
    if (namespace == 0) {
        namespace = mpr_os_pid_namespace();
        atomic_store(&page->namespace, namespace);
    }
    return namespace;
}

/* What a claimer tells of its process; before LIVE. */
static void describe(struct mpr_slot *slot)
{
    slot->namespace = mpr_own_namespace();
    slot->program = mpr_os_program();
    slot->since_boot_ns = mpr_os_boot_now();
    slot->pid = mpr_os_pid();
    slot->thread_only = slot_per_thread;
    atomic_store_explicit(&slot->strays, 0, memory_order_relaxed);
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
    if (mpr_slot_state_of(*word) != MPR_SLOT_FREE || !lock_life(slot)) {
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
                 mpr_slot_word((uint32_t)(word >> 32) + 1, MPR_SLOT_LIVE));
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
    uint64_t seen = atomic_load(&mpr_family->free_from);
    uint32_t from = (uint32_t)seen, i;
    for (i = from; i < atomic_load(&mpr_family->slots_top) || more_slots();
         i++) {
        if (take(&mpr_family->slots[i])) {
            atomic_compare_exchange_strong(&mpr_family->free_from, &seen,
                                           seen - from + i + 1);
            return &mpr_family->slots[i];
        }
    }
    for (i = 0; i < from; i++) {
        if (take(&mpr_family->slots[i])) {
            return &mpr_family->slots[i];
        }
    }
    return NULL;
}

void mpr_slot_is_free(const struct mpr_slot *slot)
{
    uint32_t number = (uint32_t)(slot - mpr_family->slots);
    uint64_t seen = atomic_load(&mpr_family->free_from), next;
    do {
        uint32_t from = (uint32_t)seen < number ? (uint32_t)seen : number;
        next = ((seen >> 32) + 1) << 32 | from;
    } while (
        !atomic_compare_exchange_weak(&mpr_family->free_from, &seen, next));
}

/* First in reach of reapers, then owned. */
static bool claim_record(struct mpr_thread *thread, mpr_id id)
{
    struct mpr_family *family = mpr_family;
    uint32_t i = (uint32_t)(thread - family->threads);
    uint32_t top = atomic_load(&family->threads_top);
    mpr_id nobody = 0;
    if (atomic_load_explicit(&thread->owner, memory_order_relaxed) != 0) {
        return false;
    }
    while (top <= i &&
           !atomic_compare_exchange_weak(&family->threads_top, &top, i + 1)) {
    }
    return atomic_compare_exchange_strong(&thread->owner, &nobody, id);
}

/* The slot's own, or the next behind it. */
static struct mpr_thread *find_record(mpr_id id)
{
    uint32_t own = (uint32_t)(mpr_own_record(id) - mpr_family->threads);
    uint32_t records = mpr_family->threads_max - 1;
    for (uint32_t i = 0; i < records; i++) {
        struct mpr_thread *thread =
            &mpr_family->threads[1 + (own - 1 + i) % records];
        if (i == 1) {
            atomic_store(&mpr_id_slot(id)->strays, 1);
        }
        if (claim_record(thread, id)) {
            return thread;
        }
    }
    return NULL;
}

static struct mpr_thread *claim_thread(mpr_id id)
{
    _Atomic uint64_t *serials = (_Atomic uint64_t *)&mpr_spare_record()->serial;
    struct mpr_thread *thread = find_record(id);
    if (thread != NULL) {
        thread->tid = mpr_os_tid();
        thread->serial = atomic_fetch_add(serials, 1) + 1;
    }
    return thread;
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

/* This process has a slot, and has not done anything yet. */
static atomic_bool unannounced;

/* Who sleeps may not watch this life yet. */
static void announce(void)
{
    if (atomic_exchange(&unannounced, false)) {
        mpr_births_tell();
    }
}

static void ignore_claim(mpr_id own)
{
    (void)own;
}

static mpr_claim_fn *on_claim = ignore_claim;

void mpr_slots_on_claim(mpr_claim_fn *fn)
{
    MPR_CHECK(on_claim == ignore_claim);
    on_claim = fn;
}

static void live_in(struct mpr_slot *slot)
{
    struct mpr_process_page *page = mpr_process_page_;
    page->id = mpr_slot_id(slot, atomic_load(&slot->state));
    life_of_mine = page->id;
    atomic_store(&unannounced, true);
    page->slot = slot;
}

static int claim_slot(struct mpr_process_page *page, mpr_id *id)
{
    if (page->slot != NULL && !slot_per_thread) {
        announce();
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
    *id = mpr_slot_id(slot, atomic_load(&slot->state));
    if (page->slot == NULL) {
        live_in(slot);
        on_claim(*id);
        announce();
    } else {
        life_of_mine = *id;
        mpr_births_tell();
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
        if (mpr_slots_reap(mpr_spare_record()).reaped == 0) {
            break;
        }
        err = 0;
    }
    if (err == 0) {
        *out = mpr_self_.thread;
    }
    return err;
}

struct mpr_slot *mpr_nameless_begin(void)
{
    struct mpr_slot *slot = atomic_load(&mpr_process_page_)->slot;
    if (slot != NULL) {
        announce();
        atomic_fetch_add(&slot->held, 1);
    }
    return slot;
}

void mpr_nameless_end(struct mpr_slot *slot)
{
    if (slot != NULL) {
        atomic_fetch_sub(&slot->held, 1);
    }
}

struct mpr_thread *mpr_self_claim_unless_handler_(void)
{
    struct mpr_thread *self = NULL;
    if (mpr_os_signals_blocked() || !mpr_private_try_lock()) {
        return NULL;
    }
    if (claim_locked() == 0) {
        self = mpr_self_.thread;
    }
    mpr_private_unlock();
    return self;
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
    mpr_private_lock(); /* the first thread's end has others claim anew */
    bool current =
        page->slot != NULL && (self->id == page->id || slot_per_thread);
    mpr_private_unlock();
    if (thread == NULL || !current || atomic_load(&thread->owner) != self->id) {
        return;
    }
    struct mpr_slot *slot = mpr_id_slot(self->id);
    *self = (struct mpr_self){0};
    if (!slot->thread_only && mpr_thread_is_idle(thread)) {
        give_record_back(thread, slot);
    }
}

int mpr_slots_hook_threads(void)
{
    return pthread_key_create(&thread_key, thread_ends) == 0 ? 0 : MPROC_ENOMEM;
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
                 mpr_slot_word((uint32_t)(word >> 32) + 1, MPR_SLOT_EMBRYO));
    mpr_os_mutex_unlock(&slot->life);
    return true;
}

/* Of the state word of its slot: is that child still to come? */
static bool is_unborn(uint64_t word, mpr_id id)
{
    return word >> 32 == id >> 32 &&
           (mpr_slot_state_of(word) == MPR_SLOT_EMBRYO ||
            mpr_slot_state_of(word) == MPR_SLOT_BORN);
}

bool mpr_id_is_unborn(mpr_id id)
{
    return is_unborn(atomic_load(&mpr_id_slot(id)->state), id);
}

/* Of who forks; under the private lock. */
static struct {
    pid_t pid;
    uint64_t namespace;
} forking;

/* A child of another namespace does not see who forked it. */
static void inherit_namespace(void)
{
    if (forking.namespace != 0 && mpr_os_parent_pid() == forking.pid) {
        atomic_store(&mpr_process_page_->namespace, forking.namespace);
    }
}

void mpr_slots_before_fork(void)
{
    mpr_id before = embryo.id;
    embryo.id = 0;
    forking.pid = mpr_os_pid();
    forking.namespace = atomic_load(&mpr_process_page_->namespace);
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
        embryo.id = mpr_slot_id(slot, atomic_load(&slot->state));
        embryo.count = inherit(self, mpr_self_id(), embryo.id);
    }
}

void mpr_slots_after_fork(void)
{
    if (embryo.id != 0) {
        uint32_t generation = (uint32_t)(embryo.id >> 32);
        uint64_t word = mpr_slot_word(generation, MPR_SLOT_EMBRYO);
        atomic_compare_exchange_strong(
            &mpr_id_slot(embryo.id)->state, &word,
            mpr_slot_word(generation, MPR_SLOT_BORN));
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
            mpr_slot_reap(mpr_self_.thread, slot, word);
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
    uint64_t live = mpr_slot_word((uint32_t)(id >> 32), MPR_SLOT_LIVE);
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
    atomic_store(&unannounced, false);
    inherit_namespace();
    if (id == 0 || !be_born(id, embryo.count)) {
        return;
    }
    struct mpr_slot *slot = mpr_id_slot(id);
    live_in(slot);
    heritage = embryo.count;
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
