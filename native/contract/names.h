// The contract's enums by name, as policies, evidence and journals write them. The addon exports these tables, so that
// TypeScript copies no number; a static_assert holds each to its enum's length.
#pragma once

#include "flow.h"
#include "header.h"
#include "journal.h"
#include "mailbox.h"
#include "tables.h"
#include "types.h"

namespace mishap {

struct NamedValue {
  const char* name;
  u32 value;
};

struct EnumNames {
  const char* name;
  u32 count;
  const NamedValue* values;
};

template <class E>
constexpr NamedValue named(const char* name, E value) {
  return {name, static_cast<u32>(value)};
}

constexpr NamedValue kStateNames[] = {
    named("active", State::Active),
    named("paused", State::Paused),
    named("retired", State::Retired),
};

constexpr NamedValue kRegionNames[] = {
    named("rows", Region::Rows),
    named("targets", Region::Targets),
    named("bindings", Region::Bindings),
    named("processes", Region::Processes),
    named("owners", Region::Owners),
    named("flows", Region::Flows),
    named("links", Region::Links),
    named("stats", Region::Stats),
    named("histograms", Region::Histograms),
    named("journal", Region::Journal),
    named("decided", Region::Decided),
};
static_assert(sizeof(kRegionNames) / sizeof(NamedValue) == kRegions);

constexpr NamedValue kFallbackNames[] = {
    named("bad_segment", Fallback::BadSegment),
    named("row_busy", Fallback::RowBusy),
    named("bad_index", Fallback::BadIndex),
    named("table_full", Fallback::TableFull),
    named("stale_descriptor", Fallback::StaleDescriptor),
    named("reentered", Fallback::Reentered),
    named("no_memory", Fallback::NoMemory),
    named("no_courier", Fallback::NoCourier),
    named("unsupported", Fallback::Unsupported),
};
static_assert(sizeof(kFallbackNames) / sizeof(NamedValue) == kFallbacks);

constexpr NamedValue kOpKindNames[] = {
    named("connect", OpKind::Connect),
    named("send", OpKind::Send),
    named("recv", OpKind::Recv),
    named("dns", OpKind::Dns),
};
static_assert(sizeof(kOpKindNames) / sizeof(NamedValue) == static_cast<u32>(OpKind::Count));

constexpr NamedValue kDirectionNames[] = {named("uplink", Direction::Uplink), named("downlink", Direction::Downlink)};
static_assert(sizeof(kDirectionNames) / sizeof(NamedValue) == kDirections);

constexpr NamedValue kProtocolNames[] = {
    named("any", Protocol::Any),
    named("tcp", Protocol::Tcp),
    named("udp", Protocol::Udp),
    named("unix", Protocol::Unix),
    named("dns", Protocol::Dns),
};

constexpr NamedValue kRoleNames[] = {
    named("connector", Role::Connector),
    named("acceptor", Role::Acceptor),
    named("datagram", Role::Datagram),
    named("resolver", Role::Resolver),
};

constexpr NamedValue kStageNames[] = {
    named("resolve", Stage::Resolve),
    named("session_guard", Stage::SessionGuard),
    named("chaos_base", Stage::ChaosBase),
    named("flow_control", Stage::FlowControl),
    named("timing", Stage::Timing),
    named("transport", Stage::Transport),
    named("resolver", Stage::Resolver),
    named("payload", Stage::Payload),
    named("post_routing", Stage::PostRouting),
};
static_assert(sizeof(kStageNames) / sizeof(NamedValue) == kStages);

constexpr NamedValue kVerdictNames[] = {
    named("continue", Verdict::Continue),
    named("delay", Verdict::Delay),
    named("drop", Verdict::Drop),
    named("timeout", Verdict::Timeout),
    named("error", Verdict::Error),
    named("nxdomain", Verdict::NxDomain),
    named("mutate", Verdict::Mutate),
    named("reorder", Verdict::Reorder),
    named("duplicate", Verdict::Duplicate),
    named("skipped", Verdict::Skipped),
    named("answered", Verdict::Answered),
};
static_assert(sizeof(kVerdictNames) / sizeof(NamedValue) == kVerdicts);

constexpr NamedValue kFaultNames[] = {
    named("latency", Fault::Latency),
    named("jitter", Fault::Jitter),
    named("packet_loss", Fault::PacketLoss),
    named("burst_loss", Fault::BurstLoss),
    named("correlated_loss", Fault::CorrelatedLoss),
    named("rate", Fault::Rate),
    named("connect_timeout", Fault::ConnectTimeout),
    named("recv_timeout", Fault::RecvTimeout),
    named("dns_delay", Fault::DnsDelay),
    named("dns_timeout", Fault::DnsTimeout),
    named("session_budget", Fault::SessionBudget),
    named("packet_reorder", Fault::PacketReorder),
    named("connection_error", Fault::ConnectionError),
    named("half_open", Fault::HalfOpen),
    named("packet_duplicate", Fault::PacketDuplicate),
    named("dns_nxdomain", Fault::DnsNxdomain),
    named("payload_mutation", Fault::PayloadMutation),
};
static_assert(sizeof(kFaultNames) / sizeof(NamedValue) == kFaults);

constexpr NamedValue kLossModeNames[] = {named("retransmit", LossMode::Retransmit), named("drop", LossMode::Drop)};
constexpr NamedValue kRateScopeNames[] = {named("link", RateScope::Link), named("flow", RateScope::Flow)};
constexpr NamedValue kJitterDistributionNames[] = {
    named("uniform", JitterDistribution::Uniform),
    named("normal", JitterDistribution::Normal),
    named("pareto", JitterDistribution::Pareto),
};
constexpr NamedValue kErrorKindNames[] = {
    named("reset", ErrorKind::Reset),
    named("refused", ErrorKind::Refused),
    named("unreachable", ErrorKind::Unreachable),
};
constexpr NamedValue kBudgetActionNames[] = {
    named("drop", BudgetAction::Drop),
    named("timeout", BudgetAction::Timeout),
    named("connection_error", BudgetAction::ConnectionError),
};
constexpr NamedValue kScheduleKindNames[] = {
    named("always", ScheduleKind::Always),
    named("ramp", ScheduleKind::Ramp),
    named("spike", ScheduleKind::Spike),
    named("flapping", ScheduleKind::Flapping),
};
constexpr NamedValue kMutationTypeNames[] = {
    named("none", MutationType::None),
    named("truncate", MutationType::Truncate),
    named("corrupt_bytes", MutationType::CorruptBytes),
    named("inject_bytes", MutationType::InjectBytes),
    named("replace_pattern", MutationType::ReplacePattern),
    named("corrupt_encoding", MutationType::CorruptEncoding),
    named("swap_bytes", MutationType::SwapBytes),
};
constexpr NamedValue kMutationTargetNames[] = {
    named("both", MutationTarget::Both),
    named("uplink_only", MutationTarget::UplinkOnly),
    named("downlink_only", MutationTarget::DownlinkOnly),
};
constexpr NamedValue kNameKindNames[] = {
    named("none", NameKind::None),
    named("hostname", NameKind::Hostname),
    named("sni", NameKind::Sni),
    named("path", NameKind::UnixPath),
};
constexpr NamedValue kProcessStateNames[] = {
    named("free", ProcessState::Free),
    named("starting", ProcessState::Starting),
    named("attached", ProcessState::Attached),
    named("execing", ProcessState::Execing),
    named("gone", ProcessState::Gone),
};
constexpr NamedValue kFlowStateNames[] = {
    named("open", FlowState::Open),
    named("idle", FlowState::Idle),
    named("reset", FlowState::Reset),
};
constexpr NamedValue kOwnerSourceNames[] = {
    named("interceptor", OwnerSource::Interceptor),
    named("kernel", OwnerSource::Kernel),
};
constexpr NamedValue kEventKindNames[] = {
    named("flow_opened", EventKind::FlowOpened),
    named("decision", EventKind::Decision),
    named("payload", EventKind::Payload),
};

constexpr NamedValue kAskingNames[] = {named("flow", Asking::Flow), named("op", Asking::Op)};
constexpr NamedValue kStandingNames[] = {
    named("op", Standing::Op),
    named("units", Standing::Units),
    named("ms", Standing::Time),
    named("flow", Standing::Flow),
};

#define MISHAP_NAMES(Enum) EnumNames{#Enum, sizeof(k##Enum##Names) / sizeof(NamedValue), k##Enum##Names}
constexpr EnumNames kEnums[] = {
    MISHAP_NAMES(State),
    MISHAP_NAMES(Region),
    MISHAP_NAMES(Fallback),
    MISHAP_NAMES(OpKind),
    MISHAP_NAMES(Direction),
    MISHAP_NAMES(Protocol),
    MISHAP_NAMES(Role),
    MISHAP_NAMES(Stage),
    MISHAP_NAMES(Verdict),
    MISHAP_NAMES(Fault),
    MISHAP_NAMES(LossMode),
    MISHAP_NAMES(RateScope),
    MISHAP_NAMES(JitterDistribution),
    MISHAP_NAMES(ErrorKind),
    MISHAP_NAMES(BudgetAction),
    MISHAP_NAMES(ScheduleKind),
    MISHAP_NAMES(MutationType),
    MISHAP_NAMES(MutationTarget),
    MISHAP_NAMES(NameKind),
    MISHAP_NAMES(ProcessState),
    MISHAP_NAMES(FlowState),
    MISHAP_NAMES(OwnerSource),
    MISHAP_NAMES(EventKind),
    MISHAP_NAMES(Asking),
    MISHAP_NAMES(Standing),
};
#undef MISHAP_NAMES

}  // namespace mishap
