/* SPDX-License-Identifier: MIT */
/* Tasks that are run again when their worker is lost. */
#include "pool_tasks.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

struct trial {
    _Atomic int *runs;
    int deaths; /* of its first runs; then it ends well */
    int way;
};

enum { SAYS_NOTHING = 4 };

/* What a lost run said is not told. */
static int dies_at_first(const void *arg, size_t size, mproc_reply *reply)
{
    const struct trial *t = arg;
    char large[100] = "lost";
    (void)size;
    if (atomic_fetch_add(t->runs, 1) < t->deaths) {
        mproc_reply_set(reply, large, t->way % 2 ? sizeof large : 5);
        mproc_reply_fail(reply, 5, "lost");
        raise(SIGKILL);
    }
    if (t->way >= SAYS_NOTHING) {
        return 0;
    }
    return t->way < 2 ? mproc_reply_set(reply, "bun", 4) : 7;
}

static void expect_trial(mproc_pool *p, int deaths, int way, int retries)
{
    struct trial t = {mproc_calloc(1, sizeof(int)), deaths, way};
    char out[8] = "";
    size_t size = 77;
    mproc_result *r = sent(p, (mproc_call){.fn = dies_at_first, MPROC_ARG(t)});
    int err = mproc_result_get(r, out, sizeof out, &size, TEST_BOUND);
    const mproc_outcome *o = mproc_result_outcome(r);
    if (deaths > retries) {
        assert_err(err, MPROC_EWORKERLOST);
        assert_int_equal(o->code, -SIGKILL);
        assert_non_null(strstr(o->error, "killed by signal 9 (SIGKILL)"));
    } else {
        bool fails = way == 2 || way == 3;
        assert_err(err, fails ? MPROC_ETASK : MPROC_OK);
        assert_int_equal(o->code, fails ? 7 : 0);
        assert_string_equal(o->error, "");
        assert_string_equal(o->data, way < 2 ? "bun" : "");
    }
    assert_int_equal(*t.runs, deaths > retries ? retries + 1 : deaths + 1);
    mproc_result_free(r);
    mproc_free((void *)t.runs);
}

static void a_lost_task_is_run_again(void **state)
{
    (void)state;
    enum { RETRIES = 3 };
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .retries = RETRIES});
    for (int way = 0; way < 6; way++) {
        for (int deaths = 0; deaths <= RETRIES + 1; deaths++) {
            expect_trial(p, deaths, way, RETRIES);
        }
    }
    end_of(p);
}

static void each_item_has_its_retries(void **state)
{
    (void)state;
    enum { ITEMS = 12, RETRIES = 2 };
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .retries = RETRIES});
    for (size_t chunk = 1; chunk <= ITEMS; chunk += 11) {
        _Atomic int *runs = mproc_calloc(ITEMS, sizeof *runs);
        struct trial in[ITEMS];
        char out[ITEMS][4];
        int status[ITEMS];
        for (int i = 0; i < ITEMS; i++) {
            in[i] = (struct trial){&runs[i], i % 4, 0};
        }
        mproc_batch b = {.fn = dies_at_first,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof *out,
                         .status = status,
                         .chunk = chunk};
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EWORKERLOST);
        for (int i = 0; i < ITEMS; i++) {
            bool lost = i % 4 > RETRIES;
            assert_err(status[i], lost ? MPROC_EWORKERLOST : MPROC_OK);
            assert_int_equal(runs[i], 1 + (lost ? RETRIES : i % 4));
            assert_true(lost || strcmp(out[i], "bun") == 0);
        }
        mproc_free((void *)runs);
    }
    end_of(p);
}

/* A task that was cancelled, or is over its time, is not run again. */
static void only_lost_tasks_are_run_again(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .retries = 5});
    mproc_queue *here = queue();
    mproc_call call = {.fn = stays, MPROC_ARG(here), .timeout_s = 0.1};
    mproc_result *r = sent(p, call);
    heard(here);
    expect_ends(r, MPROC_EOVERTIME);
    mproc_result_free(r);
    call.timeout_s = 0;
    r = sent(p, call);
    pid_t first = heard(here);
    kill(first, SIGKILL);
    pid_t second = heard(here);
    assert_int_not_equal(first, second);
    assert_ok(mproc_result_cancel(r));
    expect_ends(r, MPROC_ECANCELED);
    mproc_result_free(r);
    r = sent(p, call);
    kill(heard(here), SIGKILL);
    heard(here);
    assert_ok(mproc_pool_terminate(p));
    expect_ends(r, MPROC_ECANCELED);
    mproc_result_free(r);
    end_of(p);
    assert_true(mproc_queue_empty(here));
    mproc_queue_free(here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_lost_task_is_run_again),
        CLEAN(each_item_has_its_retries),
        CLEAN(only_lost_tasks_are_run_again),
    };
    return cmocka_run_group_tests_name("pool_retries", tests, NULL, NULL);
}
