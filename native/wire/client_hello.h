// The server name a TLS client asks for, read from the first bytes it sends (RFC 8446, sections 4.1.2 and 5.1;
// RFC 6066, section 3): the one place where every TLS library says it, whatever it was linked against.
#pragma once

#include "contract/types.h"

namespace mishap::wire {

enum class SniResult : u8 {
  Found,     // name holds it
  None,      // not TLS, malformed, or a complete ClientHello that names no host
  NeedMore,  // fine so far, but cut off: ask again with more bytes of the same stream
};

// `data` is the stream from its first byte. The name is written in lower case and NUL-terminated; one that does
// not fit `capacity` (256 holds any) counts as none. More bytes never change an answer other than NeedMore.
SniResult find_sni(const u8* data, size_t size, char* name, size_t capacity);

}  // namespace mishap::wire
