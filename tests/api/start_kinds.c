/* SPDX-License-Identifier: MIT */
/*
 * Every start method in a program that is linked in some way, the same for all:
 * functions of the executable are found, main is left out, and what the program
 * constructs before main is there.
 */
#include <mproc.h>

#include <stdio.h>

static int constructed;

/* Beside the library's own constructors, whatever the linker makes of them. */
__attribute__((constructor(102))) static void construct_early(void)
{
    constructed += 3;
}

__attribute__((constructor)) static void construct(void)
{
    constructed += 4;
}

struct note {
    int *answer;
    int number;
};

static int answers(void *arg)
{
    const struct note *note = arg;
    *note->answer = note->number + constructed;
    return 17;
}

static int code_of(const struct note *note, int how)
{
    mproc_process *p;
    mproc_process_opts opts = {.start = how, .arg_size = sizeof *note};
    int code = -1;
    int err = mproc_process_new(&p, answers, (void *)note, &opts);
    if (err == 0) {
        err = mproc_process_start(p);
    }
    if (err == 0) {
        mproc_process_join(p, mproc_in_s(30));
        err = mproc_process_exitcode(p, &code);
    }
    if (err != 0) {
        printf("start method %d: %s\n", how, mproc_error_name(err));
    }
    return code;
}

int main(void)
{
    struct note note = {.answer = mproc_calloc(1, sizeof(int)), .number = 100};
    for (int how = MPROC_START_FORK; how <= MPROC_START_SPAWN; how++) {
        *note.answer = 0;
        int code = code_of(&note, how);
        if (code != 17 || *note.answer != 107) {
            printf("start method %d: code %d, answer %d\n", how, code,
                   *note.answer);
            return 1;
        }
    }
    return 0;
}
