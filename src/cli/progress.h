/* progress.h - the progress line on stderr: a bar on a terminal, a line now and then in a pipe. */
#ifndef CT_CLI_PROGRESS_H
#define CT_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ct_progress {
    bool terminal;
    int width;          /* columns of the terminal */
    double shown_ms;    /* when it was last drawn */
    double interval_ms; /* at least between two drawings */
    int64_t first_done; /* cells that were there before this run began: no measure of speed */
    bool drawn;
} ct_progress;

/* first_done: cells that need no work. */
void ct_progress_init(ct_progress *progress, int64_t first_done);
/* Draws if it is time to: cells done of total, tokens computed, time since the start. */
void ct_progress_show(ct_progress *progress, int64_t done, int64_t total, int64_t tokens,
                      double elapsed_ms);
/* Takes the bar away (on a terminal), so that what follows begins on a clean line. */
void ct_progress_clear(ct_progress *progress);

#endif
