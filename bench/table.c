/* SPDX-License-Identifier: MIT */
/* What was measured, for people and for machines. */
#include "bench.h"

static double median(const series s, int rounds)
{
    return s[rounds / 2];
}

static bool met(const struct peer *peer, const series ratio, int rounds)
{
    return median(ratio, rounds) >= peer->target;
}

/* For people. */

static void print_cell(const series s, int rounds, int digits, int wide)
{
    char text[80];
    snprintf(text, sizeof text, "%.*f (%.*f to %.*f)", digits,
             median(s, rounds), digits, s[0], digits, s[rounds - 1]);
    printf(" %-*s |", wide, text);
}

static void print_figure(const series s, int rounds)
{
    print_cell(s, rounds, median(s, rounds) < 100 ? 1 : 0, 29);
}

static void print_beside(const struct peer *peer, const struct times *t, int i,
                         int rounds)
{
    printf(" %-23s |", peer->name);
    if (t->missing[i]) {
        printf(" skipped: needs %s | | | |\n", peer->needs);
        return;
    }
    if (peer->limit > 0) {
        printf(" %-29.0f |", peer->limit);
    } else {
        print_figure(t->peer[i], rounds);
    }
    print_cell(t->ratio[i], rounds, 2, 25);
    if (peer->target > 0) {
        printf(" %6.2f | %-3s |\n", peer->target,
               met(peer, t->ratio[i], rounds) ? "yes" : "no");
    } else {
        printf(" %6s | %-3s |\n", "", "");
    }
}

void bench_print_table(const struct times *times, int rounds)
{
    printf("| %-32s | %-29s | %-23s | %-29s | %-25s | %6s | met |\n",
           "ns for one", "libmproc", "beside", "its figure", "ratio", "target");
    printf("|---|---|---|---|---|---|---|\n");
    for (int r = 0; r < rows_count; r++) {
        const struct peer *peers = rows[r].peers;
        for (int i = 0; i < PEERS_MAX && peers[i].name && times[r].wanted;
             i++) {
            printf("| %-32s |", rows[r].name);
            print_figure(times[r].ours, rounds);
            print_beside(&peers[i], &times[r], i, rounds);
        }
    }
}

/* For machines. */

static void print_values(const char *name, const series s, int rounds)
{
    printf(", \"%s\": {\"median\": %.3f, \"min\": %.3f, \"max\": %.3f}", name,
           median(s, rounds), s[0], s[rounds - 1]);
}

static void print_object(const struct row *row, const struct times *t, int i,
                         int rounds)
{
    const struct peer *peer = &row->peers[i];
    printf("  {\"row\": \"%s\", \"peer\": \"%s\"", row->name, peer->name);
    print_values("libmproc", t->ours, rounds);
    if (t->missing[i]) {
        printf(", \"skipped\": \"needs %s\"}", peer->needs);
        return;
    }
    print_values("its", t->peer[i], rounds);
    print_values("ratio", t->ratio[i], rounds);
    if (peer->target > 0) {
        printf(", \"target\": %.3f, \"met\": %s", peer->target,
               met(peer, t->ratio[i], rounds) ? "true" : "false");
    }
    printf("}");
}

void bench_print_json(const struct times *times, int rounds)
{
    const char *between = "\n";
    printf("{\"rounds\": %d, \"rows\": [", rounds);
    for (int r = 0; r < rows_count; r++) {
        const struct peer *peers = rows[r].peers;
        for (int i = 0; i < PEERS_MAX && peers[i].name && times[r].wanted;
             i++) {
            printf("%s", between);
            print_object(&rows[r], &times[r], i, rounds);
            between = ",\n";
        }
    }
    printf("\n]}\n");
}
