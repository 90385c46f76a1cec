/* SPDX-License-Identifier: MIT */
/* What a program may load when it runs. */
int plugin_main(void *arg);

int plugin_main(void *arg)
{
    return arg != 0;
}
