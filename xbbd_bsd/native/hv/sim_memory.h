/*
 * sim_memory.h - the simulated machine's memory, shared by its two fillings,
 * sim.c (backend) and front/hv_sim.c (frontend).
 *
 * A domain is a directory with two files: "memory", its pages, and "grants",
 * one 64-bit entry a grant reference.  Who maps grants keeps a ledger there
 * too, "maps.PID.N": a count for each reference, locked for as long as its
 * owner lives, so that mappings end with their process as they would in Xen.
 *
 * Both sides store before they look, with sequential consistency: a mapper
 * counts, then reads the entry; an owner changes the entry, then reads the
 * counts.  So at least one of them sees the other.
 */
#ifndef XBB_SIM_MEMORY_H
#define XBB_SIM_MEMORY_H

#include "hv/hv.h"

#define SIM_MAGIC	0x4d495358	/* "XSIM" */
/* Xen keeps the first eight to itself */
#define SIM_FIRST_REF	8
#define SIM_LEDGERS	64		/* mappers of one domain at a time */

/* An entry: permitted domain, flags, page.  Zero: free. */
#define SIM_GRANT(domid, flags, frame) \
	((uint64_t)(domid) << 48 | (uint64_t)(flags) << 32 | (frame))
#define SIM_GRANT_DOMID(g)	((uint32_t)((g) >> 48))
#define SIM_GRANT_FLAGS(g)	((uint32_t)((g) >> 32) & 0xffff)
#define SIM_GRANT_FRAME(g)	((uint32_t)(g))
#define SIM_PERMIT	0x1		/* GTF_permit_access */
#define SIM_READONLY	0x4		/* GTF_readonly */
#define SIM_RESERVED	0x8		/* taken, but permits nothing */

struct sim_grants {
	uint32_t	magic;
	uint32_t	npages;		/* as many references as pages */
	_Atomic uint32_t generation;	/* counts ledgers ever made */
	uint32_t	reserved;
	_Atomic uint64_t entry[];
};

/* A domain's files, mapped. */
struct sim_domain {
	int		 fd;		/* its directory, ours */
	uint32_t	 npages;
	struct sim_grants *grants;
	uint8_t		*memory;	/* readable and writable */
	uint8_t		*memory_ro;	/* the same, readable only */
};

int	sim_domain_open(struct sim_domain *domain, int domain_fd);
void	sim_domain_close(struct sim_domain *domain);
/* Counts of all ledgers for one reference, or of all with ref 0. */
int	sim_ledgers_count(int domain_fd, uint32_t npages, uint32_t ref,
	    uint32_t *countp);

#endif /* XBB_SIM_MEMORY_H */
