// SPDX-License-Identifier: Apache-2.0
#include "cpu/rans32.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>
#include <string>

#include "bindings/python_poll.h"
#include "bindings/tensor_caster.h"
#include "common/check.h"

namespace otcuda {
namespace {

namespace py = pybind11;

void check_rans_arrays(const cpu::Tables& tables, const TensorView& symbols,
                       const std::optional<TensorView>& index, int64_t block,
                       const TensorView& directory) {
  check_tensor("symbols", symbols, symbols.dtype, {any});
  check_on_cpu("rans32", "symbols", symbols);
  const int64_t n = symbols.shape[0];
  if (index) {
    check_tensor("index", *index, index->dtype, {n});
    check_on_cpu("rans32", "index", *index);
  }
  OTCUDA_CHECK(index || tables.count() == 1, "index is missing, but there are several tables");
  OTCUDA_CHECK(
      block >= 32 && block <= cpu::kRansBlockMax && block % 32 == 0,
      "block_symbols is " + std::to_string(block) + ", expected a multiple of 32 from 32 to 2^28");
  check_output("directory", directory, DType::u32, {(n + block - 1) / block, 3});
  check_on_cpu("rans32", "directory", directory);
}

static_assert(sizeof(cpu::RansBlock) == 12, "a row of the directory");

// head() gives what stands in front of the blocks, once the directory is known.
py::bytes encode_blocks(const cpu::Tables& tables, const TensorView& symbols,
                        const std::optional<TensorView>& index, int64_t block,
                        const TensorView& directory, const py::function& head) {
  check_rans_arrays(tables, symbols, index, block, directory);
  const py::none nobody;
  Poll poll = python_poll(nobody);
  Vector<Vector<uint8_t>> parts;
  {
    const py::gil_scoped_release unlocked;
    parts = cpu::rans32_encode(tables, symbols, index ? &*index : nullptr, block,
                               directory.write<cpu::RansBlock>(), poll);
  }
  const py::bytes first = head();
  size_t size = static_cast<size_t>(PyBytes_GET_SIZE(first.ptr()));
  for (const auto& part : parts) size += part.size();
  auto message = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(size)));
  if (!message) throw py::error_already_set();
  char* at = PyBytes_AS_STRING(message.ptr());
  at = std::copy_n(PyBytes_AS_STRING(first.ptr()), PyBytes_GET_SIZE(first.ptr()), at);
  for (const auto& part : parts) at = std::copy(part.begin(), part.end(), at);
  return message;
}

// message: the blocks begin at `from`.
void decode_blocks(const cpu::Tables& tables, const py::bytes& message, int64_t from,
                   const std::optional<TensorView>& index, int64_t block,
                   const TensorView& directory, const TensorView& symbols) {
  check_rans_arrays(tables, symbols, index, block, directory);
  check_output("symbols", symbols, symbols.dtype, {any});
  const int64_t size = PyBytes_GET_SIZE(message.ptr()) - from;
  OTCUDA_CHECK(from >= 0 && size >= 0, "from lies outside the message");
  const auto* data = reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(message.ptr())) + from;
  const py::none nobody;
  Poll poll = python_poll(nobody);
  const py::gil_scoped_release unlocked;
  cpu::rans32_decode(tables, data, size, index ? &*index : nullptr, block,
                     directory.read<cpu::RansBlock>(), symbols, poll);
}

}  // namespace

void bind_rans32(pybind11::module_& m) {
  m.def("rans32_encode", &encode_blocks, py::arg("tables"), py::arg("symbols"), py::arg("index"),
        py::arg("block"), py::arg("directory"), py::arg("head"),
        "symbols [n], index [n] or None -> head() and the blocks; directory [ceil(n / block), 3] "
        "uint32, out, is filled before. Contract: csrc/common/rans32.h.");
  m.def("rans32_decode", &decode_blocks, py::arg("tables"), py::arg("message"), py::arg("start"),
        py::arg("index"), py::arg("block"), py::arg("directory"), py::arg("symbols"),
        "blocks from a place in the message, index [n] or None -> symbols [n].");
}

}  // namespace otcuda
