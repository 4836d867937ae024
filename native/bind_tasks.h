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
  using Task::Task;
  ~PythonTask() = default;
};

/// Raises RuntimeError once the interpreter ends: a task that is queued then never runs.
void refuse_while_closing();

/// ThreadState::nesting of what the calling thread is about to wait for. Raises RecursionError beyond Python's limit:
/// tasks that wait for tasks without an end would need ever more threads before any of their stacks overflows.
int deepen();

/// The calling thread, which has the GIL, waits for the group; with Watch::work it runs the group's tasks meanwhile.
/// Returns true when the group is idle, false when `stop` said so or `timeout` seconds have passed. `stop`, if there is
/// one, is called with the GIL, at first and whenever something moved that is watched. Throws what it or a signal
/// handler raised.
bool help_group(TaskGroup& group, const std::function<bool()>& stop, TaskGroup::Watch watch,
                std::optional<double> timeout);

}  // namespace composable
