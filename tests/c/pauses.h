/*
 * pauses.h - disks whose errors somebody wants to be dealt with, and disks that
 * are paused (pauses.c).
 */
#ifndef PAUSES_H
#define PAUSES_H

#include "harness.h"

#define SECTORS		1024
#define PLACE(n)	((n) * 16ULL)	/* sectors that nothing merges */
#define BYTE(n)		(PLACE(n) * XBB_SECTOR_SIZE)

extern const struct pair_options usual;
#define WAYS	4
extern const struct pair_options ways[WAYS];

void	set_policy(struct rig *rig, int32_t on_error, int32_t on_full);
void	put_at(struct guest *guest, uint8_t operation, uint64_t sector);
void	put_flush(struct guest *guest);
void	fail_range(uint64_t from, uint64_t to, int errnum);
void	rig_open_failing(struct rig *rig, int32_t on_error);
void	rig_close_mended(struct rig *rig, uint32_t n);
uint32_t why_paused(const struct rig *rig);
void	resume(struct rig *rig);
void	pause_by_hand(struct rig *rig);
void	wait_followed(const struct rig *rig);
void	check_silence(struct rig *rig);
void	check_dispatched(const struct rig *rig, uint32_t n);

#endif /* PAUSES_H */
