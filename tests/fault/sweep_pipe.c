/* SPDX-License-Identifier: MIT */
/*
 * A pipe one of whose holders is killed, or stopped for a while, after any
 * instruction.
 *
 * As a rule the round and the sleeper hold end a, the victim alone holds b: so
 * when it has gone, in whatever way, what it sent is received exactly once,
 * then comes the end, and when a is closed as well the memory is back.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mproc/pipe.h>
#include <mproc/shared.h>

#include "chan/pipe.h"
#include "sweep.h"

enum { SMALL = 64, LARGE = 100 * 1024 };
enum ends { NONE, A, B, BOTH };

#define SOON mproc_in_s(5)

struct journal {
    size_t size; /* of each message */
    mproc_connection *a, *b;
    mproc_heap_info before;
    pid_t round;
    int forks_left; /* of the round, then it closes what is not its own */
    enum ends to_close;
    _Atomic uint32_t prepared;    /* victims that are ready */
    _Atomic uint32_t begun, done; /* sends of the victim */
    _Atomic uint32_t received;    /* of these messages */
    _Atomic uint32_t spoilt;
};

static struct journal *journal;
static char out[LARGE], in[LARGE]; /* each process has its own */

/* ---- messages --------------------------------------------------------- */

static int send_it(struct journal *j, mproc_connection *c, mproc_deadline until)
{
    return mproc_connection_send(c, out, j->size, until);
}

static int receive_it(struct journal *j, mproc_connection *c,
                      mproc_deadline until)
{
    size_t size;
    memset(in, 0, j->size);
    int err = mproc_connection_recv(c, in, sizeof in, &size, until);
    if (err == 0) {
        bool intact = size == j->size && memcmp(in, out, size) == 0;
        atomic_fetch_add(&j->received, 1);
        atomic_fetch_add(&j->spoilt, !intact);
    }
    return err;
}

/* ---- setting up ------------------------------------------------------- */

static void close_ends(struct journal *j, enum ends which)
{
    if (which & A) {
        mproc_connection_close(j->a);
    }
    if (which & B) {
        mproc_connection_close(j->b);
    }
}

/* The victim has inherited the ends by now. */
static void after_fork_of_round(void)
{
    if (journal != NULL && getpid() == journal->round &&
        --journal->forks_left == 0) {
        close_ends(journal, journal->to_close);
    }
}

/* `forks` until the victim is there: the sleeper, if there is one, and it. */
static struct journal *set_up(size_t size, int forks, enum ends to_close)
{
    const mproc_config config = {.heap_max = 32 << 20, .processes_max = 64};
    struct mpr_thread *self;
    mpr_test_deep_sleep = true;
    mpr_test_patience_ns = 20 * 1000000;
    memset(out, 'x', size);
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (journal == MAP_FAILED || mproc_configure(&config) < 0 ||
        mpr_self(&self) < 0 || mproc_heap_stats(&journal->before) < 0 ||
        mproc_pipe_new(&journal->a, &journal->b, NULL) < 0 ||
        pthread_atfork(NULL, after_fork_of_round, NULL) != 0) {
        return NULL;
    }
    journal->size = size;
    journal->round = getpid();
    journal->forks_left = forks;
    journal->to_close = to_close;
    return journal;
}

static void *small_empty(void)
{
    return set_up(SMALL, 2, B);
}

static void *large_empty(void)
{
    return set_up(LARGE, 2, B);
}

/* No room for another large one, in either direction. */
static void *large_full(void)
{
    struct journal *j = set_up(LARGE, 2, B);
    return j != NULL && send_it(j, j->a, MPROC_NOWAIT) == 0 ? j : NULL;
}

/* The victim is the only one who holds anything. */
static void *all_the_victims(void)
{
    struct journal *j = set_up(LARGE, 1, BOTH);
    return j != NULL && send_it(j, j->a, MPROC_NOWAIT) == 0 &&
                   send_it(j, j->b, MPROC_NOWAIT) == 0
               ? j
               : NULL;
}

/* Nobody inherits: the victim holds what it uses. */
static void *nothing_inherited(void)
{
    struct journal *j = set_up(SMALL, 0, NONE);
    mpr_fork_without_heritage(true);
    return j;
}

/* And there is no word for it among the first. */
static void *many_holders(void)
{
    struct journal *j = nothing_inherited();
    for (int i = 1; j != NULL && i < MPR_HOLDERS_FIRST; i++) {
        atomic_store(&j->b->holder[i], mpr_self_id() | MPR_HOLDER_CLOSED);
    }
    return j;
}

/* A word that is lacking for the victim's child as well. */
static void *many_holders_and_heirs(void)
{
    struct journal *j = set_up(SMALL, 2, B);
    for (int i = 3; j != NULL && i < MPR_HOLDERS_FIRST; i++) {
        atomic_store(&j->b->holder[i], mpr_self_id() | MPR_HOLDER_CLOSED);
    }
    return j;
}

/* The bystander is the last to hold b. */
static void *small_for_two(void)
{
    return set_up(SMALL, 2, B);
}

static size_t region(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    return 1;
}

/* ---- the sleepers ----------------------------------------------------- */

static int asleep_in_recv(void *ctx)
{
    struct journal *j = ctx;
    mproc_connection_close(j->b);
    int err = receive_it(j, j->a, MPROC_FOREVER);
    return err != 0 && err != MPROC_EOF;
}

static int asleep_until_eof(void *ctx)
{
    struct journal *j = ctx;
    mproc_connection_close(j->b);
    return receive_it(j, j->a, MPROC_FOREVER) != MPROC_EOF;
}

static int asleep_in_poll(void *ctx)
{
    struct journal *j = ctx;
    mproc_connection_close(j->b);
    return mproc_connection_poll(j->a, MPROC_FOREVER);
}

static int asleep_in_send(void *ctx)
{
    struct journal *j = ctx;
    mproc_connection_close(j->b);
    int err = send_it(j, j->a, MPROC_FOREVER);
    return err != 0 && err != MPROC_EPIPE;
}

/* ---- the victims ------------------------------------------------------ */

static void claim(void)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        _exit(1);
    }
}

/* Also for a second victim, after the first. */
static void hold_b_only(void *ctx)
{
    struct journal *j = ctx;
    claim();
    if (atomic_fetch_add(&j->prepared, 1) == 0) {
        close_ends(j, A);
    }
}

static void only_claim(void *ctx)
{
    (void)ctx;
    claim();
}

static void hold_a_only(void *ctx)
{
    claim();
    close_ends(ctx, B);
}

/* Not beside a message that was sent before the end. */
static int look_for_eof(void *ctx)
{
    struct journal *j = ctx;
    int err = receive_it(j, j->a, MPROC_NOWAIT);
    return err == MPROC_EOF &&
           atomic_load(&j->received) != atomic_load(&j->done);
}

static int send_one(void *ctx)
{
    struct journal *j = ctx;
    atomic_fetch_add(&j->begun, 1);
    int err = send_it(j, j->b, SOON);
    atomic_fetch_add(&j->done, err == 0);
    return err;
}

static int receive_one(void *ctx)
{
    struct journal *j = ctx;
    return mproc_connection_recv(j->b, in, sizeof in, &j->size, SOON);
}

static int close_b(void *ctx)
{
    struct journal *j = ctx;
    return mproc_connection_close(j->b);
}

static int close_both(void *ctx)
{
    struct journal *j = ctx;
    int err = mproc_connection_close(j->a);
    return err < 0 ? err : mproc_connection_close(j->b);
}

static int make_another(void *ctx)
{
    mproc_connection *a, *b;
    (void)ctx;
    return mproc_pipe_new(&a, &b, NULL);
}

static int use_b(void *ctx)
{
    struct journal *j = ctx;
    int err = mproc_connection_poll(j->b, MPROC_NOWAIT);
    return err != MPROC_ETIMEDOUT;
}

static int have_a_child(void *ctx)
{
    int status;
    (void)ctx;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    return pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
}

/* ---- bystanders and second victims ------------------------------------ */

/* A stopped one keeps what it has locked: then nothing goes on, as it may. */
static void give_up(int signal)
{
    (void)signal;
    _exit(SWEEP_WOULD_BLOCK);
}

static void allow_ms(int ms)
{
    const struct itimerval after = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    signal(SIGALRM, give_up);
    setitimer(ITIMER_REAL, &after, NULL);
}

/* And end. */
static int send_beside(void *ctx)
{
    struct journal *j = ctx;
    allow_ms(30);
    atomic_fetch_add(&j->begun, 1);
    int err = send_it(j, j->b, MPROC_NOWAIT);
    atomic_fetch_add(&j->done, err == 0);
    return err == MPROC_EFULL ? SWEEP_WOULD_BLOCK : err;
}

static bool somebody_holds(const mproc_connection *c)
{
    bool any = false;
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        mpr_id word = atomic_load(&c->holder[i]);
        any = any ||
              (word != 0 && !(word & MPR_HOLDER_CLOSED) && mpr_id_pid(word));
    }
    return any;
}

/* A victim that is stopped lives: while it holds b, it is not the end. */
static int use_a_beside(void *ctx)
{
    struct journal *j = ctx;
    bool held = somebody_holds(j->b);
    allow_ms(30);
    int err = receive_it(j, j->a, MPROC_NOWAIT);
    if (err != 0 && err != MPROC_EEMPTY && (held || err != MPROC_EOF)) {
        return 1;
    }
    err = mproc_connection_send(j->a, out, 1, MPROC_NOWAIT);
    return err != 0 && err != MPROC_EFULL && err != MPROC_EPIPE;
}

static int use_another_beside(void *ctx)
{
    mproc_connection *a, *b;
    size_t size;
    (void)ctx;
    allow_ms(30);
    if (mproc_pipe_new(&a, &b, NULL) < 0 ||
        mproc_connection_send(a, out, LARGE, MPROC_NOWAIT) < 0 ||
        mproc_connection_recv(b, in, sizeof in, &size, MPROC_NOWAIT) < 0 ||
        mproc_connection_close(a) < 0 ||
        mproc_connection_recv(b, in, sizeof in, &size, MPROC_NOWAIT) !=
            MPROC_EOF ||
        mproc_connection_close(b) < 0) {
        return 1;
    }
    return 0;
}

static int reap(void *ctx)
{
    (void)ctx;
    mpr_slots_reap(mpr_self_.thread);
    return 0;
}

/* ---- what must hold --------------------------------------------------- */

static bool is_empty_handed(struct mpr_thread *thread)
{
    bool empty = true;
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        empty = empty && mpr_hand(thread, (enum mpr_hand)hand) == NULL;
    }
    return empty;
}

/* Nobody else lives, and what the dead had is given back. */
static const char *reap_all(void)
{
    struct mpr_census census;
    mproc_deadline until = SOON;
    do {
        census = mpr_slots_reap(mpr_self_.thread);
        if (mpr_os_now() > until.at_ns) {
            return "somebody does not get reaped";
        }
    } while (census.dying || census.unborn || census.reaped > 0);
    uint32_t top = atomic_load(&mpr_family->threads_top);
    for (uint32_t i = 0; i < top; i++) {
        if (!is_empty_handed(&mpr_family->threads[i])) {
            return "something was left in a hand";
        }
    }
    return census.living > 0 ? "somebody is left" : NULL;
}

static void count_one(struct mpr_object *object, void *user)
{
    (void)object;
    ++*(int *)user;
}

static const char *all_is_given_back(struct journal *j)
{
    mproc_heap_info now;
    int pipes = 0;
    const char *wrong = reap_all();
    if (wrong != NULL) {
        return wrong;
    }
    mpr_object_each(MPR_PIPE, count_one, &pipes);
    if (pipes > 0) {
        return "a pipe is left";
    }
    mproc_heap_stats(&now);
    return now.blocks == j->before.blocks && now.in_use == j->before.in_use
               ? NULL
               : "memory is left";
}

struct pair {
    mproc_connection *a, *b;
};

static bool make_and_use(struct pair *p)
{
    char byte;
    return mproc_pipe_new(&p->a, &p->b, NULL) == 0 &&
           mproc_connection_poll(p->a, MPROC_NOWAIT) == MPROC_ETIMEDOUT &&
           mproc_connection_send(p->a, "x", 1, MPROC_NOWAIT) == 0 &&
           mproc_connection_recv(p->b, &byte, 1, NULL, MPROC_NOWAIT) == 0;
}

/* Is the i-th one of those before it? */
static bool is_among(const struct pair *p, int i)
{
    bool among = false;
    for (int k = 0; k < i; k++) {
        among = among || p[k].a == p[i].a;
    }
    return among;
}

/* No cell is handed out twice, and those that come again are good. */
static const char *works_on(void)
{
    enum { MANY = 20 };
    struct pair p[MANY];
    for (int i = 0; i < MANY; i++) {
        if (!make_and_use(&p[i])) {
            return "no pipe can be made and used";
        }
        if (is_among(p, i)) {
            return "two pipes in one place";
        }
    }
    bool closed = true;
    for (int i = 0; i < MANY; i++) {
        closed = mproc_connection_close(p[i].a) == 0 && closed;
        closed = mproc_connection_close(p[i].b) == 0 && closed;
    }
    return closed ? NULL : "a pipe cannot be closed";
}

static const char *leave_none(struct journal *j)
{
    const char *wrong = all_is_given_back(j);
    if (wrong == NULL) {
        wrong = works_on();
    }
    return wrong == NULL ? all_is_given_back(j) : wrong;
}

/* The round holds a, and nobody holds b. */
static const char *check_left_alone(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    int err;
    while ((err = receive_it(j, j->a, SOON)) == 0) {
    }
    if (err != MPROC_EOF) {
        return "the end is not told";
    }
    if (send_it(j, j->a, MPROC_NOWAIT) != MPROC_EPIPE) {
        return "a message is sent to nobody";
    }
    uint32_t received = atomic_load(&j->received);
    if (received > atomic_load(&j->begun)) {
        return "a message came that was not sent";
    }
    if (received < atomic_load(&j->done)) {
        return "a message that was sent is lost";
    }
    if (at->finished && at->second_step == 0 &&
        atomic_load(&j->begun) != atomic_load(&j->done)) {
        return "send ended and is not done";
    }
    if (atomic_load(&j->spoilt) > 0) {
        return "half a message";
    }
    return mproc_connection_close(j->a) < 0 ? "a cannot be closed"
                                            : leave_none(j);
}

/* The round has closed both. */
static const char *check_gone(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    const char *wrong = leave_none(j);
    if (wrong == NULL &&
        (mproc_connection_poll(j->a, MPROC_NOWAIT) != MPROC_EINVAL ||
         mproc_connection_poll(j->b, MPROC_NOWAIT) != MPROC_EINVAL)) {
        wrong = "the ends are there still";
    }
    return wrong;
}

/* The round holds both, and nobody else anything. */
static const char *check_both(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    const char *wrong = reap_all();
    if (wrong != NULL) {
        return wrong;
    }
    if (send_it(j, j->a, MPROC_NOWAIT) < 0 ||
        receive_it(j, j->b, MPROC_NOWAIT) < 0 ||
        mproc_connection_close(j->b) < 0) {
        return "the pipe does not work on";
    }
    if (receive_it(j, j->a, MPROC_NOWAIT) != MPROC_EOF) {
        return "the end is not told";
    }
    return mproc_connection_close(j->a) < 0 ? "a cannot be closed"
                                            : leave_none(j);
}

/* ---- the cases -------------------------------------------------------- */

static const struct sweep_case cases[] = {
    {
        .name = "send, reader asleep",
        .setup = small_empty,
        .prepare = hold_b_only,
        .operation = send_one,
        .sleeper = asleep_in_recv,
        .bystander = use_a_beside,
        .second = reap,
        .check = check_left_alone,
        .shared = region,
    },
    {
        .name = "send 100 KiB, reader asleep",
        .setup = large_empty,
        .prepare = hold_b_only,
        .operation = send_one,
        .sleeper = asleep_in_recv,
        .second = reap,
        .check = check_left_alone,
        .shared = region,
    },
    {
        .name = "send, poller asleep",
        .setup = small_empty,
        .prepare = hold_b_only,
        .operation = send_one,
        .sleeper = asleep_in_poll,
        .check = check_left_alone,
        .shared = region,
    },
    {
        .name = "recv 100 KiB, sender asleep",
        .setup = large_full,
        .prepare = hold_b_only,
        .operation = receive_one,
        .sleeper = asleep_in_send,
        .second = reap,
        .check = check_left_alone,
        .shared = region,
    },
    {
        .name = "recv, sender ends",
        .setup = small_for_two,
        .prepare = hold_a_only,
        .operation = look_for_eof,
        .bystander = send_beside,
        .check = check_left_alone,
        .shared = region,
        .pause_only = true,
    },
    {
        .name = "close, reader asleep",
        .setup = small_empty,
        .prepare = hold_b_only,
        .operation = close_b,
        .sleeper = asleep_until_eof,
        .bystander = use_a_beside,
        .second = reap,
        .check = check_left_alone,
        .shared = region,
    },
    {
        .name = "close of all",
        .setup = all_the_victims,
        .prepare = only_claim,
        .operation = close_both,
        .bystander = use_another_beside,
        .second = reap,
        .check = check_gone,
        .shared = region,
    },
    {
        .name = "new",
        .setup = nothing_inherited,
        .prepare = only_claim,
        .operation = make_another,
        .bystander = use_another_beside,
        .second = reap,
        .check = check_both,
        .shared = region,
    },
    {
        .name = "first use",
        .setup = nothing_inherited,
        .prepare = only_claim,
        .operation = use_b,
        .check = check_both,
        .shared = region,
    },
    {
        .name = "first use, beside many",
        .setup = many_holders,
        .prepare = only_claim,
        .operation = use_b,
        .second = reap,
        .check = check_both,
        .shared = region,
    },
    {
        .name = "fork, reader asleep",
        .setup = many_holders_and_heirs,
        .prepare = hold_b_only,
        .operation = have_a_child,
        .sleeper = asleep_until_eof,
        .second = reap,
        .check = check_left_alone,
        .shared = region,
        .wake_comes = true,
    },
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
