/* SPDX-License-Identifier: MIT */
/* Slots and thread records: claimed, left, reaped, reused. */
#include "white.h"

#include <sys/prctl.h>
#include <sys/resource.h>

/* ---- claiming --------------------------------------------------------- */

static int claim_and_store_id(void *arg)
{
    struct white_stage *stage = arg;
    white_self();
    atomic_store(&stage->value[0], mpr_self_id());
    atomic_store(&stage->value[1], (uintptr_t)mpr_family);
    return 0;
}

WHITE_TEST(a_forked_child_is_another_with_a_slot_of_its_own)
{
    struct white_stage *stage = white_stage_new();
    white_self();
    mpr_id own = mpr_self_id();
    assert_int_equal(test_wait_exit(test_fork(claim_and_store_id, stage)), 0);
    mpr_id childs = atomic_load(&stage->value[0]);
    assert_true(childs != own);
    assert_ptr_not_equal(mpr_id_slot(childs), mpr_id_slot(own));
    assert_int_equal(atomic_load(&stage->value[1]), (uintptr_t)mpr_family);
    assert_true(mpr_id_is_dead(childs));
    assert_int_equal(mpr_id_pid(childs), 0);
    assert_false(mpr_id_is_dead(own));
    assert_int_equal(mpr_id_pid(own), getpid());
    return 0;
}

WHITE_TEST(a_reaped_slot_is_used_again_under_a_new_generation)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    mpr_id last = 0;
    for (int i = 0; i < 5; i++) {
        pid_t pid = test_fork(claim_and_store_id, stage);
        assert_int_equal(test_wait_exit(pid), 0);
        mpr_id id = atomic_load(&stage->value[0]);
        assert_true(id != last);
        if (last != 0) {
            assert_ptr_equal(mpr_id_slot(id), mpr_id_slot(last));
            assert_int_equal(id >> 32, (last >> 32) + 1);
        }
        assert_int_equal(mpr_slots_reap(self).reaped, 1);
        assert_true(mpr_id_is_dead(id));
        last = id;
    }
    return 0;
}

static unsigned records_owned(void)
{
    unsigned owned = 0;
    for (uint32_t i = 0; i < mpr_family->threads_max; i++) {
        owned += atomic_load(&mpr_family->threads[i].owner) != 0;
    }
    return owned;
}

static unsigned slots_in_use(void)
{
    unsigned used = 0;
    for (uint32_t i = 0; i < mpr_family->slots_top; i++) {
        used +=
            (uint32_t)atomic_load(&mpr_family->slots[i].state) != MPR_SLOT_FREE;
    }
    return used;
}

static int take_things_and_die(void *unused)
{
    (void)unused;
    struct mpr_thread *self = white_self();
    assert_non_null(mpr_heap_alloc(self, 100, MPR_HAND_BLOCK));
    assert_non_null(mpr_heap_alloc(self, 100000, MPR_HAND_SECOND));
    assert_non_null(mpr_heap_span(self));
    white_die();
}

WHITE_TEST(children_killed_in_a_row_leave_all_as_it_was)
{
    enum { CHILDREN = 64 };
    struct mpr_thread *self = white_self();
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = test_fork(take_things_and_die, NULL);
        assert_int_equal(test_wait_exit(pid), -SIGKILL);
        assert_int_equal(mpr_slots_reap(self).reaped, 1);
    }
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.in_use, before.in_use);
    assert_int_equal(slots_in_use(), 1);
    assert_int_equal(records_owned(), 1);
    assert_int_equal(atomic_load(&mpr_family->slots_top), 2);
    assert_int_equal(atomic_load(&mpr_family->threads_top), 3);
    return 0;
}

/* ---- where a claimer looks -------------------------------------------- */

static int store_slot_and_stay(void *arg)
{
    struct white_stage *stage = arg;
    white_self();
    uint32_t at = atomic_load(&stage->word[0]);
    atomic_store(&stage->value[at],
                 (uint64_t)(mpr_id_slot(mpr_self_id()) - mpr_family->slots));
    white_reach(&stage->word[0], at + 1);
    white_stay();
}

WHITE_TEST(the_lowest_free_slot_is_taken)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    pid_t pids[8];
    for (uint32_t i = 0; i < 5; i++) {
        pids[i] = test_fork(store_slot_and_stay, stage);
        white_await(&stage->word[0], i + 1);
        assert_int_equal(atomic_load(&stage->value[i]), i + 1);
    }
    white_kill(pids[3]);
    white_kill(pids[1]);
    assert_int_equal(mpr_slots_reap(self).reaped, 2);
    const uint64_t expected[] = {2, 4, 6};
    for (uint32_t i = 5; i < 8; i++) {
        pids[i] = test_fork(store_slot_and_stay, stage);
        white_await(&stage->word[0], i + 1);
        assert_int_equal(atomic_load(&stage->value[i]), expected[i - 5]);
    }
    for (uint32_t i = 0; i < 8; i++) {
        if (i != 1 && i != 3) {
            white_kill(pids[i]);
        }
    }
    return 0;
}

/* As when a reaper was killed just before it told of the free slot. */
WHITE_TEST(a_free_slot_that_nobody_was_told_of_is_found_when_all_is_full)
{
    struct white_stage *stage = white_stage_new();
    const mproc_config config = {.processes_max = 4};
    assert_ok(mproc_configure(&config));
    struct mpr_thread *self = white_self();
    pid_t pids[3];
    for (uint32_t i = 0; i < 3; i++) {
        pids[i] = test_fork(store_slot_and_stay, stage);
        white_await(&stage->word[0], i + 1);
    }
    white_kill(pids[0]);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    atomic_store(&mpr_family->free_from, 4);
    assert_true(mpr_slots_room(self, 1));
    pids[0] = test_fork(store_slot_and_stay, stage);
    white_await(&stage->word[0], 4);
    assert_int_equal(atomic_load(&stage->value[3]), 1);
    for (uint32_t i = 0; i < 3; i++) {
        white_kill(pids[i]);
    }
    return 0;
}

/* ---- a process with several records ------------------------------------ */

static void *take_and_wait(void *arg)
{
    struct white_stage *stage = arg;
    struct mpr_thread *self = white_self();
    assert_non_null(mpr_heap_alloc(self, 100, MPR_HAND_BLOCK));
    white_reach(&stage->word[1], atomic_load(&stage->word[1]) + 1);
    white_stay();
}

/* Its own record is the third, where a thread of the second one is. */
static int take_in_threads(void *arg)
{
    enum { THREADS = 4 };
    struct white_stage *stage = arg;
    pthread_t thread;
    white_self();
    atomic_store(&stage->value[0], mpr_self_id());
    for (uint32_t i = 0; i < THREADS; i++) {
        uint32_t before = atomic_load(&stage->word[1]);
        assert_int_equal(pthread_create(&thread, NULL, take_and_wait, stage),
                         0);
        white_await(&stage->word[1], before + 1);
    }
    white_reach(&stage->word[0], atomic_load(&stage->word[0]) + 1);
    white_stay();
}

WHITE_TEST(each_record_of_a_process_is_found_at_its_death)
{
    enum { RECORDS = 5 };
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    pid_t pids[2];
    for (uint32_t i = 0; i < 2; i++) {
        pids[i] = test_fork(take_in_threads, stage);
        white_await(&stage->word[0], i + 1);
    }
    mpr_id id = atomic_load(&stage->value[0]);
    struct mpr_thread *thread = NULL;
    unsigned found = 0;
    while ((thread = mpr_id_thread_after(id, thread)) != NULL) {
        assert_true(atomic_load(&thread->owner) == id);
        found++;
    }
    assert_int_equal(found, RECORDS);
    assert_ptr_not_equal(mpr_id_thread_after(id, NULL),
                         &mpr_family->threads[3]);
    white_kill(pids[1]);
    white_kill(pids[0]);
    assert_int_equal(mpr_slots_reap(self).reaped, 2);
    assert_int_equal(records_owned(), 1);
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    return 0;
}

WHITE_TEST(one_that_was_waited_for_is_reaped_alone_and_once)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    mpr_id ids[2];
    for (int i = 0; i < 2; i++) {
        pid_t pid = test_fork(claim_and_store_id, stage);
        assert_int_equal(test_wait_exit(pid), 0);
        ids[i] = atomic_load(&stage->value[0]);
    }
    mpr_id_reap(self, ids[0]);
    assert_int_equal(slots_in_use(), 2);
    pid_t pid = test_fork(store_slot_and_stay, stage);
    white_await(&stage->word[0], 1);
    mpr_id_reap(self, ids[0]); /* another lives in its place */
    assert_int_equal(slots_in_use(), 3);
    white_kill(pid);
    assert_int_equal(mpr_slots_reap(self).reaped, 2);
    return 0;
}

/* ---- limits ----------------------------------------------------------- */

static int stay(void *arg)
{
    struct white_stage *stage = arg;
    white_self();
    atomic_fetch_add(&stage->word[0], 1);
    mpr_os_wake(&stage->word[0], INT_MAX);
    white_stay();
}

static int expect_no_room(void *unused)
{
    (void)unused;
    struct mpr_thread *self;
    assert_err(mpr_self(&self), MPROC_EAGAIN);
    assert_null(mproc_alloc(10));
    return 0;
}

static int expect_room(void *unused)
{
    (void)unused;
    white_self();
    return 0;
}

WHITE_TEST(no_more_processes_than_configured_until_some_die)
{
    struct white_stage *stage = white_stage_new();
    const mproc_config config = {.processes_max = 4};
    assert_ok(mproc_configure(&config));
    white_self();
    pid_t pids[3];
    for (uint32_t i = 0; i < 3; i++) {
        pids[i] = test_fork(stay, stage);
        white_await(&stage->word[0], i + 1);
    }
    assert_int_equal(test_wait_exit(test_fork(expect_no_room, NULL)), 0);
    white_kill(pids[0]);
    assert_int_equal(test_wait_exit(test_fork(expect_room, NULL)), 0);
    pids[0] = test_fork(stay, stage); /* in the place of the last one */
    white_await(&stage->word[0], 4);
    assert_int_equal(test_wait_exit(test_fork(expect_no_room, NULL)), 0);
    for (uint32_t i = 0; i < 3; i++) {
        white_kill(pids[i]);
    }
    assert_int_equal(test_wait_exit(test_fork(expect_room, NULL)), 0);
    return 0;
}

static void *use_the_library(void *stored)
{
    struct mpr_thread *self = white_self();
    atomic_store((_Atomic uint64_t *)stored, (uintptr_t)self);
    return NULL;
}

WHITE_TEST(a_thread_that_ended_gave_its_record_back)
{
    white_self();
    assert_int_equal(records_owned(), 1);
    _Atomic uint64_t records[20];
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        assert_int_equal(
            pthread_create(&thread, NULL, use_the_library, &records[i]), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(atomic_load(&records[i]), atomic_load(&records[0]));
    }
    assert_int_equal(records_owned(), 1);
    return 0;
}

static void *hold_and_end(void *unused)
{
    mpr_held_add(white_self(), 3);
    return unused;
}

WHITE_TEST(what_an_ended_thread_holds_stays_counted)
{
    white_self();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hold_and_end, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&mpr_id_slot(mpr_self_id())->held), 3);
    return 0;
}

static void *end_in_a_call(void *stored)
{
    struct mpr_thread *self = white_self();
    atomic_store((_Atomic uint64_t *)stored, (uintptr_t)self);
    mpr_op_begin(self, mpr_family);
    assert_non_null(mpr_heap_alloc(self, 100, MPR_HAND_BLOCK));
    pthread_exit(NULL);
}

static int end_a_thread_in_a_call(void *unused)
{
    (void)unused;
    _Atomic uint64_t record;
    pthread_t thread;
    white_self();
    assert_int_equal(pthread_create(&thread, NULL, end_in_a_call, &record), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    struct mpr_thread *left = (struct mpr_thread *)atomic_load(&record);
    assert_true(atomic_load(&left->owner) == mpr_self_id());
    assert_non_null(mpr_hand(left, MPR_HAND_BLOCK));
    return 0;
}

WHITE_TEST(a_thread_that_ends_in_a_call_leaves_its_hands_to_the_reaper)
{
    struct mpr_thread *self = white_self();
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    pid_t pid = test_fork(end_a_thread_in_a_call, NULL);
    assert_int_equal(test_wait_exit(pid), 0);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(records_owned(), 1);
    return 0;
}

/* ---- who is dead ------------------------------------------------------ */

enum { READY, GO, DONE };

static void *go_on(void *arg)
{
    struct white_stage *stage = arg;
    white_await(&stage->word[GO], 1);
    if (atomic_load(&stage->value[1])) {
        white_self(); /* takes the life over, once the first has ended */
    }
    white_reach(&stage->word[DONE], 1);
    white_stay();
}

static int lose_the_first_thread(void *arg)
{
    struct white_stage *stage = arg;
    pthread_t thread;
    white_self();
    atomic_store(&stage->value[0], mpr_self_id());
    assert_int_equal(pthread_create(&thread, NULL, go_on, stage), 0);
    white_reach(&stage->word[READY], 1);
    pthread_exit(NULL);
}

/* Until the kernel has written the death of the thread with the life. */
static void await_mark(mpr_id id)
{
    _Atomic uint32_t *life = mpr_os_mutex_word(&mpr_id_slot(id)->life);
    mproc_deadline bound = TEST_BOUND;
    while (!(atomic_load(life) & MPR_OS_WORD_DIED)) {
        assert_true(mpr_os_now() < bound.at_ns);
        sched_yield();
    }
}

static int first_thread_ends(bool other_calls)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    atomic_store(&stage->value[1], other_calls);
    pid_t pid = test_fork(lose_the_first_thread, stage);
    white_await(&stage->word[READY], 1);
    mpr_id id = atomic_load(&stage->value[0]);
    await_mark(id);
    assert_false(mpr_id_is_dead(id));
    assert_int_equal(mpr_slots_reap(self).reaped, 0);
    white_reach(&stage->word[GO], 1);
    white_await(&stage->word[DONE], 1);
    assert_int_equal(mpr_id_slot(id)->left != MPR_STAYS, !other_calls);
    assert_false(mpr_id_is_dead(id));
    assert_int_equal(mpr_slots_reap(self).unmarked, !other_calls);
    white_kill(pid);
    assert_true(mpr_id_is_dead(id));
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_int_equal(slots_in_use(), 1);
    return 0;
}

WHITE_TEST(a_process_without_its_first_thread_lives_until_it_dies)
{
    return first_thread_ends(false);
}

WHITE_TEST(another_thread_takes_the_life_over)
{
    return first_thread_ends(true);
}

/* As a claimer does that was late: it locks, sees, and unlocks. */
WHITE_TEST(a_life_mutex_without_an_owner_is_a_dead_ones)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    pid_t pid = test_fork(claim_and_store_id, stage);
    assert_int_equal(test_wait_exit(pid), 0);
    mpr_id id = atomic_load(&stage->value[0]);
    struct mpr_slot *slot = mpr_id_slot(id);
    assert_int_equal(mpr_os_mutex_trylock(&slot->life), MPR_OS_OWNER_DIED);
    mpr_os_mutex_repaired(&slot->life);
    mpr_os_mutex_unlock(&slot->life);
    struct mpr_os_word words[4];
    bool dead = false;
    assert_int_equal(mpr_slots_watch(words, 4, &dead), 0);
    assert_true(dead);
    assert_true(mpr_id_is_dead(id));
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    /* and can be locked by the next */
    pid = test_fork(claim_and_store_id, stage);
    assert_int_equal(test_wait_exit(pid), 0);
    assert_ptr_equal(mpr_id_slot(atomic_load(&stage->value[0])), slot);
    return 0;
}

static int run_another_program(void *arg)
{
    struct white_stage *stage = arg;
    char *const argv[] = {"sleep", "1000", NULL};
    struct mpr_thread *self = white_self();
    mpr_held_add(self, 1);
    assert_non_null(mpr_heap_alloc(self, 100, MPR_HAND_BLOCK));
    atomic_store(&stage->value[0], mpr_self_id());
    white_reach(&stage->word[READY], 1);
    execvp(argv[0], argv);
    return 1;
}

WHITE_TEST(who_runs_another_program_has_left_the_family)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    pid_t pid = test_fork(run_another_program, stage);
    white_await(&stage->word[READY], 1);
    mpr_id id = atomic_load(&stage->value[0]);
    await_mark(id);
    mproc_deadline bound = TEST_BOUND;
    while (!mpr_id_is_dead(id)) { /* the old memory goes a little later */
        assert_true(mpr_os_now() < bound.at_ns);
        sched_yield();
    }
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    white_kill(pid);
    return 0;
}

static void use_up_descriptors(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_cur < 64 ? limit.rlim_cur : 64;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (dup(0) >= 0) {
    }
    assert_int_equal(errno, EMFILE);
}

WHITE_TEST(a_death_is_noticed_without_a_descriptor_to_spare)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    pid_t pid = test_fork(claim_and_store_id, stage);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    use_up_descriptors();
    assert_true(mpr_id_is_dead(atomic_load(&stage->value[0])));
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_int_equal(test_wait_exit(pid), 0);
    return 0;
}

/* ---- a reaper that died ------------------------------------------------ */

static int die_reaping(void *unused)
{
    (void)unused;
    struct mpr_thread *self = white_self();
    mpr_guard_lock(&mpr_family->slots_guard, self, NULL);
    atomic_store(&mpr_family->reaper, self);
    assert_non_null(mpr_heap_alloc(self, 100, MPR_HAND_BLOCK));
    white_die();
}

WHITE_TEST(a_dead_reaper_is_reaped_like_any_other)
{
    struct mpr_thread *self = white_self();
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    for (int i = 0; i < 3; i++) {
        pid_t pid = test_fork(die_reaping, NULL);
        assert_int_equal(test_wait_exit(pid), -SIGKILL);
        assert_int_equal(mpr_slots_reap(self).reaped, 1);
        assert_null(atomic_load(&mpr_family->reaper));
    }
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    return 0;
}

/* What a reaper without a record had in hand when it died. */
WHITE_TEST(the_spare_record_is_settled_by_the_next_reaper)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    struct mpr_thread *spare = &mpr_family->threads[0];
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    assert_non_null(mpr_heap_alloc(spare, 100, MPR_HAND_BLOCK));
    pid_t pid = test_fork(claim_and_store_id, stage);
    assert_int_equal(test_wait_exit(pid), 0);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_null(mpr_hand(spare, MPR_HAND_BLOCK));
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    return 0;
}

/* ---- slots of threads -------------------------------------------------- */

static void *claim_as_thread(void *stored)
{
    struct mpr_thread *self = white_self();
    atomic_store((_Atomic uint64_t *)stored, mpr_self_id());
    assert_non_null(mpr_heap_alloc(self, 100, MPR_HAND_BLOCK));
    return NULL;
}

WHITE_TEST(with_a_slot_per_thread_each_is_another_and_dies_alone)
{
    mpr_test_slot_per_thread(true);
    struct mpr_thread *self = white_self();
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    _Atomic uint64_t ids[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, claim_as_thread, &ids[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(atomic_load(&ids[i]) != mpr_self_id());
        assert_true(mpr_id_is_dead(atomic_load(&ids[i])));
    }
    mpr_slots_reap(self);
    mproc_heap_info after;
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, 0);
    assert_int_equal(slots_in_use(), 1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forked_child_is_another_with_a_slot_of_its_own),
        cmocka_unit_test(a_reaped_slot_is_used_again_under_a_new_generation),
        cmocka_unit_test(children_killed_in_a_row_leave_all_as_it_was),
        cmocka_unit_test(the_lowest_free_slot_is_taken),
        cmocka_unit_test(
            a_free_slot_that_nobody_was_told_of_is_found_when_all_is_full),
        cmocka_unit_test(each_record_of_a_process_is_found_at_its_death),
        cmocka_unit_test(one_that_was_waited_for_is_reaped_alone_and_once),
        cmocka_unit_test(no_more_processes_than_configured_until_some_die),
        cmocka_unit_test(a_thread_that_ended_gave_its_record_back),
        cmocka_unit_test(what_an_ended_thread_holds_stays_counted),
        cmocka_unit_test(
            a_thread_that_ends_in_a_call_leaves_its_hands_to_the_reaper),
        cmocka_unit_test(
            a_process_without_its_first_thread_lives_until_it_dies),
        cmocka_unit_test(another_thread_takes_the_life_over),
        cmocka_unit_test(a_life_mutex_without_an_owner_is_a_dead_ones),
        cmocka_unit_test(who_runs_another_program_has_left_the_family),
        cmocka_unit_test(a_death_is_noticed_without_a_descriptor_to_spare),
        cmocka_unit_test(a_dead_reaper_is_reaped_like_any_other),
        cmocka_unit_test(the_spare_record_is_settled_by_the_next_reaper),
        cmocka_unit_test(with_a_slot_per_thread_each_is_another_and_dies_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
