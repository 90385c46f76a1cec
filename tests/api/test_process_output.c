/* SPDX-License-Identifier: MIT */
/* What whole programs print that have started processes, by each method. */
#include "process_end.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- in the programs -------------------------------------------------- */

static void says_goodbye(void)
{
    printf("goodbye ");
}

static int prints_and_exits(void *arg)
{
    printf("%s", ((const struct note *)arg)->text);
    exit(6);
}

static int prints_before_it_starts(void)
{
    atexit(says_goodbye);
    printf("before ");
    int a = code_of(started(prints, "child ", 0));
    atexit(says_goodbye);
    printf("between ");
    int b = code_of(started(prints_and_exits, "exiting ", 0));
    return a == 0 && b == 6 ? 4 : 5;
}

static void *reads_orders(void *arg)
{
    getc(arg); /* with the stream locked: flushing all would wait for it */
    return NULL;
}

static int prints_while_a_thread_reads(void)
{
    pthread_t thread;
    FILE *orders = fdopen(dup(STDIN_FILENO), "r");
    if (pthread_create(&thread, NULL, reads_orders, orders) != 0) {
        return 97;
    }
    while (ftrylockfile(orders) == 0) { /* until it reads */
        funlockfile(orders);
        sched_yield();
    }
    int result = prints_before_it_starts();
    fflush(stdout);
    say("done ");
    pthread_join(thread, NULL);
    return result;
}

static int prints_to_a_file(void *arg)
{
    (void)arg;
    FILE *file = fdopen(dup(STDOUT_FILENO), "w");
    return fprintf(file, "of the child ") > 0 ? 0 : 1; /* and leaves it open */
}

static int prints_to_files(void)
{
    FILE *file = fdopen(dup(STDOUT_FILENO), "w");
    fprintf(file, "file ");
    int code = code_of(started(prints_to_a_file, "", 0));
    fclose(file);
    return code == 0 ? 4 : 5;
}

static void *starts_one(void *arg)
{
    *(int *)arg = code_of(started(prints, "child ", 0));
    return NULL;
}

/* What nobody could flush before the fork is the parent's all the same. */
static int prints_while_it_starts(void)
{
    pthread_t thread;
    int code = -1;
    flockfile(stdout);
    printf("parent ");
    if (pthread_create(&thread, NULL, starts_one, &code) != 0) {
        return 97;
    }
    pthread_join(thread, NULL);
    funlockfile(stdout);
    return code == 0 ? 4 : 5;
}

static const struct program programs[] = {
    PROGRAM(prints_before_it_starts),
    PROGRAM(prints_while_a_thread_reads),
    PROGRAM(prints_to_files),
    PROGRAM(prints_while_it_starts),
};

/* ---- in the tests ----------------------------------------------------- */

static void nothing_buffered_is_printed_twice(void **state)
{
    (void)state;
    struct run run = run_program("prints_before_it_starts");
    expect_end(&run, "before child between exiting goodbye goodbye ", 4);
}

static void flushing_does_not_wait_for_a_thread_that_reads(void **state)
{
    (void)state;
    struct run run = run_program("prints_while_a_thread_reads");
    expect_said(&run, "before child between exiting done ");
    expect_end(&run, "before child between exiting done goodbye goodbye ", 4);
}

static void files_are_flushed_before_the_start_and_by_the_child(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it has a thread of its own */
#endif
    struct run run = run_program("prints_to_files");
    expect_end(&run, "file of the child ", 4);
}

static void a_child_forgets_what_its_parent_is_printing(void **state)
{
    (void)state;
    struct run run = run_program("prints_while_it_starts");
    expect_end(&run, "child parent ", 4);
}

int main(int argc, char **argv)
{
    run_as_program(programs, argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_buffered_is_printed_twice),
        cmocka_unit_test(flushing_does_not_wait_for_a_thread_that_reads),
        cmocka_unit_test(files_are_flushed_before_the_start_and_by_the_child),
        cmocka_unit_test(a_child_forgets_what_its_parent_is_printing),
    };
    return run_for_each_process("process_output", tests);
}
