#include "nn/embed.h"

#include <algorithm>
#include <cmath>

#include "nn/pooling.h"

namespace graft {
namespace {

// Special tokens stay: what goes is the end of the text between them.
std::vector<int> fitted(const Tokenizer& tokenizer, const std::string& text, std::size_t most,
                        int& cut) {
  std::vector<int> ids = tokenizer.encode_marked(text).ids;
  if (ids.size() <= most) return ids;
  const std::vector<int> plain = tokenizer.encode(text);
  const std::size_t marks = ids.size() - plain.size();
  check(marks < most, "embed: {} tokens leave no room for text: {} are special ones", most, marks);
  std::size_t before = 0;
  while (before < marks &&
         !std::equal(plain.begin(), plain.end(), ids.begin() + std::ptrdiff_t(before)))
    ++before;
  const auto text_end = ids.begin() + std::ptrdiff_t(before + plain.size());
  ids.erase(text_end - std::ptrdiff_t(ids.size() - most), text_end);
  ++cut;
  return ids;
}

Tensor rows_of(const Model& reader, const Batch& batch, Pool pool) {
  Ctx ctx;
  return pooled(reader.forward(batch, ctx), pool);
}

void normalise(Array& rows) {
  const std::int64_t d = rows.dim(1);
  float* x = rows.data<float>();
  for (std::int64_t i = 0; i < rows.dim(0); ++i, x += d) {
    double squares = 0;
    for (std::int64_t j = 0; j < d; ++j) squares += double(x[j]) * x[j];
    const double length = std::max(std::sqrt(squares), 1e-12);
    for (std::int64_t j = 0; j < d; ++j) x[j] = static_cast<float>(x[j] / length);
  }
}

}  // namespace

Embedded embed_texts(const Model& model, const Tokenizer& tokenizer,
                     std::span<const std::string> texts, const EmbedSpec& spec) {
  const Model& reader = model.encoder ? *model.encoder : model;
  const int places = reader.arch().positions;
  check(spec.batch > 0 && spec.max_tokens >= 0, "embed: {} texts per pass, {} tokens at most",
        spec.batch, spec.max_tokens);
  check(spec.max_tokens <= places || places <= 0, "embed: {} tokens; the model has {} places",
        spec.max_tokens, places);
  check(!texts.empty(), "embed: there is no text");
  check(tokenizer.size() <= reader.arch().vocab,
        "embed: the tokenizer has {} tokens, the model only {}", tokenizer.size(),
        reader.arch().vocab);
  const int limit = spec.max_tokens > 0 ? spec.max_tokens : places;
  const std::size_t most = limit > 0 ? std::size_t(limit) : std::size_t(-1);
  NoRecord off;
  Embedded out;
  std::vector<Tensor> parts;
  for (std::size_t at = 0; at < texts.size();) {
    Batch batch;
    for (int n = 0; n < spec.batch && at < texts.size(); ++n, ++at) {
      const std::vector<int> ids = fitted(tokenizer, texts[at], most, out.cut);
      check(!ids.empty(), "embed: text {} has no token", at + 1);
      batch.token.insert(batch.token.end(), ids.begin(), ids.end());
      batch.length.push_back(static_cast<int>(ids.size()));
      batch.example.push_back(static_cast<std::uint32_t>(at));
    }
    parts.push_back(Tensor(rows_of(reader, batch, spec.pool).value().to(Device::cpu)));
    if (spec.progress) spec.progress(at);
  }
  out.rows = concat(parts, 0).value().to(Dtype::f32).as_contiguous();
  if (spec.normalised) normalise(out.rows);
  return out;
}

}  // namespace graft
