/* SPDX-License-Identifier: MIT */
/* The shared heap: its calls, its limits, and what deaths leave in it. */
#include "white.h"

#include "shm/span.h"

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)

static mproc_heap_info stats(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info;
}

static void assert_nothing_in_use(void)
{
    mproc_heap_info info = stats();
    assert_int_equal(info.blocks, 0);
    assert_int_equal(info.in_use, 0);
}

static void fill(unsigned char *p, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        p[i] = (unsigned char)(seed + i * 7);
    }
}

static bool is_filled(const unsigned char *p, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != (unsigned char)(seed + i * 7)) {
            return false;
        }
    }
    return true;
}

/* ---- the calls -------------------------------------------------------- */

/* Each a little below, at, and above what is special to the heap. */
static const size_t sizes[] = {
    0,         1,       63,    64,      65,      128,         129,   1000,
    1024,      1025,    4095,  4096,    4097,    9344,        9345,  16384,
    21824,     21825,   32767, 32768,   32769,   65535,       65536, 65537,
    100 * KIB, MIB - 1, MIB,   MIB + 1, 3 * MIB, 9 * MIB + 5,
};
enum { SIZES = sizeof sizes / sizeof *sizes };

WHITE_TEST(blocks_of_all_sizes_are_whole_and_apart)
{
    unsigned char *p[SIZES];
    for (unsigned i = 0; i < SIZES; i++) {
        p[i] = mproc_alloc(sizes[i]);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % MPR_LINE, 0);
        assert_true(mpr_heap_block_size(p[i]) >= sizes[i]);
        assert_true(mpr_family_holds(p[i], sizes[i]));
        fill(p[i], mpr_heap_block_size(p[i]), i);
    }
    assert_int_equal(stats().blocks, SIZES);
    for (unsigned i = 0; i < SIZES; i++) {
        assert_true(is_filled(p[i], mpr_heap_block_size(p[i]), i));
        mproc_free(p[i]);
        assert_int_equal(mpr_heap_block_size(p[i]), 0);
    }
    assert_nothing_in_use();
    return 0;
}

WHITE_TEST(a_block_wastes_half_of_what_is_asked_for_at_most)
{
    for (size_t size = 256; size <= 32768; size++) {
        if (size % 61 == 0) {
            void *p = mproc_alloc(size);
            assert_true(mpr_heap_block_size(p) <= size + size / 2 + 64);
            mproc_free(p);
        }
    }
    return 0;
}

WHITE_TEST(a_second_free_does_nothing)
{
    static const size_t twice[] = {1, 1000, 32768, 70000, 3 * MIB};
    for (size_t i = 0; i < sizeof twice / sizeof *twice; i++) {
        void *kept = mproc_alloc(twice[i]);
        void *p = mproc_alloc(twice[i]);
        mproc_free(p);
        mproc_free(p);
        assert_int_equal(stats().blocks, 1);
        void *a = mproc_alloc(twice[i]), *b = mproc_alloc(twice[i]);
        assert_ptr_not_equal(a, b);
        assert_ptr_not_equal(a, kept);
        assert_ptr_not_equal(b, kept);
        mproc_free(kept);
        mproc_free(a);
        mproc_free(b);
    }
    assert_nothing_in_use();
    return 0;
}

WHITE_TEST(what_is_no_block_is_not_freed)
{
    char local[64], *small = mproc_alloc(100), *large = mproc_alloc(3 * MIB);
    void *outside = malloc(100);
    mproc_free(NULL);
    mproc_free(local);
    mproc_free(outside);
    mproc_free(small + 1);
    mproc_free(small + 64);
    mproc_free(small + 128); /* the next block, which is free */
    mproc_free(large + 1);
    mproc_free(large + 64 * KIB);
    mproc_free(mpr_family);
    mproc_free((char *)mpr_family + mpr_family->size - 64);
    mproc_free((char *)mpr_family + mpr_family->size);
    assert_int_equal(stats().blocks, 2);
    assert_null(mproc_realloc(local, 10));
    assert_null(mproc_realloc(small + 64, 10));
    free(outside);
    mproc_free(small);
    mproc_free(large);
    assert_nothing_in_use();
    return 0;
}

WHITE_TEST(before_the_first_use_nothing_is_a_block)
{
    char local[64];
    mproc_free(local);
    assert_int_equal(mpr_heap_block_size(local), 0);
    assert_null(mpr_family);
    return 0;
}

WHITE_TEST(realloc_keeps_the_content)
{
    for (unsigned from = 0; from < SIZES; from += 3) {
        for (unsigned to = 0; to < SIZES; to += 2) {
            unsigned char *p = mproc_alloc(sizes[from]);
            fill(p, sizes[from], from);
            p = mproc_realloc(p, sizes[to]);
            assert_non_null(p);
            assert_true(mpr_heap_block_size(p) >= sizes[to]);
            size_t both = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            assert_true(is_filled(p, both, from));
            assert_int_equal(stats().blocks, 1);
            mproc_free(p);
        }
    }
    unsigned char *p = mproc_realloc(NULL, 100);
    assert_non_null(p);
    mproc_free(p);
    assert_nothing_in_use();
    return 0;
}

WHITE_TEST(a_realloc_that_is_refused_leaves_the_block)
{
    const mproc_config config = {.heap_max = 2 * MIB};
    assert_ok(mproc_configure(&config));
    unsigned char *p = mproc_alloc(MIB);
    fill(p, MIB, 5);
    assert_null(mproc_realloc(p, 2 * MIB));
    assert_null(mproc_realloc(p, SIZE_MAX));
    assert_true(is_filled(p, MIB, 5));
    unsigned char *rest = mproc_alloc(16);
    while (mproc_alloc(64 * KIB) != NULL) {
    }
    assert_ptr_equal(mproc_realloc(p, 70000), p); /* smaller: it stays */
    (void)rest;
    return 0;
}

WHITE_TEST(calloc_is_zero_also_where_blocks_were_before)
{
    static const size_t dirty[] = {1, 64, 1000, 32768, 70000, 2 * MIB, 9 * MIB};
    for (size_t i = 0; i < sizeof dirty / sizeof *dirty; i++) {
        for (int round = 0; round < 3; round++) {
            unsigned char *p = mproc_calloc(1, dirty[i]);
            assert_non_null(p);
            for (size_t at = 0; at < dirty[i]; at++) {
                assert_int_equal(p[at], 0);
            }
            memset(p, 0xff, mpr_heap_block_size(p));
            mproc_free(p);
        }
    }
    assert_null(mproc_calloc(SIZE_MAX / 2, 3));
    assert_null(mproc_calloc(3, SIZE_MAX / 2));
    return 0;
}

WHITE_TEST(strdup_copies)
{
    char *copy = mproc_strdup("in the family");
    assert_string_equal(copy, "in the family");
    assert_true(mpr_family_holds(copy, 14));
    mproc_free(copy);
    copy = mproc_strdup("");
    assert_string_equal(copy, "");
    mproc_free(copy);
    assert_null(mproc_strdup(NULL));
    return 0;
}

WHITE_TEST(statistics_count_what_is_in_use)
{
    assert_err(mproc_heap_stats(NULL), MPROC_EINVAL);
    mproc_heap_info before = stats();
    void *small = mproc_alloc(100), *large = mproc_alloc(100 * KIB);
    mproc_heap_info during = stats();
    assert_int_equal(during.blocks - before.blocks, 2);
    assert_int_equal(during.in_use - before.in_use, 128 + 128 * KIB);
    assert_true(during.high_water >= during.in_use);
    assert_true(during.resident > 0);
    mproc_free(small);
    mproc_free(large);
    mproc_heap_info after = stats();
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.in_use, before.in_use);
    assert_int_equal(after.high_water, during.high_water);
    struct {
        mproc_heap_info known;
        size_t later;
    } longer = {.later = 1};
    assert_ok(mproc_heap_stats_sized(&longer.known, sizeof longer));
    assert_int_equal(longer.later, 0);
    return 0;
}

/* ---- full, and empty again --------------------------------------------- */

/* Takes all there is in blocks of `size`, in a list; returns how many. */
static size_t take_all(size_t size, void **list)
{
    size_t count = 0;
    *list = NULL;
    for (void **p; (p = mproc_alloc(size)) != NULL; count++) {
        *p = *list;
        *list = p;
    }
    return count;
}

static void give_all(void *list)
{
    while (list != NULL) {
        void *next = *(void **)list;
        mproc_free(list);
        list = next;
    }
}

WHITE_TEST(a_full_heap_is_all_there_again_when_freed)
{
    const mproc_config config = {.heap_max = 4 * MIB};
    static const size_t used[] = {64, 1000, 32768, 40000, 100 * KIB, 64};
    assert_ok(mproc_configure(&config));
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
        void *list;
        size_t first = take_all(used[i], &list);
        assert_true(first * used[i] >= 4 * MIB / 2);
        assert_null(mproc_alloc(used[i]));
        give_all(list);
        assert_nothing_in_use();
        assert_int_equal(take_all(used[i], &list), first);
        give_all(list);
    }
    return 0;
}

static size_t resident_now(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info.resident;
}

/* Also once as many pages are kept as may be: more than that were freed. */
WHITE_TEST(a_span_that_is_freed_and_taken_in_turn_keeps_its_pages)
{
    const mproc_config config = {.heap_max = 256 * MIB};
    enum { SPAN = 64 * 1024, SPANS = 1500 };
    static char *span[SPANS];
    assert_ok(mproc_configure(&config));
    for (int i = 0; i < SPANS; i++) {
        span[i] = mproc_alloc(SPAN);
        assert_non_null(span[i]);
    }
    for (int i = SPANS; i-- > 0;) {
        mproc_free(span[i]);
    }
    size_t kept = resident_now();
    assert_true(kept < SPANS * (size_t)SPAN);
    for (int i = 0; i < 100; i++) {
        char *again = mproc_alloc(SPAN);
        memset(again, 1, SPAN);
        size_t with = resident_now();
        mproc_free(again);
        assert_int_equal(resident_now(), with);
        assert_int_equal(with, kept);
    }
    return 0;
}

/* Each class keeps an empty span for itself: until somebody else needs it. */
WHITE_TEST(what_a_class_keeps_is_there_for_others)
{
    const mproc_config config = {.heap_max = 2 * MIB};
    assert_ok(mproc_configure(&config));
    void *whole = mproc_alloc(2 * MIB);
    assert_non_null(whole);
    mproc_free(whole);
    for (size_t size = 64; size <= 32768; size += size / 8) {
        mproc_free(mproc_alloc(size));
    }
    assert_nothing_in_use();
    whole = mproc_alloc(2 * MIB);
    assert_non_null(whole);
    mproc_free(whole);
    return 0;
}

WHITE_TEST(memory_goes_back_after_a_burst)
{
    enum { BLOCKS = 200 };
    unsigned char *p[BLOCKS];
    size_t before = stats().resident;
    for (int i = 0; i < BLOCKS; i++) {
        p[i] = mproc_alloc(MIB);
        assert_non_null(p[i]);
        memset(p[i], 1, MIB);
    }
    assert_true(stats().resident >= before + BLOCKS * MIB);
    for (int i = 0; i < BLOCKS; i++) {
        mproc_free(p[i]);
    }
    assert_true(stats().resident <= before + 65 * MIB);
    return 0;
}

WHITE_TEST(many_small_blocks_go_back_as_well)
{
    enum { BLOCKS = 40000, SIZE = 4096 };
    void **p = calloc(BLOCKS, sizeof *p);
    size_t before = stats().resident;
    for (int i = 0; i < BLOCKS; i++) {
        p[i] = mproc_alloc(SIZE);
        assert_non_null(p[i]);
        memset(p[i], 1, SIZE);
    }
    assert_true(stats().resident >= before + BLOCKS * (size_t)SIZE);
    for (int i = 0; i < BLOCKS; i++) {
        mproc_free(p[i]);
    }
    assert_nothing_in_use();
    assert_true(stats().resident <= before + 66 * MIB);
    free(p);
    return 0;
}

static void free_from(void **p, int from, int to)
{
    for (int i = from; i < to; i++) {
        mproc_free(p[i]);
        p[i] = NULL;
    }
}

/*
 * Blocks come and go at random, first small ones, then larger and fewer, so
 * that what one size gave back must serve the next. What the system holds,
 * without what free runs keep for later, follows what is in use: a quarter
 * beyond it, and a span for each class.
 */
WHITE_TEST(a_long_run_of_growing_sizes_leaves_no_holes)
{
    enum { PLACES = 4000, PHASES = 12, STEPS = WHITE_SANITIZED ? 4000 : 40000 };
    void **p = calloc(PLACES, sizeof *p);
    unsigned seed = 1;
    size_t before = stats().resident;
    for (int phase = 0; phase < PHASES; phase++) {
        size_t least = (size_t)64 << phase;
        int places = PLACES >> phase / 2;
        for (int i = 0; i < STEPS; i++) {
            void **place = &p[rand_r(&seed) % places];
            mproc_free(*place);
            *place = mproc_alloc(least + (size_t)rand_r(&seed) % least);
            assert_non_null(*place);
        }
        free_from(p, places, PLACES);
        mproc_heap_info now = stats();
        size_t kept = mpr_heap()->kept * MPR_SPAN_SIZE;
        assert_true(now.resident - before - kept <=
                    now.in_use + now.in_use / 4 + MPR_CLASSES * MPR_SPAN_SIZE);
    }
    free_from(p, 0, PLACES);
    assert_nothing_in_use();
    free(p);
    return 0;
}

/* ---- by many ----------------------------------------------------------- */

enum { TRADERS = 4, SHELF = 64, ROUNDS = WHITE_SANITIZED ? 6 : 60 };

/* Blocks on their way from one to another; each tells its size and seed. */
struct market {
    _Atomic uintptr_t shelf[SHELF];
    _Atomic uint32_t rounds_left;
};

struct goods {
    size_t size;
    unsigned seed;
    unsigned char bytes[];
};

static struct goods *make_goods(unsigned *random)
{
    static const size_t of[] = {0, 30, 100, 900, 5000, 33000, 70000, 200000};
    size_t size = of[*random >> 16 & 7];
    struct goods *goods = mproc_alloc(sizeof *goods + size);
    assert_non_null(goods);
    goods->size = size;
    goods->seed = *random;
    fill(goods->bytes, size, goods->seed);
    return goods;
}

static void use_goods_up(struct goods *goods)
{
    if (goods != NULL) {
        assert_true(is_filled(goods->bytes, goods->size, goods->seed));
        mproc_free(goods);
    }
}

/* Puts a block of its own in the place of another's, and frees that. */
static void *trade(void *arg)
{
    struct market *market = arg;
    unsigned random = (unsigned)mpr_os_tid() * 2654435761u;
    while (atomic_load(&market->rounds_left) > 0) {
        atomic_fetch_sub(&market->rounds_left, 1);
        for (int i = 0; i < 64; i++) {
            random = random * 1664525u + 1013904223u;
            uintptr_t mine = (uintptr_t)make_goods(&random);
            uintptr_t theirs = atomic_exchange(
                &market->shelf[random >> 20 & (SHELF - 1)], mine);
            use_goods_up((struct goods *)theirs);
        }
    }
    return NULL;
}

static struct market *open_market(uint32_t rounds)
{
    struct market *market = mproc_calloc(1, sizeof *market);
    assert_non_null(market);
    atomic_store(&market->rounds_left, rounds);
    return market;
}

static void close_market(struct market *market)
{
    for (int i = 0; i < SHELF; i++) {
        use_goods_up((struct goods *)atomic_load(&market->shelf[i]));
    }
    mproc_free(market);
    assert_nothing_in_use();
}

static int trade_as_process(void *market)
{
    trade(market);
    return 0;
}

WHITE_TEST(processes_free_each_others_blocks)
{
    struct market *market = open_market(ROUNDS);
    pid_t pids[TRADERS];
    for (int i = 0; i < TRADERS; i++) {
        pids[i] = test_fork(trade_as_process, market);
    }
    for (int i = 0; i < TRADERS; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
    mpr_slots_reap(white_self());
    close_market(market);
    return 0;
}

static int trade_by_threads(void)
{
    struct market *market = open_market(ROUNDS);
    pthread_t threads[TRADERS];
    for (int i = 0; i < TRADERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, trade, market), 0);
    }
    for (int i = 0; i < TRADERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    mpr_slots_reap(white_self());
    close_market(market);
    return 0;
}

WHITE_TEST(threads_free_each_others_blocks)
{
    return trade_by_threads();
}

WHITE_TEST(threads_with_slots_of_their_own_free_each_others_blocks)
{
    mpr_test_slot_per_thread(true);
    return trade_by_threads();
}

/* Killed at random, for the most part inside the heap. */
WHITE_TEST(traders_that_are_killed_leave_a_good_heap)
{
    enum { KILLS = WHITE_SANITIZED ? 6 : 40 };
    struct market *market = open_market(UINT32_MAX / 2);
    struct mpr_thread *self = white_self();
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = test_fork(trade_as_process, market);
        uint32_t seen = atomic_load(&market->rounds_left);
        mproc_deadline bound = TEST_BOUND;
        while (atomic_load(&market->rounds_left) + 2 + (unsigned)i % 3 > seen) {
            assert_true(mpr_os_now() < bound.at_ns);
            sched_yield();
        }
        white_kill(pid);
        assert_int_equal(mpr_slots_reap(self).reaped, 1);
        /* lost with it: what it was about to put and about to use up */
        assert_true(stats().blocks <= 1 + SHELF + 2 * ((size_t)i + 1));
    }
    atomic_store(&market->rounds_left, ROUNDS / 3);
    trade(market);
    for (int i = 0; i < SHELF; i++) {
        use_goods_up((struct goods *)atomic_load(&market->shelf[i]));
    }
    return 0;
}

/* ---- deaths between two steps ------------------------------------------ */

static int die_with_blocks_in_hand(void *unused)
{
    (void)unused;
    struct mpr_thread *self = white_self();
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        if (hand != MPR_HAND_OBJECT_NEW && hand != MPR_HAND_OBJECT_END &&
            hand != MPR_HAND_SPAN) {
            size_t size = hand % 2 ? 100 : 200000;
            assert_non_null(mpr_heap_alloc(self, size, (enum mpr_hand)hand));
        }
    }
    assert_non_null(mpr_heap_span(self));
    white_die();
}

WHITE_TEST(what_a_dead_one_had_in_hand_is_given_back)
{
    struct mpr_thread *self = white_self();
    void *before = mproc_alloc(100);
    size_t in_use = stats().in_use;
    pid_t pid = test_fork(die_with_blocks_in_hand, NULL);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
    assert_true(stats().in_use > in_use);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_int_equal(stats().in_use, in_use);
    mproc_free(before);
    assert_nothing_in_use();
    return 0;
}

/* With a guard held, its hands being settled, and a hand on a free block. */
static int die_in_a_guard(void *arg)
{
    struct mpr_guard *guard = arg;
    struct mpr_thread *self = white_self();
    void *large = mpr_heap_alloc(self, 200000, MPR_HAND_BLOCK);
    void *small = mpr_heap_alloc(self, 100, MPR_HAND_SECOND);
    mpr_heap_free_hand(self, self, MPR_HAND_BLOCK);
    mpr_heap_free_hand(self, self, MPR_HAND_SECOND);
    mpr_guard_lock(guard, self, self);
    mpr_hand_set(self, MPR_HAND_BLOCK, large);
    mpr_hand_set(self, MPR_HAND_SECOND, small);
    white_die();
}

static int use_the_heap(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        void *small = mproc_alloc(100), *large = mproc_alloc(200000);
        assert_non_null(small);
        assert_non_null(large);
        mproc_free(small);
        mproc_free(large);
    }
    return 0;
}

/* The guards of the heap, by their kind: that of the runs, those of classes. */
static struct mpr_guard *next_guard(struct mpr_guard *after)
{
    char *at = after != NULL ? (char *)(after + 1) : (char *)mpr_family->heap;
    at += -(uintptr_t)at % MPR_LINE;
    for (; at < (char *)mpr_family->heap + 8192; at += MPR_LINE) {
        struct mpr_guard *guard = (struct mpr_guard *)at;
        if (guard->kind == MPR_GUARD_RUNS || guard->kind == MPR_GUARD_CLASS) {
            return guard;
        }
    }
    return NULL;
}

WHITE_TEST(a_death_inside_a_guard_is_repaired)
{
    struct mpr_thread *self = white_self();
    use_the_heap(NULL);
    mproc_heap_info before = stats();
    unsigned guards = 0;
    for (struct mpr_guard *g = NULL; (g = next_guard(g)) != NULL; guards++) {
        pid_t pid = test_fork(die_in_a_guard, g);
        assert_int_equal(test_wait_exit(pid), -SIGKILL);
        assert_int_equal(test_wait_exit(test_fork(use_the_heap, NULL)), 0);
        mpr_slots_reap(self);
        use_the_heap(NULL);
        assert_int_equal(stats().in_use, before.in_use);
        assert_int_equal(stats().high_water, before.high_water);
    }
    assert_int_equal(guards, 31);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_all_sizes_are_whole_and_apart),
        cmocka_unit_test(a_block_wastes_half_of_what_is_asked_for_at_most),
        cmocka_unit_test(a_second_free_does_nothing),
        cmocka_unit_test(what_is_no_block_is_not_freed),
        cmocka_unit_test(before_the_first_use_nothing_is_a_block),
        cmocka_unit_test(realloc_keeps_the_content),
        cmocka_unit_test(a_realloc_that_is_refused_leaves_the_block),
        cmocka_unit_test(calloc_is_zero_also_where_blocks_were_before),
        cmocka_unit_test(strdup_copies),
        cmocka_unit_test(statistics_count_what_is_in_use),
        cmocka_unit_test(a_full_heap_is_all_there_again_when_freed),
        cmocka_unit_test(what_a_class_keeps_is_there_for_others),
        cmocka_unit_test(
            a_span_that_is_freed_and_taken_in_turn_keeps_its_pages),
        cmocka_unit_test(memory_goes_back_after_a_burst),
        cmocka_unit_test(many_small_blocks_go_back_as_well),
        cmocka_unit_test(a_long_run_of_growing_sizes_leaves_no_holes),
        cmocka_unit_test(processes_free_each_others_blocks),
        cmocka_unit_test(threads_free_each_others_blocks),
        cmocka_unit_test(
            threads_with_slots_of_their_own_free_each_others_blocks),
        cmocka_unit_test(traders_that_are_killed_leave_a_good_heap),
        cmocka_unit_test(what_a_dead_one_had_in_hand_is_given_back),
        cmocka_unit_test(a_death_inside_a_guard_is_repaired),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
