/* SPDX-License-Identifier: MIT */
/* The rows of workers: each has a number of its own, in few parts. */
#include "scene.h"

enum { MOST = 100, PARTS = 7 };

static size_t blocks(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info.blocks;
}

/* Two at first. */
static void rows_are_added_as_they_are_wanted(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    size_t before = blocks();
    for (uint32_t count = 1; count <= MOST; count++) {
        assert_ok(mpr_pool_make_rows(s.p, s.self, count));
        assert_true(count > 2 || blocks() == before);
        for (uint32_t i = 0; i < count; i++) {
            assert_non_null(row(&s, i));
            assert_int_equal(row(&s, i)->index, i);
            assert_int_equal(atomic_load(&row(&s, i)->pid), 0);
        }
    }
    assert_in_range(blocks(), before + 1, before + PARTS);
    mpr_pool_end(s.p, s.self);
}

/* In one part. */
static void many_rows_are_added_at_once(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    size_t before = blocks();
    assert_ok(mpr_pool_make_rows(s.p, s.self, MOST));
    assert_int_equal(blocks(), before + 1);
    assert_int_equal(row(&s, MOST - 1)->index, MOST - 1);
    assert_null(row(&s, MOST));
    mpr_pool_end(s.p, s.self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_added_as_they_are_wanted),
        cmocka_unit_test(many_rows_are_added_at_once),
    };
    return cmocka_run_group_tests_name("pool_rows", tests, NULL, NULL);
}
