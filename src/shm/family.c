/* SPDX-License-Identifier: MIT */
#include "shm/family.h"

#include <stddef.h>
#include <string.h>

#include "base/check.h"
#include "base/options.h"
#include "shm/object.h"
#include "shm/private.h"
#include "shm/slot.h"

#define MPR_FAMILY_MAGIC UINT64_C(0x6c69626d70726f63) /* "libmproc" */

enum {
    PROCESSES_DEFAULT = 4096,
    PROCESSES_MAX = 32768,
    THREADS_PER_PROCESS = 8,
};

#define HEAP_LEAST ((size_t)1 << 20)

struct mpr_family *mpr_family;

static struct mpr_process_page no_page;
struct mpr_process_page *_Atomic mpr_process_page_ = &no_page;

static mproc_config config;
static pthread_mutex_t private_mutex = PTHREAD_MUTEX_INITIALIZER;

void mpr_private_lock(void)
{
    pthread_mutex_lock(&private_mutex);
}

bool mpr_private_try_lock(void)
{
    return pthread_mutex_trylock(&private_mutex) == 0;
}

void mpr_private_unlock(void)
{
    pthread_mutex_unlock(&private_mutex);
}

static void before_fork(void)
{
    mpr_private_lock();
    mpr_slots_before_fork();
}

static void after_fork(void)
{
    mpr_slots_after_fork();
    mpr_private_unlock();
}

/*
 * A forked child is nobody until its first call, or what its parent has made
 * ready for it. Where the kernel does not wipe the page at a fork, this does
 * it. The mutex was locked by the one thread that the child has;
 * ThreadSanitizer wants to see it unlocked.
 */
static void forget_parent(void)
{
    mpr_private_unlock();
    memset(mpr_process_page_, 0, sizeof *mpr_process_page_);
    mpr_slots_in_child();
}

/* ---- layout ----------------------------------------------------------- */

struct layout {
    size_t shelves, slots, threads, heap, first_span, end;
    size_t spans;
};

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static struct layout layout_of(size_t heap_bytes, size_t processes)
{
    struct layout at = {.spans = round_up(heap_bytes, MPR_SPAN_SIZE) /
                                 MPR_SPAN_SIZE};
    at.shelves = round_up(sizeof(struct mpr_family), MPR_LINE);
    at.slots = round_up(
        at.shelves + MPR_OBJECT_TYPES * sizeof(struct mpr_object_shelf), 4096);
    at.threads = at.slots + processes * sizeof(struct mpr_slot);
    at.heap = at.threads +
              processes * THREADS_PER_PROCESS * sizeof(struct mpr_thread);
    at.heap = round_up(at.heap, 4096);
    at.first_span =
        round_up(at.heap + mpr_heap_tables_size(at.spans), MPR_SPAN_SIZE);
    at.end = at.first_span + at.spans * MPR_SPAN_SIZE;
    return at;
}

static struct mpr_family *lay_out(const struct mpr_os_region *region,
                                  const struct layout *at, size_t processes)
{
    char *base = region->base;
    struct mpr_family *family = region->base;
    family->size = region->size;
    family->cpus = mproc_cpu_count();
    family->region = *region;
    family->slots = (struct mpr_slot *)(base + at->slots);
    family->slots_max = (uint32_t)processes;
    family->threads = (struct mpr_thread *)(base + at->threads);
    family->threads_max = (uint32_t)(processes * THREADS_PER_PROCESS);
    family->heap = (struct mpr_heap *)(base + at->heap);
    family->shelves = (struct mpr_object_shelf *)(base + at->shelves);
    mpr_guard_init(&family->slots_guard, MPR_GUARD_SLOTS);
    mpr_object_shelves_init(family->shelves);
    mpr_heap_init(family->heap, base + at->first_span, at->spans);
    family->magic = MPR_FAMILY_MAGIC;
    return family;
}

/* ---- making it -------------------------------------------------------- */

static bool smaller_may_pass(int err)
{
    return err == MPROC_ENOMEM || err == MPROC_EINVAL || err == MPROC_EOVERFLOW;
}

/* The largest heap that the system gives addresses for, from `want` down. */
static int map_largest(struct mpr_os_region *region, struct layout *at,
                       size_t want, size_t processes, bool anonymous)
{
    for (size_t heap = want;; heap /= 4) {
        *at = layout_of(heap, processes);
        int err = mpr_os_region_map(region, at->end, anonymous, config.dump);
        if (err == 0 || !smaller_may_pass(err) || heap / 4 < HEAP_LEAST) {
            return err;
        }
    }
}

static int make_family(struct mpr_family **out)
{
    size_t processes =
        config.processes_max ? config.processes_max : PROCESSES_DEFAULT;
    size_t want = config.heap_max ? config.heap_max : mpr_os_memory_installed();
    if (config.heap_max == 0 && want > mpr_os_region_ceiling()) {
        want = mpr_os_region_ceiling();
    }
    struct mpr_os_region region;
    struct layout at;
    int err = map_largest(&region, &at, want, processes, false);
    if (err < 0 && err != MPROC_EMFILE && err != MPROC_ENFILE) {
        /* no memfd here, or files too small: all but spawn works without */
        err = map_largest(&region, &at, want, processes, true);
    }
    if (err < 0) {
        return err;
    }
    *out = lay_out(&region, &at, processes);
    return 0;
}

static int make_page(void)
{
    if (mpr_process_page_ == &no_page) {
        struct mpr_process_page *page = mpr_os_page_wiped_on_fork();
        if (page == NULL) {
            return MPROC_ENOMEM;
        }
        mpr_process_page_ = page;
    }
    return 0;
}

static bool forks_hooked;
static int joined;

static int prepare_private(void)
{
    static bool threads_hooked;
    if (!forks_hooked) {
        return MPROC_ENOMEM;
    }
    int err = threads_hooked ? 0 : mpr_slots_hook_threads();
    if (err < 0) {
        return err;
    }
    threads_hooked = true;
    return make_page();
}

/* In a program started anew: the family of who started it. */
static int join(const struct mpr_os_seed *seed)
{
    struct mpr_os_place here;
    struct mpr_os_region region;
    mpr_os_place_of((mpr_os_fn *)mpr_family_joined, &here);
    if (here.module != seed->library) {
        return MPROC_ENOENT;
    }
    int err = prepare_private();
    if (err == 0) {
        err = mpr_os_region_join(&region, seed->region,
                                 offsetof(struct mpr_family, region));
    }
    if (err < 0) {
        return err;
    }
    mpr_family = region.base;
    MPR_CHECK(mpr_family->magic == MPR_FAMILY_MAGIC);
    return 0;
}

int mpr_family_joined(void)
{
    return joined;
}

/* What lies at the region's address is there by chance, or not at all. */
static void join_if_started_anew(void)
{
    enum { TRIES = 8 };
    struct mpr_os_seed seed;
    if (mpr_os_seed(&seed)) {
        joined = join(&seed);
        if (joined == MPROC_EADDRINUSE && seed.tries < TRIES) {
            mpr_os_start_again(seed);
        }
    }
}

/*
 * Before main, since a fork beside the first call would leave the child with a
 * locked mutex. And before other modules do it: what is hooked first is locked
 * last at a fork, and this is the innermost.
 */
__attribute__((constructor(101))) static void hook_forks(void)
{
    forks_hooked = pthread_atfork(before_fork, after_fork, forget_parent) == 0;
    join_if_started_anew();
}

static int use_locked(void)
{
    if (mpr_family != NULL) {
        return 0;
    }
    int err = prepare_private();
    return err < 0 ? err : make_family(&mpr_family);
}

int mpr_family_use(void)
{
    mpr_private_lock();
    int err = use_locked();
    mpr_private_unlock();
    return err;
}

int mproc_configure_sized(const mproc_config *theirs, size_t size)
{
    mproc_config wanted;
    if (theirs == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(&wanted, sizeof wanted, theirs, size);
    if (err < 0) {
        return err;
    }
    bool processes_fit =
        wanted.processes_max == 0 ||
        (wanted.processes_max >= 2 && wanted.processes_max <= PROCESSES_MAX);
    bool heap_fits =
        wanted.heap_max == 0 ||
        (wanted.heap_max >= HEAP_LEAST && wanted.heap_max <= SIZE_MAX / 4 &&
         wanted.heap_max / MPR_SPAN_SIZE < UINT32_MAX / 2);
    if (!processes_fit || !heap_fits) {
        return MPROC_EINVAL;
    }
    if (wanted.reserved != 0) {
        return MPROC_ENOTSUP;
    }
    mpr_private_lock();
    if (mpr_family != NULL) {
        err = MPROC_EINVAL;
    } else {
        config = wanted;
    }
    mpr_private_unlock();
    return err;
}
