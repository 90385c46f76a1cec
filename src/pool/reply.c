/* SPDX-License-Identifier: MIT */
/* What a task says: its reply, or why it failed. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/reply.h"

char *mpr_reply_room(mproc_reply *reply, size_t offset, size_t size,
                     size_t *end)
{
    struct mpr_task *task = reply->entry.task;
    *end = task->reply != NULL ? mpr_heap_block_size(task->reply) : 0;
    if (offset + size > *end) {
        size_t wanted = offset + size > 2 * *end ? offset + size : 2 * *end;
        char *block = mpr_heap_alloc(reply->self, wanted, MPR_HAND_BLOCK);
        if (block == NULL) {
            return NULL;
        }
        if (task->reply != NULL) {
            memcpy(block, task->reply, task->chunk->used);
        }
        mpr_worker_adopt(reply->pool, reply->self, task);
        *end = mpr_heap_block_size(block);
    }
    return (char *)task->reply + offset;
}

static size_t aligned(size_t offset)
{
    const size_t to = alignof(max_align_t);
    return (offset + to - 1) / to * to;
}

static bool reserve_in_chunk(mproc_reply *reply, size_t size)
{
    size_t offset = aligned(reply->entry.task->chunk->used), end;
    char *memory = mpr_reply_room(reply, offset, size + 1, &end);
    if (memory == NULL) {
        return false;
    }
    reply->memory = memory;
    reply->capacity = end - offset - 1;
    return true;
}

/* Replies of a batch's items are private until they are known to fit. */
static bool reserve_scratch(mproc_reply *reply, size_t size)
{
    if (size >= reply->scratch_capacity) {
        char *larger = realloc(reply->scratch, size + 64);
        if (larger == NULL) {
            return false;
        }
        reply->scratch = larger;
        reply->scratch_capacity = size + 64;
    }
    reply->memory = reply->scratch;
    reply->capacity = reply->scratch_capacity - 1;
    return true;
}

static bool reserve_in_task(mproc_reply *reply, size_t size)
{
    struct mpr_task *task = reply->entry.task;
    if (size < MPR_TASK_REPLY && task->reply == NULL) {
        task->reply = task->inline_reply;
        reply->memory = task->inline_reply;
        reply->capacity = MPR_TASK_REPLY - 1;
        return true;
    }
    char *block = mpr_heap_alloc(reply->self, size + 1, MPR_HAND_BLOCK);
    if (block == NULL) {
        return false;
    }
    mpr_worker_adopt(reply->pool, reply->self, task);
    reply->memory = block;
    reply->capacity = size;
    return true;
}

bool mpr_reply_is_kept(const struct mpr_chunk *chunk)
{
    return chunk->items != NULL && chunk->out == NULL;
}

void *mproc_reply_reserve(mproc_reply *reply, size_t size)
{
    if (reply == NULL || size >= SIZE_MAX / 2 || !mpr_reply_is_ours(reply)) {
        return NULL;
    }
    if (reply->memory == NULL || size > reply->capacity) {
        const struct mpr_chunk *chunk = mpr_task_chunk(reply->entry.task);
        bool had = chunk == NULL              ? reserve_in_task(reply, size)
                   : mpr_reply_is_kept(chunk) ? reserve_in_chunk(reply, size)
                                              : reserve_scratch(reply, size);
        if (!had) {
            return NULL;
        }
    }
    reply->memory[size] = '\0';
    reply->size = size;
    return reply->memory;
}

int mproc_reply_set(mproc_reply *reply, const void *data, size_t size)
{
    if (reply == NULL || (data == NULL && size > 0) ||
        !mpr_reply_is_ours(reply)) {
        return MPROC_EINVAL;
    }
    void *memory = mproc_reply_reserve(reply, size);
    if (memory == NULL) {
        return MPROC_ENOMEM;
    }
    if (size > 0) {
        memmove(memory, data, size);
    }
    return 0;
}

int mproc_reply_fail(mproc_reply *reply, int code, const char *fmt, ...)
{
    va_list args;
    if (reply == NULL) {
        return code;
    }
    reply->failed = true;
    reply->code = code;
    va_start(args, fmt);
    int length = fmt != NULL ? vsnprintf(NULL, 0, fmt, args) : -1;
    va_end(args);
    char *text = length >= 0 ? malloc((size_t)length + 1) : NULL;
    if (text != NULL) {
        va_start(args, fmt);
        vsnprintf(text, (size_t)length + 1, fmt, args);
        va_end(args);
        free(reply->text);
        reply->text = text;
    }
    return code;
}
