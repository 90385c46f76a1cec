/* SPDX-License-Identifier: MIT */
/*
 * A lock is tried without waiting, waited for in vain for some time, and
 * released by another process than the one that took it.
 */
#include <mproc.h>
#include <stdio.h>

enum { PATIENCE_MS = 30 };

static mproc_lock *lock;
static int wrong;

static void expect(const char *what, int err, int wanted)
{
    printf("%s: %s\n", what, mproc_error_name(err));
    wrong |= err != wanted;
}

static int other(void *arg)
{
    (void)arg;
    expect("another tries", mproc_lock_acquire(lock, MPROC_NOWAIT),
           MPROC_ETIMEDOUT);
    expect("another waits a little",
           mproc_lock_acquire(lock, mproc_in_ms(PATIENCE_MS)), MPROC_ETIMEDOUT);
    expect("another releases it", mproc_lock_release(lock), 0);
    return wrong;
}

int main(void)
{
    mproc_process *p;
    int code = 1;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_lock_new(&lock) < 0 ||
        mproc_process_new(&p, other, NULL, NULL) < 0) {
        return 1;
    }
    expect("main takes it", mproc_lock_acquire(lock, MPROC_NOWAIT), 0);
    if (mproc_process_start(p) < 0 ||
        mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &code) < 0) {
        return 1;
    }
    expect("main takes it again", mproc_lock_acquire(lock, MPROC_NOWAIT), 0);
    expect("main releases it", mproc_lock_release(lock), 0);
    expect("main releases it twice", mproc_lock_release(lock), MPROC_EINVAL);
    mproc_process_free(p);
    mproc_lock_free(lock);
    return code | wrong;
}
