"""The simulated machine: a product module, for whoever has no Xen at hand.

A machine is a directory.  In it a XenStore answers that speaks the real wire
protocol (storetree, storecore, xenstore), domains live as long as the process
that is them (machine, hypervisor), and a guest's driver of a disk negotiates and
does I/O (frontend, blkfront, guest), or that of a network card (netfront, netguest),
in a network name space with a real IP stack.  The daemon is the real one: it sees the machine
through `SimHost` and through native/hv/sim.c, and cannot tell.

What is like Xen, because the backend's correctness hangs on it:

- Guest memory is shared; a grant permits one domain one page, for reading or
  for both.  What is free, foreign, out of range or read-only does not map as
  wished, one bad reference fails the whole call, a grant that is mapped cannot
  be ended, and mappings end with the process that made them.
- An event channel is bound from both ends, masked once an event was taken,
  marked pending when it is bound, and silent when the other end is dead.
- The store has watches, transactions that conflict, permissions, quotas, long
  directories; one suite of tests runs against it and against a real xenstored.

What is not, and why that suffices:

- Memory is a file.  A guest process that truncates it takes the backend down;
  a real guest cannot take memory back, so no test of ours does it.
- Mapping pages in a row costs no system call, others one each, and a grant copy
  none; real maps cost two hypercalls and a page fault a page.  Figures compare
  only with figures of the same machine.
- There are no frames of other guests, no IOMMU, no foreign mappings, no version
  2 grants.
- An event is a byte in a socket: a storm is slower than a hypervisor's.
- A domain's reference and page have the same number unless a test says
  otherwise, and counts of a dead mapper are noticed when somebody looks.
- Introducing a domain makes it, and a domain has as many connections to the
  store as it wants; a real guest has one ring.
"""
