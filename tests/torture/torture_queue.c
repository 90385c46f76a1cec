/* SPDX-License-Identifier: MIT */
/*
 * torture_queue [seconds [kills per second [redeliver]]]: producers put, and
 * consumers take, messages of 0 bytes to 100 KiB, copied or in place, through
 * one queue, while one of them is killed at random and replaced again and
 * again. What is there once put returned is received once, whole, and in order
 * per producer; only what a killed consumer had in hand may be lost or, with
 * `redeliver`, come twice, and then nothing is lost. Nothing leaks.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <mproc.h>

enum {
    PRODUCERS = 3,
    CONSUMERS = 3,
    PEOPLE = PRODUCERS + CONSUMERS,
    MAXSIZE = 100,
    LARGEST = 100 * 1024,
    MESSAGES = 4096 /* of one producer, which another follows */
};

enum { WELL, BAD_DATA, BAD_ORDER, BAD_CALL, HUNG };

/* What one producer has put, and what became of it. In the shared heap. */
struct record {
    struct record *next;
    unsigned seed;
    _Atomic unsigned begun, done;             /* puts */
    _Atomic unsigned empty_begun, empty_done; /* of empty messages */
    _Atomic unsigned char received[MESSAGES]; /* how often */
};

struct header {
    struct record *from;
    unsigned number;
    unsigned size;
    unsigned sum;
};

struct shared {
    mproc_queue *q;
    struct record *records;
    int redeliver;
    _Atomic unsigned long empty_received;
    _Atomic int over;
};

static struct shared *shared;
static double seconds = 2, kills_a_second = 200;
static unsigned long killed[2]; /* producers, consumers */

/* ---- messages --------------------------------------------------------- */

static unsigned sum_of(const unsigned char *bytes, size_t size)
{
    unsigned sum = 1, other = 0;
    for (size_t i = 0; i < size; i++) {
        sum += bytes[i];
        other += sum;
    }
    return sum ^ other << 16;
}

static size_t choose_size(unsigned *seed)
{
    switch (rand_r(seed) % 20) {
    case 0:
        return 0;
    case 1:
        return sizeof(struct header) +
               (size_t)rand_r(seed) % (LARGEST - sizeof(struct header));
    default:
        return sizeof(struct header) + (size_t)rand_r(seed) % 2000;
    }
}

static void fill(void *data, size_t size, const struct header *header)
{
    unsigned char *bytes = data;
    struct header filled = *header;
    memset(bytes + sizeof filled, (int)header->number, size - sizeof filled);
    filled.sum = sum_of(bytes + sizeof filled, size - sizeof filled);
    memcpy(bytes, &filled, sizeof filled);
}

/* ---- producers -------------------------------------------------------- */

static int put(const struct header *header, bool in_place)
{
    static unsigned char buffer[LARGEST];
    mproc_message m;
    if (!in_place) {
        if (header->size > 0) {
            fill(buffer, header->size, header);
        }
        return mproc_queue_put(shared->q, buffer, header->size, mproc_in_s(60));
    }
    int err = mproc_queue_loan(shared->q, &m, header->size, mproc_in_s(60));
    if (err == 0) {
        if (header->size > 0) {
            fill(m.data, header->size, header);
        }
        err = mproc_queue_send(shared->q, &m);
    }
    return err;
}

static int produce(void *arg)
{
    struct record *mine = arg;
    struct header header = {.from = mine};
    while (header.number < MESSAGES && !shared->over) {
        header.size = (unsigned)choose_size(&mine->seed);
        atomic_fetch_add(header.size > 0 ? &mine->begun : &mine->empty_begun,
                         1);
        int err = put(&header, rand_r(&mine->seed) % 2);
        if (err < 0) {
            fprintf(stderr, "put: %s\n", mproc_error_name(err));
            return err == MPROC_EFULL ? HUNG : BAD_CALL;
        }
        atomic_fetch_add(header.size > 0 ? &mine->done : &mine->empty_done, 1);
        header.number += header.size > 0;
    }
    return WELL;
}

/* ---- consumers -------------------------------------------------------- */

/* The last number of each producer that this consumer has seen. */
static int check_order(const struct header *header)
{
    enum { KNOWN = 64 };
    static struct {
        struct record *from;
        unsigned next;
    } known[KNOWN];
    static int newest;
    int i = 0;
    while (i < KNOWN && known[i].from != header->from) {
        i++;
    }
    if (i == KNOWN) {
        i = newest++ % KNOWN;
        known[i].from = header->from;
        known[i].next = 0;
    }
    bool late = header->number < known[i].next;
    known[i].next = header->number + 1;
    return late && !shared->redeliver ? BAD_ORDER : WELL;
}

static int check(const unsigned char *bytes, size_t size)
{
    struct header header;
    if (size == 0) {
        shared->empty_received++;
        return WELL;
    }
    if (size < sizeof header) {
        return BAD_DATA;
    }
    memcpy(&header, bytes, sizeof header);
    if (header.size != size || header.number >= MESSAGES ||
        header.sum != sum_of(bytes + sizeof header, size - sizeof header)) {
        return BAD_DATA;
    }
    atomic_fetch_add(&header.from->received[header.number], 1);
    return check_order(&header);
}

/* The outcome of the call; what was wrong with the message in *bad. */
static int take_one(bool in_place, int *bad)
{
    static unsigned char buffer[LARGEST];
    mproc_message m;
    size_t size;
    if (in_place) {
        int err = mproc_queue_take(shared->q, &m, mproc_in_s(60));
        if (err == 0) {
            *bad = check(m.data, m.size);
            mproc_message_release(&m);
        }
        return err;
    }
    int err = mproc_queue_get(shared->q, buffer, sizeof buffer, &size,
                              mproc_in_s(60));
    if (err == 0) {
        *bad = check(buffer, size);
        err = shared->redeliver ? mproc_queue_task_done(shared->q) : 0;
    }
    return err;
}

static int consume(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    int bad = WELL;
    for (;;) {
        int err = take_one(rand_r(&seed) % 2, &bad);
        if (err == MPROC_ESHUTDOWN) {
            return WELL;
        }
        if (err < 0) {
            fprintf(stderr, "get: %s\n", mproc_error_name(err));
            return err == MPROC_EEMPTY ? HUNG : BAD_CALL;
        }
        if (bad != WELL) {
            return bad;
        }
    }
}

/* ---- who lives -------------------------------------------------------- */

static struct record *new_record(unsigned seed)
{
    struct record *record = mproc_calloc(1, sizeof *record);
    if (record != NULL) {
        record->seed = seed;
        record->next = shared->records;
        shared->records = record;
    }
    return record;
}

static mproc_process *begin(int who, unsigned *seed)
{
    mproc_process *p;
    bool producer = who < PRODUCERS;
    void *arg = (void *)(uintptr_t)rand_r(seed);
    if (producer) {
        arg = new_record((unsigned)rand_r(seed));
    }
    if (arg == NULL ||
        mproc_process_new(&p, producer ? produce : consume, arg, NULL) < 0 ||
        mproc_process_start(p) < 0) {
        fprintf(stderr, "cannot start a process\n");
        exit(1);
    }
    return p;
}

/* True if it ended as it should. */
static bool end(mproc_process *p)
{
    int code = BAD_CALL;
    if (mproc_process_join(p, mproc_in_s(90)) < 0) {
        fprintf(stderr, "pid %ld hangs\n", (long)mproc_process_pid(p));
        mproc_process_kill(p);
    }
    mproc_process_exitcode(p, &code);
    mproc_process_free(p);
    if (code != WELL && code != -SIGKILL) {
        fprintf(stderr, "ended by %d\n", code);
    }
    return code == WELL || code == -SIGKILL;
}

static bool storm(mproc_process **p, unsigned *seed)
{
    mproc_deadline until = mproc_in_s(seconds);
    bool good = true;
    while (good && mproc_in_s(0).at_ns < until.at_ns) {
        int who = rand_r(seed) % PEOPLE;
        usleep((useconds_t)rand_r(seed) %
               ((useconds_t)(2e6 / kills_a_second) + 1));
        if (mproc_process_is_alive(p[who])) {
            killed[who >= PRODUCERS]++;
            mproc_process_kill(p[who]);
        }
        good = end(p[who]);
        p[who] = begin(who, seed);
    }
    return good;
}

/* ---- the account ------------------------------------------------------ */

struct account {
    unsigned long put, lost, twice, empty_begun, empty_done;
    bool odd; /* received, though it was never put */
};

static void add_record(struct account *account, const struct record *record)
{
    account->put += record->done;
    account->empty_begun += record->empty_begun;
    account->empty_done += record->empty_done;
    for (unsigned i = 0; i < MESSAGES; i++) {
        unsigned times = record->received[i];
        account->lost += i < record->done && times == 0;
        account->twice += times > 1 ? times - 1 : 0;
        account->odd |= i >= record->begun && times > 0;
    }
}

static bool add_up(void)
{
    struct account a = {0};
    for (struct record *r = shared->records, *next; r != NULL; r = next) {
        next = r->next;
        add_record(&a, r);
        mproc_free(r);
    }
    unsigned long empty = shared->empty_received;
    printf("%lu producers and %lu consumers killed; %lu messages and %lu empty "
           "ones; lost in hand %lu, received twice %lu\n",
           killed[0], killed[1], a.put, empty, a.lost, a.twice);
    unsigned long lost_most = shared->redeliver ? 0 : killed[1];
    unsigned long twice_most = shared->redeliver ? killed[1] : 0;
    bool good = !a.odd && a.lost <= lost_most && a.twice <= twice_most &&
                empty <= a.empty_begun + twice_most &&
                empty + lost_most >= a.empty_done;
    if (!good) {
        printf("WRONG: %lu empty ones begun, %lu put\n", a.empty_begun,
               a.empty_done);
    }
    return good && killed[0] > 0 && killed[1] > 0 && a.put > 0;
}

int main(int argc, char **argv)
{
    mproc_process *p[PEOPLE];
    mproc_heap_info before, now;
    unsigned seed = (unsigned)time(NULL);
    seconds = argc > 1 ? strtod(argv[1], NULL) : seconds;
    kills_a_second = argc > 2 ? strtod(argv[2], NULL) : kills_a_second;
    printf("seed %u\n", seed);
    fflush(stdout);
    shared = mproc_calloc(1, sizeof *shared);
    if (shared == NULL || mproc_heap_stats(&before) < 0) {
        return 1;
    }
    shared->redeliver = argc > 3;
    mproc_queue_opts opts = {.maxsize = MAXSIZE,
                             .joinable = shared->redeliver,
                             .redeliver = shared->redeliver};
    if (mproc_queue_new(&shared->q, &opts) < 0) {
        return 1;
    }
    for (int i = 0; i < PEOPLE; i++) {
        p[i] = begin(i, &seed);
    }
    bool good = storm(p, &seed);
    shared->over = 1;
    for (int i = 0; i < PRODUCERS; i++) {
        good &= end(p[i]);
    }
    mproc_queue_shutdown(shared->q, false);
    for (int i = PRODUCERS; i < PEOPLE; i++) {
        good &= end(p[i]);
    }
    good &= mproc_queue_empty(shared->q) &&
            (!shared->redeliver ||
             mproc_queue_join(shared->q, mproc_in_s(10)) == 0);
    mproc_queue_free(shared->q);
    good &= add_up();
    if (mproc_heap_stats(&now) < 0 || now.blocks != before.blocks) {
        printf("WRONG: %zu blocks before, %zu after\n", before.blocks,
               now.blocks);
        good = false;
    }
    mproc_free(shared);
    return good ? 0 : 1;
}
