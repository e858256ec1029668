#include "nn/text/hub_files.h"

#include "nn/files/atomic.h"
#include "nn/text/hub_class.h"
#include "nn/text/hub_json.h"
#include "tensor/error.h"

namespace graft {

namespace fs = std::filesystem;

HubFile read_hub_tokenizer(const fs::path& path) {
  if (!fs::is_directory(path)) return {path.string(), read_file(path)};
  if (fs::exists(path / "tokenizer.json"))
    return {(path / "tokenizer.json").string(),
            as_its_class_reads(path, read_file(path / "tokenizer.json"))};
  const auto made = [&](const char* file, const Json& root) -> HubFile {
    return {(path / file).string(), root.dump(2) + "\n"};
  };
  for (const char* pieces : {"spiece.model", "tokenizer.model"})
    if (fs::exists(path / pieces))
      return made(pieces, sentencepiece_tokenizer(path / pieces, HubConfig(path)));
  for (const char* vocab : {"vocab.json", "encoder.json"})
    for (const char* merges : {"merges.txt", "vocab.bpe"})
      if (fs::exists(path / vocab) && fs::exists(path / merges))
        return made(vocab, byte_level_tokenizer(path / vocab, path / merges, HubConfig(path)));
  if (fs::exists(path / "vocab.txt"))
    return made("vocab.txt", word_piece_tokenizer(path / "vocab.txt", HubConfig(path)));
  fail(
      "{}: no tokenizer; need tokenizer.json, or vocab.json and merges.txt, or vocab.txt, or "
      "spiece.model, or tokenizer.model",
      path.string());
}

}  // namespace graft
