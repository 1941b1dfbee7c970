/* start.c - a process from its start to the first token. See bench.h. */
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/err.h"
#include "bench/bench.h"

extern char **environ;

static ct_status run_once(const char *program, char *const *argv, double *wall_ms,
                          int64_t *peak_bytes, ct_err *err)
{
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return ct_fail_memory(err, "start of a process", sizeof actions);
    pid_t pid;
    int status = 0;
    struct rusage usage;
    /* Until it starts the program, the new process counts as resident what this one ever had. */
    bool peak_known = ct_bench_reset_peak();
    double start = ct_now_ms();
    int failed = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (!failed) failed = posix_spawn(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return ct_fail(err, CT_ERR_IO, "%s: could not be started: %s", program, strerror(failed));
    if (wait4(pid, &status, 0, &usage) != pid) return ct_fail_errno(err, "wait for %s", program);
    *wall_ms = ct_now_ms() - start;
    *peak_bytes = peak_known ? (int64_t)usage.ru_maxrss * 1024 : -1;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return ct_fail(err, CT_ERR_IO, "%s generate: expected one token, got exit status %d",
                       program, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return CT_OK;
}

ct_status ct_bench_start(const char *program, const char *model, char *const *more, int repeat,
                         double *wall_ms, int64_t *peak_bytes, ct_err *err)
{
    static const char ids[] = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16";
    enum { MORE = 16 };
    const char *fixed[] = {"cortado", "generate", "-m", model,   "--prompt-ids",
                           ids,       "-n",       "1",  "--json"};
    enum { FIXED = sizeof fixed / sizeof *fixed };
    char *argv[FIXED + MORE + 1];
    memcpy(argv, fixed, sizeof fixed); /* posix_spawn writes none of them */
    size_t n = FIXED;
    for (; *more; more++) {
        CT_ASSERT(n < FIXED + MORE);
        argv[n++] = *more;
    }
    argv[n] = NULL;
    double ms[CT_BENCH_REPEAT_MAX];
    CT_ASSERT(repeat > 0 && repeat <= CT_BENCH_REPEAT_MAX);
    for (int i = 0; i < repeat; i++) {
        ct_status st = run_once(program, argv, &ms[i], peak_bytes, err);
        if (st != CT_OK) return st;
    }
    *wall_ms = ct_trace_median(ms, repeat);
    return CT_OK;
}
