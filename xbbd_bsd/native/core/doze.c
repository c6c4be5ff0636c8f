/*
 * doze.c - whether and how the ring's thread dozes while its frontend is about
 * to have something: it lets the hypervisor have the processor until an event
 * is pending.  To the host it looks as if the thread were at work, so nobody
 * is switched to and back, which is half of what the host has to do for a
 * request that comes alone.  Ring thread.
 *
 * Therefore nobody else in the host gets that processor meanwhile, unless an
 * interrupt wakes him, or the clock's tick finds that it is his turn.  So it is
 * done only while it is short, and while nobody has to wait for a processor.
 */
#include "core/core.h"

#define NS_OF_S		1000000000ULL

/* A doze may take so many times as long as looking around (poll_max_us). */
#define LOOKS		10

/* After how many other sleeps, about, to try again; that doubles. */
#define RETRY		16
#define RETRY_LAST	1024

/*
 * More than a tenth of the time somebody waited for a processor: none for so
 * long, which doubles too, and halves with each second without that.
 */
#define JUDGE_NS	NS_OF_S
#define CROWDED(waited_ns, ns)	((waited_ns) > (ns) / 10)
#define AWAY_NS		(10 * NS_OF_S)
#define AWAY_LAST_NS	(320 * NS_OF_S)

/* Events that may be left unread: the device's list of them is not endless. */
#define UNREAD		32

/* Never again; or not for a while, if the host is short of something. */
static void
cannot_doze(struct xbb_doze *doze, int error)
{

	if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
		doze->until_ns = xbb_now_ns() + AWAY_NS;
	else
		doze->never = true;
}

/* How long others waited until now; away if that is too much. */
static void
judge_host(struct xbb_doze *doze, uint64_t now)
{
	const uint64_t since = now - doze->judged_ns;
	uint64_t waited_ns;
	int error;

	if (since < JUDGE_NS)
		return;
	error = xbb_host_waited(&waited_ns);
	if (error != 0) {
		cannot_doze(doze, error);
		return;
	}
	if (since < 2 * JUDGE_NS &&
	    CROWDED(waited_ns - doze->waited_ns, since)) {
		doze->away_ns = doze->away_ns < AWAY_NS ? AWAY_NS :
		    doze->away_ns < AWAY_LAST_NS ? 2 * doze->away_ns :
		    AWAY_LAST_NS;
		doze->until_ns = now + doze->away_ns;
	} else
		doze->away_ns /= 2;
	doze->judged_ns = now;
	doze->waited_ns = waited_ns;
}

/* Is the next sleep to be a doze?  look_ns: how long looking around may be. */
bool
xbb_doze_wanted(struct xbb_conn *conn, uint64_t look_ns)
{
	struct xbb_doze *doze = &conn->rest.doze;

	doze->most_ns = LOOKS * look_ns;
	if (conn->ops->doze == NULL || doze->never || look_ns == 0)
		return (false);
	if (doze->left != 0) {
		doze->left--;
		return (false);
	}
	doze->begun_ns = xbb_now_ns();
	if (doze->begun_ns < doze->until_ns)
		return (false);
	judge_host(doze, doze->begun_ns);
	return (!doze->never && doze->begun_ns >= doze->until_ns);
}

/* What it came to: too long, and others are next, more each time. */
static void
judge_doze(struct xbb_conn *conn)
{
	struct xbb_doze *doze = &conn->rest.doze;

	if (xbb_now_ns() <= doze->begun_ns + doze->most_ns) {
		doze->retry = 0;
		return;
	}
	doze->retry = doze->retry == 0 ? RETRY :
	    doze->retry < RETRY_LAST ? 2 * doze->retry : RETRY_LAST;
	doze->left = doze->retry;
}

/*
 * Doze; rest->sleeping says so already.  True if there is work: if it is the
 * frontend's, its event is not read, though that has masked the channel.
 */
bool
xbb_doze_now(struct xbb_conn *conn)
{
	struct xbb_doze *doze = &conn->rest.doze;
	int error;

	error = conn->ops->doze(conn->hv);
	if (error != 0) {
		cannot_doze(doze, error);
		return (false);
	}
	judge_doze(conn);
	if (!conn->family->has_work(conn->self)) {
		/* Something else of the host's: let it. */
		if (doze->left == 0)
			doze->left = 1;
		return (false);
	}
	doze->unread++;
	return (true);
}

/* Are there events to be read, lest there are too many? */
bool
xbb_doze_overflows(struct xbb_conn *conn)
{

	return (conn->rest.doze.unread >= UNREAD);
}
