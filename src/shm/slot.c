/* SPDX-License-Identifier: MIT */
/*
 * How a slot is found free and taken: by a process for itself, or by one that
 * is about to fork for its child to be, which then takes it over. (How it
 * becomes free again: reap.c.)
 *
 * Who takes a free slot locks its life first, so of several one goes on, and
 * writes all that describes him before the one store of `state` by which the
 * slot is his; killed before, he leaves a free slot. The lock of a child to be
 * is given back, since the kernel must write that child's death, not its
 * parent's. So a claimer who found the slot free, and comes to lock it only
 * now, may have that lock for a moment: the child waits for it.
 */
#include "base/deadline.h"
#include "shm/private.h"

bool mpr_slot_per_thread;

void mpr_test_slot_per_thread(bool on)
{
    mpr_slot_per_thread = on;
}

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
    slot->thread_only = mpr_slot_per_thread;
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

/* ---- where one is free ------------------------------------------------ */

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

/* ---- taking one ------------------------------------------------------- */

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

struct mpr_slot *mpr_slot_claim(void)
{
    return find_slot(claim);
}

bool mpr_slot_take_life_over(struct mpr_slot *slot)
{
    if (!lock_life(slot)) {
        return false;
    }
    atomic_store(&slot->left, MPR_STAYS);
    return true;
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

struct mpr_slot *mpr_slot_conceive(void)
{
    return find_slot(conceive);
}

bool mpr_id_is_unborn(mpr_id id)
{
    return mpr_slot_is_unborn(atomic_load(&mpr_id_slot(id)->state), id);
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

bool mpr_slot_be_born(mpr_id id, int32_t held)
{
    struct mpr_slot *slot = mpr_id_slot(id);
    uint64_t live = mpr_slot_word((uint32_t)(id >> 32), MPR_SLOT_LIVE);
    if (!lock_embryo(slot, id)) {
        return false;
    }
    uint64_t word = atomic_load(&slot->state);
    while (mpr_slot_is_unborn(word, id)) {
        describe(slot);
        atomic_store(&slot->held, held);
        if (atomic_compare_exchange_strong(&slot->state, &word, live)) {
            return true;
        }
    }
    mpr_os_mutex_unlock(&slot->life);
    return false;
}
