/* SPDX-License-Identifier: MIT */
/*
 * torture_kills [kills [seconds]]: eight processes use all that they share,
 * forked by the library or past it, and are killed at random and replaced,
 * until there were so many kills or the time is over. Then nothing is left of
 * them: no slot, no thread record, no block, no descriptor.
 *
 * What a process had got by mproc_alloc it alone knew of; so each writes down
 * what it has, and what is lost between the call and the note is counted. These
 * blocks are of a size of their own, so that of all others none may be missing.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <mproc.h>

#include "shm/object.h"
#include "shm/span.h"

enum { WORKERS = 8, KILLS = 400, SECONDS = 60, LARGEST = 100000 };

/* What mproc_alloc is asked for, and no message: of one class. */
enum { OWN_LEAST = 17000, OWN_SIZE = 21824 };

enum { NOTHING, TAKING, GIVING }; /* else it has the block of that address */

struct desk {
    _Atomic uintptr_t own;
    _Atomic unsigned long calls;
};

struct stage {
    struct desk desk[WORKERS];
    _Atomic pid_t inside; /* who holds the lock, by its own account */
    _Atomic unsigned wrong;
};

static struct stage *stage;
static struct desk *desk; /* of this process */
static unsigned seed;

static mproc_lock *lock;
static mproc_rlock *rlock;
static mproc_semaphore *semaphore, *bounded;
static mproc_event *event;
static mproc_condition *condition;
static mproc_queue *queue, *joinable;
static mproc_connection *end[2];

/* ---- what they do ----------------------------------------------------- */

static unsigned any(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* Mostly short; now and then long enough to watch over the others. */
static mproc_deadline soon(void)
{
    return mproc_in_ms(any(16) == 0 ? 120 : any(5));
}

static void expect(bool good, const char *what, int err)
{
    if (!good && atomic_fetch_add(&stage->wrong, 1) < 10) {
        fprintf(stderr, "WRONG: %s: %s\n", what, mproc_error_name(err));
    }
}

static bool got(int err, int busy, const char *what)
{
    expect(err >= 0 || err == busy, what, err);
    return err >= 0;
}

static void use_lock(void)
{
    int err = mproc_lock_acquire(lock, soon());
    if (!got(err, MPROC_ETIMEDOUT, "lock")) {
        return;
    }
    pid_t before = atomic_exchange(&stage->inside, getpid());
    expect(before == 0 || err == MPROC_RECOVERED, "two in a lock", err);
    atomic_store(&stage->inside, 0);
    got(mproc_lock_release(lock), 0, "release");
}

static void use_rlock(void)
{
    if (got(mproc_rlock_acquire(rlock, soon()), MPROC_ETIMEDOUT, "rlock")) {
        got(mproc_rlock_acquire(rlock, soon()), 0, "rlock again");
        got(mproc_rlock_release(rlock), 0, "rlock release");
        got(mproc_rlock_release(rlock), 0, "rlock last release");
    }
}

static void use_semaphores(void)
{
    mproc_semaphore *s = any(2) ? semaphore : bounded;
    if (got(mproc_semaphore_acquire(s, soon()), MPROC_ETIMEDOUT, "acquire")) {
        got(mproc_semaphore_release(s), 0, "semaphore release");
    }
}

static void use_event(void)
{
    got(mproc_event_wait(event, soon()), MPROC_ETIMEDOUT, "event");
    got(any(2) ? mproc_event_set(event) : mproc_event_clear(event), 0, "set");
}

static void use_condition(void)
{
    int err = mproc_condition_acquire(condition, soon());
    if (!got(err, MPROC_ETIMEDOUT, "condition")) {
        return;
    }
    if (any(2)) {
        err = mproc_condition_wait(condition, soon());
        got(err, MPROC_ETIMEDOUT, "wait");
    } else {
        got(mproc_condition_notify(condition, 1 + any(3)), 0, "notify");
    }
    got(mproc_condition_release(condition), 0, "condition release");
}

/* Of any size, all bytes the same. */
static size_t message(char *text)
{
    size_t size = any(4) ? any(200) : any(LARGEST);
    memset(text, (int)(size % 251), size);
    return size;
}

static void check_message(const char *text, size_t size)
{
    bool good = true;
    for (size_t i = 0; i < size; i++) {
        good &= (unsigned char)text[i] == size % 251;
    }
    expect(good, "a message was torn", 0);
}

static void use_queue(void)
{
    static char text[LARGEST];
    size_t size = message(text);
    if (any(2)) {
        got(mproc_queue_put(queue, text, size, soon()), MPROC_EFULL, "put");
    } else if (got(mproc_queue_get(queue, text, sizeof text, &size, soon()),
                   MPROC_EEMPTY, "get")) {
        check_message(text, size);
    }
}

static void use_joinable(void)
{
    static char text[LARGEST];
    size_t size = message(text);
    if (any(2)) {
        got(mproc_queue_put(joinable, text, size, soon()), MPROC_EFULL,
            "joinable put");
    } else if (got(mproc_queue_get(joinable, text, sizeof text, &size, soon()),
                   MPROC_EEMPTY, "joinable get")) {
        check_message(text, size);
        got(mproc_queue_task_done(joinable), 0, "task_done");
    }
}

static void use_loan(void)
{
    mproc_message m;
    if (any(2)) {
        size_t size = any(LARGEST);
        if (got(mproc_queue_loan(queue, &m, size, soon()), MPROC_EFULL,
                "loan")) {
            memset(m.data, (int)(size % 251), size);
            got(mproc_queue_send(queue, &m), 0, "send");
        }
    } else if (got(mproc_queue_take(queue, &m, soon()), MPROC_EEMPTY, "take")) {
        check_message(m.data, m.size);
        mproc_message_release(&m);
    }
}

static void use_pipe(void)
{
    static char text[LARGEST];
    size_t size = message(text);
    mproc_connection *c = end[any(2)];
    if (any(2)) {
        got(mproc_connection_send(c, text, size, soon()), MPROC_EFULL,
            "connection send");
    } else if (got(mproc_connection_recv(c, text, sizeof text, &size, soon()),
                   MPROC_EEMPTY, "connection recv")) {
        check_message(text, size);
    }
}

/* A pipe that is this process's alone, and ends with it. */
static void make_pipe(void)
{
    mproc_connection *a, *b;
    char text[300] = "";
    if (got(mproc_pipe_new(&a, &b, NULL), MPROC_ENOMEM, "pipe")) {
        got(mproc_connection_send(a, text, sizeof text, soon()), 0, "own send");
        got(mproc_connection_close(any(2) ? a : b), 0, "close");
        if (any(2)) {
            return; /* it ends with this process, by a kill or another way */
        }
    }
}

static void use_heap(void)
{
    size_t size = OWN_LEAST + any(OWN_SIZE - OWN_LEAST);
    atomic_store(&desk->own, TAKING);
    char *p = mproc_alloc(size);
    atomic_store(&desk->own, p != NULL ? (uintptr_t)p : NOTHING);
    if (p != NULL) {
        memset(p, 1, size);
        atomic_store(&desk->own, GIVING);
        mproc_free(p);
        atomic_store(&desk->own, NOTHING);
    }
}

/* One that nobody waits for, and that outlives who forked it. */
static void fork_one(void)
{
    if (any(20) == 0 && fork() == 0) {
        use_lock();
        use_event();
        use_queue();
        _exit(0);
    }
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static int work(void *arg)
{
    static void (*const use[])(void) = {
        use_lock,  use_rlock,    use_semaphores, use_event,
        use_queue, use_joinable, use_condition,  use_loan,
        use_pipe,  make_pipe,    use_heap,       fork_one,
    };
    desk = arg;
    seed ^= (unsigned)getpid();
    for (int calls = 0; calls < 20000; calls++) {
        use[any(sizeof use / sizeof *use)]();
        atomic_fetch_add(&desk->calls, 1);
    }
    return 0;
}

/* ---- those who do it -------------------------------------------------- */

struct worker {
    mproc_process *process; /* NULL: forked past the library */
    pid_t pid;
};

static struct worker workers[WORKERS];

static bool start(int i)
{
    struct worker *w = &workers[i];
    w->process = NULL;
    if (i % 2 == 0) {
        mproc_process_new(&w->process, work, &stage->desk[i], NULL);
        int err = mproc_process_start(w->process);
        expect(err == 0, "start", err);
        w->pid = mproc_process_pid(w->process);
        return err == 0;
    }
    w->pid = fork();
    if (w->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(work(&stage->desk[i]));
    }
    return w->pid > 0;
}

static unsigned ambiguous; /* blocks that may be lost, or not */

static void finish(int i)
{
    struct worker *w = &workers[i];
    kill(w->pid, SIGKILL);
    if (w->process != NULL) {
        int err = mproc_process_join(w->process, mproc_in_s(60));
        expect(err == 0, "join", err);
        mproc_process_free(w->process);
    } else {
        waitpid(w->pid, NULL, 0);
    }
    uintptr_t own = atomic_exchange(&stage->desk[i].own, NOTHING);
    if (own > GIVING) {
        mproc_free((void *)own);
    } else if (own != NOTHING) {
        ambiguous++;
    }
}

static unsigned kill_some(unsigned kills, double seconds)
{
    mproc_deadline over = mproc_in_s(seconds);
    unsigned done = 0;
    bool good = true;
    for (int i = 0; i < WORKERS && good; i++) {
        good = start(i);
    }
    while (good && done < kills && mproc_in_s(0).at_ns < over.at_ns) {
        usleep(any(any(8) == 0 ? 20000 : 2000));
        int i = (int)any(WORKERS);
        finish(i);
        good = start(i);
        done++;
    }
    for (int i = 0; i < WORKERS; i++) {
        finish(i);
    }
    return done;
}

/* ---- what is there ---------------------------------------------------- */

struct inventory {
    mproc_heap_info heap;
    size_t own_blocks; /* got by mproc_alloc */
    unsigned slots, records, descriptors, pipes;
};

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != NULL && readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

static void count_object(struct mpr_object *object, void *count)
{
    (void)object;
    ++*(unsigned *)count;
}

static struct inventory take_inventory(void)
{
    struct inventory is = {.descriptors = open_descriptors()};
    mproc_heap_stats(&is.heap);
    for (uint32_t i = 0; i < mpr_heap()->top; i++) {
        const struct mpr_span *span = &mpr_heap()->spans[i];
        if (mpr_span_kind(mpr_span_load(span)) == MPR_SPAN_CLASS &&
            mpr_class_block_size(span) == OWN_SIZE) {
            is.own_blocks += mpr_class_used(span);
        }
    }
    for (uint32_t i = 0; i < mpr_family->slots_top; i++) {
        uint64_t state = atomic_load(&mpr_family->slots[i].state);
        is.slots += (uint32_t)state != MPR_SLOT_FREE;
    }
    for (uint32_t i = 0; i < mpr_family->threads_top; i++) {
        is.records += atomic_load(&mpr_family->threads[i].owner) != 0;
    }
    mpr_object_each(MPR_PIPE, count_object, &is.pipes);
    return is;
}

static void print_inventory(const char *when, const struct inventory *is)
{
    printf("%s: %zu blocks, %zu of them by mproc_alloc, %zu bytes, %u slots, "
           "%u records, %u descriptors, %u pipes\n",
           when, is->heap.blocks, is->own_blocks, is->heap.in_use, is->slots,
           is->records, is->descriptors, is->pipes);
}

static bool as_before(const struct inventory *a, const struct inventory *b)
{
    size_t own_bytes = (b->own_blocks - a->own_blocks) * OWN_SIZE;
    return a->heap.blocks - a->own_blocks == b->heap.blocks - b->own_blocks &&
           a->heap.in_use + own_bytes == b->heap.in_use &&
           b->own_blocks - a->own_blocks <= ambiguous && a->slots == b->slots &&
           a->records == b->records && a->descriptors == b->descriptors &&
           a->pipes == b->pipes;
}

/* Those whom workers have forked end by themselves. */
static void await_the_last(void)
{
    struct mpr_thread *self;
    struct mpr_census census = {.living = 1};
    mproc_deadline bound = mproc_in_s(60);
    expect(mpr_self(&self) == 0, "no record", 0);
    while ((census.living > 0 || census.dying || census.unborn) &&
           mproc_in_s(0).at_ns < bound.at_ns) {
        usleep(1000);
        census = mpr_slots_reap(self);
    }
}

/* ---- main ------------------------------------------------------------- */

static bool make_all(void)
{
    const mproc_semaphore_opts given_back = {.recover = 1},
                               bound = {.bounded = 1};
    const mproc_queue_opts short_one = {.maxsize = 32};
    const mproc_queue_opts join_it = {
        .maxsize = 32, .joinable = 1, .redeliver = 1};
    return mproc_lock_new(&lock) == 0 && mproc_rlock_new(&rlock) == 0 &&
           mproc_semaphore_new(&semaphore, 3, &given_back) == 0 &&
           mproc_semaphore_new(&bounded, 2, &bound) == 0 &&
           mproc_event_new(&event) == 0 &&
           mproc_condition_new(&condition, NULL) == 0 &&
           mproc_queue_new(&queue, &short_one) == 0 &&
           mproc_queue_new(&joinable, &join_it) == 0 &&
           mproc_pipe_new(&end[0], &end[1], NULL) == 0;
}

static void free_all(void)
{
    mproc_lock_free(lock);
    mproc_rlock_free(rlock);
    mproc_semaphore_free(semaphore);
    mproc_semaphore_free(bounded);
    mproc_event_free(event);
    mproc_condition_free(condition);
    mproc_queue_free(queue);
    mproc_queue_free(joinable);
    mproc_connection_close(end[0]);
    mproc_connection_close(end[1]);
}

int main(int argc, char **argv)
{
    unsigned kills = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : KILLS;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : SECONDS;
    struct mpr_thread *self;
    stage = mmap(NULL, sizeof *stage, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    fflush(stdout);
    if (stage == MAP_FAILED || mpr_self(&self) < 0) {
        return 1;
    }
    struct inventory before = take_inventory();
    if (!make_all()) {
        return 1;
    }
    unsigned done = kill_some(kills, seconds);
    await_the_last();
    free_all();
    struct inventory after = take_inventory();
    unsigned long calls = 0;
    for (int i = 0; i < WORKERS; i++) {
        calls += stage->desk[i].calls;
    }
    printf("%u kills, %lu calls, %u blocks that may be lost\n", done, calls,
           ambiguous);
    print_inventory("before", &before);
    print_inventory("after", &after);
    bool good = as_before(&before, &after) && stage->wrong == 0 && done > 0;
    return good ? 0 : 1;
}
