/* SPDX-License-Identifier: MIT */
/*
 * Processes print in a fixed order, round after round: each has a lock, waits
 * for it, and releases the next one's.
 */
#include <mproc.h>
#include <stdio.h>

enum { PROCESSES = 4, ROUNDS = 3 };

static mproc_lock *turn[PROCESSES];

static int take_turns(void *arg)
{
    int me = *(int *)arg;
    for (int round = 1; round <= ROUNDS; round++) {
        if (mproc_lock_acquire(turn[me], MPROC_FOREVER) < 0) {
            return 1;
        }
        printf("round %d: process %d\n", round, me + 1);
        if (mproc_lock_release(turn[(me + 1) % PROCESSES]) < 0) {
            return 1;
        }
    }
    return 0;
}

int main(void)
{
    mproc_process *p[PROCESSES];
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    for (int i = 0; i < PROCESSES; i++) {
        if (mproc_lock_new(&turn[i]) < 0 ||
            mproc_lock_acquire(turn[i], MPROC_NOWAIT) < 0) {
            return 1;
        }
    }
    for (int i = PROCESSES - 1; i >= 0; i--) {
        mproc_process_opts opts = {.daemon = 1, .arg_size = sizeof i};
        if (mproc_process_new(&p[i], take_turns, &i, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1;
        }
    }
    mproc_lock_release(turn[0]);
    for (int i = 0; i < PROCESSES; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    for (int i = 0; i < PROCESSES; i++) {
        mproc_lock_free(turn[i]);
    }
    return bad;
}
