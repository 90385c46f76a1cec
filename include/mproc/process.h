/* SPDX-License-Identifier: MIT */
/*
 * Processes: a function that runs in a process of its own. Python: Process.
 *
 * However a child is started, it is of the family: it sees every handle and
 * every block of the shared heap at the same address.
 *
 * On deaths. However a child ends, join returns and the exit code says how. At
 * normal exit of a process its daemonic children are terminated and joined, the
 * others joined. A daemonic child ends also when its parent is killed. The
 * library reaps only the children that it started itself.
 *
 * A handle belongs to the process that made it: elsewhere calls answer
 * MPROC_EPERM, and free does nothing while its maker lives. mproc_process_pid,
 * _name, _daemon and _is_alive answer in every process of the family. Every
 * call here may be made by any thread, none by a signal handler; calls do not
 * block unless they say so. A handle that is NULL or freed: MPROC_EINVAL where
 * an int is returned, else false, 0 or "".
 */
#ifndef MPROC_PROCESS_H
#define MPROC_PROCESS_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_process mproc_process;

/*
 * What a process runs. The result is its exit code, of which the system keeps
 * the low 8 bits: 300 is seen as 44, -1 as 255. Python: Process.run().
 */
typedef int mproc_main_fn(void *arg);

/*
 * How a process comes to be.
 *
 * MPROC_START_FORK        a fork of the maker: it sees all that its maker had
 *                         in memory, and `arg` may be any pointer. Its cost
 *                         grows with the memory that the maker has touched, and
 *                         of the maker's threads it has only the one that
 *                         started it, with the locks of the others as they were
 * MPROC_START_THREAD      a thread of the maker behind the same interface.
 *                         mproc_process_current is the thread's there; its pid
 *                         and its parent's are those of the process it is in,
 *                         to which also belongs what it makes. Its code is the
 *                         low 8 bits of what the function returns, 0 after
 *                         pthread_exit; exit() ends the whole process. It can
 *                         not be sent a signal: MPROC_ENOTSUP. The exit of the
 *                         process waits for it, but for a daemonic one, which
 *                         ends with the process
 * MPROC_START_SPAWN       this program run anew, with main left out
 * MPROC_START_FORKSERVER  a fork of a process that was so started, for this
 *                         purpose, by the first start or by
 *                         mproc_forkserver_start
 *
 * The last two are safe whatever the maker's threads do, and cost the same
 * however large it is. What they have in common:
 *
 * - `arg` is copied, so it needs its arg_size, and it is all of the maker's own
 *   memory that the child sees: variables are as at the start of the program.
 *   Handles and pointers into the shared heap are good there; pointers to
 *   functions are not.
 * - The function is found again by the module that it lies in: the executable
 *   or a library that it is linked with. One that lies elsewhere, as in what
 *   dlopen has loaded, is not found: MPROC_ENOENT.
 * - Constructors of the program are run before the function, as before main;
 *   those of a forkserver's children once for all, in the server.
 * - The child has the caller's signal mask, and what the maker ignores it
 *   ignores. It has the standard streams, and none of the maker's other
 *   descriptors; but it holds the ends of pipes whose handles stand in `arg`.
 * - What is run is the file that the maker runs, also when it was removed or
 *   replaced since. Libraries that were replaced since are MPROC_ENOENT. The
 *   program must be linked with this library, not load it later; it may be
 *   static or position independent, or both.
 * - The shared memory is mapped where it is here. Should something lie there,
 *   the program is run once more, 8 times at most: MPROC_EADDRINUSE.
 *
 * The server's children have the working directory, the environment, the user
 * and the limits that the maker had when the server started, and for the system
 * the server as parent. Each process that starts by a forkserver has one of its
 * own, which ends with it. It costs two descriptors while it runs. If it is
 * killed its children run on, with their exit codes unknown; the next start
 * makes another. One that is stopped may hold up for two seconds who asks about
 * a child that has ended.
 *
 * Python: get_context("fork"), multiprocessing.dummy, get_context("spawn"),
 * get_context("forkserver").
 */
enum {
    MPROC_START_FORK = 0,
    MPROC_START_THREAD,
    MPROC_START_FORKSERVER,
    MPROC_START_SPAWN
};

/*
 * Options of a process; zero is the default.
 *
 * name      its name, copied; beyond 63 bytes it is cut. Default: "Process-"
 *           and its ordinal among the maker's children; a grandchild is
 *           "Process-1:2"
 * daemon    1: ends with its parent and may not start children, except the
 *           workers of pools. One that the parent's main thread has started by
 *           fork or spawn ends also when that thread ends alone, by
 *           pthread_exit. Default 0
 * start     MPROC_START_FORK is the default
 * arg_size  bytes at `arg` that mproc_process_new copies; the function gets a
 *           copy, aligned for any type. Default 0: the function gets `arg`
 *           itself
 */
typedef struct mproc_process_opts {
    const char *name;
    int daemon;
    int start;
    size_t arg_size;
} mproc_process_opts;
MPROC_NO_PADDING_(mproc_process_opts,
                  sizeof(char *) + 2 * sizeof(int) + sizeof(size_t));

/* mproc_process_new with the size of the caller's options; call that. */
MPROC_API int mproc_process_new_sized(mproc_process **out, mproc_main_fn *fn,
                                      void *arg, const mproc_process_opts *opts,
                                      size_t opts_size);

/*
 * Make a process that will run fn(arg) once it is started. `opts` NULL means
 * all defaults. End the handle with mproc_process_free. Python: Process().
 *
 * 0              *out is the new process, not yet started
 * MPROC_EINVAL   out or fn is NULL, arg is NULL with an arg_size or, for spawn
 *                and forkserver, is not NULL without one, or start is absurd
 * MPROC_ENOTSUP  an option that this version does not know
 * MPROC_ENOMEM   no memory
 */
static inline int mproc_process_new(mproc_process **out, mproc_main_fn *fn,
                                    void *arg, const mproc_process_opts *opts)
{
    return mproc_process_new_sized(out, fn, arg, opts, sizeof *opts);
}

/*
 * Start the process: from now on the function runs there. A process is started
 * once. The child leaves by flushing its stdio, without the atexit handlers of
 * its parent, also when the function calls exit(). Output buffered before the
 * start is not printed twice; where the caller has more than one thread that
 * holds for stdout and stderr, and a child that leaves with more than one
 * flushes those. A running process costs its maker at most one descriptor.
 * With spawn and forkserver the call blocks until the child has come up, or the
 * server, for as long as that takes. Python: Process.start().
 *
 * 0             it runs
 * MPROC_EINVAL  it was started before
 * MPROC_EPERM   the caller is daemonic, or did not make the handle
 * MPROC_EAGAIN  no processes or threads left: the limit of the system, or
 *               processes_max; or a forkserver that does not answer
 * MPROC_EMFILE, MPROC_ENFILE  no descriptor left
 * MPROC_ENOMEM  no memory
 * by spawn and forkserver only:
 * MPROC_ENOENT  the new process does not find the function, or has another
 *               version of this library, or there is no /proc
 * MPROC_EADDRINUSE  something lies there where the shared memory is to be
 * MPROC_ENOTSUP the shared memory has no descriptor (memfd_create was refused,
 *               or the user has closed it), the program has raised privileges,
 *               it is not linked with this library, or the new process is in
 *               another pid namespace
 * MPROC_EWORKERLOST  the new process, or one server after the other, died
 *               before it could begin
 * another -errno  what the system refused to run the program for
 * After a failure the process is as before.
 */
MPROC_API int mproc_process_start(mproc_process *p);

/*
 * Start the forkserver of the calling process, unless it runs: early, so that
 * the first start by it is as fast as the others, and its children are like the
 * process was then. Blocks until it is up. Python: forkserver.ensure_running().
 *
 * 0            it runs
 * MPROC_EPERM  the caller is daemonic
 * else         as mproc_process_start by spawn
 */

MPROC_API int mproc_forkserver_start(void);

/*
 * Wait until the process has ended. Blocks until then or until `until`. May be
 * repeated, and called by several threads at once. A process that put messages
 * may be joined before they are taken. Python: Process.join(), which does not
 * tell the end from the time-out.
 *
 * 0                it has ended, now or before
 * MPROC_ETIMEDOUT  it still runs
 * MPROC_EINVAL     it was not started
 * MPROC_EPERM      it is not a child of the caller
 * MPROC_EDEADLK    it is the caller itself
 */
MPROC_API int mproc_process_join(mproc_process *p, mproc_deadline until);

/*
 * Whether the process was started and has not ended. True for the caller
 * itself. Answers in every process of the family. Python: Process.is_alive().
 */
MPROC_API bool mproc_process_is_alive(mproc_process *p);

/*
 * How the process ended: *out is its exit code, 0 to 255, or minus the number
 * of the signal that killed it. Python: Process.exitcode.
 *
 * 0             *out is stored
 * MPROC_EAGAIN  it still runs
 * MPROC_EINVAL  it was not started, or out is NULL
 * MPROC_EPERM   it is not a child of the caller
 * MPROC_ECHILD  it has ended, but someone else reaped it, or its forkserver was
 *               killed: the code is unknown
 */
MPROC_API int mproc_process_exitcode(mproc_process *p, int *out);

/*
 * Send SIGTERM, SIGKILL or SIGINT to the process, to it alone and not to its
 * descendants. They do not wait for its end: join does. One that has ended is
 * left alone, with success. Python: Process.terminate(), .kill(), .interrupt().
 *
 * 0              sent, or it has ended
 * MPROC_EINVAL   it was not started
 * MPROC_EPERM    it is not a child of the caller
 * MPROC_ENOTSUP  it is a thread
 */
MPROC_API int mproc_process_terminate(mproc_process *p);
MPROC_API int mproc_process_kill(mproc_process *p);
MPROC_API int mproc_process_interrupt(mproc_process *p);

/*
 * The pid, 0 before the start; the name, which lives as long as the handle; and
 * whether the process is daemonic. They answer in every process of the family.
 * Python: Process.pid, .name, .daemon.
 */
MPROC_API pid_t mproc_process_pid(const mproc_process *p);
MPROC_API const char *mproc_process_name(const mproc_process *p);
MPROC_API bool mproc_process_daemon(const mproc_process *p);

/*
 * A descriptor that is readable once the process has ended, for poll and its
 * kin. It belongs to the calling process and the library: poll it, do not read
 * or close it. It lives until the handle is freed. Python: Process.sentinel.
 *
 * >= 0          the descriptor
 * MPROC_EINVAL  the process was not started
 * MPROC_EPERM   it is not a child of the caller
 * MPROC_EMFILE, MPROC_ENFILE  no descriptor left
 * MPROC_ENOTSUP this system has no descriptors of processes
 */
MPROC_API int mproc_process_fd(mproc_process *p);

/*
 * End the handle; NULL is taken, in another process than its maker's nothing
 * happens until the maker is dead. A process that still runs runs on, and is
 * joined at exit as before. Python: Process.close(), which refuses a running
 * one.
 */
MPROC_API void mproc_process_free(mproc_process *p);

/*
 * The process of the caller, never NULL; its name is "MainProcess" in the first
 * of the family. Do not free it. The handle of the first process has a meaning
 * in it and in what is forked from it; that of a child of a plain fork(), which
 * has its forker's name, in that child only. Python: current_process().
 */
MPROC_API mproc_process *mproc_process_current(void);

/*
 * The pid of the caller's parent in the family: 0 in its first process, the
 * pool's maker in a pool worker, the maker's in any process that was started
 * here, whatever the system says. Python: parent_process().pid.
 */
MPROC_API pid_t mproc_process_parent_pid(void);

/*
 * The children of the caller that are alive; those that have ended are joined.
 * Stores at most `capacity` of them in `out` and returns how many there are.
 * The handles stay those that mproc_process_new gave: nothing to free here. A
 * child whose handle was freed is not among them.
 * Python: active_children().
 */
MPROC_API size_t mproc_active_children(mproc_process **out, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
