#include "nn/files/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "nn/files/strict_json.h"
#include "tensor/error.h"
#include "tensor/half.h"

namespace graft {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian");

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr const char* kMetadata = "__metadata__";

struct Type {
  FileDtype dtype;
  std::string_view name;
  std::size_t size;
};
// In the order in which the reference implementation lays tensors out.
constexpr std::array<Type, 10> kTypes{{{FileDtype::i64, "I64", 8},
                                       {FileDtype::f64, "F64", 8},
                                       {FileDtype::f32, "F32", 4},
                                       {FileDtype::i32, "I32", 4},
                                       {FileDtype::bf16, "BF16", 2},
                                       {FileDtype::f16, "F16", 2},
                                       {FileDtype::i16, "I16", 2},
                                       {FileDtype::i8, "I8", 1},
                                       {FileDtype::u8, "U8", 1},
                                       {FileDtype::bool_, "BOOL", 1}}};

const Type& type_of(FileDtype dtype) {
  return *std::find_if(kTypes.begin(), kTypes.end(), [&](auto& t) { return t.dtype == dtype; });
}

// A name or a value of the header as it can safely stand in a message, whatever it holds.
std::string shown(const json& value) {
  auto text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 300) text.replace(300, std::string::npos, "...");
  return text;
}

std::string shown(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Bytes of an array; nothing when a dimension is negative or the product overflows.
std::optional<std::size_t> byte_size(FileDtype dtype, const Shape& shape) {
  std::size_t bytes = size_of(dtype);
  for (const auto n : shape)
    if (n < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(n), &bytes)) return {};
  return bytes;
}

template <class T>
T load(const std::byte* from) {  // a tensor in a file need not be aligned
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// A list of whole numbers from 0 to the largest std::int64_t, or nothing.
std::optional<std::vector<std::int64_t>> natural_numbers(const json& value) {
  if (!value.is_array()) return {};
  std::vector<std::int64_t> numbers;
  for (const auto& item : value) {
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() > most) return {};
    numbers.push_back(item.get<std::int64_t>());
  }
  return numbers;
}

// One tensor's entry, checked by itself; `where` names file and tensor.
TensorInfo parse_tensor(const std::string& where, const std::string& name, const json& entry,
                        std::size_t data_size) {
  check(entry.is_object() && entry.size() == 3 && entry.contains("dtype") &&
            entry.contains("shape") && entry.contains("data_offsets"),
        "{}: need an object of exactly dtype, shape and data_offsets", where);
  TensorInfo info;
  info.name = name;

  const json& dtype = entry["dtype"];
  const auto type = std::find_if(kTypes.begin(), kTypes.end(), [&](auto& t) {
    return dtype.is_string() && dtype.get_ref<const std::string&>() == t.name;
  });
  if (type == kTypes.end()) {
    std::vector<std::string_view> known;
    for (const auto& t : kTypes) known.push_back(t.name);
    fail("{}: dtype {} is not supported; need one of {}", where, shown(dtype),
         fmt::join(known, ", "));
  }
  info.dtype = type->dtype;

  auto shape = natural_numbers(entry["shape"]);
  check(shape.has_value(), "{}: shape {}; need a list of whole numbers >= 0", where,
        shown(entry["shape"]));
  check(shape->size() <= Shape::kMost, "{}: shape {}; need at most {} dimensions", where,
        shown(entry["shape"]), Shape::kMost);
  info.shape = *shape;
  const auto need = byte_size(info.dtype, info.shape);
  check(need.has_value(), "{}: shape {} overflows", where, shown(info.shape));

  const auto offsets = natural_numbers(entry["data_offsets"]);
  check(offsets && offsets->size() == 2, "{}: data_offsets {}; need [begin, end]", where,
        shown(entry["data_offsets"]));
  info.begin = static_cast<std::size_t>((*offsets)[0]);
  info.end = static_cast<std::size_t>((*offsets)[1]);
  check(info.begin <= info.end && info.end <= data_size,
        "{}: data_offsets [{}, {}]; need begin <= end <= {}, the bytes behind the header (is the "
        "file truncated?)",
        where, info.begin, info.end, data_size);
  check(info.end - info.begin == *need, "{}: {} {} needs {} bytes; data_offsets give {}", where,
        type->name, shown(info.shape), *need, info.end - info.begin);
  return info;
}

// The tensors must tile the data: each begins where the one before it ends.
void check_layout(const std::string& file, const std::map<std::string, TensorInfo>& tensors,
                  std::size_t data_size) {
  std::vector<const TensorInfo*> order;
  for (const auto& [name, info] : tensors) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::size_t end = 0;
  for (const TensorInfo* info : order) {
    check(info->begin >= end, "{}: tensor {} overlaps the one before it: it begins at {}, need {}",
          file, shown(info->name), info->begin, end);
    check(info->begin == end, "{}: {} bytes before tensor {} belong to no tensor", file,
          info->begin - end, shown(info->name));
    end = info->end;
  }
  check(end == data_size, "{}: {} bytes at its end belong to no tensor", file, data_size - end);
}

// Number of single-character edits that turn `a` into `b` (Levenshtein, one row kept).
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t swapped = diagonal + (a[i] != b[j]);
      diagonal = std::exchange(row[j + 1], std::min({row[j], row[j + 1], diagonal}) + 1);
      row[j + 1] = std::min(row[j + 1], swapped);
    }
  }
  return row.back();
}

// Up to three names most like `name`. One that contains it, or is contained in it, comes first: a
// missing prefix such as "model." is the usual mistake.
std::vector<std::string> nearest(const std::string& name,
                                 const std::map<std::string, TensorInfo>& tensors) {
  std::vector<std::pair<std::size_t, std::string>> ranked;
  for (const auto& [other, info] : tensors) {
    const bool within = other.find(name) != std::string::npos ||
                        (!other.empty() && name.find(other) != std::string::npos);
    ranked.emplace_back(within ? 0 : edit_distance(name, other), shown(other));
  }
  const auto most = std::min<std::size_t>(3, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(most),
                    ranked.end());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < most; ++i) names.push_back(ranked[i].second);
  return names;
}

}  // namespace

std::size_t size_of(FileDtype dtype) { return type_of(dtype).size; }
std::string_view name_of(FileDtype dtype) { return type_of(dtype).name; }
bool is_floating(FileDtype t) {
  return t == FileDtype::f64 || t == FileDtype::f32 || t == FileDtype::f16 || t == FileDtype::bf16;
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path)
    : file_(path.string()), map_(std::make_shared<MappedFile>(path)) {
  const auto all = map_->bytes();
  check(all.size() >= 8, "{}: {} bytes; a safetensors file begins with 8 bytes of header length",
        file_, all.size());
  const auto length = load<std::uint64_t>(all.data());
  check(length <= all.size() - 8,
        "{}: the safetensors header should take {} bytes, but {} follow (is the file truncated?)",
        file_, length, all.size() - 8);
  check(length <= kMaxHeader, "{}: the safetensors header takes {} bytes; need {} at most", file_,
        length, kMaxHeader);
  const std::string_view text(reinterpret_cast<const char*>(all.data()) + 8, length);
  check(text.starts_with('{'), "{}: the safetensors header does not begin with '{{'", file_);
  data_ = all.subspan(8 + length);

  const json header = parse_strict(file_ + ": the safetensors header", text, 5);
  for (const auto& [name, entry] : header.items()) {
    if (name != kMetadata) {
      const auto where = fmt::format("{}: tensor {}", file_, shown(name));
      tensors_.emplace(name, parse_tensor(where, name, entry, data_.size()));
      continue;
    }
    check(entry.is_object(), "{}: {} must be an object of strings", file_, name);
    for (const auto& [key, value] : entry.items()) {
      check(value.is_string(), "{}: {} entry {} must be a string", file_, name, shown(key));
      metadata_.emplace(key, value.get<std::string>());
    }
  }
  check_layout(file_, tensors_, data_.size());
}

const TensorInfo& SafetensorsReader::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  check(!tensors_.empty(), "{}: no tensor {}; the file holds no tensors", file_, shown(name));
  fail("{}: no tensor {}; nearest of its {}: {}", file_, shown(name), tensors_.size(),
       fmt::join(nearest(name, tensors_), ", "));
}

std::span<const std::byte> SafetensorsReader::bytes(const std::string& name) const {
  const TensorInfo& info = at(name);
  return data_.subspan(info.begin, info.end - info.begin);
}

void SafetensorsReader::read_f32(const std::string& name, Array& out) const {
  check(out.contiguous(), "{}: tensor {}: the room for it is not contiguous", file_, shown(name));
  if (out.device() != Device::cpu) {
    Array on_host = Array::empty(out.shape());
    read_f32(name, on_host);
    return out.copy_from(on_host);
  }
  read_f32(name, {out.data<float>(), static_cast<std::size_t>(out.numel())});
}

void SafetensorsReader::read_f32(const std::string& name, std::span<float> out) const {
  const TensorInfo& info = at(name);
  check(out.size() == info.count(), "{}: tensor {} has shape {}, {} elements; room given for {}",
        file_, shown(name), shown(info.shape), info.count(), out.size());
  const std::byte* from = data_.data() + info.begin;
  const auto each = [&]<class T>(T, auto convert) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = convert(load<T>(from + i * sizeof(T)));
  };
  if (out.empty()) return;
  switch (info.dtype) {
    case FileDtype::f64:
      return each(double{}, [](double x) { return static_cast<float>(x); });
    case FileDtype::f32:
      std::memcpy(out.data(), from, out.size_bytes());
      return;
    case FileDtype::f16:
      return each(std::uint16_t{}, [](auto h) { return f32_from_f16(h); });
    case FileDtype::bf16:
      return each(std::uint16_t{}, [](auto h) { return f32_from_bf16(h); });
    default:
      fail("{}: tensor {} is {}; need a floating type to read as f32", file_, shown(name),
           name_of(info.dtype));
  }
}

Array SafetensorsReader::array(const std::string& name) const {
  const TensorInfo& info = at(name);
  const Dtype dtype = info.dtype == FileDtype::f64    ? Dtype::f64
                      : info.dtype == FileDtype::f32  ? Dtype::f32
                      : info.dtype == FileDtype::f16  ? Dtype::f16
                      : info.dtype == FileDtype::bf16 ? Dtype::bf16
                                                      : Dtype::i32;
  check(dtype != Dtype::i32, "{}: tensor {} is {}; need a floating type", file_, shown(name),
        name_of(info.dtype));
  const std::byte* from = data_.data() + info.begin;
  if (reinterpret_cast<std::uintptr_t>(from) % size_of(dtype) == 0)
    return Array::borrowed(from, info.shape, dtype, map_);
  Array copy = Array::empty(info.shape, dtype);
  if (copy.numel()) std::memcpy(copy.storage()->data, from, copy.bytes());
  return copy;
}

SafetensorsWriter::Entry& SafetensorsWriter::insert(const std::string& name, FileDtype dtype,
                                                    Shape shape, std::size_t given_bytes) {
  check(name != kMetadata, "safetensors: a tensor cannot be named {}", kMetadata);
  const auto need = byte_size(dtype, shape);
  check(need.has_value(),
        "safetensors: tensor {} has shape {}; need sizes >= 0 that do not "
        "overflow",
        shown(name), shown(shape));
  check(*need == given_bytes, "safetensors: tensor {}: {} {} needs {} bytes, got values for {}",
        shown(name), name_of(dtype), shown(shape), *need, given_bytes);
  const auto [place, fresh] =
      entries_.try_emplace(name, Entry{dtype, std::move(shape), *need, {}, {}});
  check(fresh, "safetensors: tensor {} was added twice", shown(name));
  return place->second;
}

void SafetensorsWriter::add(const std::string& name, FileDtype dtype, Shape shape,
                            std::span<const float> values) {
  check(is_floating(dtype),
        "safetensors: tensor {}: float values cannot be stored as {}; need a floating "
        "type",
        shown(name), name_of(dtype));
  Entry& entry = insert(name, dtype, std::move(shape), values.size() * size_of(dtype));
  entry.bytes.resize(entry.size);
  const auto each = [&](auto convert) {
    std::byte* to = entry.bytes.data();
    for (const float x : values) {
      const auto stored = convert(x);
      std::memcpy(to, &stored, sizeof stored);
      to += sizeof stored;
    }
  };
  if (dtype == FileDtype::f64) each([](float x) { return static_cast<double>(x); });
  if (dtype == FileDtype::f32) each([](float x) { return x; });
  if (dtype == FileDtype::f16) each([](float x) { return f16_from_f32(x); });
  if (dtype == FileDtype::bf16) each([](float x) { return bf16_from_f32(x); });
}

void SafetensorsWriter::add(const std::string& name, const Array& values) {
  check(values.contiguous(), "safetensors: tensor {}: the array is not contiguous", name);
  if (values.device() != Device::cpu) return add(name, values.to(Device::cpu));
  add(name, FileDtype::f32, values.shape(),
      std::span(values.data<float>(), static_cast<std::size_t>(values.numel())));
}

void SafetensorsWriter::add(const std::string& name, FileDtype dtype, Shape shape,
                            std::span<const std::byte> bytes) {
  insert(name, dtype, std::move(shape), bytes.size()).bytes.assign(bytes.begin(), bytes.end());
}

void SafetensorsWriter::add(const std::string& name, FileDtype dtype, Shape shape, Make make) {
  const std::size_t size = byte_size(dtype, shape).value_or(0);  // what overflows is refused below
  insert(name, dtype, std::move(shape), size).make = std::move(make);
}

void SafetensorsWriter::write_entry(AtomicFile& file, const std::string& name, const Entry& entry) {
  if (!entry.make) return file.write(std::span<const std::byte>(entry.bytes));
  std::size_t given = 0;
  entry.make([&](std::span<const std::byte> bytes) {
    given += bytes.size();
    file.write(bytes);
  });
  check(given == entry.size, "safetensors: tensor {}: {} {} needs {} bytes, {} were made",
        shown(name), name_of(entry.dtype), shown(entry.shape), entry.size, given);
}

void SafetensorsWriter::write(const std::filesystem::path& path) const {
  std::vector<std::pair<std::string, const Entry*>> order;
  ordered_json header = ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::size_t offset = 0;
  for (const Type& type : kTypes) {
    for (const auto& [name, entry] : entries_) {
      if (entry.dtype != type.dtype) continue;
      ordered_json item = {{"dtype", type.name}, {"shape", entry.shape}};
      item["data_offsets"] = {offset, offset + entry.size};
      header.push_back({name, std::move(item)});
      offset += entry.size;
      order.emplace_back(name, &entry);
    }
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& e) {
    fail("{}: cannot write the safetensors header: {}", path.string(), e.what());
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  check(text.size() <= kMaxHeader, "{}: the safetensors header takes {} bytes; need {} at most",
        path.string(), text.size(), kMaxHeader);

  AtomicFile file(path);
  const std::uint64_t length = text.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const auto& [name, entry] : order) write_entry(file, name, *entry);
  file.commit();
}

}  // namespace graft
