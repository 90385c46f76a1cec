/* SPDX-License-Identifier: MIT */
/*
 * A pool fetches pages over HTTP and a callback in the parent finds their
 * titles by a regular expression. The server is a real one, on the loopback,
 * which this program starts: a process that answers until it is terminated. One
 * page is not there, one has no title, and at one the server hangs up.
 */
#include <arpa/inet.h>
#include <mproc.h>
#include <netinet/in.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { WORKERS = 4, PAGES = 12, MISSING = 5, UNTITLED = 8, CUT_OFF = 10 };
enum { TEXT_MAX = 512, TIMEOUT_S = 10 };

/* ---- the server ------------------------------------------------------- */

static void answer(int client)
{
    char request[TEXT_MAX], reply[TEXT_MAX];
    int page = 0;
    ssize_t n = read(client, request, sizeof request - 1);
    request[n > 0 ? n : 0] = '\0';
    if (sscanf(request, "GET /page/%d HTTP/1.", &page) != 1 ||
        page == CUT_OFF) {
        return;
    }
    const char *tag = page == UNTITLED ? "b" : "title";
    int size = snprintf(
        reply, sizeof reply, "HTTP/1.0 %s\r\n\r\n<%s>All about %d</%s>",
        page == MISSING ? "404 Not Found" : "200 OK", tag, page, tag);
    if (write(client, reply, (size_t)size) != size) {
        perror("crawler: server");
    }
}

static int serve(void *arg)
{
    int client;
    while ((client = accept(*(int *)arg, NULL, NULL)) >= 0) {
        answer(client);
        close(client);
    }
    return 1;
}

/* A port of the system's choice. Negative: none to be had. */
static int listen_on(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return bind(server, (struct sockaddr *)address, size) == 0 &&
                   listen(server, PAGES) == 0 &&
                   getsockname(server, (struct sockaddr *)address, &size) == 0
               ? server
               : -1;
}

/* ---- the workers ------------------------------------------------------ */

struct job {
    int page;
    struct sockaddr_in server;
};

/* Reads until the server closes. Returns how many bytes. */
static size_t talk(int fd, const struct job *job, char text[TEXT_MAX])
{
    size_t size = 0;
    ssize_t n = 1;
    dprintf(fd, "GET /page/%d HTTP/1.0\r\n\r\n", job->page);
    while (n > 0 && size < TEXT_MAX - 1) {
        n = read(fd, text + size, TEXT_MAX - 1 - size);
        size += n > 0 ? (size_t)n : 0;
    }
    text[size] = '\0';
    return size;
}

static int fetch(const void *arg, size_t arg_size, mproc_reply *reply)
{
    const struct job *job = arg;
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    char text[TEXT_MAX] = "";
    int status = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)arg_size;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    size_t size = connect(fd, (const struct sockaddr *)&job->server,
                          sizeof job->server) == 0
                      ? talk(fd, job, text)
                      : 0;
    close(fd);
    if (sscanf(text, "HTTP/1.%*d %d", &status) != 1) {
        return mproc_reply_fail(reply, 1, "page %d: no answer", job->page);
    }
    if (status != 200) {
        return mproc_reply_fail(reply, status, "page %d: HTTP status %d",
                                job->page, status);
    }
    return mproc_reply_set(reply, text, size + 1);
}

/* ---- the parent ------------------------------------------------------- */

struct found {
    regex_t title;
    int titles, untitled, failed;
};

static void extract(const mproc_outcome *page, void *user)
{
    struct found *found = user;
    regmatch_t match[2];
    const char *text = page->data;
    if (page->status != 0) {
        printf("failed: %s\n", page->error);
        found->failed++;
    } else if (regexec(&found->title, text, 2, match, 0) == 0) {
        printf("title: %.*s\n", (int)(match[1].rm_eo - match[1].rm_so),
               text + match[1].rm_so);
        found->titles++;
    } else {
        printf("page %zu has no title\n", page->index + 1);
        found->untitled++;
    }
}

/* Every page is one item of a batch. */
static int crawl(const struct sockaddr_in *server, struct found *found)
{
    struct job jobs[PAGES];
    mproc_pool *pool;
    int err = mproc_pool_new(&pool, &(mproc_pool_opts){.workers = WORKERS});
    if (err < 0) {
        return err;
    }
    for (int i = 0; i < PAGES; i++) {
        jobs[i] = (struct job){i + 1, *server};
    }
    const mproc_batch batch = {.fn = fetch,
                               .in = jobs,
                               .in_size = sizeof jobs[0],
                               .count = PAGES,
                               .on_item = extract,
                               .user = found};
    err = mproc_pool_map(pool, &batch, MPROC_FOREVER);
    mproc_pool_free(pool);
    return err == MPROC_ETASK ? 0 : err; /* each was told */
}

int main(void)
{
    struct found found = {.titles = 0};
    struct sockaddr_in address;
    mproc_process *process;
    int server = listen_on(&address);
    if (server < 0 ||
        regcomp(&found.title, "<title>([^<]*)</title>", REG_EXTENDED) != 0 ||
        mproc_process_new(&process, serve, &server,
                          &(mproc_process_opts){.daemon = 1}) < 0 ||
        mproc_process_start(process) < 0) {
        return 1;
    }
    int err = crawl(&address, &found);
    mproc_process_terminate(process);
    mproc_process_join(process, MPROC_FOREVER);
    mproc_process_free(process);
    regfree(&found.title);
    close(server);
    printf("%d titles, %d without, %d failed, of %d pages\n", found.titles,
           found.untitled, found.failed, PAGES);
    return err == 0 && found.titles == PAGES - 3 && found.untitled == 1 &&
                   found.failed == 2
               ? 0
               : 1;
}
