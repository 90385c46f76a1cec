/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

bool mpr_os_signals_blocked(void)
{
    sigset_t blocked;
    return pthread_sigmask(SIG_BLOCK, NULL, &blocked) != 0 ||
           !sigisemptyset(&blocked);
}

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

static void set_handler(int sig, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(sig, &action, NULL);
}

void mpr_os_signal_default(int sig)
{
    set_handler(sig, SIG_DFL, SA_NOCLDSTOP);
}

void mpr_os_signal_ignore(int sig)
{
    set_handler(sig, SIG_IGN, SA_NOCLDSTOP);
}

static _Atomic uint32_t *child_bell;

static void child_changed(int sig)
{
    (void)sig;
    atomic_fetch_add(child_bell, MPR_OS_CHILD_CHANGE_ADDS);
}

/* Without SA_RESTART: a sleep that has begun ends, one about to begin sees
 * another value. */
void mpr_os_on_child_change(_Atomic uint32_t *bell)
{
    sigset_t child;
    child_bell = bell;
    set_handler(SIGCHLD, child_changed, 0);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_UNBLOCK, &child, NULL);
}

int mpr_os_child_news(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    mpr_os_signal_default(SIGCHLD); /* ignored it would reap by itself */
    pthread_sigmask(SIG_BLOCK, &child, NULL);
    int fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd >= 0 ? fd : mpr_os_error();
}

void mpr_os_child_news_read(int fd)
{
    struct signalfd_siginfo info;
    while (syscall(SYS_read, fd, &info, sizeof info) > 0) {
    }
}

void mpr_os_signals_block(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
}

void mpr_os_signal_keep(int sig, struct mpr_os_disposition *out)
{
    sigaction(sig, NULL, &out->action);
}

void mpr_os_signal_put_back(int sig, const struct mpr_os_disposition *kept)
{
    sigaction(sig, &kept->action, NULL);
}
