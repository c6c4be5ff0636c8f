/*
 * test_net_takeover.c - a backend of a card that dies at each single store of
 * the protocol, and another that goes on.  The guest is this process, its
 * backends are children of it.  Each packet of the guest's is answered once and
 * reaches the link, in order, some of them twice; frames for it arrive in order
 * and once, but for those that the dead one had.  Argument: before how many
 * stores.
 */
#include <sys/wait.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "card.h"

#define PACKETS		40		/* of a life */
#define FRAMES		40

struct life {
	struct card	 card;
	pid_t		 backend;
	int		 leave[2];	/* closed: it may end */
	uint32_t	 deaths;
	uint32_t	 sent;		/* packets that the link had so far */
	uint32_t	 twice;		/* of these, again */
	uint32_t	 next;		/* frame that the guest may get */
	uint32_t	 arrived, failed;	/* frames, slots */
};

static struct frame given, taken;

static void
begin_backend(struct life *life, uint32_t adopt)
{
	char byte;

	CHECK(pipe(life->leave) == 0);
	card_connect(&life->card);
	life->backend = fork();
	CHECK(life->backend >= 0);
	if (life->backend != 0) {
		close(life->leave[0]);
		return;
	}
	close(life->leave[1]);
	card_begin(&life->card, adopt);
	CHECK_EQ(read(life->leave[0], &byte, 1), 0);
	card_leave(&life->card);
	_exit(0);
}

/* Another one in place of one that has died. */
static void
replace_backend(struct life *life, int status)
{

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGKILL);
	close(life->leave[1]);
	life->deaths++;
	begin_backend(life, XBB_ADOPT_TABLE);
}

static void
look_after_backend(struct life *life)
{
	int status;

	if (waitpid(life->backend, &status, WNOHANG) != 0)
		replace_backend(life, status);
}

/* It gives everything back; or it is dying already, and the next one does. */
static void
end_backend(struct life *life)
{
	int status;

	atomic_store(&crash->left, -1);
	for (;;) {
		close(life->leave[1]);
		CHECK_EQ(waitpid(life->backend, &status, 0), life->backend);
		if (status == 0)
			return;
		life->leave[1] = -1;
		replace_backend(life, status);
	}
}

static uint32_t
number_of(const struct frame *frame)
{
	uint32_t number;

	memcpy(&number, frame->data + 20, sizeof(number));
	return (number);
}

static void
make_numbered(uint32_t number, uint32_t size)
{

	frame_raw(&given, size, number);
	memcpy(given.data + 20, &number, sizeof(number));
}

static uint32_t
packet_size(uint32_t number)
{

	return (60 + number * 97 % 1400);
}

/* What the link was given: the next packet, or one of before once more. */
static void
take_packets(struct life *life)
{
	uint32_t number;

	while (link_take(&life->card, &taken)) {
		number = number_of(&taken);
		CHECK(number <= life->sent);
		make_numbered(number, packet_size(number));
		frame_check_same(&given, &taken);
		if (number == life->sent)
			life->sent++;
		else
			life->twice++;
	}
}

static void
take_frames(struct life *life)
{
	uint32_t number;

	while (card_can_receive(&life->card)) {
		card_receive(&life->card, &taken);
		if (taken.size < 0) {
			CHECK_EQ(taken.size, XBB_NETIF_ERROR);
			life->failed++;
			continue;
		}
		number = number_of(&taken);
		CHECK(number >= life->next);
		make_numbered(number, packet_size(number));
		frame_check_same(&given, &taken);
		life->next = number + 1;
		life->arrived++;
		card_post(&life->card, taken.nslots);
	}
}

static bool
has_all(struct life *life)
{

	look_after_backend(life);
	take_packets(life);
	take_frames(life);
	card_take_answers(&life->card);
	return (life->sent == PACKETS &&
	    life->card.tx_cons == life->card.tx_prod);
}

/* The last frame is sent until one arrives: some were lost. */
static bool
gets_last(struct life *life, uint32_t *number)
{

	look_after_backend(life);
	take_frames(life);
	if (life->next > FRAMES)
		return (true);
	++*number;
	make_numbered(*number, packet_size(*number));
	link_send(&life->card, &given);
	return (false);
}

/* A life whose first backend dies before so many stores. */
static void
check_life(uint32_t stores, uint32_t transport, uint32_t *deaths)
{
	const struct card_options options = {
		.transport = transport, .accepts = CARD_ALL,
	};
	static struct life life;
	uint32_t i, last;

	memset(&life, 0, sizeof(life));
	card_open(&life.card, &options);
	atomic_store(&crash->left, (long)stores);
	begin_backend(&life, XBB_ADOPT_NOT);
	card_post(&life.card, 100);
	for (i = 0; i < PACKETS; i++) {
		make_numbered(i, packet_size(i));
		given.flags = i % 3 == 0 ? XBB_TXF_EXTRA_INFO : 0;
		card_send(&life.card, &given, 1 + i * 31 % 60, 500);
		if (i % 5 == 4)
			card_publish(&life.card);
		make_numbered(i, packet_size(i));
		link_send(&life.card, &given);
		look_after_backend(&life);
	}
	card_publish(&life.card);
	WAIT_UNTIL(has_all(&life));
	last = FRAMES - 1;
	WAIT_UNTIL(gets_last(&life, &last));
	end_backend(&life);
	CHECK_EQ(life.card.tx_cons, life.card.tx_prod);
	for (i = 0; i < CARD_SLOTS && i < life.card.tx_prod; i++)
		CHECK_EQ(life.card.status[i], life.card.is_extra[i] ?
		    XBB_NETIF_NULL : XBB_NETIF_OKAY);
	CHECK(life.twice <= PACKETS * life.deaths);
	*deaths += life.deaths;
	card_close(&life.card);
}

int
main(int argc, char **argv)
{
	uint64_t stores = argument(argc, argv, 1, 60);
	uint32_t deaths, i;

	printf("%ju stores\n", (uintmax_t)stores);
	crash_prepare();
	scratch_enter();
	deaths = 0;
	for (i = 0; i < stores; i++) {
		check_life(i, XBB_TRANSPORT_COPY, &deaths);
		check_life(i, XBB_TRANSPORT_MAP, &deaths);
	}
	printf("%u deaths\n", deaths);
	CHECK(deaths > stores / 2);
	scratch_leave();
	return (0);
}
