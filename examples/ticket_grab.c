/* SPDX-License-Identifier: MIT */
/*
 * usage: ticket_grab [--no-lock]
 *
 * Two tickets, ten buyers: ten processes share a file that holds the number of
 * tickets left. Each reads it, takes one off, and writes it back. Under one
 * lock exactly two get a ticket. With --no-lock all read before one has
 * written, and more tickets are sold than there are.
 */
#include <mproc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUYERS = 10, TICKETS = 2, PAYING_MS = 10 };
enum { GOT_ONE, SOLD_OUT, FAILED }; /* exit codes of a buyer */

/* In the shared heap. */
struct office {
    char path[64];
    mproc_lock *lock;      /* NULL: --no-lock */
    mproc_event *all_read; /* --no-lock waits for it, so that it shows */
    _Atomic int still_to_read;
};

static bool read_count(const struct office *office, int *count)
{
    FILE *f = fopen(office->path, "r");
    bool ok = f != NULL && fscanf(f, "{\"count\": %d}", count) == 1;
    return f != NULL && fclose(f) == 0 && ok;
}

static bool write_count(const struct office *office, int count)
{
    FILE *f = fopen(office->path, "w");
    bool ok = f != NULL && fprintf(f, "{\"count\": %d}\n", count) > 0;
    return f != NULL && fclose(f) == 0 && ok;
}

static int buy(struct office *office)
{
    const struct timespec paying = {.tv_nsec = PAYING_MS * 1000000L};
    const char *name = mproc_process_name(mproc_process_current());
    int count;
    if (!read_count(office, &count)) {
        return FAILED;
    }
    if (office->lock == NULL) {
        if (atomic_fetch_sub(&office->still_to_read, 1) == 1) {
            mproc_event_set(office->all_read);
        }
        if (mproc_event_wait(office->all_read, mproc_in_s(30)) < 0) {
            return FAILED;
        }
    }
    if (count <= 0) {
        printf("%s: sold out\n", name);
        return SOLD_OUT;
    }
    nanosleep(&paying, NULL);
    if (!write_count(office, count - 1)) {
        return FAILED;
    }
    printf("%s: got a ticket\n", name);
    return GOT_ONE;
}

static int buyer(void *arg)
{
    struct office *office = arg;
    int code = FAILED;
    if (office->lock == NULL) {
        return buy(office);
    }
    MPROC_WITH(office->lock) {
        code = buy(office);
    }
    return code;
}

/* Sends the buyers. Returns how many got a ticket, -1 when one failed. */
static int sell(struct office *office)
{
    mproc_process *p[BUYERS];
    int sold = 0;
    for (int i = 0; i < BUYERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "buyer %d", i + 1);
        if (mproc_process_new(&p[i], buyer, office,
                              &(mproc_process_opts){.name = name}) < 0 ||
            mproc_process_start(p[i]) < 0) {
            mproc_event_set(office->all_read); /* not all will come */
            return -1;
        }
    }
    for (int i = 0; i < BUYERS; i++) {
        int code = FAILED;
        if (mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
            mproc_process_exitcode(p[i], &code) < 0 ||
            (code != GOT_ONE && code != SOLD_OUT)) {
            sold = -1;
        }
        sold += sold >= 0 && code == GOT_ONE;
        mproc_process_free(p[i]);
    }
    return sold;
}

static bool office_open(struct office *office, bool locked)
{
    if (office == NULL || mproc_event_new(&office->all_read) < 0 ||
        (locked && mproc_lock_new(&office->lock) < 0)) {
        return false;
    }
    atomic_init(&office->still_to_read, BUYERS);
    strcpy(office->path, "/tmp/tickets-XXXXXX");
    int fd = mkstemp(office->path);
    return fd >= 0 && close(fd) == 0 && write_count(office, TICKETS);
}

int main(int argc, char **argv)
{
    bool locked = argc == 1;
    if (!locked && strcmp(argv[1], "--no-lock") != 0) {
        fprintf(stderr, "usage: %s [--no-lock]\n", argv[0]);
        return 2;
    }
    struct office *office = mproc_calloc(1, sizeof *office);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (!office_open(office, locked)) {
        return 1;
    }
    int left = -1;
    int sold = sell(office);
    bool held = read_count(office, &left) && sold >= 0;
    unlink(office->path);
    if (!held) {
        return 1;
    }
    printf("%d of %d got a ticket, %d left in the file\n", sold, BUYERS, left);
    mproc_lock_free(office->lock);
    mproc_event_free(office->all_read);
    mproc_free(office);
    held = locked ? sold == TICKETS && left == 0 : sold > TICKETS;
    return held ? 0 : 1;
}
