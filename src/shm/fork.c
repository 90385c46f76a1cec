/* SPDX-License-Identifier: MIT */
/*
 * What a fork does to slots: see slot.h, forks. In the parent, before: a slot
 * for the child, if the parent has a heritage, and the child's part in that. In
 * the child: the slot becomes its own, unless it was given up meanwhile. All
 * with the private state locked, and nothing here fails a fork: a child without
 * a slot, for want of memory or of slots, is born without a part.
 */
#include "base/deadline.h"
#include "shm/private.h"

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
    if (heritage == 0 || embryo.without || mpr_slot_per_thread ||
        mpr_self_claim_locked() < 0) {
        return;
    }
    struct mpr_thread *self = mpr_self_.thread;
    if (before != 0 && mpr_id_is_unborn(before)) {
        mpr_slots_reap(self); /* look after it: perhaps that fork failed */
    }
    struct mpr_slot *slot = mpr_slot_conceive();
    if (slot == NULL && mpr_slots_reap(self).reaped > 0) {
        slot = mpr_slot_conceive();
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
        if (mpr_slot_is_unborn(word, id)) {
            mpr_slot_reap(mpr_self_.thread, slot, word);
        }
    }
}

void mpr_slots_in_child(void)
{
    mpr_id id = embryo.id;
    embryo.id = 0;
    embryo.without = false;
    inherit_namespace();
    bool born = id != 0 && mpr_slot_be_born(id, embryo.count);
    struct mpr_slot *slot = born ? mpr_id_slot(id) : NULL;
    mpr_self_in_child(slot);
    heritage = born ? embryo.count : 0;
    if (born) {
        mpr_os_wake(mpr_os_low_half(&slot->state), INT32_MAX);
    }
}

void mpr_id_await_birth(struct mpr_thread *self, mpr_id id)
{
    struct mpr_slot *slot = mpr_id_slot(id);
    uint64_t word = atomic_load(&slot->state);
    if (mpr_slot_is_unborn(word, id)) {
        mproc_deadline slice = mpr_deadline_after(mpr_os_now(), 80, 1e6);
        mpr_os_wait(mpr_os_low_half(&slot->state), (uint32_t)word, slice);
        mpr_slots_reap(self);
    }
}
