/* SPDX-License-Identifier: MIT */
#include <signal.h>

#include "os/os.h"

const char *mpr_os_signal_name(int sig)
{
    static const struct {
        int number;
        const char *name;
    } known[] = {
        {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},       {SIGQUIT, "SIGQUIT"},
        {SIGILL, "SIGILL"},   {SIGTRAP, "SIGTRAP"},     {SIGABRT, "SIGABRT"},
        {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},       {SIGKILL, "SIGKILL"},
        {SIGUSR1, "SIGUSR1"}, {SIGSEGV, "SIGSEGV"},     {SIGUSR2, "SIGUSR2"},
        {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"},     {SIGTERM, "SIGTERM"},
        {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"},     {SIGSYS, "SIGSYS"},
        {SIGPROF, "SIGPROF"}, {SIGVTALRM, "SIGVTALRM"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].number == sig) {
            return known[i].name;
        }
    }
    return "another signal";
}

static void set_handler(int sig, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_NOCLDSTOP};
    sigemptyset(&action.sa_mask);
    sigaction(sig, &action, NULL);
}

void mpr_os_signal_default(int sig)
{
    set_handler(sig, SIG_DFL);
}

void mpr_os_signal_ignore(int sig)
{
    set_handler(sig, SIG_IGN);
}

static _Atomic uint32_t *child_bell;

static void child_ended(int sig)
{
    (void)sig;
    atomic_fetch_add(child_bell, MPR_OS_CHILD_END_ADDS);
}

/* Without SA_RESTART: a sleep that has begun ends, one about to begin sees
 * another value. */
void mpr_os_on_child_end(_Atomic uint32_t *bell)
{
    sigset_t child;
    child_bell = bell;
    set_handler(SIGCHLD, child_ended);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_UNBLOCK, &child, NULL);
}
