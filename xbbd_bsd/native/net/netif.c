/*
 * netif.c - to be written.
 */
#include "net/net.h"

uint32_t
xbb_netif_tx_packet(const union xbb_tx_slot *slots, uint32_t n,
    uint32_t first, uint32_t offered, struct xbb_net_packet *packet)
{

	(void)slots;
	(void)n;
	(void)first;
	(void)offered;
	(void)packet;
	return (0);
}
