/* SPDX-License-Identifier: MIT */
/* The progress line of a batch, on a terminal and elsewhere. */
#include "pool_support.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>

enum { ITEMS = 300, MOST = 1 << 20, WIDTH = 60 };

static int fails_some(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    usleep(1000);
    return *(const int *)arg % 100 == 99;
}

/* In a child whose stderr is what is looked at. */
static int maps(void *arg)
{
    mproc_progress *line = arg;
    int in[ITEMS];
    mproc_pool *p = pool_of(2);
    mproc_batch b = {.fn = fails_some,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = ITEMS,
                     .on_item = mproc_progress_line,
                     .user = line};
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_ETASK);
    assert_int_equal(line->done, ITEMS);
    assert_int_equal(line->failed, ITEMS / 100);
    end_of(p);
    return 0;
}

struct run {
    mproc_progress line;
    int fd;
};

static int maps_to(void *arg)
{
    struct run *run = arg;
    dup2(run->fd, STDERR_FILENO);
    return maps(&run->line);
}

/* What the child wrote until it ended, as a string. */
static char *written_by(pid_t child, int fd, int writer)
{
    static char text[MOST];
    size_t size = 0;
    ssize_t n;
    close(writer);
    while (size < MOST - 1 &&
           (n = read(fd, text + size, MOST - 1 - size)) > 0) {
        size += (size_t)n;
    }
    text[size] = '\0';
    close(fd);
    assert_int_equal(test_wait_exit(child), 0);
    return text;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A terminal whose two ends are *master and the result; -1: there is none. */
static int terminal(int *master, unsigned short columns)
{
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    *master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*master < 0 || grantpt(*master) != 0 || unlockpt(*master) != 0) {
        return -1;
    }
    int slave = open(ptsname(*master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave >= 0) {
        ioctl(slave, TIOCSWINSZ, &size);
    }
    return slave;
}

/* What a run shows on a terminal of that width; NULL: there is none. */
static char *shown_by(int (*fn)(void *), mproc_progress line,
                      unsigned short columns)
{
    int master, slave = terminal(&master, columns);
    if (slave < 0) {
        return NULL;
    }
    struct run run = {line, slave};
    return written_by(test_fork(fn, &run), master, slave);
}

static char *shown(mproc_progress line, unsigned short columns)
{
    return shown_by(maps_to, line, columns);
}

/* Each drawing: where the last begins, and the widest's columns. */
struct drawings {
    int count;
    size_t widest;
    const char *last;
};

static struct drawings drawings_in(char *text)
{
    struct drawings d = {0, 0, ""};
    for (char *at = strchr(text, '\r'); at != NULL; at = strchr(at + 1, '\r')) {
        if (at[1] == '\n') {
            break; /* the end, as terminals have it */
        }
        size_t width = strcspn(at + 1, "\033\r");
        d.count++;
        d.widest = width > d.widest ? width : d.widest;
        d.last = at + 1;
    }
    return d;
}

static void a_line_is_drawn_on_a_terminal(void **state)
{
    (void)state;
    double begun = now_s();
    char *text =
        shown((mproc_progress){.total = ITEMS, .label = "buns"}, WIDTH);
    if (text == NULL) {
        skip();
    }
    struct drawings d = drawings_in(text);
    assert_in_range(d.count, 2, (int)((now_s() - begun) * 10) + 2);
    assert_true(d.widest < WIDTH);
    assert_int_equal(strncmp(d.last, "buns [====", 10), 0);
    assert_non_null(strstr(d.last, "=] 100% 300/300, 3 failed, 00:0"));
    assert_string_equal(text + strlen(text) - 5, "\033[K\r\n");
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_non_null(strstr(text, ">"));
    assert_non_null(strstr(text, " left\033[K\r"));
    assert_null(strstr(d.last, "left"));
}

static void a_narrow_terminal_is_not_overrun(void **state)
{
    (void)state;
    for (unsigned short columns = 1; columns < 45; columns += 4) {
        char *text =
            shown((mproc_progress){.total = ITEMS, .label = "buns"}, columns);
        if (text == NULL) {
            skip();
        }
        assert_true(drawings_in(text).widest < columns);
        const char *bar = strchr(text, '[');
        while (bar != NULL && bar > text && bar[-1] == '\033') {
            bar = strchr(bar + 1, '[');
        }
        assert_true(bar == NULL || strcspn(bar + 1, "]") >= 5);
    }
}

/* Items that end as the test has it, without a pool. */
static void end_items(mproc_progress *line, size_t until, int status)
{
    const mproc_outcome outcome = {.status = status, .error = ""};
    while (line->done < until) {
        mproc_progress_line(&outcome, line);
    }
}

static int ends_some(void *arg)
{
    struct run *run = arg;
    mproc_progress *line = &run->line;
    dup2(run->fd, STDERR_FILENO);
    end_items(line, 1, MPROC_OK);
    usleep(150000);
    end_items(line, 10, MPROC_EOVERTIME);
    return line->done == 10 && line->failed == 9 ? 0 : 1;
}

/* Two of so many have taken 0.15 s: the others will take four hours. */
static void long_times_have_hours(void **state)
{
    (void)state;
    char *text = shown_by(ends_some, (mproc_progress){.total = 200000}, 200);
    if (text == NULL) {
        skip();
    }
    struct drawings d = drawings_in(text);
    const char *left = strstr(d.last, " left");
    const char *first = strchr(d.last, ':');
    assert_non_null(left);
    assert_true(first != NULL && first + 6 == left && first[3] == ':');
    assert_non_null(strstr(d.last, "0% 2/200000, 1 failed, "));
    const char *bar = strchr(d.last, '[');
    assert_non_null(bar);
    assert_int_equal(strcspn(bar + 1, "]"), 40); /* however wide it is */
}

/* What nobody lives to see is not told. */
static void longer_times_are_left_out(void **state)
{
    (void)state;
    char *text = shown_by(ends_some, (mproc_progress){.total = SIZE_MAX}, 200);
    if (text == NULL) {
        skip();
    }
    struct drawings d = drawings_in(text);
    assert_non_null(strstr(d.last, ", 1 failed,  left"));
    assert_null(strchr(d.last, ':'));
}

static int ends_half(void *arg)
{
    struct run *run = arg;
    dup2(run->fd, STDERR_FILENO);
    end_items(&run->line, 1, MPROC_OK);
    usleep(2000000);
    end_items(&run->line, run->line.total / 2, MPROC_OK);
    return 0;
}

/* Half of it has taken two seconds: as long as the other half will take. */
static void the_time_left_is_that_of_the_rest(void **state)
{
    (void)state;
    int minutes = -1, seconds = -1;
    double begun = now_s();
    char *text = shown_by(ends_half, (mproc_progress){.total = 4}, WIDTH);
    double took = now_s() - begun;
    if (text == NULL) {
        skip();
    }
    const char *at = strstr(drawings_in(text).last, "2/4, ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "2/4, %d:%d left", &minutes, &seconds), 2);
    assert_in_range(minutes * 60 + seconds, 2, (int)(took + 0.5));
}

/* There may be more than was said; nothing else is written then. */
static int ends_too_many(void *arg)
{
    struct run *run = arg;
    dup2(run->fd, STDERR_FILENO);
    end_items(&run->line, 4, MPROC_OK);
    usleep(150000);
    end_items(&run->line, 9, MPROC_OK);
    mproc_progress_line(NULL, &run->line);
    mproc_progress_line(&(mproc_outcome){0}, NULL);
    return 0;
}

static void more_items_than_were_said_spoil_nothing(void **state)
{
    (void)state;
    char label[400];
    memset(label, 'x', sizeof label - 1);
    label[sizeof label - 1] = '\0';
    for (unsigned short columns = 20; columns <= 1000; columns += 70) {
        char *text = shown_by(
            ends_too_many,
            (mproc_progress){.total = 4, .label = columns % 40 ? label : NULL},
            columns);
        if (text == NULL) {
            skip();
        }
        assert_true(drawings_in(text).widest < columns);
        assert_true(drawings_in(text).count >= 1);
    }
}

static void items_that_nobody_counted_are_shown_as_many(void **state)
{
    (void)state;
    char *text = shown((mproc_progress){0}, WIDTH);
    if (text == NULL) {
        skip();
    }
    struct drawings d = drawings_in(text);
    assert_true(d.count >= 1 && d.last[0] >= '1' && d.last[0] <= '9');
    assert_null(strchr(text, '%'));
    assert_null(strchr(text, '\n'));
}

static void nothing_is_drawn_elsewhere(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct run run = {{.total = ITEMS}, fds[1]};
    assert_string_equal(written_by(test_fork(maps_to, &run), fds[0], fds[1]),
                        "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_line_is_drawn_on_a_terminal),
        CLEAN(a_narrow_terminal_is_not_overrun),
        CLEAN(long_times_have_hours),
        CLEAN(longer_times_are_left_out),
        CLEAN(the_time_left_is_that_of_the_rest),
        CLEAN(more_items_than_were_said_spoil_nothing),
        CLEAN(items_that_nobody_counted_are_shown_as_many),
        CLEAN(nothing_is_drawn_elsewhere),
    };
    return cmocka_run_group_tests_name("pool_progress", tests, NULL, NULL);
}
