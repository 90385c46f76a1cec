/* SPDX-License-Identifier: MIT */
/* Sleeping, bells, and being woken by the deaths of others. */
#include "white.h"

#include <sys/syscall.h>

/* ---- sleepers --------------------------------------------------------- */

/* What a sleeper process sleeps on; its own tid in `value[0]`. */
struct sleeper {
    struct white_stage *stage;
    _Atomic uint32_t *bell; /* in the family */
};

enum { SLEEPS, WOKEN, GO };

/* Sleeps without a deadline until the count of deaths changes. */
static int sleep_until_told(void *arg)
{
    struct white_stage *stage = arg;
    mpr_test_deep_sleep = true;
    white_self();
    _Atomic uint32_t bell = 0;
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, MPROC_FOREVER);
    uint32_t deaths = atomic_load(&mpr_family->deaths);
    white_reach(&stage->word[SLEEPS], 1);
    while (atomic_load(&mpr_family->deaths) == deaths ||
           !atomic_load(&stage->word[GO])) {
        mpr_sleep_on(&sleep, &bell, 0);
    }
    white_reach(&stage->word[WOKEN], 1);
    return 0;
}

static pid_t start_sleeper(struct white_stage *stage)
{
    pid_t pid = test_fork(sleep_until_told, stage);
    white_await(&stage->word[SLEEPS], 1);
    white_await_asleep(pid, pid);
    return pid;
}

static int die_in_operation(void *arg)
{
    struct white_stage *stage = arg;
    struct mpr_thread *self = white_self();
    mpr_op_begin(self, mpr_family);
    atomic_store(&stage->word[GO], 1);
    white_die();
}

static int die_holding(void *arg)
{
    struct white_stage *stage = arg;
    mpr_held_add(white_self(), 1);
    atomic_store(&stage->word[GO], 1);
    white_die();
}

/* The parent looks at nothing, so that the sleeper alone can notice. */
static void death_of_a_newcomer_wakes(int (*how)(void *))
{
    struct white_stage *stage = white_stage_new();
    white_self();
    pid_t sleeper = start_sleeper(stage);
    pid_t dead = test_fork(how, stage);
    assert_int_equal(test_wait_exit(dead), -SIGKILL);
    white_await(&stage->word[WOKEN], 1);
    assert_int_equal(test_wait_exit(sleeper), 0);
}

WHITE_TEST(a_newcomer_that_dies_in_an_operation_wakes_a_sleeper)
{
    death_of_a_newcomer_wakes(die_in_operation);
    return 0;
}

WHITE_TEST(a_newcomer_that_dies_holding_wakes_a_sleeper)
{
    death_of_a_newcomer_wakes(die_holding);
    return 0;
}

/* ---- main ------------------------------------------------------------- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newcomer_that_dies_in_an_operation_wakes_a_sleeper),
        cmocka_unit_test(a_newcomer_that_dies_holding_wakes_a_sleeper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
