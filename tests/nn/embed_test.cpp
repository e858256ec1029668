// Texts as vectors, against transformers.
#include "nn/embed.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>

#include "nn/models/folder.h"
#include "nn/text/bpe_trainer.h"
#include "tests/nn/folder.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

const fs::path kFixtures = fs::path(__FILE__).parent_path() / "../fixtures";

std::vector<std::string> sentences() {
  std::ifstream file(kFixtures / "embed/sentences.txt");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// max|a - b| / max|b|, of every `every`th number of a's rows.
double error(const Array& a, const Array& b, int every = 1) {
  REQUIRE(a.dim(0) == b.dim(0));
  REQUIRE((a.dim(1) + every - 1) / every == b.dim(1));
  double most = 0, size = 0;
  for (std::int64_t i = 0; i < b.dim(0); ++i)
    for (std::int64_t j = 0; j < b.dim(1); ++j) {
      const double x = a.data<float>()[i * a.dim(1) + j * every];
      const double y = b.data<float>()[i * b.dim(1) + j];
      most = std::max(most, std::abs(x - y)), size = std::max(size, std::abs(y));
    }
  return most / size;
}

void check_against(const fs::path& folder, const fs::path& expected, int every) {
  const auto model = load_model(folder);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const std::vector<std::string> texts = sentences();
  const SafetensorsReader file(expected);
  for (const auto& tensor : file.tensors()) {
    const std::string& name = tensor.first;
    CAPTURE(name);
    Array theirs = Array::empty(tensor.second.shape);
    file.read_f32(name, theirs);
    EmbedSpec spec;
    spec.pool = name == "cls" ? Pool::cls : name == "last" ? Pool::last : Pool::mean;
    spec.normalised = name.ends_with(".normalized");
    spec.batch = 7;
    CHECK(error(embed_texts(*model, tokenizer, texts, spec).rows, theirs, every) <= 1e-5);
  }
}

// The tiny BERT and its vocabulary in one folder.
struct Tiny : Folder {
  Tiny() {
    for (const char* name : {"config.json", "model.safetensors"})
      fs::copy(kFixtures / "embed/tiny" / name, path / name);
    for (const auto& entry : fs::directory_iterator(kFixtures / "tokenizer/kinds/bert"))
      fs::copy(entry.path(), path / entry.path().filename());
    model = load_model(path);
  }
  Embedded of(const std::vector<std::string>& texts, const EmbedSpec& spec = {}) const {
    return embed_texts(*model, Tokenizer::load(path), texts, spec);
  }
  std::unique_ptr<Model> model;
};

}  // namespace

TEST_CASE("a tiny BERT's embeddings of 100 sentences are transformers', however they are pooled") {
  const Tiny tiny;
  check_against(tiny.path, kFixtures / "embed/tiny/expected.safetensors", 1);
}

TEST_CASE("MiniLM's embeddings of 100 sentences are transformers'") {
  const char* own = std::getenv("GRAFT_BASES");
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path bases = own     ? fs::path(own)
                         : cache ? fs::path(cache) / "graft/bases"
                                 : fs::path(home ? home : "") / ".cache/graft/bases";
  if (!fs::exists(bases / "minilm/config.json")) {
    MESSAGE("SKIPPED: no MiniLM; experiments/bases/minilm.sh makes its folder");
    return;
  }
  check_against(bases / "minilm", kFixtures / "embed/minilm.safetensors", 8);
}

TEST_CASE("texts beyond the limit keep their special tokens and lose their ends") {
  const Tiny tiny;
  const std::string text = sentences()[0];
  const Tokenizer tokenizer = Tokenizer::load(tiny.path);
  EmbedSpec spec;
  spec.max_tokens = 6;
  const Embedded cut = tiny.of({text, "the"}, spec);
  CHECK(cut.cut == 1);
  // [CLS] four tokens [SEP], by hand
  std::vector<int> ids = tokenizer.encode_marked(text).ids;
  REQUIRE(ids.size() > 6);
  Batch batch;
  batch.token.assign(ids.begin(), ids.begin() + 5), batch.token.push_back(ids.back());
  batch.length = {6}, batch.example = {0};
  Ctx ctx;
  const Array mean = segment_mean(tiny.model->forward(batch, ctx).rows, {6}).value();
  CHECK(same_bits(cut.rows.slice(0, 0, 1).clone(), mean));
  contains(error_of([&] { tiny.of({text}, {.max_tokens = 97}); }), "the model has 96 places");
  contains(error_of([&] { tiny.of({text}, {.max_tokens = 2}); }), "leave no room for text");
  contains(error_of([&] { tiny.of({}); }), "there is no text");
}

TEST_CASE("how many texts go through a model at once changes no bit of their embeddings") {
  const Tiny tiny;
  const std::vector<std::string> texts = sentences();
  const Array one = tiny.of(texts, {.batch = 1}).rows;
  CHECK(same_bits(tiny.of(texts, {.batch = 100}).rows, one));
  CHECK(same_bits(tiny.of(texts, {.batch = 7}).rows, one));
}

TEST_CASE("an encoder-decoder's embeddings are its encoder's; a text without a token is named") {
  const std::string_view words = "cab bad face";
  const Tokenizer letters =
      train_bpe(std::span(&words, 1), {.vocab_size = 260, .specials = {"[PAD]"}});
  Arch arch = load_arch(fixture("t5"));
  arch.vocab = letters.size();
  const SmallModel t5(arch);
  const Array got = embed_texts(t5, letters, std::vector<std::string>{"bad cab"}, {}).rows;
  Batch batch;
  for (const int id : letters.encode("bad cab")) batch.token.push_back(id);
  batch.length = {static_cast<int>(batch.token.size())}, batch.example = {0};
  Ctx ctx;
  const Tensor rows = t5.encoder->forward(batch, ctx).rows;
  CHECK(same_bits(got, segment_mean(rows, batch.length).value()));
  contains(error_of([&] {
             embed_texts(t5, letters, std::vector<std::string>{"cab", ""}, {});
           }),
           "text 2 has no token");
  arch.vocab = 20;
  const SmallModel small(arch);
  contains(error_of([&] { embed_texts(small, letters, std::vector<std::string>{"cab"}, {}); }),
           "the model only 20");
}
