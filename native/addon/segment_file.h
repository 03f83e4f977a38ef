// Segments as files: made so that they cannot kill who maps them, and judged when their owner is gone.
#pragma once

#include "segment/segment.h"

namespace mishap {

struct CreatedFile {
  int error = 0;              // errno, 0 when it worked
  const char* doing = "";     // what failed, for a sentence
  int fd = -1;
  Capacities capacities = {};
  bool shrunk = false;        // the file system had no room for what was asked
};

// Makes a fresh, private, fully reserved segment file at `path`, owned by this process, paused.
CreatedFile create_segment(const char* path, const Capacities& wanted);

// True for a segment of this user whose owner is dead and which no living process carries, or which its maker never
// finished; such a file is rubbish and may be removed.
bool abandoned(const char* path);

}  // namespace mishap
