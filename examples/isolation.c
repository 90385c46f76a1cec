/* SPDX-License-Identifier: MIT */
/*
 * What a child changes in its own memory is its own: the parent's copies stay
 * as they are. What lies in the shared heap is everybody's.
 */
#include <mproc.h>
#include <stdio.h>
#include <stdlib.h>

struct node {
    int value;
    struct node *next;
};

static int global = 1;
static struct node *list;
static int *shared;

static int push(int value)
{
    struct node *node = malloc(sizeof *node);
    if (node == NULL) {
        return 1;
    }
    *node = (struct node){value, list};
    list = node;
    return 0;
}

static void show(const char *who)
{
    printf("%s: global %d, shared %d, list", who, global, *shared);
    for (const struct node *node = list; node != NULL; node = node->next) {
        printf(" %d", node->value);
    }
    printf("\n");
}

static int change(void *arg)
{
    (void)arg;
    global = 100;
    *shared = 100;
    int err = push(100);
    show("child");
    return err;
}

int main(void)
{
    mproc_process *p;
    int code = 1;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    shared = mproc_alloc(sizeof *shared);
    if (shared == NULL || push(1) != 0 ||
        mproc_process_new(&p, change, NULL, NULL) < 0) {
        return 1;
    }
    *shared = 1;
    show("parent");
    if (mproc_process_start(p) < 0 ||
        mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &code) < 0) {
        return 1;
    }
    show("parent");
    mproc_process_free(p);
    bool held = global == 1 && list->next == NULL && *shared == 100;
    free(list);
    mproc_free(shared);
    return held ? code : 1;
}
