/* SPDX-License-Identifier: MIT */
/*
 * Those of a process who poll. One cannot sleep on descriptors and on a bell at
 * once: who polls has a flag among his descriptors, and a thread, the pump,
 * sleeps on the bell of those who wait for many (shm/sleep.h) and raises the
 * flags when it rings. All private memory; a forked child begins with none.
 *
 * The pump watches the bell, then raises all flags, then sleeps; who polls
 * lowers his flag, then marks and looks, then polls. So whoever does not ring,
 * since nobody watches, does that before a round of the pump that has yet to
 * raise the flag.
 */
#ifndef MPR_CHAN_PUMP_H
#define MPR_CHAN_PUMP_H

#include "shm/slot.h"

struct mpr_poller {
    struct mpr_poller *next;
    int flag;
};

/* Become one who polls. EMFILE, ENFILE, ENOMEM. */
int mpr_pump_enter(struct mpr_poller *poller);
void mpr_pump_leave(struct mpr_poller *poller);

/*
 * See that the pump runs, as long as there are pollers or watches (watch.h),
 * and a second longer. EAGAIN: no thread left; else as mpr_self.
 */
int mpr_pump_run(void);

/* All who poll look again. */
void mpr_pump_kick(void);

/* The last watch is gone: let the pump see that. */
void mpr_pump_recede(void);

#endif
