/* SPDX-License-Identifier: MIT */
/* Two processes take turns through one condition. */
#include <mproc.h>
#include <stdio.h>

enum { SEEKER, HIDER, PLAYERS };

struct game {
    mproc_condition *changed;
    int turn; /* lines said so far; under the condition's lock */
};

static struct game *game; /* in the shared heap */

static bool seeker_is_on(void *arg)
{
    (void)arg;
    return game->turn % PLAYERS == SEEKER;
}

static bool hider_is_on(void *arg)
{
    (void)arg;
    return game->turn % PLAYERS == HIDER;
}

/* Waits for one's turn, says the line, and passes on. 0: said. */
static int say(mproc_predicate_fn *my_turn, const char *line)
{
    int bad = 1;
    MPROC_WITH(game->changed) {
        if (mproc_condition_wait_for(game->changed, my_turn, NULL,
                                     MPROC_FOREVER) == 0) {
            printf("%s\n", line);
            game->turn++;
            bad = mproc_condition_notify(game->changed, 1) < 0;
        }
    }
    return bad;
}

static int seek(void *arg)
{
    (void)arg;
    return say(seeker_is_on, "seeker: my eyes are shut, hide!") ||
           say(seeker_is_on, "seeker: found you!");
}

static int hide(void *arg)
{
    (void)arg;
    return say(hider_is_on, "hider: I am hidden, come and find me!") ||
           say(hider_is_on, "hider: how did you know?");
}

int main(void)
{
    mproc_main_fn *const play[PLAYERS] = {seek, hide};
    mproc_process *p[PLAYERS];
    mproc_process_opts opts = {.daemon = 1};
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    game = mproc_calloc(1, sizeof *game);
    if (game == NULL || mproc_condition_new(&game->changed, NULL) < 0) {
        return 1;
    }
    for (int i = PLAYERS - 1; i >= 0; i--) {
        if (mproc_process_new(&p[i], play[i], NULL, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1;
        }
    }
    for (int i = 0; i < PLAYERS; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    mproc_condition_free(game->changed);
    mproc_free(game);
    return bad;
}
