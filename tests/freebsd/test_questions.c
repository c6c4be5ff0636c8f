/*
 * test_questions.c - what FreeBSD answers about itself, and how host_freebsd.c
 * has to take it; a part of test_rules.c.  Main thread.
 */
#include <sys/socket.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "kernel.h"

/* kenv(2): what is set, what is not, and a value that does not fit. */
static void
check_kernel_environment(void)
{
	char longest[XBB_KERNEL_VALUE + 1], value[XBB_KERNEL_VALUE];

	CHECK_EQ(xbb_kernel_environment("hint.x", value), -ENOENT);
	kernel_setenv("hint.x", "1");
	CHECK_EQ(xbb_kernel_environment("hint.x", value), 0);
	CHECK(strcmp(value, "1") == 0);
	CHECK_EQ(xbb_kernel_environment("hint.y", value), -ENOENT);
	memset(longest, 'x', XBB_KERNEL_VALUE);
	longest[XBB_KERNEL_VALUE] = '\0';
	CHECK_EQ(xbb_kernel_environment(longest, value), -ENAMETOOLONG);
	kernel_setenv("hint.x", longest);
	CHECK_EQ(xbb_kernel_environment("hint.x", value), 0);
	CHECK_EQ(strlen(value), XBB_KERNEL_VALUE - 1);
}

static void
check_pseudo_file_systems(void)
{
	static const char *const none[] = { "ufs", "zfs", "tmpfs", "procf" };
	char name[XBB_FILE_SYSTEM_NAME];
	uint32_t i;
	int fd;

	fd = open("file", O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0);
	for (i = 0; i < COUNTOF(none); i++) {
		kernel_mount(none[i]);
		CHECK_EQ(xbb_pseudo_file_system(fd, name), 0);
	}
	kernel_mount("linsysfs");
	CHECK_EQ(xbb_pseudo_file_system(fd, name), 1);
	CHECK(strcmp(name, "linsysfs") == 0);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(xbb_pseudo_file_system(fd, name), -EBADF);
	CHECK(unlink("file") == 0);
}

/* kern.proc.pid.PID, the clock set meanwhile; one that has ended is none. */
static void
check_processes(void)
{
	const size_t much = 32 << 20;
	struct xbb_process first, second;
	volatile uint8_t *memory;
	size_t at;
	int ends[2], status;
	int32_t pid;
	uint32_t uid;

	memory = malloc(much);
	CHECK(memory != NULL);
	for (at = 0; at < much; at += 1024)
		memory[at] = 1;
	CHECK_EQ(xbb_process_look(getpid(), &first), 0);
	CHECK(first.rss_kb >= much / 1024 && first.rss_kb < 1 << 22);
	free((void *)memory);
	CHECK(first.age_ms < 600000);
	CHECK_EQ(xbb_process_look(getppid(), &second), 0);
	CHECK(second.age_ms > first.age_ms);
	kernel_set_clock(3600);
	CHECK_EQ(xbb_process_look(getpid(), &second), 0);
	kernel_set_clock(-3600);
	CHECK(second.age_ms - first.age_ms < 1000);
	CHECK(second.began_ms - first.began_ms + 500 < 1000);
	CHECK_EQ(xbb_process_look(getpid(), &second), 0);
	kernel_set_clock(0);
	CHECK(second.began_ms - first.began_ms + 500 < 1000);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		_exit(0);
	CHECK_EQ(waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT),
	    0);
	CHECK_EQ(xbb_process_look(pid, &second), -ESRCH);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(xbb_process_look(pid, &second), -ESRCH);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	CHECK_EQ(xbb_peer(ends[0], &pid, &uid), 0);
	CHECK_EQ(pid, getpid());
	CHECK_EQ(uid, geteuid());
	CHECK_EQ(close(ends[0]), 0);
	CHECK_EQ(close(ends[1]), 0);
	CHECK_EQ(xbb_peer(ends[1], &pid, &uid), -EBADF);
}

void
check_questions(void)
{

	check_kernel_environment();
	check_pseudo_file_systems();
	check_processes();
}
