// The whole native surface at a glance.
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace composable {
void register_arena(py::module_& module);
void register_tasks(py::module_& module);
void register_graph(py::module_& module);
void register_numba(py::module_& module);
void register_order(py::module_& module);
void register_threading();
void register_trace(py::module_& module);
void register_widths(py::module_& module);
}  // namespace composable

PYBIND11_MODULE(_native, module, py::mod_gil_not_used()) {
  module.doc() = "The arena, task groups, and the addresses of the Numba threading layer.";
  composable::register_arena(module);
  composable::register_tasks(module);
  composable::register_graph(module);
  composable::register_order(module);
  composable::register_threading();
  composable::register_trace(module);
  composable::register_widths(module);
  auto numba = module.def_submodule("numba", "Addresses for numba.np.ufunc.parallel");
  composable::register_numba(numba);
}
