/* SPDX-License-Identifier: MIT */
/* Batches and iterations, which are their maker's alone. */
#ifndef MPR_POOL_BATCH_H
#define MPR_POOL_BATCH_H

#include "pool/pool.h"

/*
 * A chunk under way. Of an iteration: it is kept when it has ended, with its
 * task, until its items were handed out; `newer` is then the next of these.
 */
struct mpr_part {
    struct mpr_part *older, *newer;
    struct mpr_entry entry;
    size_t first, items;
};

/* Items that do not lie in an array, side by side as a chunk has them. */
struct mpr_staged {
    char *bytes;
    size_t size, room;
    struct {
        size_t at, size;
    } * items;
    size_t count, items_room;
};

/*
 * A batch under way, part of its result. The arrays are the caller's.
 * `open`: items are still to come, and the pool has it in its list; it has
 * ended when it is neither open nor has parts in flight. `feeding`: the thread
 * that made it sends the first ones; later ones are the collector's to send.
 * `stop`: why the rest is not to be sent, if there is one; MPROC_ECANCELED also
 * when something that was sent was cancelled. `untold`: that rest is told, with
 * `sent`, by who runs callbacks of a manual pool. `forgotten`: its callback has
 * freed it, and nothing of the caller's is to be touched any more.
 * `bad`: the first bad item so far, else count. `item_ns`, `largest`: how long
 * an item ran lately, and the largest chunk of which that is known.
 * `is`, `count`, `tells_items`, `spare` do not change. `sent` is changed by who
 * sends, under mpr_pool_lock until `stop` says that there is nothing more to
 * send; `bad` belongs to who collects; the rest is under that lock.
 */
struct mpr_batch_state {
    mproc_batch is;
    size_t count;
    bool tells_items;
    bool forgotten;
    bool open;
    bool feeding;
    bool untold;
    int stop;
    size_t sent;
    size_t bad;
    char *spare; /* room for one reply and its NUL */
    char *text;  /* of the first bad item */
    struct mpr_part *newest;
    size_t parts;
    size_t ahead; /* items in flight */
    double item_ns;
    size_t largest;
    unsigned round;
    struct mproc_result *next_open;
    struct mpr_iteration *iter; /* of imap, else NULL */
};

/*
 * The iterating side of a batch. `ended`: chunks to be handed out, by their
 * place if `ordered`, else as they ended. `short_of`: the pool had no room
 * for more, and has not said otherwise since. `thread`: the serial of
 * who has asked last. These are under mpr_pool_lock; the rest is that
 * thread's. `now`, `at`: what was handed out last.
 */
struct mpr_iteration {
    bool ordered;
    bool short_of;
    uint64_t thread;
    struct mpr_part *ended, *ended_last;
    struct mpr_part *now;
    size_t at;
    size_t given; /* items handed out */
    int over;     /* why there is nothing more to send, 0: there may be */
    char *spare;  /* as that of the batch */
    struct mpr_staged staged;
    mproc_outcome outcome;
    char text[MPR_LOSS_TEXT];
};

/* ---- chunks ---------------------------------------------------------- */

/*
 * A chunk of `count` items from item `first` on, in the hand MPR_HAND_BLOCK.
 * NULL: no memory.
 */
struct mpr_chunk *mpr_chunk_new(struct mpr_thread *self,
                                const struct mpr_batch_state *batch,
                                size_t first, size_t count);

/* The same block for others, not more, which do not come from `next`. */
void mpr_chunk_again(struct mpr_chunk *chunk,
                     const struct mpr_batch_state *batch, size_t first,
                     size_t count);

/*
 * Items that never ended have the status of the task that carried them. Returns
 * the first bad item, or their count.
 */
size_t mpr_chunk_end(struct mpr_chunk *chunk, int status);

/* Copy one more item there. ENOMEM. */
int mpr_staged_add(struct mpr_staged *staged, const void *item, size_t size);

/* How item i ended; a text may be made in `text`. */
mproc_outcome mpr_chunk_outcome(struct mpr_chunk *chunk, const char *replies,
                                size_t i, char text[MPR_LOSS_TEXT]);

/* To the caller's arrays, where it has not been written there. */
void mpr_chunk_copy_out(const struct mpr_chunk *chunk, const mproc_batch *to);

/* ---- its life -------------------------------------------------------- */

/* A batch as the user gave it. EINVAL, ENOTSUP. */
int mpr_batch_read(mproc_batch *b, const mproc_batch *theirs, size_t size);

/* Room for one reply and its NUL, aligned for any type; NULL: no memory. */
char *mpr_batch_spare(const mproc_batch *b);

/*
 * A batch that nobody else knows of yet, its arrays as in `b`; and the end of
 * it, if it was never open. ENOMEM.
 */
int mpr_batch_new(mproc_pool *pool, struct mpr_thread *self,
                  const mproc_batch *b, struct mproc_result **out);
void mpr_batch_drop(struct mpr_thread *self, struct mproc_result *result);

/* It is accepted, and open if it has items. ESHUTDOWN, EBROKEN. */
int mpr_batch_open(mproc_pool *pool, struct mproc_result *result);

/*
 * The first ones. Whatever hinders the others is the collector's matter; what
 * hinders the very first is refused. ENOMEM.
 */
int mpr_batch_begin(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result);

/*
 * Nothing more is to be sent of it: its pool forgets it, and it ends with what
 * is in flight. Nothing when it is not open.
 */
void mpr_batch_close(struct mpr_thread *self, struct mproc_result *result);

/* Nothing of it is under way or to come: the pool knows it no more. */
void mpr_batch_end(struct mpr_thread *self, struct mproc_result *result);

/*
 * Cancel a batch; returns once nothing of the caller's is touched any more,
 * also in a callback.
 */
void mpr_batch_abandon(struct mproc_result *result);

void mpr_batch_free(struct mpr_batch_state *batch);

/* ---- sending --------------------------------------------------------- */

/* Locked. Why the rest of a batch is not to be sent; 0: it may be. */
int mpr_batch_stop(const mproc_pool *pool, const struct mpr_batch_state *batch);

/*
 * As many items as run for `ns`, if that is known, but no more than `share`;
 * one while it is not. Locked.
 */
size_t mpr_batch_chunk(const struct mpr_batch_state *batch, size_t share,
                       double ns);

/* Locked. How many items of it are to be sent next; 0: none now. */
size_t mpr_batch_next_count(const mproc_pool *pool,
                            const struct mpr_batch_state *batch);

/* Send the next `count` items. What mpr_pool_take_more is refused for. */
int mpr_batch_send(struct mpr_thread *self, struct mproc_result *result,
                   size_t count);

/*
 * Locked. The part is under way, and its task QUEUED: who cancels the batch
 * finds it, or it is cancelled here.
 */
void mpr_batch_queue(mproc_pool *pool, struct mpr_batch_state *batch,
                     struct mpr_part *part);

/*
 * Locked. It could not be sent: neither is so any more. False: it ends all the
 * same, cancelled or without a worker.
 */
bool mpr_batch_unqueue(const struct mpr_entry *entry);

/* A part is no longer in flight. Locked. */
void mpr_batch_unlink(struct mpr_batch_state *batch, struct mpr_part *part);

/* Send what there is room for, of one batch or of all that are open. */
void mpr_batch_feed(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result);
void mpr_batch_feed_all(mproc_pool *pool, struct mpr_thread *self);

/*
 * Locked. The next items of the batch are to go with what an ended chunk had:
 * mpr_batch_send_again. False: not so. `more`: mpr_batch_feed finds more to do.
 */
bool mpr_batch_again(mproc_pool *pool, struct mpr_batch_state *batch,
                     const struct mpr_entry *entry, bool *more);

/* Collector: it is sent by the next mpr_batch_send_all. */
void mpr_batch_send_again(mproc_pool *pool, struct mpr_thread *self,
                          struct mpr_task *task);
void mpr_batch_send_all(mproc_pool *pool, struct mpr_thread *self);

/* ---- what came out --------------------------------------------------- */

/* A chunk has ended; its record is given back, kept, or sent again. */
void mpr_batch_collect(mproc_pool *pool, struct mpr_thread *self,
                       const struct mpr_entry *entry, int status);

/* An item ended badly: if it is the first one so far, the result says so. */
void mpr_batch_note_bad(struct mproc_result *result, const mproc_outcome *bad);

/* on_item, with a reply that lies as replies do. */
void mpr_batch_tell(const mproc_pool *pool, struct mpr_batch_state *batch,
                    mproc_outcome *outcome);

/* Manual: end the rests that were left to who runs callbacks. How many items */
size_t mpr_batch_tell_untold(mproc_pool *pool, struct mpr_thread *self);

/* ---- iterations ------------------------------------------------------ */

/*
 * Whether joining the pool would wait for what this thread alone is to go on
 * with: an iteration of its own. Takes the lock.
 */
bool mpr_iteration_blocks_join(mproc_pool *pool, const struct mpr_thread *self);

/* Locked. A chunk of an iteration has ended. */
void mpr_iteration_keep(struct mproc_result *result, struct mpr_part *part);

/* The pool has room again, or never will: who iterates looks. */
void mpr_iteration_look(mproc_pool *pool, struct mpr_thread *self,
                        struct mproc_result *result);

/*
 * Begin one, with items or without: what mpr_batch_new and mpr_batch_open are
 * refused for. Send what the window has room for; that, and wait for the next
 * outcome, as mproc_iter_next; and cancel the rest, and free it all.
 */
int mpr_iteration_begin(mproc_pool *pool, struct mpr_thread *self,
                        const mproc_batch *b, bool ordered,
                        struct mproc_result **out);
void mpr_iteration_send(struct mpr_thread *self, struct mproc_result *result);
int mpr_iteration_next(struct mpr_thread *self, struct mproc_result *result,
                       const mproc_outcome **out, mproc_deadline until);
void mpr_iteration_end(struct mpr_thread *self, struct mproc_result *result);

/* What is kept has been freed. */
void mpr_iteration_free(struct mpr_iteration *iter);

/* map with next: in the calling thread. */
int mpr_iter_map(mproc_pool *pool, struct mpr_thread *self,
                 const mproc_batch *b, mproc_deadline until);

/* Reaper: free the iterators of the dead. */
void mpr_iter_end_dead(struct mpr_thread *self);

#endif
