/* SPDX-License-Identifier: MIT */
/*
 * A program that is not linked with the library and loads it: to run it anew
 * would be to run its main.
 */
#include <mproc.h>

#include <dlfcn.h>
#include <stdio.h>

static int nothing(void *arg)
{
    return arg != NULL;
}

static void *find(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL) {
        printf("%s: not found\n", name);
    }
    return found;
}

int main(int argc, char **argv)
{
    union {
        void *data;
        int (*fn)(mproc_process **, mproc_main_fn *, void *,
                  const mproc_process_opts *, size_t);
    } make;
    union {
        void *data;
        int (*fn)(mproc_process *);
    } start;
    if (argc != 2) {
        puts("main");
        return 1;
    }
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) {
        puts(dlerror());
        return 77;
    }
    make.data = find(library, "mproc_process_new_sized");
    start.data = find(library, "mproc_process_start");
    mproc_process_opts opts = {.start = MPROC_START_SPAWN};
    mproc_process *p;
    if (make.data == NULL || start.data == NULL ||
        make.fn(&p, nothing, NULL, &opts, sizeof opts) != 0) {
        return 2;
    }
    int err = start.fn(p);
    printf("%d\n", err);
    return err == MPROC_ENOTSUP ? 0 : 3;
}
