/* test_memory.c - the machine's memory, and limits of control groups of both versions. */
#include "test.h"

#include "io/memory.h"
#include "unit/io/temp.h"

static void make_dirs(void)
{
    static const char *const dirs[] = {
        "proc",
        "proc/self",
        "sys",
        "sys/fs",
        "sys/fs/cgroup",
        "sys/fs/cgroup/memory",
        "sys/fs/cgroup/a",
        "sys/fs/cgroup/a/b",
        "sys/fs/cgroup/memory/a",
    };
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        assert_int_equal(mkdir(temp_path(dirs[i]), 0700), 0);
    temp_text("proc/meminfo", "MemTotal:     1000 kB\nMemFree:  1 kB\nMemAvailable:  600 kB\n");
}

static void without_groups_the_machine_counts(void **state)
{
    (void)state;
    make_dirs();
    ct_memory m = ct_memory_read(temp_root);
    assert_int_equal(m.total_bytes, 1000 * 1024);
    assert_int_equal(m.available_bytes, 600 * 1024);
}

static void
the_lowest_limit_of_nested_groups_counts_less_what_is_used_but_for_file_pages(void **state)
{
    (void)state;
    make_dirs();
    temp_text("proc/self/cgroup", "0::/a/b\n");
    temp_text("sys/fs/cgroup/a/b/memory.max", "max\n");
    temp_text("sys/fs/cgroup/a/memory.max", "100000\n");
    temp_text("sys/fs/cgroup/a/memory.current", "70000\n");
    temp_text("sys/fs/cgroup/a/memory.stat", "anon 20000\nfile 50000\n");
    ct_memory m = ct_memory_read(temp_root);
    assert_int_equal(m.total_bytes, 100000);
    assert_int_equal(m.available_bytes, 80000);
    temp_text("sys/fs/cgroup/a/b/memory.max", "5000\n");
    temp_text("sys/fs/cgroup/a/b/memory.current", "9000\n");
    m = ct_memory_read(temp_root);
    assert_int_equal(m.total_bytes, 5000);
    assert_int_equal(m.available_bytes, 0);
}

static void groups_of_version_1_count_too_and_limits_above_the_machine_do_not(void **state)
{
    (void)state;
    make_dirs();
    temp_text("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/a\n0::/\n");
    temp_text("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    temp_text("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1\n");
    ct_memory m = ct_memory_read(temp_root);
    assert_int_equal(m.total_bytes, 1000 * 1024);
    temp_text("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "300000\n");
    temp_text("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "200000\n");
    temp_text("sys/fs/cgroup/memory/a/memory.stat", "cache 1\ntotal_cache 150000\n");
    m = ct_memory_read(temp_root);
    assert_int_equal(m.total_bytes, 300000);
    assert_int_equal(m.available_bytes, 250000);
}

static void what_cannot_be_read_is_not_known(void **state)
{
    (void)state;
    ct_memory m = ct_memory_read("/no/such/root");
    assert_int_equal(m.total_bytes, -1);
    assert_int_equal(m.available_bytes, -1);
    m = ct_memory_read("");
    assert_true(m.total_bytes == -1 || m.total_bytes >= m.available_bytes);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, temp_begin, temp_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_groups_the_machine_counts),
        TEST(the_lowest_limit_of_nested_groups_counts_less_what_is_used_but_for_file_pages),
        TEST(groups_of_version_1_count_too_and_limits_above_the_machine_do_not),
        TEST(what_cannot_be_read_is_not_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
