// The contract as JavaScript sees it: structs, enums and constants, straight from native/contract.
#include "exports.h"

#include <stdio.h>

#include "contract/layout.h"
#include "contract/names.h"

namespace mishap {

static_assert(kLayoutHash == 0xaf365a7a16dc165full,
              "the layout changed: change src/segment, its test, docs/contract.md and this hash with it");

namespace {

Napi::Object export_struct(Napi::Env env, const StructLayout& layout) {
  Napi::Array fields = Napi::Array::New(env, layout.field_count);
  for (u32 i = 0; i < layout.field_count; i++) {
    const FieldLayout& from = layout.fields[i];
    Napi::Object field = Napi::Object::New(env);
    field["name"] = from.name;
    field["type"] = from.type;
    field["offset"] = Napi::Number::New(env, from.offset);
    field["count"] = Napi::Number::New(env, from.count);
    field["size"] = Napi::Number::New(env, from.size);
    field["doc"] = from.doc;
    fields[i] = field;
  }
  Napi::Object result = Napi::Object::New(env);
  result["name"] = layout.name;
  result["size"] = Napi::Number::New(env, layout.size);
  result["doc"] = layout.doc;
  result["fields"] = fields;
  return result;
}

Napi::Object export_enums(Napi::Env env) {
  Napi::Object enums = Napi::Object::New(env);
  for (const EnumNames& from : kEnums) {
    Napi::Object values = Napi::Object::New(env);
    for (u32 i = 0; i < from.count; i++) values[from.values[i].name] = Napi::Number::New(env, from.values[i].value);
    enums[from.name] = values;
  }
  return enums;
}

struct Constant {
  const char* name;
  u32 value;
};
constexpr Constant kConstants[] = {
    {"maxPolicies", kMaxPolicies},
    {"targetsPerPolicy", kTargetsPerPolicy},
    {"portRanges", kPortRanges},
    {"streamUnitBytes", kStreamUnitBytes},
    {"certainPpm", kCertainPpm},
    {"probeWindow", kProbeWindow},
    {"directions", kDirections},
    {"faults", kFaults},
    {"timedFaults", kTimedFaults},
    {"stages", kStages},
    {"verdicts", kVerdicts},
    {"headerJournal", kHeaderJournal},
    {"headerUnix", kHeaderUnix},
    {"headerNames", kHeaderNames},
    {"headerLegacy", kHeaderLegacy},
    {"headerKernel", kHeaderKernel},
    {"headerRecord", kHeaderRecord},
    {"headerRecordAll", kHeaderRecordAll},
    {"headerRecordPayload", kHeaderRecordPayload},
    {"headerDecided", kHeaderDecided},
    {"headerPortless", kHeaderPortless},
    {"headerScript", kHeaderScript},
    {"asksFlow", kAsksFlow},
    {"asksOps", kAsksOps},
    {"answers", kAnswers},
    {"maxLanes", kMaxLanes},
    {"histogramUnitShift", kHistogramUnitShift},
    {"histogramSubBits", kHistogramSubBits},
    {"histogramOctaves", kHistogramOctaves},
    {"histogramBuckets", kHistogramBuckets},
};

}  // namespace

Napi::Value export_layout(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array structs = Napi::Array::New(env);
  for (const StructLayout* layout : kLayout) structs[structs.Length()] = export_struct(env, *layout);
  Napi::Object constants = Napi::Object::New(env);
  for (const Constant& constant : kConstants) constants[constant.name] = Napi::Number::New(env, constant.value);
  char hash[24];
  snprintf(hash, sizeof(hash), "0x%016llx", static_cast<unsigned long long>(kLayoutHash));

  Napi::Object result = Napi::Object::New(env);
  result["abiVersion"] = Napi::Number::New(env, kAbiVersion);
  result["layoutHash"] = hash;
  result["structs"] = structs;
  result["enums"] = export_enums(env);
  result["constants"] = constants;
  return result;
}

// Where histogram_bucket() starts each bucket, so that TypeScript repeats no arithmetic of the contract.
Napi::Value export_bucket_floors(const Napi::CallbackInfo& info) {
  Napi::Float64Array floors = Napi::Float64Array::New(info.Env(), kHistogramBuckets + 1);
  for (u32 i = 0; i <= kHistogramBuckets; i++) floors[i] = static_cast<double>(histogram_floor_ns(i));
  return floors;
}

}  // namespace mishap
