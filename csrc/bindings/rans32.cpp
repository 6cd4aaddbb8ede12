// SPDX-License-Identifier: Apache-2.0
#include "cpu/rans32.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>
#include <string>

#include "bindings/cuda_call.h"
#include "bindings/python_poll.h"
#include "bindings/rans_shape.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "common/threads.h"
#include "cuda/rans32.h"

namespace otcuda {
namespace {

namespace py = pybind11;

void check_rans_shapes(const cpu::Tables& tables, const TensorView& symbols,
                       const std::optional<TensorView>& index, int64_t block,
                       const TensorView& directory) {
  check_narrow("rans32", tables);
  check_tensor("symbols", symbols, symbols.dtype, {any});
  const int64_t n = symbols.shape[0];
  if (index) check_tensor("index", *index, index->dtype, {n});
  OTCUDA_CHECK(index || tables.count() == 1, "index is missing, but there are several tables");
  OTCUDA_CHECK(
      block >= 32 && block <= cpu::kRansBlockMax && block % 32 == 0,
      "block_symbols is " + std::to_string(block) + ", expected a multiple of 32 from 32 to 2^28");
  check_output("directory", directory, DType::u32, {(n + block - 1) / block, 3});
}

void check_rans_arrays(const cpu::Tables& tables, const TensorView& symbols,
                       const std::optional<TensorView>& index, int64_t block,
                       const TensorView& directory) {
  check_rans_shapes(tables, symbols, index, block, directory);
  check_on_cpu("rans32", "symbols", symbols);
  if (index) check_on_cpu("rans32", "index", *index);
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
  char* const begin = PyBytes_AS_STRING(message.ptr());
  char* at = std::copy_n(PyBytes_AS_STRING(first.ptr()), PyBytes_GET_SIZE(first.ptr()), begin);
  Vector<char*> places;
  for (const auto& part : parts) {
    places.push_back(at);
    at += part.size();
  }
  const py::gil_scoped_release unlocked;
  const int64_t count = static_cast<int64_t>(parts.size());
  parallel_for(  // on all threads: half the time is the first touch of the pages
      count, 1,
      [&](int64_t from, int64_t to) {
        for (int64_t k = from; k < to; ++k) std::copy(parts[k].begin(), parts[k].end(), places[k]);
      },
      nullptr, threads_for(0.2 * double(size)));
  return message;
}

// message: the blocks begin at `from`.
void decode_blocks(const cpu::Tables& tables, const py::bytes& message, int64_t from,
                   const std::optional<TensorView>& index, int64_t block,
                   const TensorView& directory, const TensorView& symbols, bool check) {
  check_rans_arrays(tables, symbols, index, block, directory);
  check_output("symbols", symbols, symbols.dtype, {any});
  const int64_t size = PyBytes_GET_SIZE(message.ptr()) - from;
  OTCUDA_CHECK(from >= 0 && size >= 0, "from lies outside the message");
  const auto* data = reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(message.ptr())) + from;
  const py::none nobody;
  Poll poll = python_poll(nobody);
  const py::gil_scoped_release unlocked;
  cpu::rans32_decode(tables, data, size, index ? &*index : nullptr, block,
                     directory.read<cpu::RansBlock>(), symbols, poll, check);
}

// --- on a CUDA device

void fill_image(const cpu::Tables& tables, const TensorView& image) {
  const RansShape shape = shape_of(tables);
  check_output("image", image, DType::u32, {shape.words()});
  check_on_cpu("rans32", "image", image);
  const py::gil_scoped_release unlocked;
  uint32_t* to = image.write<uint32_t>();
  to = std::copy_n(tables.kept_begin(), shape.count, to);
  to = std::copy_n(tables.kept(), shape.kept, to);
  const uint16_t* buckets = tables.buckets();
  for (int64_t i = 0; i < shape.bucket_words(); ++i) {
    const int64_t last = shape.count << shape.bucket_bits;  // there is one more than that
    *to++ = buckets[2 * i] | (2 * i + 1 <= last ? uint32_t{buckets[2 * i + 1]} << 16 : 0);
  }
  to = std::copy_n(tables.intervals(), shape.count * shape.symbols + 1, to);
  if (shape.direct) std::copy_n(tables.direct(), shape.direct_words(), to);
}

// The tensors of a call on a device, in the order of the arguments.
struct DeviceArguments {
  const cpu::Tables& tables;
  TensorView image, symbols;
  std::optional<TensorView> index;
  int64_t block;
  TensorView data, directory, size, faults, workspace;

  cuda::RansCall call() const {
    check_rans_shapes(tables, symbols, index, block, directory);
    const RansShape shape = shape_of(tables);
    check_tensor("image", image, DType::u32, {shape.words()});
    check_output("data", data, DType::u8, {any});
    check_output("size", size, DType::i64, {1});
    check_output("faults", faults, DType::i64, {3});
    check_on_cuda("rans32", "symbols", symbols);
    check_workspace(workspace, symbols);
    for (const TensorView* view : {&image, &data, &directory, &size, &faults}) {
      check_same_device("an argument of rans32", *view, "symbols", symbols);
    }
    if (index) {
      check_same_device("index", *index, "symbols", symbols);
      const DType dtype = index->dtype;
      OTCUDA_CHECK(
          dtype == DType::u8 || dtype == DType::i16 || dtype == DType::i32 || dtype == DType::i64,
          std::string("rans32 on CUDA: index is ") + dtype_name(dtype) +
              ", expected uint8, int16, int32 or int64");
    }
    count_backend_path(BackendPath::rans32_cuda, symbols.shape[0]);
    return {shape, image, symbols, index ? &*index : nullptr, block, data, directory, size, faults};
  }
};

template <void (*run)(const cuda::RansCall&, const TensorView&, uintptr_t)>
void on_device(const cpu::Tables& tables, const TensorView& image, const TensorView& symbols,
               const std::optional<TensorView>& index, int64_t block, const py::tuple& message,
               const TensorView& workspace, uintptr_t stream) {
  OTCUDA_CHECK(message.size() == 4, "message is data, directory, size and faults");
  const DeviceArguments arguments = {tables,
                                     image,
                                     symbols,
                                     index,
                                     block,
                                     message[0].cast<TensorView>(),
                                     message[1].cast<TensorView>(),
                                     message[2].cast<TensorView>(),
                                     message[3].cast<TensorView>(),
                                     workspace};
  const cuda::RansCall call = arguments.call();
  const py::gil_scoped_release unlocked;
  run(call, workspace, stream);
}

void bind_rans32_on_cuda(py::module_& m) {
  m.def(
      "rans32_shape",
      [](const cpu::Tables& tables) {
        const RansShape s = shape_of(tables);
        return py::make_tuple(s.count, s.symbols, s.kept, s.low, s.precision, s.bucket_bits,
                              s.escape, s.direct, s.words());
      },
      py::arg("tables"),
      "T, n, K, low, precision, bucket bits, escape, direct, words of the image: "
      "csrc/common/rans32_lookup.h.");
  m.def("rans32_image", &fill_image, py::arg("tables"), py::arg("image"),
        "image [words] uint32, out: the tables as a device reads them.");
  m.def(
      "rans32_device_bytes",
      [](const cpu::Tables& tables, int64_t n, int64_t block) {
        OTCUDA_CHECK(n >= 0 && block >= 32, "n is negative or block_symbols is under 32");
        const RansShape shape = shape_of(tables);
        return py::make_tuple(cuda::rans32_bound(shape, n, block),
                              cuda::rans32_encode_workspace(shape, n, block),
                              cuda::rans32_decode_workspace(n, block));
      },
      py::arg("tables"), py::arg("n"), py::arg("block"),
      "Bytes that data needs for any n symbols, and the workspaces of encoding and decoding.");
  m.def("rans32_encode", &on_device<&cuda::rans32_encode>, py::arg("tables"), py::arg("image"),
        py::arg("symbols"), py::arg("index"), py::arg("block"), py::arg("message"),
        py::arg("workspace"), py::arg("stream"),
        "The same on a CUDA stream; message is data [bytes] uint8, directory, size [1] int64 and "
        "faults [3] int64, all out: csrc/cuda/rans32.h.");
  m.def("rans32_decode", &on_device<&cuda::rans32_decode>, py::arg("tables"), py::arg("image"),
        py::arg("symbols"), py::arg("index"), py::arg("block"), py::arg("message"),
        py::arg("workspace"), py::arg("stream"),
        "The same on a CUDA stream; symbols [n] and faults of message are out.");
}

}  // namespace

void bind_rans32(pybind11::module_& m) {
  m.def("rans32_encode", &encode_blocks, py::arg("tables"), py::arg("symbols"), py::arg("index"),
        py::arg("block"), py::arg("directory"), py::arg("head"),
        "symbols [n], index [n] or None -> head() and the blocks; directory [ceil(n / block), 3] "
        "uint32, out, is filled before. Contract: csrc/common/rans32.h.");
  m.def("rans32_decode", &decode_blocks, py::arg("tables"), py::arg("message"), py::arg("start"),
        py::arg("index"), py::arg("block"), py::arg("directory"), py::arg("symbols"),
        py::arg("check") = true,
        "blocks from a place in the message, index [n] or None -> symbols [n]. Without check the "
        "symbols are not checked: for benchmarks.");
  bind_rans32_on_cuda(m);
}

}  // namespace otcuda
