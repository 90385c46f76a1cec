/* SPDX-License-Identifier: MIT */
/* What a program may load when it runs. */
int plugin_main(void *arg);

int plugin_main(void *arg)
{
    return arg != 0;
}

/* A task that replies nothing. */
int plugin_task(const void *arg, unsigned long size, void *reply);

int plugin_task(const void *arg, unsigned long size, void *reply)
{
    (void)reply;
    return arg != 0 && size > 0 ? 42 : 1;
}
