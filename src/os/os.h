/* SPDX-License-Identifier: MIT */
/*
 * Everything the library asks of the operating system, and the only place
 * where systems differ. The layers above make no system call of their own.
 *
 * Unless said otherwise a function returns 0 or a negative MPROC_E… code,
 * changes nothing on failure, may be called by any thread, does not block and
 * is no cancellation point.
 */
#ifndef MPR_OS_OS_H
#define MPR_OS_OS_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <mproc/deadline.h>
#include <mproc/error.h>

/* ---- time ------------------------------------------------------------- */

/* CLOCK_MONOTONIC in nanoseconds: what deadlines are measured by. */
int64_t mpr_os_now(void);

/* Nanoseconds since boot: what the system dates processes by. */
int64_t mpr_os_boot_now(void);

/* ---- this process and this thread ------------------------------------- */

/* Let another run that can, on this CPU. */
void mpr_os_yield(void);

pid_t mpr_os_pid(void);
pid_t mpr_os_tid(void);
pid_t mpr_os_parent_pid(void); /* 0: it is of another pid namespace */

/* Whether the calling thread blocks any signal, as handlers mostly do. */
bool mpr_os_signals_blocked(void);

/*
 * Names the pid namespace of this process; 0 where it cannot be told. Pids of
 * another namespace mean nothing here.
 */
uint64_t mpr_os_pid_namespace(void);

/* The value of errno as a negative MPROC_E… code. */
int mpr_os_error(void);

/* ---- the shared region ------------------------------------------------ */

struct mpr_os_region {
    void *base;
    size_t size;
    bool dump;    /* into core files */
    int fd;       /* -1: anonymous, cannot be handed to another program */
    dev_t device; /* of fd, to tell it from another that took its number */
    ino_t inode;
    bool at_desert; /* at an address that another program run finds free */
};

/*
 * Reserve `size` bytes of zeroed shared memory, inherited by every fork at
 * the same address and never unmapped. Nothing is allocated until touched.
 * `anonymous` asks for memory without a file behind it. ENOMEM, EFBIG, EMFILE,
 * ENFILE, ENOSYS: refused; a smaller size or anonymous memory may pass.
 */
int mpr_os_region_map(struct mpr_os_region *out, size_t size, bool anonymous,
                      bool dump);

/* The largest region worth asking for, and the bytes of memory installed. */
size_t mpr_os_region_ceiling(void);
size_t mpr_os_memory_installed(void);

/*
 * In a program started anew: map the region that the descriptor is of where its
 * maker has it. `region` gets what the maker stored `offset` bytes from its
 * start. EADDRINUSE: something lies there; EINVAL: it is no region.
 */
int mpr_os_region_join(struct mpr_os_region *region, int fd, size_t offset);

/* True for the same file that was mapped: the user may have closed it. */
bool mpr_os_region_fd_valid(const struct mpr_os_region *region);

/*
 * Bytes of memory that this process holds and shares with no other mapping. The
 * most it has held so far where the system does not tell.
 */
size_t mpr_os_own_memory(void);

/* Bytes of the region that the system holds; 0 where it cannot be told. */
size_t mpr_os_region_resident(const struct mpr_os_region *region);

/*
 * Allocate the pages of a range now: ENOMEM here instead of a SIGBUS at the
 * first touch. What was there stays.
 */
int mpr_os_populate(void *start, size_t size);

/* Give the pages of a range back; it reads as zeros from then on. */
void mpr_os_give_back(void *start, size_t size);

/* ---- words that processes sleep on ------------------------------------ */

/*
 * Sleep while *word == seen, until woken or the deadline. 0: look again (woken,
 * changed, or a signal was handled). MPROC_ETIMEDOUT: the deadline passed.
 */
int mpr_os_wait(_Atomic uint32_t *word, uint32_t seen, mproc_deadline until);

/* Wake at most n of those who sleep on the word. Returns how many it woke. */
int mpr_os_wake(_Atomic uint32_t *word, int n);

/*
 * Add n, below 2048, to the word and wake all who sleep on it: one step, which
 * nobody is stopped or killed in the midst of, and in which nobody falls
 * asleep.
 */
void mpr_os_add_and_wake_all(_Atomic uint32_t *word, uint32_t n);

struct mpr_os_word {
    _Atomic uint32_t *word;
    uint32_t seen;
};

enum { MPR_OS_WORDS_MAX = 128 };

/* The half of a 64-bit word that holds its low 32 bits: what to sleep on. */
static inline _Atomic uint32_t *mpr_os_low_half(_Atomic uint64_t *word)
{
    const union {
        uint64_t whole;
        uint32_t half[2];
    } one = {.whole = 1};
    return (_Atomic uint32_t *)word + (one.half[0] == 1 ? 0 : 1);
}

/*
 * As mpr_os_wait, on up to MPR_OS_WORDS_MAX words at once. ENOTSUP: this system
 * cannot (told at once, and from then on always).
 */
int mpr_os_wait_any(const struct mpr_os_word *words, unsigned count,
                    mproc_deadline until);

/* ---- locks whose owner may die ---------------------------------------- */

/*
 * Robust, process-shared, not recursive, in shared memory that is never
 * unmapped and never used for anything else.
 */
void mpr_os_mutex_init(pthread_mutex_t *mutex);

enum mpr_os_lock {
    MPR_OS_LOCKED = 0,
    MPR_OS_OWNER_DIED = 1, /* locked; repair, then mpr_os_mutex_repaired */
    MPR_OS_BUSY = 2,       /* not locked */
};

enum mpr_os_lock mpr_os_mutex_trylock(pthread_mutex_t *mutex);

/* Waits until the deadline at most, then MPR_OS_BUSY. */
enum mpr_os_lock mpr_os_mutex_lock(pthread_mutex_t *mutex,
                                   mproc_deadline until);
void mpr_os_mutex_repaired(pthread_mutex_t *mutex);
void mpr_os_mutex_unlock(pthread_mutex_t *mutex);

/*
 * The word of a mutex in which the kernel writes its owner's death, NULL where
 * it could not be found. MPR_OS_WORD_DIED is set in it when the owner died;
 * whoever sets MPR_OS_WORD_WAITERS and sleeps on the word is woken then, one
 * sleeper a death.
 */
_Atomic uint32_t *mpr_os_mutex_word(pthread_mutex_t *mutex);

#define MPR_OS_WORD_WAITERS UINT32_C(0x80000000)
#define MPR_OS_WORD_DIED UINT32_C(0x40000000)

/* ---- evidence of a death ---------------------------------------------- */

/*
 * True once no thread of the process that had this pid at `since_boot_ns` can
 * run user code any more: the pid is gone or given to a younger process, or
 * the memory of all its threads is gone. About 40 us. The pid must be of this
 * process's own namespace.
 */
bool mpr_os_process_gone(pid_t pid, int64_t since_boot_ns);

/* Names the program that this process runs, and all forks of it until they
 * begin another; 0 where it cannot be told. */
uint64_t mpr_os_program(void);

enum mpr_os_trace {
    MPR_OS_RUNS,
    MPR_OS_GONE,  /* as by mpr_os_process_gone, or it runs another program */
    MPR_OS_UNTOLD /* no descriptor left to look with, or no leave to look */
};

enum mpr_os_trace mpr_os_program_trace(pid_t pid, int64_t since_boot_ns,
                                       uint64_t program);

/* ---- forks ------------------------------------------------------------ */

/*
 * A zeroed page, private to this process, that reads as zeros in every child
 * however it was forked. NULL: no memory.
 */
void *mpr_os_page_wiped_on_fork(void);

/*
 * Fork with all signals blocked, in both; `before` gets the mask to restore by
 * mpr_os_fork_end once either side is set up. Returns the pid, 0 in the child,
 * or an error: EAGAIN, ENOMEM. What stdout and stderr had buffered is the
 * parent's: the child forgets it.
 */
pid_t mpr_os_fork(sigset_t *before);
void mpr_os_fork_end(const sigset_t *before);

/*
 * Write out what stdio has buffered: all streams where the caller is the only
 * thread, else stdout and stderr, and those only if nobody is in the middle of
 * writing to them, since a stream that another thread reads from could be
 * waited for without end.
 */
void mpr_os_stdio_flush(void);

/*
 * In a forked child: exit() calls `fn` with its status, before whatever was
 * registered so far. (musl: the status is not told, 0.) ENOMEM.
 */
int mpr_os_on_exit(void (*fn)(int status));

/*
 * Call run(user), then end(user): also where `run` ends its thread by
 * pthread_exit, or another cancels it.
 */
void mpr_os_run_to_end(void (*run)(void *user), void (*end)(void *user),
                       void *user);

/*
 * Blocks while there are threads beside the caller and the library's own; looks
 * every few milliseconds.
 */
void mpr_os_await_single_thread(void);

/* End the process at once, with the low 8 bits of the status. */
_Noreturn void mpr_os_end(int status);

/* Whose child one is: what one needs to know of it in order to end with it. */
struct mpr_os_parent {
    pid_t pid;
    int pidfd;             /* opened before the fork, or -1 */
    bool main_thread;      /* the one that forked was the main thread */
    bool fostered;         /* the kernel has another for this one's parent */
    int64_t since_boot_ns; /* of a fostered one: it lived then */
};

/*
 * In the child, before mpr_os_fork_end: SIGKILL this process when its parent
 * ends, however that ends, and if it has ended already. Takes the pidfd over.
 */
void mpr_os_end_with_parent(const struct mpr_os_parent *parent);

/* In the child: be let go on, if stopped, when a thread of the parent ends. */
void mpr_os_continue_with_parent(void);

/* ---- descriptors ------------------------------------------------------ */

/*
 * A flag that can be polled, close-on-exec: readable while it is raised. All
 * processes that inherit it have the same one. EMFILE, ENFILE, ENOMEM.
 */
int mpr_os_flag(bool raised);

/* They may be done again, and by signal handlers. */
void mpr_os_flag_raise(int fd);
void mpr_os_flag_lower(int fd);

void mpr_os_close(int fd);

/*
 * poll() until the deadline at most, through signals. 0: some have `revents`.
 * ETIMEDOUT; EINVAL: more of them than descriptors may be open; ENOMEM.
 */
int mpr_os_poll(struct pollfd *fds, size_t count, mproc_deadline until);

/*
 * A descriptor that is readable from the set time on, until it is set again;
 * for ever: never. EMFILE, ENFILE, ENOMEM.
 */
int mpr_os_timer(void);
void mpr_os_timer_set(int fd, mproc_deadline at);

/*
 * A descriptor that is readable while any of those is that were added. It
 * forgets them only when it is told to, and none may be closed before that.
 * EMFILE, ENFILE, ENOMEM; adding: ENOMEM, ENOSPC.
 */
int mpr_os_watch(void);
int mpr_os_watch_add(int watch, int fd);
void mpr_os_watch_remove(int watch, int fd);

/* ---- threads of the library's own ------------------------------------- */

/*
 * Run fn(arg) in a thread that nobody joins, with all signals blocked. It may
 * not touch stdio. EAGAIN: no thread left; ENOMEM.
 */
int mpr_os_helper_start(void *(*fn)(void *), void *arg);

struct mpr_os_thread {
    pthread_t id;
};

/*
 * Run fn(arg) in a thread in which all signals are blocked, so that handlers
 * run in the user's threads; to be joined, or detached by whoever. EAGAIN: no
 * thread left.
 */
int mpr_os_thread_start(struct mpr_os_thread *out, void *(*fn)(void *),
                        void *arg);
void mpr_os_thread_join(const struct mpr_os_thread *thread);
void mpr_os_thread_detach(const struct mpr_os_thread *thread);

/* ---- children --------------------------------------------------------- */

/*
 * A pidfd, close-on-exec. EMFILE, ENFILE, ENOMEM, ESRCH; ENOTSUP: this system
 * has none, or forbids them.
 */
int mpr_os_pidfd(pid_t pid);

/*
 * These take a child's pidfd, or -1, and its pid. Without pidfd this process
 * must not have reaped the pid; with it no other process is ever meant, whoever
 * reaped.
 *
 * Reap the child if it has ended. 0: *code is its exit code, or minus the
 * signal. EAGAIN: it runs. ECHILD: it has ended and somebody else reaped it.
 */
int mpr_os_child_reap(pid_t pid, int pidfd, int *code);

/*
 * Blocks until the child has ended, or perhaps has (0), or the deadline passed
 * (MPROC_ETIMEDOUT). Looks every few milliseconds without pidfd.
 */
int mpr_os_child_wait(int pidfd, mproc_deadline until);

/* ESRCH: it has ended. EPERM: it has become another user's. */
int mpr_os_child_signal(pid_t pid, int pidfd, int sig);

/*
 * Has a process ended that need not be a child; it lived at `since_boot_ns`.
 */
bool mpr_os_has_ended(pid_t pid, int pidfd, int64_t since_boot_ns);

/*
 * What has become of this process's children: one is stopped, which is told
 * once; one is to be reaped, or none is left.
 */
enum mpr_os_change { MPR_OS_NO_CHANGE, MPR_OS_STOPPED, MPR_OS_ENDED };
enum mpr_os_change mpr_os_child_change(void);

/* Any child of this process, as mpr_os_child_reap. ECHILD: it has none. */
int mpr_os_child_reap_any(pid_t *pid, int *code);

/* True once that process has ended. */
bool mpr_os_parent_gone(const struct mpr_os_parent *parent);

/* ---- this program, started anew --------------------------------------- */

/*
 * What a process is given that runs this program anew. Each descriptor has the
 * same number there as here; `parent_pidfd` may be -1.
 */
struct mpr_os_seed {
    int channel; /* an end of a mpr_os_channel */
    int region;
    int parent_pidfd;
    unsigned tries;   /* 0; how often it has been started again */
    uint64_t library; /* the module (below) of this library */
};

/*
 * Start the program that this process runs as a child of it, at a cost that
 * does not depend on the memory of this process, whatever its threads do. The
 * child has the caller's signal mask, what is ignored here is ignored there,
 * and no descriptors but the standard ones and the seed's. What was buffered by
 * stdio stays here. EAGAIN, ENOMEM, EACCES; ENOENT: /proc is not there.
 */
int mpr_os_start_anew(const struct mpr_os_seed *seed, pid_t *pid);

/* False where that would run the user's main: with raised privileges. */
bool mpr_os_may_start_anew(void);

/*
 * True in such a child: then `*out` is what it was given, closed in programs
 * that it runs. The first call comes before other threads are; it takes the
 * order from the environment.
 */
bool mpr_os_seed(struct mpr_os_seed *out);

/*
 * In such a child, before other threads are: once more from the beginning, with
 * `tries` one more. Returns only if it fails.
 */
int mpr_os_start_again(struct mpr_os_seed seed);

/*
 * Called by a constructor with a priority: have `fn`, which must not return,
 * called instead of main, after all constructors of the program and of the
 * libraries that it is linked with. False: it cannot be done here.
 */
bool mpr_os_instead_of_main(void (*fn)(void));

/* Where a function is, in every run of the same program. */
struct mpr_os_place {
    uint64_t module; /* tells the executable or library from all others */
    uint64_t offset;
};

typedef void mpr_os_fn(void);

/* False: it lies in no module that was loaded. */
bool mpr_os_place_of(mpr_os_fn *fn, struct mpr_os_place *out);

/*
 * Does the function lie in what is there whenever this program is run, and not
 * in what it has loaded later?
 */
bool mpr_os_is_linked(mpr_os_fn *fn);

/* NULL: the module is not loaded here, or is not the same. */
mpr_os_fn *mpr_os_fn_at(const struct mpr_os_place *place);

/* ---- channels: between a process and those that it starts ------------- */

/*
 * A pair of connected ends, close-on-exec, none a standard stream. EMFILE,
 * ENFILE, ENOMEM.
 */
int mpr_os_channel(int ends[2]);

/*
 * Send or receive all of it; blocks. MPROC_EOF: the other end was closed, by
 * everybody who had it, or `death`, the pidfd of who has it, says that this one
 * has ended; -1: it says nothing.
 */
int mpr_os_channel_send(int channel, int death, const void *data, size_t size);
int mpr_os_channel_receive(int channel, int death, void *data, size_t size);

/*
 * As these, for a few bytes; do not block: MPROC_EAGAIN, nothing was sent, or
 * is there.
 */
int mpr_os_channel_try_send(int channel, const void *data, size_t size);
int mpr_os_channel_try_receive(int channel, void *data, size_t size);

/*
 * Give a descriptor to the other side, with a number; take one. Do not block:
 * EAGAIN. MPROC_EOF: the other end was closed. `*fd` is -1 where the taker had
 * no descriptor left for it.
 */
int mpr_os_channel_hand(int channel, int fd, uint64_t number);
int mpr_os_channel_take(int channel, int *fd, uint64_t *number);

/* ---- the user's terminal ---------------------------------------------- */

/* How wide the terminal on stderr is; 0: stderr is none. */
unsigned mpr_os_stderr_columns(void);

/* Past stdio. What cannot be written is dropped; blocks as a terminal does. */
void mpr_os_stderr_write(const char *text, size_t size);

/* ---- signals: for processes of the library's own, never the user's ---- */

/* "SIGKILL"; constant. */
const char *mpr_os_signal_name(int sig);

void mpr_os_signal_default(int sig);
void mpr_os_signal_ignore(int sig);

/*
 * From now on the end of a child, or its stop, adds to the word and interrupts
 * a sleep of this single-threaded process, so a sleep on the word's value
 * before misses no child.
 */
enum { MPR_OS_CHILD_CHANGE_ADDS = 4 };
void mpr_os_on_child_change(_Atomic uint32_t *bell);

/*
 * A descriptor that is readable when children may have ended, until
 * mpr_os_child_news_read; the signal is blocked for that. EMFILE, ENFILE,
 * ENOMEM.
 */
int mpr_os_child_news(void);
void mpr_os_child_news_read(int fd);

/* All signals, in the calling thread. */
void mpr_os_signals_block(void);

/* What a signal does: kept, and put back. */
struct mpr_os_disposition {
    struct sigaction action;
};
void mpr_os_signal_keep(int sig, struct mpr_os_disposition *out);
void mpr_os_signal_put_back(int sig, const struct mpr_os_disposition *kept);

/*
 * Blocks until any of the descriptors is readable, or the first one is writable
 * too if that is wanted, or the deadline; -1 is never.
 */
void mpr_os_await_any(const int *fds, unsigned count, bool writable,
                      mproc_deadline until);

#endif
