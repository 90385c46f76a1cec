/* SPDX-License-Identifier: MIT */
/*
 * usage: word_count [file ...]
 *
 * Counts words as `wc -w` does in the C locale, with a pool of one worker a
 * CPU, then once more in this process alone, to compare. Without files: the
 * text of the project, and a file of 64 MiB made up for the purpose.
 */
#include <ctype.h>
#include <fcntl.h>
#include <glob.h>
#include <mproc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef TEXT_DIR /* the root of the project's sources */
#define TEXT_DIR "."
#endif

enum { CHUNK = 1 << 20, MADE_UP_CHUNKS = 64 };

struct file {
    const char *path;
    const unsigned char *text;
    size_t size;
    long words;
};

struct chunk {
    size_t file;
    size_t start;
    size_t size;
};

/* All is filled in before the workers are forked, so they see the texts. */
static struct file *files;
static size_t n_files;
static struct chunk *chunks;
static size_t n_chunks;
static long *words;          /* of each chunk */
static _Atomic size_t *done; /* chunks; in the shared heap */

/* A word is counted where it begins, so a text may be cut anywhere. */
static long count_words(const struct file *f, size_t start, size_t size)
{
    long n = 0;
    int before = start == 0 ? ' ' : f->text[start - 1];
    for (size_t i = start; i < start + size; i++) {
        n += isspace(before) && !isspace(f->text[i]);
        before = f->text[i];
    }
    return n;
}

/* The task. */
static int count_chunk(const void *arg, size_t size, mproc_reply *reply)
{
    const struct chunk *c = arg;
    (void)size;
    long n = count_words(&files[c->file], c->start, c->size);
    atomic_fetch_add(done, 1);
    return mproc_reply_set(reply, &n, sizeof n);
}

/* Counts the chunks; shows the progress on a terminal. */
static int count_with_pool(mproc_pool *pool)
{
    mproc_batch batch = {.fn = count_chunk,
                         .in = chunks,
                         .in_size = sizeof *chunks,
                         .count = n_chunks,
                         .out = words,
                         .out_size = sizeof *words};
    mproc_result *result;
    bool show = isatty(STDERR_FILENO);
    int err = mproc_pool_map_async(pool, &batch, &result);
    if (err < 0) {
        return err;
    }
    do {
        if (show) {
            fprintf(stderr, "\r%zu of %zu chunks", *done, n_chunks);
        }
        err = mproc_result_get(result, NULL, 0, NULL, mproc_in_ms(50));
    } while (err == MPROC_ETIMEDOUT);
    fputs(show ? "\r\033[K" : "", stderr);
    for (size_t i = 0; err == 0 && i < n_chunks; i++) {
        files[chunks[i].file].words += words[i];
    }
    mproc_result_free(result);
    return err;
}

static double now_s(void)
{
    return (double)mproc_in_s(0).at_ns / 1e9;
}

/* True: both ways of counting agree. */
static bool count_both_ways(void)
{
    long total = 0;
    bool agree = true;
    double start_s = now_s();
    mproc_pool *pool;
    int err = mproc_pool_new(&pool, NULL);
    if (err == 0) {
        err = count_with_pool(pool);
        mproc_pool_free(pool);
    }
    double pool_s = now_s() - start_s;
    if (err < 0) {
        fprintf(stderr, "word_count: %s\n", mproc_strerror(err));
        return false;
    }
    start_s = now_s();
    for (struct file *f = files; f < files + n_files; f++) {
        agree &= f->words == count_words(f, 0, f->size);
    }
    double alone_s = now_s() - start_s;
    for (struct file *f = files; f < files + n_files; f++) {
        printf("%10ld %s\n", f->words, f->path);
        total += f->words;
    }
    printf("%10ld total, %s what one process counts\n", total,
           agree ? "equal to" : "NOT");
    printf("%u workers %.3f s, one process %.3f s, %.1f times as fast\n",
           mproc_cpu_count(), pool_s, alone_s, alone_s / pool_s);
    return agree;
}

/* Maps the file, cuts it, and closes the descriptor. */
static bool add(const char *path, int fd)
{
    struct file f = {.path = path};
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        f.size = (size_t)st.st_size;
        f.text = mmap(NULL, f.size + 1, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    close(fd);
    if (f.text == NULL || f.text == MAP_FAILED) {
        fprintf(stderr, "word_count: cannot read %s\n", path);
        return false;
    }
    size_t size;
    for (size_t at = 0; at < f.size; at += size) {
        size = f.size - at < CHUNK ? f.size - at : CHUNK;
        chunks = realloc(chunks, (n_chunks + 1) * sizeof *chunks);
        if (chunks == NULL) {
            return false;
        }
        chunks[n_chunks++] = (struct chunk){n_files, at, size};
    }
    files[n_files++] = f;
    return true;
}

/* A file without a name, of words without a sense. Returns a descriptor. */
static int make_up(void)
{
    static char text[CHUNK];
    FILE *f = tmpfile();
    bool good = f != NULL;
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = "eta\noin sh"[rand() % 10];
    }
    for (int i = 0; good && i < MADE_UP_CHUNKS; i++) {
        good = fwrite(text, sizeof text, 1, f) == 1;
    }
    return good && fflush(f) == 0 ? dup(fileno(f)) : -1;
}

int main(int argc, char **argv)
{
    glob_t text = {.gl_pathc = 0};
    if (argc < 2 && chdir(TEXT_DIR) == 0) {
        glob("*.md", 0, NULL, &text);
        glob("*/*/*.[ch]", GLOB_APPEND, NULL, &text);
    }
    size_t count = argc < 2 ? text.gl_pathc : (size_t)argc - 1;
    char **paths = argc < 2 ? text.gl_pathv : argv + 1;
    files = calloc(count + 1, sizeof *files);
    bool good = files != NULL && (argc > 1 || add("(made up)", make_up()));
    for (size_t i = 0; good && i < count; i++) {
        good = add(paths[i], open(paths[i], O_RDONLY | O_CLOEXEC));
    }
    words = calloc(n_chunks + 1, sizeof *words);
    done = mproc_calloc(1, sizeof *done);
    good = good && words != NULL && done != NULL && count_both_ways();
    globfree(&text);
    return good ? 0 : 1;
}
