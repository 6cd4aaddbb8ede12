// SPDX-License-Identifier: Apache-2.0
#include "cpu/compat64.h"

#include <pybind11/pybind11.h>

#include <mutex>
#include <utility>

#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

namespace py = pybind11;

cpu::CompatTables compat_tables(const TensorView& cdf, const TensorView& sizes,
                                const TensorView& offsets) {
  check_tensor("cdfs", cdf, DType::i32, {any, any});
  check_tensor("cdf_sizes", sizes, DType::i32, {cdf.shape[0]});
  check_tensor("offsets", offsets, DType::i32, {cdf.shape[0]});
  for (const TensorView* view : {&cdf, &sizes, &offsets}) check_on_cpu("compat64", "cdfs", *view);
  return cpu::CompatTables(cdf.read<int32_t>(), cdf.shape[0], cdf.shape[1], sizes.read<int32_t>(),
                           offsets.read<int32_t>());
}

class CompatEncoder {
 public:
  void push(const TensorView& symbols, const TensorView& index, const TensorView& cdf,
            const TensorView& sizes, const TensorView& offsets) {
    check_tensor("symbols", symbols, DType::i32, {any});
    check_tensor("indexes", index, DType::i32, {symbols.shape[0]});
    const auto tables = compat_tables(cdf, sizes, offsets);
    const py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> alone(mutex_);
    cpu::compat64_push(tables, symbols.read<int32_t>(), index.read<int32_t>(), symbols.shape[0],
                       &steps_);
  }

  py::bytes flush() {
    Vector<uint8_t> bytes;
    {
      const py::gil_scoped_release unlocked;
      const std::lock_guard<std::mutex> alone(mutex_);
      bytes = cpu::compat64_flush(steps_);
      steps_.clear();
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  std::mutex mutex_;
  Vector<cpu::CompatStep> steps_;
};

class CompatReader {
 public:
  explicit CompatReader(py::bytes message)
      : message_(std::move(message)),
        decoder_(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(message_.ptr())),
                 static_cast<size_t>(PyBytes_GET_SIZE(message_.ptr()))) {}

  void get(const TensorView& index, const TensorView& cdf, const TensorView& sizes,
           const TensorView& offsets, const TensorView& symbols) {
    check_tensor("indexes", index, DType::i32, {any});
    check_output("symbols", symbols, DType::i32, {index.shape[0]});
    const auto tables = compat_tables(cdf, sizes, offsets);
    const py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> alone(mutex_);
    decoder_.get(tables, index.read<int32_t>(), index.shape[0], symbols.write<int32_t>());
  }

 private:
  py::bytes message_;
  std::mutex mutex_;
  cpu::CompatDecoder decoder_;
};

}  // namespace

void bind_compat64(pybind11::module_& m) {
  py::class_<CompatEncoder>(m, "CompatEncoder", "Contract: csrc/common/compat64.h.")
      .def(py::init<>())
      .def("push", &CompatEncoder::push, py::arg("symbols"), py::arg("indexes"), py::arg("cdfs"),
           py::arg("cdf_sizes"), py::arg("offsets"))
      .def("flush", &CompatEncoder::flush);
  py::class_<CompatReader>(m, "CompatDecoder", "Contract: csrc/common/compat64.h.")
      .def(py::init<py::bytes>(), py::arg("message"))
      .def("get", &CompatReader::get, py::arg("indexes"), py::arg("cdfs"), py::arg("cdf_sizes"),
           py::arg("offsets"), py::arg("symbols"));
}

}  // namespace otcuda
