// The native side of src/segment: every export, by its JavaScript name.
#include <string.h>

#include "exports.h"

namespace mishap {

Napi::Error system_error(Napi::Env env, int number, const char* syscall_name, const std::string& sentence) {
  Napi::Error error = Napi::Error::New(env, sentence + ": " + strerror(number));
  const char* name = strerrorname_np(number);
  error.Set("code", name ? name : "EUNKNOWN");
  error.Set("syscall", syscall_name);
  return error;
}

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports["layout"] = Napi::Function::New(env, export_layout, "layout");
  exports["histogramBucketFloors"] = Napi::Function::New(env, export_bucket_floors, "histogramBucketFloors");
  exports["NativeSegment"] = export_segment_class(env);
  exports["Mailbox"] = export_mailbox_class(env);
  exports["createMailbox"] = Napi::Function::New(env, create_mailbox, "createMailbox");
  exports["isAbandoned"] = Napi::Function::New(env, is_abandoned, "isAbandoned");
  exports["hideProcess"] = Napi::Function::New(env, hide_process, "hideProcess");
  exports["socketPair"] = Napi::Function::New(env, socket_pair, "socketPair");
  exports["request"] = Napi::Function::New(env, request, "request");
  exports["reply"] = Napi::Function::New(env, reply, "reply");
  exports["spawnTarget"] = Napi::Function::New(env, spawn_target, "spawnTarget");
  exports["listSockets"] = Napi::Function::New(env, list_sockets, "listSockets");
  exports["intercepted"] = Napi::Function::New(env, intercepted, "intercepted");
  exports["enterPolicy"] = Napi::Function::New(env, enter_policy, "enterPolicy");
  exports["threadId"] = Napi::Function::New(env, thread_id, "threadId");
  return exports;
}

}  // namespace mishap

using mishap::Init;
NODE_API_MODULE(mishap, Init)
