/* SPDX-License-Identifier: MIT */
/*
 * Messages are whole: part of a buffer is sent as one, one that does not fit
 * tells its size and stays, and poll says whether there is one.
 */
#include <mproc.h>
#include <stdio.h>
#include <string.h>

enum { PATIENCE_MS = 20 };

/* What a poll answers, in words. */
static const char *told(int err)
{
    return err == 0                 ? "there is a message"
           : err == MPROC_ETIMEDOUT ? "there is none"
                                    : mproc_strerror(err);
}

int main(void)
{
    mproc_connection *a, *b;
    const char text[] = "three whole messages";
    char small[4], large[32];
    size_t size = 0;
    int bad = 0, err;

    if (mproc_pipe_new(&a, &b, NULL) < 0) {
        return 1;
    }
    err = mproc_connection_poll(b, MPROC_NOWAIT);
    bad |= err != MPROC_ETIMEDOUT;
    printf("at once: %s\n", told(err));
    err = mproc_connection_poll(b, mproc_in_ms(PATIENCE_MS));
    bad |= err != MPROC_ETIMEDOUT;
    printf("after a while: %s\n", told(err));

    bad |= mproc_connection_send(a, text + 6, 5, MPROC_FOREVER) < 0 ||
           mproc_connection_send(a, text, sizeof text, MPROC_FOREVER) < 0 ||
           mproc_connection_send(a, NULL, 0, MPROC_FOREVER) < 0;
    err = mproc_connection_poll(b, mproc_in_ms(PATIENCE_MS));
    bad |= err != 0;
    printf("now: %s\n", told(err));

    err = mproc_connection_recv(b, small, sizeof small, &size, MPROC_FOREVER);
    bad |= err != MPROC_EMSGSIZE || size != 5;
    printf("into 4 bytes: %s, it has %zu\n", mproc_error_name(err), size);
    do {
        err =
            mproc_connection_recv(b, large, sizeof large, &size, MPROC_NOWAIT);
        if (err == 0) {
            printf("%zu bytes: \"%.*s\"\n", size, (int)size, large);
        }
    } while (err == 0);
    bad |= err != MPROC_EEMPTY || size != 0; /* the last had none */
    mproc_connection_close(a);
    mproc_connection_close(b);
    return bad;
}
