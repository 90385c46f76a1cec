/* SPDX-License-Identifier: MIT */
/*
 * Two processes take two locks in opposite order, which would block both for
 * ever. A time-out on the second, giving back the first, and a pause of a
 * different length each let both finish.
 */
#include <mproc.h>
#include <stdio.h>
#include <time.h>

enum { PROCESSES = 2, PATIENCE_MS = 20, PAUSE_MS = 5 };

static mproc_lock *lock[2];
static mproc_barrier *both_hold_one;

static void pause_for(int ms)
{
    const struct timespec pausing = {.tv_nsec = ms * 1000000L};
    nanosleep(&pausing, NULL);
}

/* Both locks, or none. 0, ETIMEDOUT, or another error. */
static int take_both(mproc_lock *first, mproc_lock *second, bool meet)
{
    int err = mproc_lock_acquire(first, MPROC_FOREVER);
    if (err < 0) {
        return err;
    }
    if (meet) {
        err = mproc_barrier_wait(both_hold_one, NULL, MPROC_FOREVER);
    }
    if (err == 0) {
        err = mproc_lock_acquire(second, mproc_in_ms(PATIENCE_MS));
    }
    if (err < 0) {
        mproc_lock_release(first);
    }
    return err;
}

static int work(void *arg)
{
    int me = *(int *)arg;
    int tries = 1;
    int err;
    while ((err = take_both(lock[me], lock[1 - me], tries == 1)) ==
           MPROC_ETIMEDOUT) {
        tries++;
        pause_for(PAUSE_MS * (1 + 3 * me * tries));
    }
    if (err < 0) {
        return 1;
    }
    printf("process %d holds both\n", me + 1);
    mproc_lock_release(lock[1 - me]);
    mproc_lock_release(lock[me]);
    return 0;
}

int main(void)
{
    mproc_process *p[PROCESSES];
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_lock_new(&lock[0]) < 0 || mproc_lock_new(&lock[1]) < 0 ||
        mproc_barrier_new(&both_hold_one, PROCESSES, NULL) < 0) {
        return 1;
    }
    for (int i = 0; i < PROCESSES; i++) {
        mproc_process_opts opts = {.daemon = 1, .arg_size = sizeof i};
        if (mproc_process_new(&p[i], work, &i, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1;
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    printf("both have finished\n");
    mproc_barrier_free(both_hold_one);
    mproc_lock_free(lock[0]);
    mproc_lock_free(lock[1]);
    return bad;
}
