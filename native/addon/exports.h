// What the addon's files offer to addon.cpp, which names it all to JavaScript. No policy logic lives in this folder:
// it moves bytes, holds the lease, starts programs and asks the kernel.
#pragma once

#include <napi.h>

#include <string>

namespace mishap {

Napi::Value export_layout(const Napi::CallbackInfo& info);
Napi::Value export_bucket_floors(const Napi::CallbackInfo& info);
Napi::Function export_segment_class(Napi::Env env);
Napi::Function export_mailbox_class(Napi::Env env);
Napi::Value create_mailbox(const Napi::CallbackInfo& info);
Napi::Value is_abandoned(const Napi::CallbackInfo& info);
Napi::Value spawn_target(const Napi::CallbackInfo& info);
void hide_process(const Napi::CallbackInfo& info);
Napi::Value socket_pair(const Napi::CallbackInfo& info);
Napi::Value request(const Napi::CallbackInfo& info);
void reply(const Napi::CallbackInfo& info);
Napi::Value list_sockets(const Napi::CallbackInfo& info);
Napi::Value intercepted(const Napi::CallbackInfo& info);
void enter_policy(const Napi::CallbackInfo& info);
Napi::Value thread_id(const Napi::CallbackInfo& info);

// An Error with Node's usual properties: code (ENOENT and so on) and syscall.
Napi::Error system_error(Napi::Env env, int number, const char* syscall_name, const std::string& sentence);

}  // namespace mishap
