/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"
#include "os/process.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define GIB ((size_t)1 << 30)

/*
 * Under valgrind a large shared mapping is either refused or, at the leak
 * search, read page by page, and what is read is allocated.
 */
static bool under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

size_t mpr_os_region_ceiling(void)
{
    if (sizeof(void *) < 8 || under_valgrind()) {
        return GIB / 4;
    }
    return GIB * 64;
}

size_t mpr_os_memory_installed(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    size_t all;
    if (pages <= 0 || page <= 0) {
        return GIB;
    }
    bool more = __builtin_mul_overflow((size_t)pages, (size_t)page, &all);
    return more ? SIZE_MAX : all;
}

/* Of /proc/self/statm: all pages, those in memory, those of them shared. */
static bool read_statm(size_t *own_pages)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    mpr_os_close(fd);
    if (got <= 0) {
        return false;
    }
    text[got] = '\0';
    char *at = strchr(text, ' ');
    if (at == NULL) {
        return false;
    }
    size_t resident = strtoull(at, &at, 10);
    size_t shared = strtoull(at, NULL, 10);
    *own_pages = resident > shared ? resident - shared : 0;
    return true;
}

size_t mpr_os_own_memory(void)
{
    size_t pages;
    int saved = errno;
    bool told = read_statm(&pages);
    errno = saved;
    if (told) {
        return pages * (size_t)sysconf(_SC_PAGESIZE);
    }
    struct rusage most = {0};
    getrusage(RUSAGE_SELF, &most);
    return (size_t)most.ru_maxrss * 1024;
}

/* RLIMIT_FSIZE counts for a memfd too: EFBIG, but a SIGXFSZ on top of it. */
static int truncate_quietly(int fd, size_t size)
{
    sigset_t fsize, before, pending;
    sigemptyset(&fsize);
    sigaddset(&fsize, SIGXFSZ);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &fsize, &before);
    int err = ftruncate(fd, (off_t)size) == 0 ? 0 : mpr_os_error();
    if (err == MPROC_EFBIG && !sigismember(&pending, SIGXFSZ)) {
        struct timespec none = {0, 0};
        sigtimedwait(&fsize, NULL, &none);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

/*
 * Sealed, so no process of the family can take memory away under another's
 * feet; mode 0600, since a memfd is born open to all who find it in /proc.
 */
static int sealed_memfd(int *out, size_t size)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create("mproc", flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("mproc", flags);
    }
    if (fd < 0) {
        return mpr_os_error();
    }
    /* A program may have been started without its standard streams: what it,
     * or a child of it, prints would be written into the region. */
    fd = mpr_os_beyond_standard(fd);
    if (fd < 0) {
        return fd;
    }
    int err = truncate_quietly(fd, size);
    if (err == 0) {
        int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
        if (fchmod(fd, 0600) != 0 || fcntl(fd, F_ADD_SEALS, seals) != 0) {
            err = mpr_os_error();
        }
    }
    if (err < 0) {
        close(fd);
        return err;
    }
    *out = fd;
    return 0;
}

/* A random GiB of a part of the address space that systems leave empty. */
static void *desert_address(void)
{
#if UINTPTR_MAX > 0xffffffffu && !defined(__SANITIZE_THREAD__)
    const uint64_t first = UINT64_C(0x100000000000);
    const uint64_t last = UINT64_C(0x500000000000);
    uint64_t random;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) !=
        (ssize_t)sizeof random) {
        random = (uint64_t)mpr_os_now() * UINT64_C(0x9e3779b97f4a7c15);
    }
    uint64_t steps = (last - first) / GIB;
    return (void *)(uintptr_t)(first + (random >> 16) % steps * GIB);
#else
    return NULL;
#endif
}

static void *map_somewhere(size_t size, int fd, bool *at_desert)
{
    int flags = MAP_SHARED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);
    int access = PROT_READ | PROT_WRITE;
    for (int i = 0; i < 8; i++) {
        void *want = desert_address();
        if (want == NULL) {
            break;
        }
        void *got =
            mmap(want, size, access, flags | MAP_FIXED_NOREPLACE, fd, 0);
        if (got == want) {
            *at_desert = true;
            return got;
        }
        if (got != MAP_FAILED) { /* a kernel that takes it for a hint */
            munmap(got, size);
        } else if (errno == ENOMEM) {
            break;
        }
    }
    *at_desert = false;
    return mmap(NULL, size, access, flags, fd, 0);
}

int mpr_os_region_map(struct mpr_os_region *out, size_t size, bool anonymous,
                      bool dump)
{
    struct mpr_os_region region = {.size = size, .dump = dump, .fd = -1};
    if (!anonymous) {
        int err = sealed_memfd(&region.fd, size);
        if (err < 0) {
            return err;
        }
    }
    region.base = map_somewhere(size, region.fd, &region.at_desert);
    if (region.base == MAP_FAILED) {
        int err = mpr_os_error();
        if (region.fd >= 0) {
            close(region.fd);
        }
        return err;
    }
    struct stat status;
    if (region.fd >= 0 && fstat(region.fd, &status) == 0) {
        region.device = status.st_dev;
        region.inode = status.st_ino;
    }
    if (!dump) {
        madvise(region.base, size, MADV_DONTDUMP);
    }
    *out = region;
    return 0;
}

/* Before Linux 4.17 the address is a mere hint. */
static int map_exactly(const struct mpr_os_region *region, int fd)
{
    int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *got =
        mmap(region->base, region->size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (got == region->base) {
        return 0;
    }
    if (got == MAP_FAILED) {
        return errno == EEXIST ? MPROC_EADDRINUSE : mpr_os_error();
    }
    munmap(got, region->size);
    return MPROC_EADDRINUSE;
}

int mpr_os_region_join(struct mpr_os_region *region, int fd, size_t offset)
{
    struct stat status;
    if (pread(fd, region, sizeof *region, (off_t)offset) !=
            (ssize_t)sizeof *region ||
        region->fd != fd || fstat(fd, &status) != 0 ||
        region->device != status.st_dev || region->inode != status.st_ino ||
        region->size != (size_t)status.st_size) {
        return MPROC_EINVAL;
    }
    int err = map_exactly(region, fd);
    if (err == 0 && !region->dump) {
        madvise(region->base, region->size, MADV_DONTDUMP);
    }
    return err;
}

/* By inode: a user may close all descriptors and reuse their numbers. */
static bool region_stat(const struct mpr_os_region *region, struct stat *status)
{
    return region->fd >= 0 && fstat(region->fd, status) == 0 &&
           status->st_dev == region->device && status->st_ino == region->inode;
}

bool mpr_os_region_fd_valid(const struct mpr_os_region *region)
{
    struct stat status;
    return region_stat(region, &status);
}

size_t mpr_os_region_resident(const struct mpr_os_region *region)
{
    struct stat status;
    return region_stat(region, &status) ? (size_t)status.st_blocks * 512 : 0;
}

int mpr_os_populate(void *start, size_t size)
{
    if (madvise(start, size, MADV_POPULATE_WRITE) == 0) {
        return 0;
    }
    switch (errno) {
    case EINVAL: /* before Linux 5.14: the first touch allocates */
    case EINTR:
        return 0;
    default: /* EFAULT is what a full tmpfs says here */
        return MPROC_ENOMEM;
    }
}

void mpr_os_give_back(void *start, size_t size)
{
    int saved = errno;
    if (madvise(start, size, MADV_REMOVE) != 0) {
        memset(start, 0, size); /* the promise to read as zeros holds */
    }
    errno = saved;
}

void *mpr_os_page_wiped_on_fork(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return NULL;
    }
    madvise(page, size, MADV_WIPEONFORK); /* refused: atfork does it */
    return page;
}
