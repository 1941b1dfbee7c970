/* progress.c - the progress line. See progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void ct_progress_init(ct_progress *progress, int64_t first_done)
{
    struct winsize size;
    *progress = (ct_progress){.terminal = isatty(STDERR_FILENO) == 1, .first_done = first_done};
    progress->width =
        progress->terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col
            ? size.ws_col
            : 80;
    progress->interval_ms = progress->terminal ? 100 : 10000;
    progress->shown_ms = progress->terminal ? -1e9 : 0; /* a pipe's first line after 10 s */
}

/* "1:02:03" or "2:03". */
static void format_time(double seconds, char out[32])
{
    long s = seconds < 0 ? 0 : seconds > 3.6e6 ? 3600000 : (long)(seconds + 0.5);
    if (s >= 3600) snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
}

void ct_progress_show(ct_progress *progress, int64_t done, int64_t total, int64_t tokens,
                      double elapsed_ms)
{
    if (elapsed_ms - progress->shown_ms < progress->interval_ms && done < total) return;
    if (done == total && !progress->drawn)
        return; /* it was over before there was anything to say */
    progress->shown_ms = elapsed_ms;
    progress->drawn = true;
    double seconds = elapsed_ms / 1e3;
    int64_t fresh = done - progress->first_done;
    char left[32] = "?", text[128];
    if (fresh > 0) format_time(seconds * (double)(total - done) / (double)fresh, left);
    snprintf(text, sizeof text, "%lld/%lld cells  %.0f tokens/s  %s left", (long long)done,
             (long long)total, seconds > 0 ? (double)tokens / seconds : 0.0, left);
    if (!progress->terminal) {
        fprintf(stderr, "%s\n", text);
        return;
    }
    char bar[64] = "";
    int room = progress->width - (int)strlen(text) - 5;
    if (room > 40) room = 40;
    if (room >= 8) {
        int filled = total > 0 ? (int)((double)room * (double)done / (double)total) : room;
        memset(bar, '.', (size_t)room);
        memset(bar, '#', (size_t)filled);
        bar[room] = 0;
    }
    /* The last column stays free: some terminals go to the next line when it is filled. */
    fprintf(stderr, "\r\033[K%s%s%s%.*s", *bar ? "[" : "", bar, *bar ? "] " : "",
            progress->width > 1 ? progress->width - 1 : 0, text);
    fflush(stderr);
}

void ct_progress_clear(ct_progress *progress)
{
    if (progress->terminal && progress->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
