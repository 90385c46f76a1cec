// SPDX-License-Identifier: MIT
// A C++11 program that uses something of every topic.
#include <cstdio>
#include <cstring>
#include <string>

#include <mproc.h>

namespace
{
struct item {
    int x;
    double y;
};

int put_item(void *arg)
{
    mproc_queue *q = static_cast<mproc_queue *>(arg);
    return MPROC_PUT(q, item, 2, 0.5) < 0 ? 1 : 7;
}

int square(const void *arg, size_t size, mproc_reply *reply)
{
    const int x = *static_cast<const int *>(arg);
    const int xx = x * x;
    return size == sizeof x ? mproc_reply_set(reply, &xx, sizeof xx) : 1;
}

bool is_true(void *user)
{
    return *static_cast<bool *>(user);
}

bool holds()
{
    mproc_lock *lock;
    mproc_rlock *rlock;
    mproc_semaphore *semaphore;
    mproc_condition *condition;
    bool yes = true;
    int held = 0;
    if (mproc_lock_new(&lock) < 0 || mproc_rlock_new(&rlock) < 0 ||
        mproc_semaphore_new(&semaphore, 1, nullptr) < 0 ||
        mproc_condition_new(&condition, nullptr) < 0) {
        return false;
    }
    MPROC_WITH(lock) {
        held += mproc_lock_locked(lock);
    }
    held -= mproc_lock_locked(lock);
    MPROC_WITH(rlock) {
        held += mproc_rlock_locked(rlock);
    }
    MPROC_WITH(semaphore) {
        held += mproc_semaphore_value(semaphore) == 0;
    }
    MPROC_WITH(condition) {
        held += mproc_condition_wait_for(condition, is_true, &yes,
                                         mproc_in_s(10)) == 0;
    }
    mproc_lock_free(lock);
    mproc_rlock_free(rlock);
    mproc_semaphore_free(semaphore);
    mproc_condition_free(condition);
    return held == 4;
}

bool waits(mproc_event *event, mproc_connection *c)
{
    mproc_waitable set[3] = {mproc_waitable(), mproc_waitable_event(event),
                             mproc_waitable_connection(c)};
    size_t first = 0, second = 0;
    return mproc_wait(set, 3, &first, MPROC_FOREVER) == 0 &&
           mproc_wait(set, 3, &second, MPROC_FOREVER) == 0 &&
           first + second == 3;
}

bool tells()
{
    mproc_event *event = nullptr;
    mproc_connection *a, *b;
    char *text = mproc_strdup("shared");
    char got[7] = "";
    mproc_heap_info info;
    bool good =
        text != nullptr && mproc_event_new(&event) == 0 &&
        mproc_event_set(event) == 0 &&
        mproc_event_wait(event, MPROC_FOREVER) == 0 &&
        mproc_heap_stats(&info) == 0 && info.blocks > 0 &&
        mproc_pipe_new(&a, &b, nullptr) == 0 &&
        mproc_connection_send(a, text, 7, MPROC_NOWAIT) == 0 &&
        waits(event, b) &&
        mproc_connection_recv(b, got, 7, nullptr, mproc_in_ms(10000)) == 0 &&
        std::strcmp(got, text) == 0 && mproc_connection_close(a) == 0 &&
        mproc_connection_close(b) == 0;
    mproc_event_free(event);
    mproc_free(text);
    return good;
}

/* Loans, and values of a type, one by one and many at once. */
bool hands_over(mproc_queue *q)
{
    mproc_message m = mproc_message();
    item items[3], got[3] = {};
    for (int i = 0; i < 3; i++) {
        items[i].x = i;
    }
    bool good = mproc_queue_loan(q, &m, sizeof *items, MPROC_NOWAIT) == 0;
    if (good) {
        *static_cast<item *>(m.data) = items[2];
    }
    good = good && mproc_queue_send(q, &m) == 0 &&
           mproc_queue_take(q, &m, MPROC_NOWAIT) == 0 &&
           m.size == sizeof *items && static_cast<item *>(m.data)->x == 2;
    mproc_message_release(&m);
    return good && m.data == nullptr &&
           mproc_queue_put_many(q, items, sizeof *items, 3, MPROC_NOWAIT) ==
               3 &&
           MPROC_GET(q, item, got) == 0 && got[0].x == 0 &&
           mproc_queue_get_many(q, got, sizeof *got, 3, MPROC_NOWAIT) == 2 &&
           got[1].x == 2;
}

bool works()
{
    mproc_queue *q;
    mproc_process *p;
    mproc_pool *pool;
    item it = item();
    int code = 0, x = 9, xx = 0;
    mproc_pool_opts opts = mproc_pool_opts();
    mproc_call call = mproc_call();
    opts.workers = 1;
    call.fn = square;
    call.arg = &x;
    call.arg_size = sizeof x;
    bool good =
        mproc_queue_new(&q, nullptr) == 0 && hands_over(q) &&
        mproc_process_new(&p, put_item, q, nullptr) == 0 &&
        mproc_process_start(p) == 0 && MPROC_GET(q, item, &it) == 0 &&
        it.x == 2 && mproc_process_join(p, MPROC_FOREVER) == 0 &&
        mproc_process_exitcode(p, &code) == 0 && code == 7 &&
        mproc_pool_new(&pool, &opts) == 0 &&
        mproc_pool_apply(pool, &call, &xx, sizeof xx, MPROC_FOREVER) == 0 &&
        xx == 81 && mproc_pool_close(pool) == 0 &&
        mproc_pool_join(pool, MPROC_FOREVER) == 0;
    if (good) {
        mproc_pool_free(pool);
        mproc_process_free(p);
        mproc_queue_free(q);
    }
    return good;
}

// Made before main, in a process that leaves main out too.
const std::string greeting(40, 'x');

int greets(void *)
{
    return static_cast<int>(greeting.size());
}

int code_of(int how)
{
    mproc_process *p;
    mproc_process_opts opts = mproc_process_opts();
    int code = -1;
    opts.start = how;
    if (mproc_process_new(&p, greets, nullptr, &opts) == 0 &&
        mproc_process_start(p) == 0 &&
        mproc_process_join(p, MPROC_FOREVER) == 0) {
        mproc_process_exitcode(p, &code);
    }
    mproc_process_free(p);
    return code;
}

bool starts()
{
    return code_of(MPROC_START_FORK) == 40 &&
           code_of(MPROC_START_THREAD) == 40 &&
           code_of(MPROC_START_SPAWN) == 40 &&
           code_of(MPROC_START_FORKSERVER) == 40;
}
} // namespace

int main()
{
    if (!holds() || !tells() || !works() || !starts()) {
        return 1;
    }
    std::printf("libmproc %s: %s\n", mproc_version(),
                mproc_strerror(MPROC_EFULL));
    return 0;
}
