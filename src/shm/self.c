/* SPDX-License-Identifier: MIT */
/*
 * The part of this process and of this thread in the family: claimed at the
 * first call, given back when the thread ends. All of it is private state,
 * under the one mutex that is held over a fork (private.h).
 *
 * The process's life mutex is locked by one of its threads, whose end is not
 * the process's: it says so before it ends (`left`), and each thread that comes
 * by here then tries to lock it in its place.
 *
 * A process is announced: who sleeps deep watches the lives that he knows of
 * (sleep.h), so the bell of news is rung once the slot is LIVE and before any
 * thread does what others would have to learn of from its death. Several may
 * come here at once, some without the mutex, and each may be stopped anywhere.
 * So whoever finds the process unannounced rings, and only then says that it is
 * announced: who finds that said knows that all have been told, by whomever.
 * Told twice, they look once more. It is said of an id, lest a child that is
 * forked in the midst of it, in a handler, say it of itself.
 */
#include "shm/private.h"

_Thread_local struct mpr_self mpr_self_
    __attribute__((tls_model("initial-exec")));

static pthread_key_t thread_key;

/* The process whose life mutex this thread locked. */
static _Thread_local mpr_id life_of_mine;

/* ---- this process ----------------------------------------------------- */

/* This process, while it has a slot and has not done anything yet; else 0. */
static _Atomic mpr_id unannounced;

static void announce(void)
{
    mpr_id id = atomic_load(&unannounced);
    if (id != 0) {
        mpr_births_tell();
        atomic_compare_exchange_strong(&unannounced, &id, 0);
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
    atomic_store(&unannounced, page->id);
    page->slot = slot;
}

static int claim_slot(struct mpr_process_page *page, mpr_id *id)
{
    if (page->slot != NULL && !mpr_slot_per_thread) {
        announce();
        if (atomic_load(&page->slot->left) &&
            mpr_slot_take_life_over(page->slot)) {
            life_of_mine = page->id;
        }
        *id = page->id;
        return 0;
    }
    struct mpr_slot *slot = mpr_slot_claim();
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

/*
 * Born with a slot, the child's one thread has locked a life, and says so when
 * it ends, whether or not it ever makes a call.
 */
void mpr_self_in_child(struct mpr_slot *slot)
{
    life_of_mine = 0;
    atomic_store(&unannounced, 0);
    if (slot != NULL) {
        live_in(slot);
        mpr_self_ = (struct mpr_self){0};
        pthread_setspecific(thread_key, &mpr_self_);
    }
}

/* ---- this thread ------------------------------------------------------ */

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

/* Whoever sleeps without a clock is to sleep with one. */
static void tell_of_strays(mpr_id id)
{
    if (atomic_exchange(&mpr_id_slot(id)->strays, 1) == 0) {
        mpr_births_tell();
    }
}

/* The slot's own, or the next behind it. */
static struct mpr_thread *find_record(mpr_id id)
{
    uint32_t own = (uint32_t)(mpr_own_record(id) - mpr_family->threads);
    uint32_t records = mpr_family->threads_max - 1;
    for (uint32_t i = 0; i < records; i++) {
        struct mpr_thread *thread =
            &mpr_family->threads[1 + (own - 1 + i) % records];
        if (i == 1 || life_of_mine != id) {
            tell_of_strays(id);
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

int mpr_self_claim_locked(void)
{
    struct mpr_process_page *page = mpr_process_page_;
    struct mpr_self *self = &mpr_self_;
    bool mine = self->thread != NULL && page->slot != NULL &&
                (self->id == page->id || mpr_slot_per_thread) &&
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
        err = mpr_self_claim_locked();
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

struct mpr_thread *mpr_self_claim_unless_handler_(void)
{
    struct mpr_thread *self = NULL;
    if (mpr_os_signals_blocked() || !mpr_private_try_lock()) {
        return NULL;
    }
    if (mpr_self_claim_locked() == 0) {
        self = mpr_self_.thread;
    }
    mpr_private_unlock();
    return self;
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

/* ---- its end ---------------------------------------------------------- */

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
        page->slot != NULL && (self->id == page->id || mpr_slot_per_thread);
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
