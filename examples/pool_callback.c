/* SPDX-License-Identifier: MIT */
/*
 * A pool of three workers downloads pages; a callback in the parent parses each
 * as it comes. After close and join every result is there.
 */
#include <mproc.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 3, PAGES = 8, LATENCY_MS = 20, PAGE_MAX = 128 };

/* A task: it runs in a worker. `url` is text with its NUL. */
static int download(const void *url, size_t size, mproc_reply *reply)
{
    (void)size;
    const struct timespec latency = {.tv_nsec = LATENCY_MS * 1000000L};
    char page[PAGE_MAX];
    nanosleep(&latency, NULL);
    int n = snprintf(page, sizeof page, "<title>All about %s</title>",
                     (const char *)url);
    if (n < 0 || (size_t)n >= sizeof page) {
        return mproc_reply_fail(reply, 1, "%s: too long", (const char *)url);
    }
    printf("worker %d downloaded %s\n", (int)getpid(), (const char *)url);
    return mproc_reply_set(reply, page, strlen(page) + 1);
}

/* What the callbacks gather. They run one at a time. */
struct parsed {
    pid_t parent;
    int pages;
    bool elsewhere; /* a callback outside the parent, or a task inside */
};

static void parse(const mproc_outcome *outcome, void *user)
{
    struct parsed *parsed = user;
    char title[PAGE_MAX];
    if (sscanf(outcome->data, "<title>%127[^<]", title) != 1) {
        return; /* and is missed in the end */
    }
    printf("parent %d parsed \"%s\", from worker %d\n", (int)getpid(), title,
           (int)outcome->worker);
    parsed->pages++;
    parsed->elsewhere |= getpid() != parsed->parent;
    parsed->elsewhere |= outcome->worker == parsed->parent;
}

static void complain(const mproc_outcome *outcome, void *user)
{
    (void)user;
    printf("%s: %s\n", mproc_strerror(outcome->status), outcome->error);
}

/* Hands out all downloads. False: one was not accepted. */
static bool submit(mproc_pool *pool, struct parsed *parsed, mproc_result **r)
{
    for (int i = 0; i < PAGES; i++) {
        char url[32];
        mproc_call call = {.fn = download,
                           MPROC_ARG(url),
                           .callback = parse,
                           .error_callback = complain,
                           .user = parsed};
        snprintf(url, sizeof url, "/page/%d", i + 1);
        if (mproc_pool_apply_async(pool, &call, &r[i], MPROC_FOREVER) < 0) {
            return false;
        }
    }
    return true;
}

int main(void)
{
    struct parsed parsed = {.parent = getpid()};
    mproc_result *results[PAGES];
    mproc_pool *pool;
    int gathered = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_pool_new(&pool, &(mproc_pool_opts){.workers = WORKERS}) < 0) {
        return 1;
    }
    if (!submit(pool, &parsed, results) || mproc_pool_close(pool) < 0 ||
        mproc_pool_join(pool, MPROC_FOREVER) < 0) {
        mproc_pool_free(pool);
        return 1;
    }
    for (int i = 0; i < PAGES; i++) {
        char page[PAGE_MAX];
        char expected[PAGE_MAX];
        size_t size;
        int n = snprintf(expected, sizeof expected,
                         "<title>All about /page/%d</title>", i + 1);
        gathered += mproc_result_get(results[i], page, sizeof page, &size,
                                     MPROC_NOWAIT) == 0 &&
                    size == (size_t)n + 1 && strcmp(page, expected) == 0;
        mproc_result_free(results[i]);
    }
    mproc_pool_free(pool);
    printf("gathered %d of %d pages\n", gathered, PAGES);
    bool good = parsed.pages == PAGES && gathered == PAGES && !parsed.elsewhere;
    return good ? 0 : 1;
}
