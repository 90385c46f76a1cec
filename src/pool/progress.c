/* SPDX-License-Identifier: MIT */
/*
 * A line on a terminal that tells how far a batch is:
 *
 *     label [=========>          ]  48% 480/1000, 3 failed, 00:07 left
 *
 * Drawn over itself in one write, never as wide as the terminal, where it would
 * wrap; what the bar leaves no room for is cut off.
 */
#include <stdio.h>
#include <string.h>

#include "pool/private.h"

enum {
    REDRAW_MS = 100,
    LINE = 256,
    BAR = 40,      /* columns, at most */
    LEAST_BAR = 5, /* a shorter one says nothing */
};

static const char clear_rest[] = "\033[K";

/* "1:02:03" or "02:03"; nothing when it is too long to matter. */
static void print_time(char text[32], double seconds)
{
    long s = seconds < 1e8 ? (long)(seconds + 0.5) : -1;
    text[0] = '\0';
    if (s >= 3600) {
        snprintf(text, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    } else if (s >= 0) {
        snprintf(text, 32, "%02ld:%02ld", s / 60, s % 60);
    }
}

static void print_counts(char text[LINE], const mproc_progress *p,
                         double seconds)
{
    char time[32], failed[40] = "";
    if (p->failed > 0) {
        snprintf(failed, sizeof failed, ", %zu failed", p->failed);
    }
    if (p->total == 0) {
        print_time(time, seconds);
        snprintf(text, LINE, "%zu%s, %s", p->done, failed, time);
        return;
    }
    double part = (double)p->done / (double)p->total;
    bool over = p->done >= p->total;
    print_time(time, over ? seconds : seconds / part - seconds);
    snprintf(text, LINE, "%3d%% %zu/%zu%s, %s%s", (int)(part * 100), p->done,
             p->total, failed, time, over ? "" : " left");
}

/* "[==>  ] ", of `columns`; nothing when that is too short. */
static void print_bar(char text[LINE], const mproc_progress *p, size_t columns)
{
    size_t width = columns > 3 ? columns - 3 : 0;
    text[0] = '\0';
    if (p->total == 0 || width < LEAST_BAR) {
        return;
    }
    width = width < BAR ? width : BAR;
    double part = (double)p->done / (double)p->total;
    size_t full = (size_t)(part * (double)width);
    size_t at = 0;
    text[at++] = '[';
    for (size_t i = 0; i < width; i++) {
        text[at++] = i < full ? '=' : i == full ? '>' : ' ';
    }
    memcpy(text + at, "] ", 3);
}

static void draw(const mproc_progress *p, size_t columns, double seconds)
{
    char counts[LINE], bar[LINE], line[2 * LINE];
    const char *label = p->label != NULL ? p->label : "";
    const char *space = *label != '\0' ? " " : "";
    print_counts(counts, p, seconds);
    size_t taken = strlen(label) + strlen(space) + strlen(counts) + 1;
    print_bar(bar, p, columns > taken ? columns - taken : 0);
    int length = snprintf(line, LINE, "\r%s%s%s%s", label, space, bar, counts);
    size_t size = length < LINE ? (size_t)length : LINE - 1;
    size = size < columns ? size : columns; /* with the \r: one less */
    const char *end = p->total > 0 && p->done >= p->total ? "\n" : "";
    size += (size_t)snprintf(line + size, LINE, "%s%s", clear_rest, end);
    mpr_os_stderr_write(line, size);
}

/* private_: when it began, when it was drawn last. */
void mproc_progress_line(const mproc_outcome *outcome, void *user)
{
    mproc_progress *p = user;
    if (p == NULL || outcome == NULL) {
        return;
    }
    int64_t now = mpr_os_now();
    if (p->done == 0) {
        p->private_[0] = now;
    }
    p->done++;
    p->failed += outcome->status != MPROC_OK;
    bool last = p->total > 0 && p->done == p->total;
    bool due = now - p->private_[1] >= INT64_C(1000000) * REDRAW_MS;
    size_t columns = last || due ? mpr_os_stderr_columns() : 0;
    if (last || due) {
        p->private_[1] = now;
    }
    if (columns > 0) {
        draw(p, columns, (double)(now - p->private_[0]) / 1e9);
    }
}
