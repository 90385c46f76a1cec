/* SPDX-License-Identifier: MIT */
/*
 * The benchmark: each row measures libmproc beside what one would use without
 * it, all in every round and in turn first, so that a noisy moment of the
 * machine meets all. Figures are nanoseconds for one operation by the clock on
 * the wall, if the row says nothing else. The ratio is the other's figure by
 * libmproc's, so above 1 where libmproc is better: the median of what the
 * rounds say. A row may have a target for it. A peer that is not installed is
 * skipped, and it is said what it needs.
 *
 * usage: bench_quick [--json] [--smoke] [name ...]
 *
 *   --json   the same for machines
 *   --smoke  a thousandth of the work, once: shows that it runs, measures
 *            nothing
 *   name     only rows with one of these in their name: pool, "64 B"
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { SMOKE = 1000, SMOKE_MIN = 4 };

struct options {
    bool json, smoke;
    char **names; /* up to NULL; none: all */
};

static double measure_peer(const struct row *row, const struct peer *peer,
                           long n)
{
    if (peer->limit > 0) {
        return peer->limit;
    }
    return peer->measure != NULL ? peer->measure(row, n) : NOT_THERE;
}

static long scaled(long n, bool smoke)
{
    n = smoke ? n / SMOKE : n;
    return n < SMOKE_MIN ? SMOKE_MIN : n;
}

static void play_peer(const struct row *row, struct times *t, int i, int round,
                      bool smoke)
{
    const struct peer *peer = &row->peers[i];
    if (t->missing[i]) {
        return;
    }
    long n = scaled(peer->n > 0 ? peer->n : row->n, smoke);
    double figure = measure_peer(row, peer, n);
    t->peer[i][round] = figure;
    t->missing[i] = figure < 0;
    must(figure >= 0 || peer->needs != NULL, peer->name);
}

static int peers_of(const struct row *row)
{
    int count = 0;
    while (count < PEERS_MAX && row->peers[count].name != NULL) {
        count++;
    }
    return count;
}

/* Each round begins with the next of them; the first is libmproc. */
static void play(const struct row *row, struct times *t, int round, bool smoke)
{
    int peers = peers_of(row);
    for (int i = 0; i <= peers; i++) {
        int who = (round + i) % (peers + 1);
        if (who == 0) {
            t->ours[round] = row->measure(row, scaled(row->n, smoke));
        } else {
            play_peer(row, t, who - 1, round, smoke);
        }
    }
    for (int i = 0; i < peers; i++) {
        t->ratio[i][round] = t->peer[i][round] / t->ours[round];
    }
}

static void sort(struct times *times, int rounds)
{
    bench_sort(times->ours, rounds);
    for (int i = 0; i < PEERS_MAX; i++) {
        bench_sort(times->peer[i], rounds);
        bench_sort(times->ratio[i], rounds);
    }
}

static bool wanted(const struct row *row, char **names)
{
    bool wanted = *names == NULL;
    for (; *names != NULL && !wanted; names++) {
        wanted = strstr(row->name, *names) != NULL;
    }
    return wanted;
}

static int run(const struct options *options)
{
    int rounds = options->smoke ? 1 : ROUNDS_MAX;
    struct times *times = calloc((size_t)rows_count, sizeof *times);
    must(times != NULL, "calloc");
    int count = 0;
    for (int i = 0; i < rows_count; i++) {
        times[i].wanted = wanted(&rows[i], options->names);
        count += times[i].wanted;
    }
    if (count == 0) {
        fprintf(stderr, "bench_quick: no row has such a name\n");
        free(times);
        return 2;
    }
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < rows_count; i++) {
            if (times[i].wanted) {
                play(&rows[i], &times[i], round, options->smoke);
            }
        }
    }
    for (int i = 0; i < rows_count; i++) {
        sort(&times[i], rounds);
    }
    (options->json ? bench_print_json : bench_print_table)(times, rounds);
    free(times);
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = {.names = argv + 1};
    bool bare = argc == 3 && strcmp(argv[1], "--pending") == 0;
    bool results = argc == 3 && strcmp(argv[1], "--pending-results") == 0;
    if (bare || results) { /* run by pools.c */
        bench_print_pending(strtol(argv[2], NULL, 10), results);
        return 0;
    }
    for (; *options.names != NULL && **options.names == '-'; options.names++) {
        if (strcmp(*options.names, "--json") == 0) {
            options.json = true;
        } else if (strcmp(*options.names, "--smoke") == 0) {
            options.smoke = true;
        } else {
            fprintf(stderr,
                    "usage: bench_quick [--json] [--smoke] [name ...]\n");
            return 2;
        }
    }
    return run(&options);
}
