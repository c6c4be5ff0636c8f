/*
 * sim_memory.c - files of a simulated domain: made, mapped, and searched for
 * grants that somebody still has mapped.  What the simulated machine gets
 * wrong is listed in the sim package.
 */
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "hv/sim_memory.h"

static size_t
grants_size(uint32_t npages)
{

	return (sizeof(struct sim_grants) + npages * sizeof(uint64_t));
}

int
xbb_sim_format(int domain_fd, uint32_t npages)
{
	struct sim_grants header = { .magic = SIM_MAGIC, .npages = npages };
	int error, fd;

	if (npages <= SIM_FIRST_REF)
		return (-EINVAL);
	fd = openat(domain_fd, "memory", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
	    0600);
	if (fd < 0)
		return (-errno);
	error = ftruncate(fd, (off_t)npages * XBB_PAGE_SIZE) != 0 ? -errno : 0;
	close(fd);
	if (error != 0)
		return (error);
	fd = openat(domain_fd, "grants", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
	    0600);
	if (fd < 0)
		return (-errno);
	if (ftruncate(fd, (off_t)grants_size(npages)) != 0)
		error = -errno;
	else if (pwrite(fd, &header, sizeof(header), 0) != sizeof(header))
		error = -EIO;
	close(fd);
	return (error);
}

/* Map a file of the domain, whose size must be at least what is wanted. */
static int
map_file(int domain_fd, const char *name, size_t size, int prot, void **pp)
{
	struct stat st;
	void *p;
	int fd;

	fd = openat(domain_fd, name, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	if (fstat(fd, &st) != 0 || (uint64_t)st.st_size < size) {
		close(fd);
		return (-EINVAL);
	}
	p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return (-errno);
	*pp = p;
	return (0);
}

int
sim_domain_open(struct sim_domain *domain, int domain_fd)
{
	struct sim_grants header;
	size_t size;
	ssize_t n;
	void *p;
	int error, fd;

	*domain = (struct sim_domain){ .fd = -1 };
	fd = openat(domain_fd, "grants", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	n = pread(fd, &header, sizeof(header), 0);
	close(fd);
	if (n != sizeof(header) || header.magic != SIM_MAGIC)
		return (-EINVAL);
	domain->npages = header.npages;
	domain->fd = fcntl(domain_fd, F_DUPFD_CLOEXEC, 0);
	if (domain->fd < 0)
		return (-errno);
	size = (size_t)domain->npages * XBB_PAGE_SIZE;
	if ((error = map_file(domain->fd, "grants", grants_size(domain->npages),
	    PROT_READ | PROT_WRITE, &p)) == 0) {
		domain->grants = p;
		if ((error = map_file(domain->fd, "memory", size,
		    PROT_READ | PROT_WRITE, &p)) == 0) {
			domain->memory = p;
			if ((error = map_file(domain->fd, "memory", size,
			    PROT_READ, &p)) == 0)
				domain->memory_ro = p;
		}
	}
	if (error != 0)
		sim_domain_close(domain);
	return (error);
}

void
sim_domain_close(struct sim_domain *domain)
{
	size_t size = (size_t)domain->npages * XBB_PAGE_SIZE;

	if (domain->grants != NULL)
		munmap(domain->grants, grants_size(domain->npages));
	if (domain->memory != NULL)
		munmap(domain->memory, size);
	if (domain->memory_ro != NULL)
		munmap(domain->memory_ro, size);
	if (domain->fd >= 0)
		close(domain->fd);
	*domain = (struct sim_domain){ .fd = -1 };
}

/* Add up one ledger; one whose owner is gone counts nothing and is removed. */
static int
count_ledger(int domain_fd, const char *name, uint32_t npages, uint32_t ref,
    uint32_t *countp)
{
	uint32_t count[256];
	uint32_t at, i, n;
	ssize_t got;
	int fd;

	fd = openat(domain_fd, name, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return (errno == ENOENT ? 0 : -errno);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		unlinkat(domain_fd, name, 0);
		close(fd);
		return (0);
	}
	at = ref;
	n = ref == 0 ? npages : ref + 1;
	while (at < n) {
		i = n - at < 256 ? n - at : 256;
		got = pread(fd, count, i * sizeof(count[0]),
		    (off_t)(at * sizeof(count[0])));
		if (got <= 0)
			break;
		at += (uint32_t)got / sizeof(count[0]);
		for (i = 0; i < (uint32_t)got / sizeof(count[0]); i++)
			*countp += count[i];
	}
	close(fd);
	return (0);
}

int
sim_ledgers_count(int domain_fd, uint32_t npages, uint32_t ref,
    uint32_t *countp)
{
	struct dirent *entry;
	DIR *dir;
	int error, fd;

	*countp = 0;
	fd = openat(domain_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	dir = fdopendir(fd);
	if (dir == NULL) {
		error = -errno;
		close(fd);
		return (error);
	}
	error = 0;
	while (error == 0 && (entry = readdir(dir)) != NULL)
		if (strncmp(entry->d_name, "maps.", 5) == 0)
			error = count_ledger(domain_fd, entry->d_name, npages,
			    ref, countp);
	closedir(dir);
	return (error);
}

int
xbb_sim_mapped(int domain_fd, uint32_t *countp)
{
	struct sim_grants header;
	ssize_t n;
	int fd;

	fd = openat(domain_fd, "grants", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	n = pread(fd, &header, sizeof(header), 0);
	close(fd);
	if (n != sizeof(header) || header.magic != SIM_MAGIC)
		return (-EINVAL);
	return (sim_ledgers_count(domain_fd, header.npages, 0, countp));
}
