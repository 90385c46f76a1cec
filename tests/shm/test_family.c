/* SPDX-License-Identifier: MIT */
/* The family's region: made under every limit, at one address, once. */
#include "white.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MIB ((size_t)1 << 20)

/* Small and large blocks, and memory back to the system; checks contents. */
static void use_the_heap(size_t large)
{
    static const size_t sizes[] = {1, 64, 1000, 5000, 32768, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = mproc_alloc(sizes[i]);
        assert_non_null(p);
        memset(p, 0x5a, sizes[i]);
        mproc_free(p);
    }
    unsigned char *p = mproc_calloc(1, large);
    assert_non_null(p);
    for (size_t i = 0; i < large; i += 4096) {
        assert_int_equal(p[i], 0);
        p[i] = 1;
    }
    mproc_free(p);
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    assert_int_equal(info.blocks, 0);
}

static void limit(int resource, rlim_t value)
{
    struct rlimit limits;
    assert_int_equal(getrlimit(resource, &limits), 0);
    limits.rlim_cur = value < limits.rlim_max ? value : limits.rlim_max;
    assert_int_equal(setrlimit(resource, &limits), 0);
}

static size_t addresses_in_use(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- limits ----------------------------------------------------------- */

WHITE_TEST(the_heap_is_as_large_as_the_machine_allows)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    size_t installed = mpr_os_memory_installed();
    size_t ceiling = mpr_os_region_ceiling();
    assert_true(info.limit >= (installed < ceiling ? installed : ceiling) / 4);
    assert_true(mpr_os_region_fd_valid(&mpr_family->region));
    use_the_heap(4 * MIB);
    return 0;
}

WHITE_TEST(few_addresses_make_a_small_heap)
{
    if (WHITE_SANITIZED) {
        return 0; /* they need more addresses than any limit leaves */
    }
    limit(RLIMIT_AS, addresses_in_use() + 64 * MIB);
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    assert_true(info.limit >= 1 * MIB && info.limit < 64 * MIB);
    use_the_heap(512 * 1024);
    return 0;
}

WHITE_TEST(no_addresses_are_an_error_and_the_next_call_tries_again)
{
    if (WHITE_SANITIZED) {
        return 0;
    }
    mproc_heap_info info;
    int fds = test_open_fds();
    limit(RLIMIT_AS, addresses_in_use() + MIB);
    assert_err(mproc_heap_stats(&info), MPROC_ENOMEM);
    assert_null(mproc_alloc(1));
    assert_int_equal(test_open_fds(), fds);
    limit(RLIMIT_AS, RLIM_INFINITY);
    use_the_heap(4 * MIB);
    return 0;
}

WHITE_TEST(small_files_cost_neither_the_process_nor_the_heap)
{
    limit(RLIMIT_FSIZE, MIB);
    int fds = test_open_fds();
    use_the_heap(4 * MIB);
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    assert_true(info.limit > 16 * MIB);
    assert_false(mpr_os_region_fd_valid(&mpr_family->region));
    assert_int_equal(test_open_fds(), fds);
    sigset_t pending;
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGXFSZ));
    return 0;
}

static int a_descriptor_more_is_an_error(void)
{
    mproc_heap_info info;
    while (dup(0) >= 0) {
    }
    assert_int_equal(errno, EMFILE);
    assert_err(mproc_heap_stats(&info), MPROC_EMFILE);
    struct mpr_thread *self;
    assert_err(mpr_self(&self), MPROC_EMFILE);
    return 0;
}

WHITE_TEST(no_descriptor_is_an_error_and_the_next_call_tries_again)
{
    limit(RLIMIT_NOFILE, 32);
    a_descriptor_more_is_an_error();
    close(31);
    use_the_heap(4 * MIB);
    assert_true(mpr_os_region_fd_valid(&mpr_family->region));
    return 0;
}

/* Answers one system call with an error. */
static void refuse(int call, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static int use_in_a_child(void *unused)
{
    (void)unused;
    use_the_heap(4 * MIB);
    return 0;
}

static int without_memfd(int error)
{
    refuse(SYS_memfd_create, error);
    use_the_heap(4 * MIB);
    assert_int_equal(mpr_family->region.fd, -1);
    assert_false(mpr_os_region_fd_valid(&mpr_family->region));
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    assert_true(info.resident > 0);
    assert_int_equal(test_wait_exit(test_fork(use_in_a_child, NULL)), 0);
    return 0;
}

WHITE_TEST(without_memfd_memory_without_a_file_will_do)
{
    return without_memfd(ENOSYS);
}

WHITE_TEST(with_memfd_forbidden_memory_without_a_file_will_do)
{
    return without_memfd(EPERM);
}

/* As before Linux 5.14, and as where the memory is refused. */
WHITE_TEST(pages_come_at_the_first_touch_where_they_cannot_be_had_at_once)
{
    use_the_heap(MIB);
    refuse(SYS_madvise, EINVAL);
    use_the_heap(4 * MIB);
    return 0;
}

WHITE_TEST(pages_that_are_refused_make_the_heap_full_not_broken)
{
    mproc_heap_info before, after;
    assert_ok(mproc_heap_stats(&before));
    pid_t pid = fork();
    if (pid == 0) {
        refuse(SYS_madvise, ENOMEM);
        _exit(mproc_alloc(10) != NULL || mproc_alloc(100000) != NULL);
    }
    assert_int_equal(test_wait_exit(pid), 0);
    mpr_slots_reap(white_self());
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.in_use, before.in_use);
    use_the_heap(4 * MIB);
    return 0;
}

/* ---- configuration ---------------------------------------------------- */

WHITE_TEST(absurd_limits_are_refused)
{
    mproc_config config = {.processes_max = 1};
    assert_err(mproc_configure(NULL), MPROC_EINVAL);
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    config.processes_max = 32769;
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    config = (mproc_config){.heap_max = MIB - 1};
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    config.heap_max = SIZE_MAX;
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    config = (mproc_config){.reserved = 1};
    assert_err(mproc_configure(&config), MPROC_ENOTSUP);
    struct {
        mproc_config config;
        int unknown;
    } later = {.unknown = 1};
    assert_err(mproc_configure_sized(&later.config, sizeof later),
               MPROC_ENOTSUP);
    return 0;
}

WHITE_TEST(limits_hold_from_the_first_use_on)
{
    const mproc_config first = {.heap_max = 64 * MIB};
    const mproc_config config = {.heap_max = 2 * MIB, .processes_max = 2};
    assert_ok(mproc_configure(&first));
    assert_ok(mproc_configure(&config)); /* the last one counts */
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    assert_int_equal(info.limit, 2 * MIB);
    assert_int_equal(mpr_family->slots_max, 2);
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    return 0;
}

WHITE_TEST(the_largest_number_of_processes_is_possible)
{
    const mproc_config config = {.processes_max = 32768};
    assert_ok(mproc_configure(&config));
    use_the_heap(MIB);
    assert_int_equal(mpr_family->slots_max, 32768);
    return 0;
}

static int configure_in_a_child(void *unused)
{
    (void)unused;
    const mproc_config config = {.heap_max = 2 * MIB};
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    return 0;
}

WHITE_TEST(a_child_of_the_family_configures_nothing)
{
    white_self();
    assert_int_equal(test_wait_exit(test_fork(configure_in_a_child, NULL)), 0);
    return 0;
}

/* ---- one region for all ------------------------------------------------ */

static int look_into_the_region(void *shared)
{
    return memcmp(shared, "here", 5) == 0 && mpr_family_holds(shared, 5) &&
                   *(void **)((char *)shared + 8) == mpr_family
               ? 0
               : 1;
}

WHITE_TEST(a_child_sees_all_at_the_same_address)
{
    char *p = mproc_alloc(16);
    memcpy(p, "here", 5);
    *(void **)(p + 8) = mpr_family;
    assert_int_equal(test_wait_exit(test_fork(look_into_the_region, p)), 0);
    return 0;
}

WHITE_TEST(only_the_region_holds_what_is_in_the_region)
{
    white_self();
    char *base = (char *)mpr_family;
    int local;
    assert_true(mpr_family_holds(base, mpr_family->size));
    assert_true(mpr_family_holds(base + mpr_family->size - 1, 1));
    assert_false(mpr_family_holds(base + mpr_family->size - 1, 2));
    assert_false(mpr_family_holds(base + mpr_family->size, 0));
    assert_false(mpr_family_holds(base - 1, 1));
    assert_false(mpr_family_holds(base + 1, SIZE_MAX));
    assert_false(mpr_family_holds(&local, sizeof local));
    assert_false(mpr_family_holds(NULL, 0));
    return 0;
}

/* A daemon closes all; the numbers are other files' from then on. */
WHITE_TEST(the_library_goes_on_without_its_descriptors)
{
    use_the_heap(4 * MIB);
    int fd = mpr_family->region.fd;
    for (int i = 3; i < 64; i++) {
        close(i);
    }
    assert_false(mpr_os_region_fd_valid(&mpr_family->region));
    while (open("/dev/null", O_RDWR) < fd) {
    }
    assert_false(mpr_os_region_fd_valid(&mpr_family->region));
    use_the_heap(128 * MIB);
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    assert_true(info.resident > 0 && info.resident < 64 * MIB);
    assert_int_equal(test_wait_exit(test_fork(use_in_a_child, NULL)), 0);
    return 0;
}

/* Or what the program prints would be written over the family. */
WHITE_TEST(the_region_is_none_of_the_standard_streams)
{
    int keep = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    int err = mpr_family_use();
    int fd = err == 0 ? mpr_family->region.fd : -1;
    assert_int_equal(dup2(keep, STDERR_FILENO), STDERR_FILENO);
    assert_ok(err);
    assert_true(fd > STDERR_FILENO);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(ftruncate(fd, 0), -1);
    use_the_heap(4 * MIB);
    return 0;
}

/* ---- first use by many threads, forks by threads ----------------------- */

static void *use_first(void *ready)
{
    white_await(ready, 1);
    mproc_free(mproc_alloc(100));
    return mpr_family;
}

WHITE_TEST(threads_that_use_it_first_together_make_one_family)
{
    enum { THREADS = 8 };
    struct white_stage *stage = white_stage_new();
    pthread_t threads[THREADS];
    void *found;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, use_first, &stage->word[0]), 0);
    }
    white_reach(&stage->word[0], 1);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &found), 0);
        assert_ptr_equal(found, mpr_family);
    }
    return 0;
}

static void *allocate_until(void *stop)
{
    while (!atomic_load((_Atomic uint32_t *)stop)) {
        mproc_free(mproc_alloc(100));
        mproc_free(mproc_alloc(100000));
    }
    return NULL;
}

WHITE_TEST(a_fork_beside_busy_threads_leaves_the_child_free)
{
    enum { THREADS = 2, FORKS = 20 };
    struct white_stage *stage = white_stage_new();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, allocate_until, &stage->word[0]),
            0);
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            mproc_free(mproc_alloc(100));
            _exit(0);
        }
        assert_int_equal(test_wait_exit(pid), 0);
    }
    atomic_store(&stage->word[0], 1);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heap_is_as_large_as_the_machine_allows),
        cmocka_unit_test(few_addresses_make_a_small_heap),
        cmocka_unit_test(
            no_addresses_are_an_error_and_the_next_call_tries_again),
        cmocka_unit_test(small_files_cost_neither_the_process_nor_the_heap),
        cmocka_unit_test(
            no_descriptor_is_an_error_and_the_next_call_tries_again),
        cmocka_unit_test(without_memfd_memory_without_a_file_will_do),
        cmocka_unit_test(with_memfd_forbidden_memory_without_a_file_will_do),
        cmocka_unit_test(
            pages_come_at_the_first_touch_where_they_cannot_be_had_at_once),
        cmocka_unit_test(pages_that_are_refused_make_the_heap_full_not_broken),
        cmocka_unit_test(absurd_limits_are_refused),
        cmocka_unit_test(limits_hold_from_the_first_use_on),
        cmocka_unit_test(the_largest_number_of_processes_is_possible),
        cmocka_unit_test(a_child_of_the_family_configures_nothing),
        cmocka_unit_test(a_child_sees_all_at_the_same_address),
        cmocka_unit_test(only_the_region_holds_what_is_in_the_region),
        cmocka_unit_test(the_library_goes_on_without_its_descriptors),
        cmocka_unit_test(the_region_is_none_of_the_standard_streams),
        cmocka_unit_test(threads_that_use_it_first_together_make_one_family),
        cmocka_unit_test(a_fork_beside_busy_threads_leaves_the_child_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
