// The safetensors file format: named arrays behind one JSON header.
// Layout: u64 header length (little endian), header, data. Format and its rules:
// https://huggingface.co/docs/safetensors (metadata parsing), "Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/files/atomic.h"
#include "tensor/array.h"

namespace graft {

enum class FileDtype { f64, f32, f16, bf16, i64, i32, i16, i8, u8, bool_ };

std::size_t size_of(FileDtype dtype);       // bytes per element
std::string_view name_of(FileDtype dtype);  // as the file spells it: "F32"
bool is_floating(FileDtype dtype);

struct TensorInfo {
  std::string name;
  FileDtype dtype{};
  Shape shape;                     // empty: one element
  std::size_t begin = 0, end = 0;  // bytes, counted from the first byte behind the header

  std::size_t count() const { return (end - begin) / size_of(dtype); }
};

// A safetensors file, mapped. The constructor checks the whole header before anything is used:
// lengths and offsets within the file, no key twice, known types and keys, sizes that match the
// shapes, no overlap, no gap. A file that breaks a rule throws one Error naming file and tensor.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Both throw Error for a name that the file lacks, listing the names nearest to it.
  const TensorInfo& at(const std::string& name) const;
  std::span<const std::byte> bytes(const std::string& name) const;  // need not be aligned

  // Fills `out`, which must have exactly the tensor's number of elements, from a tensor of any
  // floating type (f64 is rounded). Throws for the integer types.
  void read_f32(const std::string& name, std::span<float> out) const;
  void read_f32(const std::string& name, Array& out) const;  // a contiguous one of f32

  // A tensor of a floating type as it is stored and where it lies: no byte of it is read before it
  // is used, nothing writes to it, and it outlives the reader. One that does not begin at a
  // multiple of its elements' size is copied. Throws for the integer types.
  Array array(const std::string& name) const;

 private:
  std::string file_;  // for messages
  std::shared_ptr<MappedFile> map_;
  std::span<const std::byte> data_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Collects tensors, then writes them as one file. Larger element types come first, so that every
// tensor is aligned, and names ascend within a type: the order, and for equal metadata the bytes,
// of the format's reference implementation.
class SafetensorsWriter {
 public:
  std::map<std::string, std::string> metadata{{"format", "pt"}};

  // The values are copied. Throws Error for a name given twice, a shape that does not match the
  // number of values, or (first form, which converts) a `dtype` that is no floating type.
  void add(const std::string& name, FileDtype dtype, Shape shape, std::span<const float> values);
  void add(const std::string& name, const Array& values);  // contiguous, f32, stored as such
  void add(const std::string& name, FileDtype dtype, Shape shape, std::span<const std::byte> bytes);

  // Bytes that are made when the file is written and are never all in memory: `make` hands them to
  // its argument, a piece at a time.
  using Take = std::function<void(std::span<const std::byte>)>;
  using Make = std::function<void(const Take&)>;
  void add(const std::string& name, FileDtype dtype, Shape shape, Make make);

  // Atomically; see AtomicFile. Throws where a `make` gives other than the tensor's bytes.
  void write(const std::filesystem::path& path) const;

 private:
  struct Entry {
    FileDtype dtype;
    Shape shape;
    std::size_t size;
    std::vector<std::byte> bytes;
    Make make;  // where there are no bytes yet
  };
  Entry& insert(const std::string& name, FileDtype dtype, Shape shape, std::size_t given_bytes);
  static void write_entry(AtomicFile& file, const std::string& name, const Entry& entry);

  std::map<std::string, Entry> entries_;
};

}  // namespace graft
