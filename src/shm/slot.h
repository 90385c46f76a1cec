/* SPDX-License-Identifier: MIT */
/*
 * Who lives, and what each has in hand: facts in memory.
 *
 * Each process of the family has a slot, each of its threads that uses the
 * library a thread record. A process claims its slot at its first call by
 * locking the slot's robust life mutex, so the kernel itself writes its death.
 * Whoever meets the slot of a dead process reaps it: gives back what its
 * threads had in hand, tells those who wait, and frees the slot. Every step of
 * that may be repeated, so a reaper may die as well.
 *
 * A process is named by an id, {slot, generation}: never by its pid, which the
 * system reuses.
 */
#ifndef MPR_SHM_SLOT_H
#define MPR_SHM_SLOT_H

#include "base/check.h"
#include "os/os.h"
#include "shm/family.h"

/*
 * generation:32 | slot number + 1:31 | 0:1. The lowest bit is free for a
 * flag beside the id. 0 is nobody.
 */
typedef uint64_t mpr_id;

enum mpr_slot_state {
    MPR_SLOT_FREE,
    MPR_SLOT_EMBRYO, /* of a child whose parent is in fork() */
    MPR_SLOT_BORN,   /* the fork has returned, the child has not come yet */
    MPR_SLOT_LIVE,
    MPR_SLOT_DEAD
};

enum mpr_slot_left { MPR_STAYS, MPR_LEFT, MPR_LEFT_TOLD };

/*
 * `state` is {generation:32 | enum mpr_slot_state:32} and the truth of whose
 * slot this is. FREE→LIVE by who locked `life`, as its last store; →DEAD and
 * DEAD→FREE by a reaper under the family's slots_guard. For a child to be:
 * FREE→EMBRYO and EMBRYO→BORN by its parent, both →LIVE by the child that
 * locked `life`, or →DEAD by who finds them too old; compare-and-swap decides.
 * `life` is locked by one thread of the process until it ends. `left` is set by
 * that thread when it ends before its process, set to told by who has told the
 * sleepers since, and cleared by the thread that locks `life` anew.
 * `pid`, `namespace`, `program`, `since_boot_ns` are written before LIVE and do
 * not change while it is; who reads them of a slot that is reused meanwhile
 * learns it from `state`. Until then `since_boot_ns` is when the missing child
 * was first missed, on the monotonic clock, 0: never. `held` counts what of
 * others' interest the process holds beyond the counts in its thread records,
 * and the operations under way in threads that have none.
 * `strays` is set before the process claims a thread record that is not the
 * slot's own, the one of its number, or is of a thread that has not locked
 * `life`: until then nobody need look for others, and no sleeper for deaths
 * that nobody hears of (sleep.h).
 * Locks: `life` (claim), slots_guard (reap). Publishes: `state`. Survives: a
 * claimer killed before LIVE leaves FREE; a reaper killed before FREE leaves
 * DEAD, which is reaped again from the start.
 */
struct mpr_slot {
    alignas(MPR_LINE) pthread_mutex_t life;
    _Atomic uint64_t state;
    _Atomic uint32_t left;
    _Atomic int32_t held;
    alignas(MPR_LINE) _Atomic mpr_id parent; /* of a child to be */
    _Atomic uint64_t namespace;
    _Atomic uint64_t program;
    _Atomic int64_t since_boot_ns;
    _Atomic pid_t pid;            /* 0: of a child to be */
    _Atomic uint32_t thread_only; /* test mode: this slot is one thread's */
    _Atomic uint32_t strays;
};

/*
 * What a thread has in hand, by purpose. A word of a hand is written before
 * the store that makes the thing reachable by nobody else, and zeroed after the
 * store that gives it away, both inside the guard that decides about it.
 */
enum mpr_hand {
    MPR_HAND_BLOCK,      /* a heap block: a message, a result of mproc_alloc */
    MPR_HAND_SPAN,       /* of the heap: a span on its way to or from a class */
    MPR_HAND_RETURN,     /* a large block on its way back to the heap */
    MPR_HAND_SEGMENT,    /* of a queue */
    MPR_HAND_OBJECT_NEW, /* an object being made: ended if its maker dies */
    MPR_HAND_OBJECT_END, /* an object being ended */
    MPR_HAND_SECOND,     /* a second block */
    MPR_HAND_COUNT
};

/*
 * All fields but `owner` are written by the thread itself, while it lives, and
 * by a reaper afterwards. `owner` is claimed by compare-and-swap 0→id.
 * `op` is the object in whose operation the thread is, 0 outside: between them
 * lie "committed" and "those who wait are woken", so the death of a thread with
 * `op` set is told to all who sleep. With MPR_OP_WAITS beside it the thread
 * owes nothing while it is asleep, but for a wake-up that it may have taken
 * from another who sleeps on the same word, `asleep_on`: its death wakes one of
 * those, so that the deaths of thousands who wait for work do not each wake
 * thousands. `guard` is the guard it is about to lock, holds, or has just
 * unlocked. `held` counts things that others wait for and that name this
 * process as holder, written before the holding begins and after it has ended.
 * `serial` differs for every thread that ever had a record.
 * `asleep_since` is when the wait began in which the thread is asleep, on the
 * monotonic clock; 0 while it is awake. What it waits for is `op`.
 * `wait`, `wait_for` and `wait_ticket` say which condition or barrier the
 * thread waits on; they belong to sync/wait.h, and to whoever tells it
 * something. They outlast the claim, since `wait` counts the waits of all who
 * had the record.
 * Locks: none. Publishes: each word for itself. Survives: read by reapers only
 * after the process can run no more.
 */
struct mpr_thread {
    alignas(MPR_LINE) _Atomic mpr_id owner;
    _Atomic uintptr_t op;
    _Atomic uintptr_t guard;
    _Atomic int32_t held;
    pid_t tid;
    uint64_t serial;
    _Atomic uintptr_t hand[MPR_HAND_COUNT];
    _Atomic uint64_t wait;
    _Atomic uint64_t wait_ticket;
    const void *_Atomic wait_for;
    _Atomic int64_t asleep_since;
    _Atomic uint32_t *_Atomic asleep_on; /* NULL: it is awake */
};

#define MPR_OP_WAITS ((uintptr_t)1)

/* A lock of libatomic would be of one process, and no lock for the others. */
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics need no lock");
static_assert(sizeof(struct mpr_slot) == 2 * MPR_LINE, "two lines a slot");
static_assert(sizeof(struct mpr_thread) == 3 * MPR_LINE, "the third for sleep");

/* ---- this thread ------------------------------------------------------ */

struct mpr_self {
    uint64_t token; /* the process's, as when the rest was found */
    struct mpr_thread *thread;
    mpr_id id;
};

/*
 * Of this process; zeroed in a forked child. `token` 0: not claimed. Any thread
 * reads it, to compare it with its own; the rest is under the private mutex,
 * but for `slot`, which is set once, and `namespace`, of pids, 0 until it is
 * asked for.
 */
struct mpr_process_page {
    _Atomic uint64_t token;
    mpr_id id;
    struct mpr_slot *_Atomic slot;
    _Atomic uint64_t namespace;
};

extern _Thread_local struct mpr_self mpr_self_
    __attribute__((tls_model("initial-exec")));
extern struct mpr_process_page *_Atomic mpr_process_page_;

int mpr_self_claim_(struct mpr_thread **out);

static inline bool mpr_self_is_claimed_(void)
{
    const struct mpr_process_page *page =
        atomic_load_explicit(&mpr_process_page_, memory_order_acquire);
    uint64_t token = atomic_load_explicit(&page->token, memory_order_relaxed);
    return mpr_self_.token == token && token != 0;
}

/*
 * The record of the calling thread; claims it, the process's slot and the
 * family at the first call. MPROC_EAGAIN: processes_max or the threads' limit
 * is reached; else what mpr_family_use was refused for.
 */
static inline int mpr_self(struct mpr_thread **out)
{
    if (mpr_likely(mpr_self_is_claimed_())) {
        *out = mpr_self_.thread;
        return 0;
    }
    return mpr_self_claim_(out);
}

/* After mpr_self: the id of the calling thread's process. */
static inline mpr_id mpr_self_id(void)
{
    return mpr_self_.id;
}

struct mpr_thread *mpr_self_claim_unless_handler_(void);

/*
 * For calls that signal handlers may make: the record of the thread, claimed if
 * need be where no handler can be running, which is where no signal is blocked;
 * else NULL. (A handler that blocks none, not even its own, may be taken for
 * the thread's own code: it does not wait then, either.)
 */
static inline struct mpr_thread *mpr_self_if_any(void)
{
    return mpr_likely(mpr_self_is_claimed_())
               ? mpr_self_.thread
               : mpr_self_claim_unless_handler_();
}

/*
 * Say in which object's operation this thread is. Returns what stood there,
 * for mpr_op_end: operations nest.
 */
static inline uintptr_t mpr_op_begin(struct mpr_thread *self,
                                     const void *object)
{
    uintptr_t outer = atomic_load_explicit(&self->op, memory_order_relaxed);
    atomic_store_explicit(&self->op, (uintptr_t)object, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    return outer;
}

static inline void mpr_op_end(struct mpr_thread *self, uintptr_t outer)
{
    atomic_store_explicit(&self->op, outer, memory_order_release);
}

/*
 * From here to the end of the operation the thread tries and sleeps: a try that
 * is followed by sleep has changed nothing. `outer` is what mpr_op_begin
 * returned; another operation around this one may owe something.
 */
static inline void mpr_op_waits(struct mpr_thread *self, uintptr_t outer)
{
    if (outer == 0) {
        uintptr_t op = atomic_load_explicit(&self->op, memory_order_relaxed);
        atomic_store_explicit(&self->op, op | MPR_OP_WAITS,
                              memory_order_relaxed);
    }
}

/* The object of an operation. */
static inline const void *mpr_op_object(uintptr_t op)
{
    return (const void *)(op & ~MPR_OP_WAITS);
}

/*
 * One more, or one less, thing names this process as holder. What others give
 * back in its place stays counted here, so the count may go round.
 */
static inline void mpr_held_add(struct mpr_thread *self, int32_t n)
{
    int32_t held = atomic_load_explicit(&self->held, memory_order_relaxed);
    int32_t next = (int32_t)((uint32_t)held + (uint32_t)n);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&self->held, next, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/*
 * What mpr_op_begin and mpr_op_end are for a thread that has no record, perhaps
 * in a signal handler: its process's death in between is told to all, if the
 * process has a slot. Returns what the end wants, perhaps NULL.
 */
struct mpr_slot *mpr_nameless_begin(void);
void mpr_nameless_end(struct mpr_slot *slot);

static inline void *mpr_hand(struct mpr_thread *thread, enum mpr_hand hand)
{
    return (void *)atomic_load_explicit(&thread->hand[hand],
                                        memory_order_relaxed);
}

static inline void mpr_hand_set(struct mpr_thread *thread, enum mpr_hand hand,
                                const void *thing)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&thread->hand[hand], (uintptr_t)thing,
                          memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/* ---- others ----------------------------------------------------------- */

/*
 * True once the process (any of its threads) can do nothing any more. Costs a
 * few ns while it lives. Does not reap; may be asked with a guard locked.
 */
bool mpr_id_is_dead(mpr_id id);

/* The pid of a living process, 0 when it is dead, reaped, or to be born. */
pid_t mpr_id_pid(mpr_id id);

static inline struct mpr_slot *mpr_id_slot(mpr_id id)
{
    uint32_t number = (uint32_t)id >> 1;
    return &mpr_family->slots[number - 1];
}

/*
 * The thread records of a process, one by one: the first of them behind NULL,
 * and NULL behind the last.
 */
struct mpr_thread *mpr_id_thread_after(mpr_id id,
                                       const struct mpr_thread *last);

/* What a look at all slots found. */
struct mpr_census {
    unsigned living; /* other processes that live */
    unsigned reaped;
    bool dying;    /* one is dead by its life word, but may still run, or is
                      being reaped by another */
    bool unmarked; /* one whose death the kernel will not write */
    bool unborn;   /* a child to be, which may never come */
    bool strays;   /* one that lives has such threads */
};

/* Reap every dead slot. Not with a guard locked. */
struct mpr_census mpr_slots_reap(struct mpr_thread *self);

/*
 * Reap the slot of a process whose end the caller has waited for. Not with a
 * guard locked.
 */
void mpr_id_reap(struct mpr_thread *self, mpr_id ended);

/*
 * True while `more` processes could claim a slot. Reaps dead ones if need be.
 * Not with a guard locked.
 */
bool mpr_slots_room(struct mpr_thread *self, uint32_t more);

/*
 * Fill in the life words of at most `room` living slots, beginning behind the
 * caller's own, with their values, marked so that the kernel wakes a sleeper
 * on them. Returns how many; `*dead` is set when a dead slot was met.
 */
unsigned mpr_slots_watch(struct mpr_os_word *words, unsigned room, bool *dead);

/* As above, for the slot of `id` alone: 1, or 0. */
unsigned mpr_slot_watch(mpr_id id, struct mpr_os_word *word, bool *dead);

/* Whether one of those that are watched has died, or its thread has ended. */
bool mpr_slots_lost(const struct mpr_os_word *words, unsigned count);

/*
 * Called for every process that is reaped, by whoever reaps it, before its slot
 * can be reused; perhaps more than once, perhaps after a reaper was killed in
 * it. The hands of `self` are empty; slots_guard is locked. Registered before
 * main.
 */
typedef void mpr_reap_fn(struct mpr_thread *self, mpr_id dead);
void mpr_slots_on_reap(mpr_reap_fn *fn);

/* Tell everybody who sleeps to look again. */
void mpr_deaths_tell(void);

/* Tell those who watch every life that there is one more. */
void mpr_births_tell(void);

/*
 * Called when this process has claimed its slot, which it does in its first
 * call, before that does anything; not where it was born with one (below). The
 * private state is locked. Registered before main, by one module.
 */
typedef void mpr_claim_fn(mpr_id own);
void mpr_slots_on_claim(mpr_claim_fn *fn);

/* The id of this process, 0: it has no slot. */
static inline mpr_id mpr_own_id(void)
{
    const struct mpr_process_page *page = atomic_load(&mpr_process_page_);
    return page->slot != NULL ? page->id : 0;
}

/* ---- forks ------------------------------------------------------------ */

/*
 * What names this process as holder and names its forked children too: its
 * heritage. So that nobody sees it unheld between the fork and the child's
 * first instruction, a parent that has some makes an embryo first, a slot for
 * the child, in whose name it is held; the child claims that slot at birth,
 * also if it never calls the library. An embryo whose child does not come (the
 * fork failed, or the child was killed first) ends a second after it was first
 * missed. A child that comes later has inherited nothing.
 */

/*
 * Called in the parent before a fork: hold for `child` what `parent` holds.
 * Returns how many things. Registered before main, by one module.
 */
typedef int32_t mpr_inherit_fn(struct mpr_thread *self, mpr_id parent,
                               mpr_id child);
void mpr_slots_on_fork(mpr_inherit_fn *fn);

/*
 * Between these two no fork happens. What this process holds changes here;
 * `n`: by how much its heritage has grown.
 */
void mpr_heritage_begin(void);
void mpr_heritage_end(int32_t n);

/* While on, what this thread forks inherits nothing. Off in each child. */
void mpr_fork_without_heritage(bool on);

/* The last fork of this thread has failed: no child is to come. */
void mpr_fork_failed(void);

/* True of a child to be. */
bool mpr_id_is_unborn(mpr_id id);

/* Wait some time for it to come, or to be given up. Not with a guard locked. */
void mpr_id_await_birth(struct mpr_thread *self, mpr_id id);

/* How long a child to be is missed before it is given up. Tests: less. */
extern int64_t mpr_test_patience_ns;

/* Tests: from now on each new thread claims a slot of its own. */
void mpr_test_slot_per_thread(bool on);

#endif
