// The interceptor in this very process, asked through the two functions that it exports (native/interceptor/inside.cpp).
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "contract/layout.h"
#include "exports.h"

namespace mishap {
namespace {

template <class Function>
Function* exported(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

// intercepted(): the path of the segment that the interceptor in this process serves; undefined without one.
Napi::Value intercepted(const Napi::CallbackInfo& info) {
  static auto* const segment = exported<const char*(u64)>("mishap_segment");
  const char* path = segment ? segment(kLayoutHash) : nullptr;
  if (!path) return info.Env().Undefined();
  return Napi::String::New(info.Env(), path);
}

// enterPolicy(policy): sockets that this thread opens from now on are bound to it; -1 to none.
void enter_policy(const Napi::CallbackInfo& info) {
  static auto* const enter = exported<void(u64, i32)>("mishap_enter");
  if (enter) enter(kLayoutHash, info[0].As<Napi::Number>().Int32Value());
}

Napi::Value thread_id(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(syscall(SYS_gettid)));
}

}  // namespace mishap
