// The pretraining corpus: Debian's dictionaries, fortunes, Bibles and novels as clean plain text,
// without WordNet.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace graft {

// Called with one line about what is being read; may be empty.
using CorpusProgress = std::function<void(std::string_view)>;

// Reads what experiments/data/fetch.sh unpacked into `packages` and writes into `out`
//   corpus.train.txt, corpus.heldout.txt  one paragraph or dictionary entry per line; a blank line
//                                         ends a document (a dictionary's letter, a Bible's book, a
//                                         novel)
//   corpus.json                           words and bytes per source, and what was dropped
// Documents stand in reading order. A line is held out where the md5 of its text says so (1 %).
// A part that shares eight running words with a WordNet definition or example is dropped, and so is
// a line seen before. The same packages give the same bytes. Each file is written under a temporary
// name and renamed. Throws Error where a package lacks a file or a file is malformed.
void build_corpus(const std::filesystem::path& packages, const std::filesystem::path& out,
                  const CorpusProgress& progress = {});

}  // namespace graft
