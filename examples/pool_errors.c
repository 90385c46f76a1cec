/* SPDX-License-Identifier: MIT */
/*
 * Tasks that go wrong: one fails, one crashes, one is killed. Each is told for
 * that task alone, by its result and by its error callback; the pool works on.
 */
#include <mproc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WORKERS = 2 };

enum what { WELL, FAILS, CRASHES, IS_KILLED, KINDS };

static const char *const names[KINDS] = {"well", "fails", "crashes",
                                         "is killed"};

static int work(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    switch (*(const enum what *)arg) {
    case FAILS:
        return mproc_reply_fail(reply, 42, "no flour left");
    case CRASHES:
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        break;
    case IS_KILLED: /* as by somebody else */
        kill(getpid(), SIGKILL);
        break;
    default:
        break;
    }
    return mproc_reply_set(reply, "a bun", sizeof "a bun");
}

static int calls;

static void complain(const mproc_outcome *o, void *user)
{
    const char *name = user;
    printf("callback: task that %s: %s, code %d\n", name,
           mproc_error_name(o->status), o->code);
    calls++;
}

/* True: it ended as it should. */
static bool show(mproc_pool *pool, enum what what, int expected)
{
    char bun[sizeof "a bun"] = "";
    mproc_result *result;
    mproc_call call = {.fn = work,
                       MPROC_ARG(what),
                       .error_callback = complain,
                       .user = (void *)names[what]};
    if (mproc_pool_apply_async(pool, &call, &result, MPROC_FOREVER) < 0) {
        return false;
    }
    int err = mproc_result_get(result, bun, sizeof bun, NULL, MPROC_FOREVER);
    const mproc_outcome *o = mproc_result_outcome(result);
    if (err == 0) {
        printf("result: task that goes %s: %s\n", names[what], bun);
    } else {
        printf("result: task that %s: %s\n", names[what], o->error);
    }
    mproc_result_free(result);
    return err == expected;
}

int main(void)
{
    mproc_pool *pool;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0}); /* for the crash */
    if (mproc_pool_new(&pool, &(mproc_pool_opts){.workers = WORKERS}) < 0) {
        return 1;
    }
    bool good = show(pool, WELL, MPROC_OK) & show(pool, FAILS, MPROC_ETASK) &
                show(pool, CRASHES, MPROC_EWORKERLOST) &
                show(pool, IS_KILLED, MPROC_EWORKERLOST) &
                show(pool, WELL, MPROC_OK);
    good &= mproc_pool_close(pool) == 0 &&
            mproc_pool_join(pool, MPROC_FOREVER) == 0 && calls == 3;
    mproc_pool_free(pool);
    return good ? 0 : 1;
}
