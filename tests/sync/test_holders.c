/* SPDX-License-Identifier: MIT */
/* Who holds what and who waits for what, as others see it. */
#include "sync_support.h"

#include <mproc/barrier.h>

#include "shm/holders.h"
#include "shm/sleep.h"

enum { MANY = 8 };

struct share {
    mproc_lock *lock;
    mproc_rlock *rlock;
    mproc_semaphore *semaphore;
    mproc_condition *condition, *over_lock;
    mproc_barrier *barrier;
    mproc_event *event;
    mproc_queue *queue;
    atomic_int ready, holding, may_release, may_end;
};

static struct share *s;

static int act_until_told(void *user)
{
    (void)user;
    await_count(&s->may_release, 1);
    return 0;
}

static int set_up(void **state)
{
    const mproc_barrier_opts acting = {.action = act_until_told};
    (void)state;
    s = shared(sizeof *s);
    assert_ok(mproc_lock_new(&s->lock));
    assert_ok(mproc_rlock_new(&s->rlock));
    assert_ok(mproc_semaphore_new(&s->semaphore, 2,
                                  &(mproc_semaphore_opts){.bounded = 1}));
    assert_ok(mproc_condition_new(&s->condition, NULL));
    assert_ok(mproc_condition_new(&s->over_lock, s->lock));
    assert_ok(mproc_barrier_new(&s->barrier, 3, &acting));
    assert_ok(mproc_event_new(&s->event));
    assert_ok(mproc_queue_new(&s->queue, NULL));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mproc_lock_free(s->lock);
    mproc_rlock_free(s->rlock);
    mproc_semaphore_free(s->semaphore);
    mproc_condition_free(s->condition);
    mproc_condition_free(s->over_lock);
    mproc_barrier_free(s->barrier);
    mproc_event_free(s->event);
    mproc_queue_free(s->queue);
    return munmap(s, sizeof *s);
}

/* ---- what can be held ------------------------------------------------- */

struct kind {
    void *(*object)(void);
    int (*acquire)(void *object, mproc_deadline until);
    int (*release)(void *object);
};

#define KIND(name, field)                                                  \
    static void *the_##field(void)                                         \
    {                                                                      \
        return s->field;                                                   \
    }                                                                      \
    static int acquire_##field(void *o, mproc_deadline until)              \
    {                                                                      \
        return mproc_##name##_acquire(o, until);                           \
    }                                                                      \
    static int release_##field(void *o)                                    \
    {                                                                      \
        return mproc_##name##_release(o);                                  \
    }                                                                      \
    static const struct kind field##_kind = {the_##field, acquire_##field, \
                                             release_##field};

KIND(lock, lock)
KIND(rlock, rlock)
KIND(semaphore, semaphore)
KIND(condition, condition)

/* Until told to release, and then until told to end. */
static int hold(void *arg)
{
    const struct kind *kind = arg;
    int turn = atomic_fetch_add(&s->ready, 1);
    int err = kind->acquire(kind->object(), MPROC_FOREVER);
    assert_true(err >= 0);
    atomic_fetch_add(&s->holding, 1);
    await_count(&s->may_release, turn + 1);
    assert_ok(kind->release(kind->object()));
    await_count(&s->may_end, 1);
    return 0;
}

static pid_t start_holder(const struct kind *kind)
{
    int before = atomic_load(&s->holding);
    pid_t pid = test_fork(hold, (void *)kind);
    await_count(&s->holding, before + 1);
    return pid;
}

/* A process that is about to wait for the object. */
static pid_t start_waiter(const struct kind *kind)
{
    int before = atomic_load(&s->ready);
    pid_t pid = test_fork(hold, (void *)kind);
    await_count(&s->ready, before + 1);
    return pid;
}

/* Until exactly `n` sleep for the object. */
static void await_sleepers(const void *object, unsigned n,
                           struct mpr_sleeper *out)
{
    mproc_deadline until = TEST_BOUND;
    while (mpr_sleepers_on(object, out, MANY) != n) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
}

static struct mpr_holder only_holder(const void *object)
{
    struct mpr_holder holder = {0};
    assert_int_equal(mpr_holders_of(object, &holder, 1), 1);
    return holder;
}

static pid_t await_other_holder(const void *object, pid_t pid)
{
    struct mpr_holder holder;
    mproc_deadline until = TEST_BOUND;
    while (mpr_holders_of(object, &holder, 1) != 1 || holder.pid == pid) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
    return holder.pid;
}

static void await_since(const void *object)
{
    mproc_deadline until = TEST_BOUND;
    while (only_holder(object).since_ns == 0) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
}

static void end_all(const pid_t *pids, int n)
{
    atomic_store(&s->may_end, 1);
    for (int i = 0; i < n; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
}

/* ---- one holder at a time --------------------------------------------- */

static void check_succession(const struct kind *kind)
{
    struct mpr_sleeper sleeper[MANY];
    pid_t pids[3];
    const void *object = kind->object();
    assert_int_equal(mpr_holders_of(object, NULL, 0), 0);
    pids[0] = start_holder(kind);
    assert_int_equal(only_holder(object).pid, pids[0]);
    assert_int_equal(only_holder(object).since_ns, 0); /* nobody asked */

    int64_t before = mpr_os_now() / 1000 * 1000;
    pids[1] = start_waiter(kind);
    await_sleepers(object, 1, sleeper);
    int64_t since = only_holder(object).since_ns;
    assert_true(since >= before && since <= mpr_os_now());
    assert_int_equal(sleeper[0].pid, pids[1]);
    assert_int_equal(sleeper[0].tid, pids[1]);
    assert_ptr_equal(sleeper[0].object, object);
    assert_true(sleeper[0].since_ns >= before);
    assert_true(sleeper[0].since_ns <= mpr_os_now());

    pids[2] = start_waiter(kind); /* the second changes nothing */
    await_sleepers(object, 2, sleeper);
    assert_int_equal(only_holder(object).since_ns, since);

    int64_t released = mpr_os_now() / 1000 * 1000;
    atomic_store(&s->may_release, 1);
    pid_t next = await_other_holder(object, pids[0]);
    await_sleepers(object, 1, sleeper);
    assert_int_equal(sleeper[0].pid, pids[1] + pids[2] - next);
    await_since(object);
    since = only_holder(object).since_ns;
    assert_true(since >= released && since <= mpr_os_now());

    atomic_store(&s->may_release, 3);
    await_sleepers(object, 0, sleeper);
    mproc_deadline until = TEST_BOUND;
    while (mpr_holders_of(object, NULL, 0) != 0) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
    end_all(pids, 3);
}

static void a_lock_tells_its_holder_and_who_waits(void **state)
{
    (void)state;
    check_succession(&lock_kind);
}

static void an_rlock_tells_its_holder_and_who_waits(void **state)
{
    (void)state;
    check_succession(&rlock_kind);
}

static void a_condition_tells_its_holder_and_who_waits(void **state)
{
    (void)state;
    check_succession(&condition_kind);
}

static void a_condition_over_a_lock_tells_the_holder_of_that(void **state)
{
    (void)state;
    pid_t pid = start_holder(&lock_kind);
    assert_int_equal(only_holder(s->over_lock).pid, pid);
    atomic_store(&s->may_release, 1);
    end_all(&pid, 1);
}

/* The same process again: its old time is not told of it. */
static void who_takes_it_again_has_not_held_it_all_the_time(void **state)
{
    (void)state;
    struct mpr_sleeper sleeper[MANY];
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_err(mproc_lock_acquire(s->lock, mproc_in_ms(1)), MPROC_ETIMEDOUT);
    int64_t since = only_holder(s->lock).since_ns;
    assert_true(since != 0);
    assert_ok(mproc_lock_release(s->lock));
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_int_equal(only_holder(s->lock).since_ns, 0);
    int64_t again = mpr_os_now();
    assert_err(mproc_lock_acquire(s->lock, mproc_in_ms(1)), MPROC_ETIMEDOUT);
    assert_true(only_holder(s->lock).since_ns >= again / 1000 * 1000);
    assert_int_equal(mpr_sleepers_on(s->lock, sleeper, MANY), 0);
    assert_ok(mproc_lock_release(s->lock));
}

static void the_dead_hold_nothing_and_wait_for_nothing(void **state)
{
    (void)state;
    struct mpr_sleeper sleeper[MANY];
    pid_t holder = start_holder(&lock_kind);
    pid_t waiter = start_waiter(&lock_kind);
    await_sleepers(s->lock, 1, sleeper);
    await_since(s->lock);
    kill_and_reap(waiter);
    assert_int_equal(mpr_sleepers_on(s->lock, sleeper, MANY), 0);
    assert_int_equal(only_holder(s->lock).pid, holder);
    kill_and_reap(holder);
    assert_int_equal(mpr_holders_of(s->lock, NULL, 0), 0);
    assert_err(mproc_lock_acquire(s->lock, TEST_BOUND), MPROC_RECOVERED);
    assert_int_equal(only_holder(s->lock).pid, getpid());
    assert_ok(mproc_lock_release(s->lock));
}

static void who_recovers_a_lock_holds_it_since_then(void **state)
{
    (void)state;
    struct mpr_sleeper sleeper[MANY];
    pid_t holder = start_holder(&lock_kind);
    pid_t waiter = start_waiter(&lock_kind);
    await_sleepers(s->lock, 1, sleeper);
    await_since(s->lock);
    int64_t killed = mpr_os_now() / 1000 * 1000;
    kill_and_reap(holder);
    assert_int_equal(await_other_holder(s->lock, holder), waiter);
    await_since(s->lock);
    assert_true(only_holder(s->lock).since_ns >= killed);
    atomic_store(&s->may_release, 2);
    end_all(&waiter, 1);
}

/* ---- several ---------------------------------------------------------- */

static void a_semaphore_tells_a_holder_for_each_unit(void **state)
{
    (void)state;
    struct mpr_holder holder[MANY];
    struct mpr_sleeper sleeper[MANY];
    pid_t pids[3];
    pids[0] = start_holder(&semaphore_kind);
    pids[1] = start_holder(&semaphore_kind);
    assert_int_equal(mpr_holders_of(s->semaphore, holder, MANY), 2);
    assert_int_equal(holder[0].since_ns | holder[1].since_ns, 0);
    int64_t before = mpr_os_now() / 1000 * 1000;
    pids[2] = start_waiter(&semaphore_kind);
    await_sleepers(s->semaphore, 1, sleeper);
    assert_int_equal(sleeper[0].pid, pids[2]);
    assert_int_equal(mpr_holders_of(s->semaphore, holder, MANY), 2);
    assert_true(holder[0].pid == pids[0] || holder[0].pid == pids[1]);
    assert_int_equal(holder[1].pid, pids[0] + pids[1] - holder[0].pid);
    for (int i = 0; i < 2; i++) {
        assert_true(holder[i].since_ns >= before);
        assert_true(holder[i].since_ns <= mpr_os_now());
    }
    kill_and_reap(pids[0]);
    await_sleepers(s->semaphore, 0, sleeper);
    mproc_deadline until = TEST_BOUND;
    while (mpr_holders_of(s->semaphore, holder, MANY) != 2) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
    for (int i = 0; i < 2; i++) {
        assert_true(holder[i].pid == pids[1] || holder[i].pid == pids[2]);
        bool old = holder[i].pid == pids[1];
        assert_true(old ? holder[i].since_ns >= before
                        : holder[i].since_ns == 0);
    }
    atomic_store(&s->may_release, 3);
    end_all(&pids[1], 2);
    assert_int_equal(mpr_holders_of(s->semaphore, holder, MANY), 0);
}

static void a_plain_semaphore_is_held_by_nobody(void **state)
{
    (void)state;
    mproc_semaphore *plain;
    assert_ok(mproc_semaphore_new(&plain, 2, NULL));
    assert_ok(mproc_semaphore_acquire(plain, MPROC_NOWAIT));
    assert_int_equal(mpr_holders_of(plain, NULL, 0), 0);
    mproc_semaphore_free(plain);
}

static int wait_at_barrier(void *unused)
{
    (void)unused;
    return mproc_barrier_wait(s->barrier, NULL, MPROC_FOREVER);
}

static void a_barrier_tells_who_has_arrived(void **state)
{
    (void)state;
    struct mpr_holder holder[MANY];
    struct mpr_sleeper sleeper[MANY];
    pid_t pids[3];
    int64_t before = mpr_os_now();
    for (unsigned i = 0; i < 2; i++) {
        pids[i] = test_fork(wait_at_barrier, NULL);
        await_sleepers(s->barrier, i + 1, sleeper);
        assert_int_equal(mpr_holders_of(s->barrier, holder, MANY), i + 1);
    }
    assert_int_equal(holder[0].pid + holder[1].pid, pids[0] + pids[1]);
    for (int i = 0; i < 2; i++) { /* 0 while they look again */
        assert_true(holder[i].since_ns == 0 || holder[i].since_ns >= before);
    }
    pids[2] = test_fork(wait_at_barrier, NULL); /* and it acts */
    mproc_deadline until = TEST_BOUND;
    while (mpr_holders_of(s->barrier, holder, MANY) != 3 ||
           holder[2].pid != pids[2]) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
    await_sleepers(s->barrier, 2, sleeper);
    atomic_store(&s->may_release, 1);
    end_all(pids, 3);
    assert_int_equal(mpr_holders_of(s->barrier, holder, MANY), 0);
    assert_int_equal(mpr_sleepers_on(s->barrier, sleeper, MANY), 0);
}

/* ---- who waits -------------------------------------------------------- */

static int wait_for_event(void *unused)
{
    (void)unused;
    return mproc_event_wait(s->event, MPROC_FOREVER);
}

static int wait_on_condition(void *unused)
{
    (void)unused;
    assert_ok(mproc_condition_acquire(s->condition, MPROC_FOREVER));
    assert_ok(mproc_condition_wait(s->condition, MPROC_FOREVER));
    return mproc_condition_release(s->condition);
}

static int get_one(void *unused)
{
    char byte;
    (void)unused;
    return mproc_queue_get(s->queue, &byte, 1, NULL, MPROC_FOREVER);
}

/* It is listed while it waits, and no longer. */
static pid_t start_listed(int (*wait)(void *), const void *object)
{
    struct mpr_sleeper sleeper[MANY];
    int64_t before = mpr_os_now();
    pid_t pid = test_fork(wait, NULL);
    await_sleepers(object, 1, sleeper);
    assert_int_equal(sleeper[0].pid, pid);
    assert_ptr_equal(sleeper[0].object, object);
    assert_true(sleeper[0].since_ns >= before);
    return pid;
}

static void expect_gone(pid_t pid, const void *object)
{
    struct mpr_sleeper sleeper[MANY];
    assert_int_equal(test_wait_exit(pid), 0);
    assert_int_equal(mpr_sleepers_on(object, sleeper, MANY), 0);
}

static void it_is_known_what_a_thread_waits_for(void **state)
{
    (void)state;
    pid_t pid = start_listed(wait_for_event, s->event);
    assert_ok(mproc_event_set(s->event));
    expect_gone(pid, s->event);
    pid = start_listed(wait_on_condition, s->condition);
    assert_ok(mproc_condition_acquire(s->condition, TEST_BOUND));
    assert_ok(mproc_condition_notify(s->condition, 1));
    assert_ok(mproc_condition_release(s->condition));
    expect_gone(pid, s->condition);
    pid = start_listed(get_one, s->queue);
    assert_ok(mproc_queue_put(s->queue, "x", 1, TEST_BOUND));
    expect_gone(pid, s->queue);
}

/* Stage by stage, it is one wait. */
static void a_long_wait_is_one_wait(void **state)
{
    (void)state;
    struct mpr_sleeper sleeper[MANY];
    pid_t pid = start_listed(wait_for_event, s->event);
    await_sleepers(s->event, 1, sleeper);
    int64_t since = sleeper[0].since_ns;
    while (mpr_os_now() < since + 200000000) { /* beyond the first stage */
        look_again_soon();
    }
    await_sleepers(s->event, 1, sleeper);
    assert_int_equal(sleeper[0].since_ns, since);
    kill_and_reap(pid);
    assert_int_equal(mpr_sleepers_on(s->event, sleeper, MANY), 0);
}

static void what_is_no_object_has_neither(void **state)
{
    (void)state;
    void *const none[] = {NULL, no_object(), (char *)s->lock + 8};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_int_equal(mpr_holders_of(none[i], NULL, 0), 0);
        assert_int_equal(mpr_sleepers_on(none[i], NULL, 0), 0);
    }
    assert_int_equal(mpr_holders_of(s->event, NULL, 0), 0);
    assert_int_equal(mpr_holders_of(s->queue, NULL, 0), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_lock_tells_its_holder_and_who_waits),
        TEST(an_rlock_tells_its_holder_and_who_waits),
        TEST(a_condition_tells_its_holder_and_who_waits),
        TEST(a_condition_over_a_lock_tells_the_holder_of_that),
        TEST(who_takes_it_again_has_not_held_it_all_the_time),
        TEST(the_dead_hold_nothing_and_wait_for_nothing),
        TEST(who_recovers_a_lock_holds_it_since_then),
        TEST(a_semaphore_tells_a_holder_for_each_unit),
        TEST(a_plain_semaphore_is_held_by_nobody),
        TEST(a_barrier_tells_who_has_arrived),
        TEST(it_is_known_what_a_thread_waits_for),
        TEST(a_long_wait_is_one_wait),
        TEST(what_is_no_object_has_neither),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
