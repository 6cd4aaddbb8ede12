// SPDX-License-Identifier: Apache-2.0
#include "cpu/range64.h"

#include <pybind11/pybind11.h>

#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "bindings/adaptive_model.h"
#include "bindings/cuda_call.h"
#include "bindings/python_poll.h"
#include "bindings/rans_shape.h"
#include "bindings/tensor_caster.h"
#include "common/backend_info.h"
#include "common/check.h"
#include "cuda/range64.h"

namespace otcuda {
namespace {

namespace py = pybind11;

using OptionalView = std::optional<TensorView>;

const TensorView* or_null(const OptionalView& view) { return view ? &*view : nullptr; }

// Integers [n] in host memory.
void check_integers(const char* name, const TensorView& view, int64_t n = any) {
  check_tensor(name, view, view.dtype, {n});
  check_on_cpu("range64", name, view);
}

void check_coding(const cpu::Tables& tables, const TensorView& symbols, const OptionalView& index) {
  check_integers("symbols", symbols);
  if (index) check_integers("index", *index, symbols.shape[0]);
  OTCUDA_CHECK(index || tables.count() == 1, "index is missing, but there are several tables");
}

void require_between(const char* name, int64_t value, int64_t low, int64_t high) {
  OTCUDA_CHECK(value >= low && value <= high, std::string(name) + " is " + std::to_string(value) +
                                                  ", expected " + std::to_string(low) + " .. " +
                                                  std::to_string(high));
}

void check_step_output(const TensorView& values) {
  check_output("values", values, DType::i64, {any});
  check_on_cpu("range64", "values", values);
}

py::bytes to_bytes(const Vector<uint8_t>& message) {
  return py::bytes(reinterpret_cast<const char*>(message.data()), message.size());
}

// An encoder or decoder that Python holds. One call at a time; one that failed halfway has left it
// between two symbols of an array, and it takes no more. Work that refuses its arguments refuses
// them before it codes.
template <class Coder>
class Shared {
 public:
  template <class... Arguments>
  explicit Shared(Arguments&&... arguments) : coder_(std::forward<Arguments>(arguments)...) {}

  // work(coder) without the GIL.
  template <class Work>
  void use(const Work& work) {
    const py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> alone(mutex_);
    OTCUDA_CHECK(!spoiled_, "an earlier call on this coder failed halfway; start a new one");
    spoiled_ = true;
    try {
      work(coder_);
    } catch (const ArgumentError&) {
      spoiled_ = false;
      throw;
    }
    spoiled_ = false;
  }

 private:
  std::mutex mutex_;
  Coder coder_;
  bool spoiled_ = false;
};

using SharedEncoder = Shared<cpu::Encoder>;

// A refusal now means that another thread writes to the arrays.
template <class Work>
void after_checks(const Work& work) {
  try {
    work();
  } catch (const ArgumentError& error) {
    throw Error(std::string("an array was changed while it was coded: ") + error.what());
  }
}

// Owns the bytes that the decoder borrows.
class SharedDecoder : public Shared<RangeDecoder> {
 public:
  explicit SharedDecoder(py::bytes message)
      : Shared(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(message.ptr())),
               static_cast<size_t>(PyBytes_GET_SIZE(message.ptr()))),
        message_(std::move(message)) {}

 private:
  py::bytes message_;
};

void check_lanes(int lanes) {
  OTCUDA_CHECK(lanes == 1 || lanes == 2 || lanes == 4,
               "lanes is " + std::to_string(lanes) + ", expected 1, 2 or 4");
}

py::bytes encode_symbols(const cpu::Tables& tables, const TensorView& symbols,
                         const OptionalView& index, int lanes) {
  check_coding(tables, symbols, index);
  check_lanes(lanes);
  Vector<uint8_t> message;
  const py::none nobody;
  Poll poll = python_poll(nobody);
  {
    const py::gil_scoped_release unlocked;
    Vector<cpu::Encoder> encoders;
    for (int lane = 0; lane < lanes; ++lane) {
      Vector<uint8_t> room;
      room.reserve(static_cast<size_t>(symbols.size() / (2 * lanes) + 64));
      encoders.emplace_back(std::move(room));
    }
    cpu::range64_put(encoders, tables, symbols, or_null(index), poll);
    message = cpu::range64_join(encoders);
  }
  return to_bytes(message);
}

void finish_decoding(const RangeDecoder& decoder) {
  if (decoder.finished()) return;
  throw CorruptDataError("the message holds bytes to spare: it is damaged, or symbols were left");
}

void decode_symbols(const cpu::Tables& tables, const py::bytes& message, const OptionalView& index,
                    const TensorView& symbols, int lanes) {
  check_coding(tables, symbols, index);
  check_output("symbols", symbols, symbols.dtype, {any});
  check_lanes(lanes);
  const py::none nobody;
  Poll poll = python_poll(nobody);
  const py::gil_scoped_release unlocked;
  auto decoders =
      cpu::range64_split(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(message.ptr())),
                         static_cast<size_t>(PyBytes_GET_SIZE(message.ptr())), lanes);
  cpu::range64_get(decoders, tables, or_null(index), symbols, poll);
  for (const RangeDecoder& decoder : decoders) finish_decoding(decoder);
}

// Ends of consecutive parts of `total`: never falling, the last one `total`.
const int64_t* check_ends(const char* name, const TensorView& ends, int64_t total) {
  check_tensor(name, ends, DType::i64, {any});
  check_on_cpu("range64", name, ends);
  int64_t last = 0;
  for (int64_t k = 0; k < ends.shape[0]; ++k) {
    const int64_t end = ends.read<int64_t>()[k];
    OTCUDA_CHECK(end >= last && end <= total, std::string(name) + " are not those of parts");
    last = end;
  }
  OTCUDA_CHECK(last == total, std::string(name) + " do not reach the end");
  return ends.read<int64_t>();
}

py::bytes encode_many(const cpu::Tables& tables, const TensorView& symbols,
                      const OptionalView& index, const TensorView& ends,
                      const TensorView& byte_ends) {
  check_coding(tables, symbols, index);
  check_output("byte_ends", byte_ends, DType::i64, {ends.shape[0]});
  const int64_t* of = check_ends("ends", ends, symbols.size());
  const py::none nobody;
  Poll poll = python_poll(nobody);
  Vector<uint8_t> bytes;
  {
    const py::gil_scoped_release unlocked;
    bytes = cpu::range64_put_many(tables, symbols, or_null(index), of, ends.shape[0],
                                  byte_ends.write<int64_t>(), poll);
  }
  return to_bytes(bytes);
}

void decode_many(const cpu::Tables& tables, const py::bytes& data, const TensorView& byte_ends,
                 const OptionalView& index, const TensorView& ends, const TensorView& symbols) {
  check_coding(tables, symbols, index);
  check_output("symbols", symbols, symbols.dtype, {any});
  const int64_t* byte_of = check_ends("byte_ends", byte_ends, PyBytes_GET_SIZE(data.ptr()));
  const int64_t* of = check_ends("ends", ends, symbols.size());
  OTCUDA_CHECK(ends.shape[0] == byte_ends.shape[0], "ends and byte_ends differ in length");
  const auto* bytes = reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(data.ptr()));
  const py::none nobody;
  Poll poll = python_poll(nobody);
  const py::gil_scoped_release unlocked;
  cpu::range64_get_many(tables, {bytes, byte_of, of, ends.shape[0]}, or_null(index), symbols, poll);
}

void check_rows(const TensorView& cdf, const TensorView& symbols) {
  check_tensor("symbols", symbols, DType::i32, {any});
  check_tensor("cdf", cdf, DType::i32, {symbols.shape[0], any});
  check_on_cpu("range64", "cdf", cdf);
  check_on_cpu("range64", "symbols", symbols);
  require_between("the width of cdf", cdf.shape[1], 2, 65537);
}

py::bytes encode_rows(const TensorView& cdf, const TensorView& symbols) {
  check_rows(cdf, symbols);
  const py::none nobody;
  Poll poll = python_poll(nobody);
  Vector<uint8_t> message;
  {
    const py::gil_scoped_release unlocked;
    cpu::Encoder encoder;
    cpu::range64_put_rows(encoder, cdf, symbols, poll);
    message = encoder.finish();
  }
  return to_bytes(message);
}

void decode_rows(const TensorView& cdf, const py::bytes& message, const TensorView& symbols) {
  check_rows(cdf, symbols);
  check_output("symbols", symbols, DType::i32, {any});
  const py::none nobody;
  Poll poll = python_poll(nobody);
  RangeDecoder decoder(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(message.ptr())),
                       static_cast<size_t>(PyBytes_GET_SIZE(message.ptr())));
  const py::gil_scoped_release unlocked;
  cpu::range64_get_rows(decoder, cdf, symbols, poll);
}

void bind_encoder(py::module_& m) {
  const auto put = [](SharedEncoder& self, const cpu::Tables& tables, const TensorView& symbols,
                      const OptionalView& index) {
    check_coding(tables, symbols, index);
    const py::none nobody;
    Poll poll = python_poll(nobody);
    self.use([&](auto& encoder) {
      cpu::range64_check_symbols(tables, symbols);
      if (index) cpu::range64_check_index(tables, *index);
      after_checks([&] { cpu::range64_put(encoder, tables, symbols, or_null(index), poll); });
    });
  };
  const auto bits = [](SharedEncoder& self, const TensorView& values, int k) {
    check_integers("values", values);
    require_between("k", k, 0, 63);
    self.use([&](auto& encoder) { cpu::range64_put_bits(encoder, values, k); });
  };
  const auto uniform = [](SharedEncoder& self, const TensorView& values, int64_t count) {
    check_integers("values", values);
    require_between("K", count, 1, kRangeUniformMax);
    self.use([&](auto& encoder) {
      cpu::range64_put_uniform(encoder, values, static_cast<uint32_t>(count));
    });
  };
  const auto bit = [](SharedEncoder& self, const TensorView& values, const TensorView& p1, int P) {
    check_integers("values", values);
    check_integers("p1", p1, values.shape[0]);
    require_between("precision", P, 1, kRangePrecisionMax);
    self.use([&](auto& encoder) { cpu::range64_put_bit(encoder, values, p1, P); });
  };
  const auto exp_golomb = [](SharedEncoder& self, const TensorView& values) {
    check_integers("values", values);
    self.use([&](auto& encoder) { cpu::range64_put_exp_golomb(encoder, values); });
  };
  const auto adaptive = [](SharedEncoder& self, const TensorView& map, const py::tuple& state) {
    check_map(map);
    cpu::AdaptiveModel model = adaptive_model(state);
    const py::none nobody;
    Poll poll = python_poll(nobody);
    self.use([&](auto& encoder) { cpu::adaptive_put(encoder, model, map, poll); });
  };
  const auto finish = [](SharedEncoder& self) {
    Vector<uint8_t> message;
    self.use([&](auto& encoder) { message = encoder.finish(); });
    return to_bytes(message);
  };
  py::class_<SharedEncoder>(m, "RangeEncoder", "Contract: csrc/common/range64.h.")
      .def(py::init<>())
      .def("put", put, py::arg("tables"), py::arg("symbols"), py::arg("index"))
      .def("bits", bits, py::arg("values"), py::arg("k"))
      .def("uniform", uniform, py::arg("values"), py::arg("K"))
      .def("bit", bit, py::arg("values"), py::arg("p1"), py::arg("precision"))
      .def("exp_golomb", exp_golomb, py::arg("values"))
      .def("adaptive", adaptive, py::arg("symbols"), py::arg("model"))
      .def("finish", finish);
}

void bind_decoder(py::module_& m) {
  const auto get = [](SharedDecoder& self, const cpu::Tables& tables, const OptionalView& index,
                      const TensorView& symbols) {
    check_coding(tables, symbols, index);
    check_output("symbols", symbols, symbols.dtype, {any});
    const py::none nobody;
    Poll poll = python_poll(nobody);
    self.use([&](auto& decoder) {
      if (index) cpu::range64_check_index(tables, *index);
      after_checks([&] { cpu::range64_get(decoder, tables, or_null(index), symbols, poll); });
    });
  };
  const auto bits = [](SharedDecoder& self, const TensorView& values, int k) {
    check_step_output(values);
    require_between("k", k, 0, 63);
    self.use([&](auto& decoder) { cpu::range64_get_bits(decoder, values, k); });
  };
  const auto uniform = [](SharedDecoder& self, const TensorView& values, int64_t count) {
    check_step_output(values);
    require_between("K", count, 1, kRangeUniformMax);
    self.use([&](auto& decoder) {
      cpu::range64_get_uniform(decoder, values, static_cast<uint32_t>(count));
    });
  };
  const auto bit = [](SharedDecoder& self, const TensorView& values, const TensorView& p1, int P) {
    check_step_output(values);
    check_integers("p1", p1, values.shape[0]);
    require_between("precision", P, 1, kRangePrecisionMax);
    self.use([&](auto& decoder) { cpu::range64_get_bit(decoder, values, p1, P); });
  };
  const auto exp_golomb = [](SharedDecoder& self, const TensorView& values) {
    check_step_output(values);
    self.use([&](auto& decoder) { cpu::range64_get_exp_golomb(decoder, values); });
  };
  const auto adaptive = [](SharedDecoder& self, const TensorView& map, const py::tuple& state) {
    check_map(map);
    check_output("symbols", map, DType::u16, {any, any});
    cpu::AdaptiveModel model = adaptive_model(state);
    const py::none nobody;
    Poll poll = python_poll(nobody);
    self.use([&](auto& decoder) { cpu::adaptive_get(decoder, model, map, poll); });
  };
  py::class_<SharedDecoder>(m, "RangeDecoder", "Contract: csrc/common/range64.h.")
      .def(py::init<py::bytes>(), py::arg("message"))
      .def("get", get, py::arg("tables"), py::arg("index"), py::arg("symbols"))
      .def("bits", bits, py::arg("values"), py::arg("k"))
      .def("uniform", uniform, py::arg("values"), py::arg("K"))
      .def("bit", bit, py::arg("values"), py::arg("p1"), py::arg("precision"))
      .def("exp_golomb", exp_golomb, py::arg("values"))
      .def("adaptive", adaptive, py::arg("symbols"), py::arg("model"))
      .def("finish", [](SharedDecoder& self) { self.use(&finish_decoding); });
}

// --- on a CUDA device

// Tensors of a message: ends, data, byte_ends and faults.
template <void (*run)(const cuda::RangeCall&, const TensorView&, uintptr_t)>
void on_device(const cpu::Tables& tables, const TensorView& image, const TensorView& symbols,
               const OptionalView& index, const py::tuple& message, const TensorView& workspace,
               uintptr_t stream) {
  OTCUDA_CHECK(message.size() == 4, "message is ends, data, byte_ends and faults");
  TensorView parts[4];
  for (size_t k = 0; k < 4; ++k) parts[k] = message[k].cast<TensorView>();
  const auto& [ends, data, byte_ends, faults] = parts;
  const RansShape shape = shape_of(tables);
  check_tensor("symbols", symbols, symbols.dtype, {any});
  check_tensor("image", image, DType::u32, {shape.words()});
  check_tensor("ends", ends, DType::i64, {any});
  check_output("data", data, DType::u8, {any});
  check_output("byte_ends", byte_ends, DType::i64, {ends.shape[0]});
  check_output("faults", faults, DType::i64, {3});
  if (index) {
    check_tensor("index", *index, index->dtype, {symbols.shape[0]});
    check_same_device("index", *index, "symbols", symbols);
    const DType dtype = index->dtype;
    OTCUDA_CHECK(
        dtype == DType::u8 || dtype == DType::i16 || dtype == DType::i32 || dtype == DType::i64,
        std::string("range64 on CUDA: index is ") + dtype_name(dtype) +
            ", expected uint8, int16, int32 or int64");
  }
  OTCUDA_CHECK(index || tables.count() == 1, "index is missing, but there are several tables");
  check_on_cuda("range64", "symbols", symbols);
  check_workspace(workspace, symbols);
  for (const TensorView* view : {&image, &ends, &data, &byte_ends, &faults}) {
    check_same_device("an argument of range64", *view, "symbols", symbols);
  }
  count_backend_path(BackendPath::range64_cuda, symbols.shape[0]);
  const py::gil_scoped_release unlocked;
  run({shape, image, symbols, or_null(index), ends, data, byte_ends, faults}, workspace, stream);
}

void bind_range64_on_cuda(py::module_& m) {
  m.def(
      "range64_device_bytes",
      [](const cpu::Tables& tables, const TensorView& symbols, int64_t messages) {
        OTCUDA_CHECK(messages >= 0, "messages is negative");
        const RansShape shape = shape_of(tables);
        const int64_t n = symbols.size();
        return py::make_tuple(cuda::range64_bound(shape, symbols.dtype, n, messages),
                              cuda::range64_encode_workspace(shape, symbols.dtype, n, messages),
                              cuda::range64_decode_workspace());
      },
      py::arg("tables"), py::arg("symbols"), py::arg("messages"),
      "Bytes that data needs for any symbols, and the workspaces of encoding and decoding.");
  m.def("range64_encode_messages", &on_device<&cuda::range64_encode>, py::arg("tables"),
        py::arg("image"), py::arg("symbols"), py::arg("index"), py::arg("message"),
        py::arg("workspace"), py::arg("stream"),
        "On a CUDA stream; message is ends [B] int64, and data [bytes] uint8, byte_ends [B] int64 "
        "and faults [3] int64, all out: csrc/cuda/range64.h.");
  m.def("range64_decode_messages", &on_device<&cuda::range64_decode>, py::arg("tables"),
        py::arg("image"), py::arg("symbols"), py::arg("index"), py::arg("message"),
        py::arg("workspace"), py::arg("stream"),
        "The inverse; symbols [n] and faults of message are out.");
}

}  // namespace

void bind_range64(pybind11::module_& m) {
  bind_range64_on_cuda(m);
  bind_encoder(m);
  bind_decoder(m);
  m.def("range64_encode", &encode_symbols, py::arg("tables"), py::arg("symbols"), py::arg("index"),
        py::arg("lanes"),
        "symbols [n], index [n] or None -> message. Contract: csrc/common/range64.h.");
  m.def("range64_decode", &decode_symbols, py::arg("tables"), py::arg("message"), py::arg("index"),
        py::arg("symbols"), py::arg("lanes"), "message, index [n] or None -> symbols [n].");
  m.def("range64_encode_many", &encode_many, py::arg("tables"), py::arg("symbols"),
        py::arg("index"), py::arg("ends"), py::arg("byte_ends"),
        "symbols [n], index [n] or None, ends [B] int64 -> bytes; byte_ends [B] int64, out.");
  m.def("range64_decode_many", &decode_many, py::arg("tables"), py::arg("data"),
        py::arg("byte_ends"), py::arg("index"), py::arg("ends"), py::arg("symbols"),
        "data, byte_ends [B], index [n] or None, ends [B] -> symbols [n].");
  m.def("range64_encode_rows", &encode_rows, py::arg("cdf"), py::arg("symbols"),
        "cdf [n, L + 1] int32, symbols [n] int32 -> message.");
  m.def("range64_decode_rows", &decode_rows, py::arg("cdf"), py::arg("message"), py::arg("symbols"),
        "cdf [n, L + 1] int32, message -> symbols [n] int32.");
  m.def(
      "symbol_sum",
      [](const TensorView& symbols) {
        check_integers("symbols", symbols);
        const py::gil_scoped_release unlocked;
        return cpu::symbol_sum(symbols);
      },
      py::arg("symbols"), "symbols [n] -> uint32, the check of docs/coding.md.");
}

}  // namespace otcuda
