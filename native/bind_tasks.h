// What binding files share about tasks of Python.
#pragma once

#include <functional>
#include <optional>

#include "tasks.h"

namespace composable {

/// Every task that the bindings submit is one.
class PythonTask : public Task {
 public:
  /// For a thread whose caller can be told: false with the error set. Ctrl-C may come at the first instruction of what
  /// it calls, before that can catch anything.
  virtual bool run_raising() = 0;

 protected:
  ~PythonTask() = default;
};

/// The calling thread, which has the GIL, waits for the group; with `run` it runs the group's tasks meanwhile. Returns true
/// when the group is idle, false when `stop`, called with the GIL, said so or `timeout` seconds have passed. Throws what
/// `stop` or a signal handler raised.
bool help_group(TaskGroup& group, const std::function<bool()>& stop, bool run, std::optional<double> timeout);

}  // namespace composable
