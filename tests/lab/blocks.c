/*
 * blocks.c - a plugin of QEMU's that counts how often each block of
 * instructions is run, of the whole emulated machine: Xen, kernels, programs.
 * Whenever somebody in there executes a mark (marks.py) it writes a file of
 * what was run since the last one, for profile.py.  It knows nothing of what
 * runs.  For one emulated processor; it lives in QEMU's thread of that.
 *
 * QEMU has no package with its header, so what is used of it is declared here:
 * version 1 of the interface, which QEMU 9 does not take any more.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

#define INLINE_ADD	0	/* the only one of enum qemu_plugin_op */
#define NO_REGISTERS	0	/* of enum qemu_plugin_cb_flags */

void	qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
	    void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void	qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int,
	    void *, uint64_t);
void	qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *,
	    void (*)(unsigned int, void *), int, void *);
size_t	qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *,
	    size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t	qemu_plugin_insn_size(const struct qemu_plugin_insn *);
void	*qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);

#define EXPORTED	__attribute__((visibility("default")))

EXPORTED int qemu_plugin_version = 1;

#define BUCKETS		(1U << 20)

/* One that was translated, perhaps several times. */
struct block {
	uint64_t	 vaddr;
	uint64_t	 place;		/* of it in QEMU's memory */
	uint64_t	 runs;
	uint64_t	 told;		/* of these, at the last mark */
	uint32_t	 insns;
	struct block	*next;
};

/* What a file has of each, in the order of bytes of this machine. */
struct line {
	uint64_t	 vaddr, place, runs, insns;
};

/* nopl 0x5eed0000 + number(%rax,%rax): nothing for a processor. */
static const uint8_t mark[4] = { 0x0f, 0x1f, 0x84, 0x00 };
static const uint8_t mark_end[2] = { 0xed, 0x5e };

static struct block *bucket[BUCKETS];
static const char *directory = ".";

static void
write_lines(FILE *file)
{
	struct block *block;
	struct line line;
	uint32_t i;

	for (i = 0; i < BUCKETS; i++)
		for (block = bucket[i]; block != NULL; block = block->next) {
			if (block->runs == block->told)
				continue;
			line = (struct line){ block->vaddr, block->place,
			    block->runs - block->told, block->insns };
			block->told = block->runs;
			(void)fwrite(&line, sizeof(line), 1, file);
		}
}

static void
marked(unsigned int cpu, void *number)
{
	char path[4096];
	FILE *file;

	(void)cpu;
	(void)snprintf(path, sizeof(path), "%s/mark-%ju", directory,
	    (uintmax_t)(uintptr_t)number);
	if ((file = fopen(path, "wb")) == NULL) {
		perror(path);
		return;
	}
	write_lines(file);
	if (fclose(file) != 0)
		perror(path);
}

static struct block *
find_block(uint64_t vaddr, uint64_t place, uint32_t insns)
{
	struct block *block, **head;
	uint64_t hash;

	hash = (vaddr ^ place << 7 ^ insns) * UINT64_C(0x9e3779b97f4a7c15);
	head = &bucket[hash >> 44];
	for (block = *head; block != NULL; block = block->next)
		if (block->vaddr == vaddr && block->place == place &&
		    block->insns == insns)
			return (block);
	if ((block = calloc(1, sizeof(*block))) == NULL)
		abort();
	block->vaddr = vaddr;
	block->place = place;
	block->insns = insns;
	block->next = *head;
	*head = block;
	return (block);
}

static void
watch_mark(struct qemu_plugin_insn *insn)
{
	const uint8_t *byte = qemu_plugin_insn_data(insn);

	if (qemu_plugin_insn_size(insn) != 8 ||
	    memcmp(byte, mark, sizeof(mark)) != 0 ||
	    memcmp(byte + 6, mark_end, sizeof(mark_end)) != 0)
		return;
	qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS,
	    (void *)(uintptr_t)(byte[4] | byte[5] << 8));
}

static void
translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	const size_t n = qemu_plugin_tb_n_insns(tb);
	struct block *block;
	size_t i;

	(void)id;
	block = find_block(qemu_plugin_tb_vaddr(tb), (uint64_t)(uintptr_t)
	    qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0)),
	    (uint32_t)n);
	qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD, &block->runs,
	    1);
	for (i = 0; i < n; i++)
		watch_mark(qemu_plugin_tb_get_insn(tb, i));
}

/* Its only argument is out=DIRECTORY, where the files go. */
EXPORTED int
qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
    char **argv)
{

	(void)info;
	if (argc > 0 && strncmp(argv[0], "out=", 4) == 0)
		directory = argv[0] + 4;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return (0);
}
