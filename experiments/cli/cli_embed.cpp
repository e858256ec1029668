// graft embed: a file of texts as a matrix of vectors.
#include "experiments/cli/cli.h"
#include "experiments/cli/loaded.h"
#include "experiments/cli/on_device.h"
#include "experiments/data/text_clean.h"
#include "experiments/harness/progress.h"
#include "nn/embed.h"
#include "nn/models/folder.h"
#include "nn/pooling.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

struct EmbedOptions {
  std::string model = "encoder", text, out, pool = "mean";
  EmbedSpec spec;
  Computing computing;
};

// What is wrong with a line is found before the first is computed.
std::vector<std::string> lines_of(const std::string& path, const Tokenizer& tokenizer) {
  std::vector<std::string> lines;
  for (auto& [line, number] : read_text_lines("embed", path)) {
    check(!data::trim(line).empty() || !tokenizer.encode_marked(line).ids.empty(),
          "embed: {}:{}: the line is empty and this model marks no texts, so it has no token", path,
          number);
    lines.push_back(std::move(line));
  }
  check(!lines.empty(), "embed: '{}' is empty; each line is a text", path);
  return lines;
}

void embed_command(EmbedOptions o) {
  o.spec.pool = pool_named(o.pool);
  const Device device = device_of(o.computing);
  const fs::path folder = base_folder(o.model);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const std::vector<std::string> texts = lines_of(o.text, tokenizer);
  check_writable(o.out);
  const auto model = load_model(folder);
  model->move_to(device);
  const auto half = computing_in(*model, o.computing.compute);
  const Embedded e = [&] {
    RowProgress progress(stderr, texts.size());
    o.spec.progress = [&](std::size_t done) { progress.at(done); };
    return embed_texts(*model, tokenizer, texts, o.spec);
  }();
  SafetensorsWriter writer;
  writer.metadata["pool"] = o.pool;
  writer.metadata["normalized"] = o.spec.normalised ? "yes" : "no";
  writer.add("embeddings", e.rows);
  writer.write(o.out);
  fmt::print("{} texts, {} numbers each, in {}\n", e.rows.dim(0), e.rows.dim(1), o.out);
  if (e.cut > 0)
    fmt::print("{} texts were longer than {} tokens and were cut\n", e.cut,
               o.spec.max_tokens > 0 ? o.spec.max_tokens : model->arch().positions);
}

}  // namespace

void add_embed(const Command& app) {
  static EmbedOptions o;
  const Command c = app.add_subcommand("embed", "Each line of a file as a vector, of any model");
  c.add_option("--model", o.model, "a base's name or a model folder").capture_default_str();
  c.add_option("--text", o.text, "a file with a text on each line").required();
  c.add_option("--out", o.out, "a safetensors file: embeddings, [lines, width]").required();
  c.add_option("--pool", o.pool, "mean, cls or last").capture_default_str();
  c.add_flag("--normalize", o.spec.normalised, "to length 1, as sentence-transformers does");
  c.add_option("--max-tokens", o.spec.max_tokens, "cut longer texts; 0: at the model's places")
      .capture_default_str();
  c.add_option("--batch", o.spec.batch, "texts per pass").capture_default_str();
  add_computing(c, o.computing);
  c.callback([] { embed_command(o); });
}

}  // namespace graft::cli
