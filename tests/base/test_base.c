/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/deadline.h"
#include "base/options.h"

/* errors */

static const struct outcome {
    int value;
    const char *name;
    const char *text;
} outcomes[] = {
#define OUTCOME(name, value, text) {value, #name, text},
    MPROC_ERROR_MAP(OUTCOME)
#undef OUTCOME
};
static const size_t n_outcomes = sizeof outcomes / sizeof outcomes[0];

static void every_outcome_has_its_name_and_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_outcomes; i++) {
        const struct outcome *o = &outcomes[i];
        assert_string_equal(mproc_error_name(o->value), o->name);
        assert_string_equal(mproc_strerror(o->value), o->text);
        assert_true(strlen(o->text) > 0);
    }
    assert_string_equal(mproc_error_name(MPROC_EFULL), "MPROC_EFULL");
    assert_string_equal(mproc_strerror(MPROC_EFULL), "no room");
}

static void no_two_outcomes_look_alike(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_outcomes; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(outcomes[i].value, outcomes[j].value);
            assert_string_not_equal(outcomes[i].text, outcomes[j].text);
        }
    }
}

static void failures_are_negative_and_only_failures(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_outcomes; i++) {
        bool failure = strncmp(outcomes[i].name, "MPROC_E", 7) == 0;
        assert_int_equal(failure, outcomes[i].value < 0);
    }
}

static void outcomes_that_an_errno_says_are_minus_errno(void **state)
{
    (void)state;
    assert_int_equal(MPROC_ETIMEDOUT, -ETIMEDOUT);
    assert_int_equal(MPROC_EINVAL, -EINVAL);
    assert_int_equal(MPROC_ENOMEM, -ENOMEM);
    assert_int_equal(MPROC_OK, 0);
    assert_int_equal(MPROC_RECOVERED, 1);
}

static void any_other_int_is_an_unknown_error(void **state)
{
    (void)state;
    const int strange[] = {INT_MIN, INT_MAX, 2, -20000, -20008, EINVAL, -4095};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        assert_string_equal(mproc_error_name(strange[i]), "MPROC_E?");
        assert_string_equal(mproc_strerror(strange[i]), "unknown error");
    }
}

static void version_is_the_headers_own(void **state)
{
    (void)state;
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", MPROC_VERSION_MAJOR,
             MPROC_VERSION_MINOR, MPROC_VERSION_PATCH);
    assert_string_equal(mproc_version(), expected);
}

static int break_an_invariant(void *unused)
{
    (void)unused;
    MPR_CHECK(1 + 1 == 2);
    assert_non_null(freopen("/dev/null", "w", stderr)); /* it is meant */
    MPR_CHECK(1 + 1 == 3);
    return 0;
}

static void a_broken_invariant_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(break_an_invariant, NULL)),
                     -SIGABRT);
}

/* deadlines */

static const double ms = 1e6;
static const double s = 1e9;

static int64_t after(int64_t now_ns, double count, double unit_ns)
{
    return mpr_deadline_after(now_ns, count, unit_ns).at_ns;
}

static void a_duration_is_added_to_now(void **state)
{
    (void)state;
    assert_int_equal(after(1000, 2, ms), 2001000);
    assert_int_equal(after(1000, 0.5, s), 500001000);
    assert_int_equal(after(1000, 1e-6, ms), 1001);
}

static void negative_zero_and_nan_durations_mean_now(void **state)
{
    (void)state;
    const double nothing[] = {0.0, -0.0, -1.0, -1e300, -INFINITY, NAN, -NAN};
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        assert_int_equal(after(1000, nothing[i], ms), 1000);
        assert_int_equal(after(1000, nothing[i], s), 1000);
    }
}

static void durations_too_large_for_the_clock_mean_for_ever(void **state)
{
    (void)state;
    const double huge[] = {1e10, 1e18, 1e300, INFINITY, (double)INT64_MAX};
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        mproc_deadline d = mpr_deadline_after(1000, huge[i], s);
        assert_true(mpr_deadline_is_forever(d));
    }
}

static void the_largest_durations_do_not_wrap(void **state)
{
    (void)state;
    const int64_t nows[] = {0, 1, 1000, INT64_MAX / 2, INT64_MAX - 1};
    for (size_t i = 0; i < sizeof nows / sizeof nows[0]; i++) {
        double room = (double)(INT64_MAX - nows[i]);
        double below = nextafter(room, 0);
        assert_int_equal(after(nows[i], room, 1), INT64_MAX);
        assert_true(after(nows[i], below, 1) >= nows[i]);
    }
}

static void for_ever_and_no_wait_are_told_apart(void **state)
{
    (void)state;
    assert_true(mpr_deadline_is_forever(MPROC_FOREVER));
    assert_false(mpr_deadline_is_nowait(MPROC_FOREVER));
    assert_true(mpr_deadline_is_nowait(MPROC_NOWAIT));
    assert_false(mpr_deadline_is_forever(MPROC_NOWAIT));
    mproc_deadline some = mproc_deadline_at_(1000);
    assert_false(mpr_deadline_is_forever(some));
    assert_false(mpr_deadline_is_nowait(some));
}

static void the_earlier_of_two_deadlines_is_taken(void **state)
{
    (void)state;
    mproc_deadline soon = mproc_deadline_at_(1);
    mproc_deadline late = mproc_deadline_at_(2);
    assert_int_equal(mpr_deadline_earlier(soon, late).at_ns, 1);
    assert_int_equal(mpr_deadline_earlier(late, soon).at_ns, 1);
    assert_int_equal(mpr_deadline_earlier(MPROC_FOREVER, late).at_ns, 2);
}

/* options of any age */

struct old_opts {
    int a;
    int b;
};

struct new_opts {
    int a;
    int b;
    size_t c;
};

static void no_options_are_all_defaults(void **state)
{
    (void)state;
    struct new_opts own = {1, 2, 3};
    assert_ok(mpr_options_read(&own, sizeof own, NULL, 0));
    assert_int_equal(own.a, 0);
    assert_int_equal(own.b, 0);
    assert_int_equal(own.c, 0);
}

static void older_options_leave_what_is_newer_at_its_default(void **state)
{
    (void)state;
    struct new_opts own = {9, 9, 9};
    struct old_opts theirs = {1, 2};
    assert_ok(mpr_options_read(&own, sizeof own, &theirs, sizeof theirs));
    assert_int_equal(own.a, 1);
    assert_int_equal(own.b, 2);
    assert_int_equal(own.c, 0);
}

static void newer_options_are_taken_while_the_unknown_is_zero(void **state)
{
    (void)state;
    struct old_opts own = {9, 9};
    struct new_opts theirs = {.a = 1, .b = 2};
    assert_ok(mpr_options_read(&own, sizeof own, &theirs, sizeof theirs));
    assert_int_equal(own.a, 1);
    assert_int_equal(own.b, 2);
}

static void an_unknown_option_that_is_set_is_refused(void **state)
{
    (void)state;
    struct old_opts own;
    struct new_opts theirs = {.a = 1, .c = (size_t)1 << 31};
    assert_err(mpr_options_read(&own, sizeof own, &theirs, sizeof theirs),
               MPROC_ENOTSUP);
}

static void older_callers_get_the_info_they_know(void **state)
{
    (void)state;
    struct new_opts own = {1, 2, 3};
    struct {
        struct old_opts known;
        int behind;
    } theirs = {{9, 9}, 7};
    mpr_info_write(&theirs.known, sizeof theirs.known, &own, sizeof own);
    assert_int_equal(theirs.known.a, 1);
    assert_int_equal(theirs.known.b, 2);
    assert_int_equal(theirs.behind, 7);
}

static void newer_callers_get_zeros_for_what_is_not_known(void **state)
{
    (void)state;
    struct old_opts own = {1, 2};
    struct new_opts theirs = {9, 9, 9};
    mpr_info_write(&theirs, sizeof theirs, &own, sizeof own);
    assert_int_equal(theirs.a, 1);
    assert_int_equal(theirs.b, 2);
    assert_int_equal(theirs.c, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_outcome_has_its_name_and_text),
        cmocka_unit_test(no_two_outcomes_look_alike),
        cmocka_unit_test(failures_are_negative_and_only_failures),
        cmocka_unit_test(outcomes_that_an_errno_says_are_minus_errno),
        cmocka_unit_test(any_other_int_is_an_unknown_error),
        cmocka_unit_test(version_is_the_headers_own),
        cmocka_unit_test(a_broken_invariant_ends_the_process),
        cmocka_unit_test(a_duration_is_added_to_now),
        cmocka_unit_test(negative_zero_and_nan_durations_mean_now),
        cmocka_unit_test(durations_too_large_for_the_clock_mean_for_ever),
        cmocka_unit_test(the_largest_durations_do_not_wrap),
        cmocka_unit_test(for_ever_and_no_wait_are_told_apart),
        cmocka_unit_test(the_earlier_of_two_deadlines_is_taken),
        cmocka_unit_test(no_options_are_all_defaults),
        cmocka_unit_test(older_options_leave_what_is_newer_at_its_default),
        cmocka_unit_test(newer_options_are_taken_while_the_unknown_is_zero),
        cmocka_unit_test(an_unknown_option_that_is_set_is_refused),
        cmocka_unit_test(older_callers_get_the_info_they_know),
        cmocka_unit_test(newer_callers_get_zeros_for_what_is_not_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
