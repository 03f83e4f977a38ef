// R6 resolver faults: a lookup is delayed, ends as NXDOMAIN by chance (after the delay), or waits and times out.
#include "stages.h"

namespace mishap::engine {

void resolver(const Unit& unit, Decision* decision) {
  if (unit.call.kind != OpKind::Dns) return;
  if (unit.asked(Fault::DnsDelay)) decision->part_ns[static_cast<u32>(Part::Dns)] = static_cast<i64>(unit.scaled(unit.row.dns_delay_ns));
  decision->stage = Stage::Resolver;
  if (unit.asked(Fault::DnsNxdomain) && chance(unit.drawn(Stage::Resolver), unit.scaled(unit.row.dns_nxdomain_ppm))) {
    decision->outcome = Verdict::NxDomain;
    decision->fault = Fault::DnsNxdomain;
  } else if (unit.asked(Fault::DnsTimeout) && unit.row.dns_timeout_ns) {
    decision->outcome = Verdict::Timeout;
    decision->fault = Fault::DnsTimeout;
    decision->timeout_ns = unit.row.dns_timeout_ns;
  }
}

}  // namespace mishap::engine
