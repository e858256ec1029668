// GLUE's tasks as published (Wang et al. 2018, 1804.07461).
#include <algorithm>
#include <fstream>
#include <string_view>

#include "experiments/data/task_description.h"
#include "experiments/data/text_clean.h"
#include "tensor/error.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

struct Glue {
  const char *name, *header, *a, *b, *label, *metric, *dev;
  int train_rows, dev_rows;  // 0: published in more than one version
  // As T5 was trained on it: prefix, names of a and b, words of the labels 0 and 1.
  const char *prefix, *a_field, *b_field, *words[2] = {"", ""};
};
constexpr const char* kColaColumns = "source\tlabel\tmark\tsentence";
constexpr Glue kGlue[] = {
    {"CoLA",
     kColaColumns,
     "sentence",
     "",
     "label",
     "matthews",
     "dev.tsv",
     8551,
     1043,
     "cola",
     "sentence",
     "",
     {"unacceptable", "acceptable"}},
    {"SST-2",
     "sentence\tlabel",
     "sentence",
     "",
     "label",
     "accuracy",
     "dev.tsv",
     67349,
     872,
     "sst2",
     "sentence",
     "",
     {"negative", "positive"}},
    {"MRPC",
     "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
     "#1 String",
     "#2 String",
     "Quality",
     "accuracy",
     "dev.tsv",
     0,
     0,
     "mrpc",
     "sentence1",
     "sentence2",
     {"not_equivalent", "equivalent"}},
    {"STS-B",
     "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
     "sentence1", "sentence2", "score", "pearson", "dev.tsv", 5749, 1500, "stsb", "sentence1",
     "sentence2"},
    {"QQP",
     "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
     "question1",
     "question2",
     "is_duplicate",
     "accuracy",
     "dev.tsv",
     0,
     0,
     "qqp",
     "question1",
     "question2",
     {"not_duplicate", "duplicate"}},
    {"MNLI",
     "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
     "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
     "sentence1", "sentence2", "gold_label", "accuracy", "dev_matched.tsv", 392702, 9815, "mnli",
     "premise", "hypothesis"},
    {"QNLI", "index\tquestion\tsentence\tlabel", "question", "sentence", "label", "accuracy",
     "dev.tsv", 0, 0, "qnli", "question", "sentence"},
    {"RTE", "index\tsentence1\tsentence2\tlabel", "sentence1", "sentence2", "label", "accuracy",
     "dev.tsv", 0, 0, "", "sentence1", "sentence2"}};  // and WNLI, whose files look the same

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  Lines(in).next(line);
  return line;
}

// CoLA's files have no header: "gj04 TAB 1 TAB TAB sentence".
bool is_cola(const std::string& line) {
  const auto fields = split(line, '\t');
  return fields.size() == 4 && (fields[1] == "0" || fields[1] == "1") &&
         (fields[2].empty() || fields[2] == "*");
}

// Whether the first rows have GLUE's labels 0 and 1, where the task has those: "sentence TAB label"
// is a header that others write, too.
bool fits(const fs::path& train, const Glue& g) {
  constexpr int kLooked = 20;
  if (!*g.words[0]) return true;
  std::ifstream in(train);
  Lines lines(in);
  std::string line;
  lines.next(line);
  const auto columns = split(g.header, '\t');
  const auto label =
      static_cast<std::size_t>(std::ranges::find(columns, g.label) - columns.begin());
  while (lines.number() <= kLooked && lines.next(line)) {
    const auto fields = split(line, '\t');
    if (fields.size() != columns.size()) continue;
    const std::string_view field = trim(fields[label]);
    if (field != "0" && field != "1") return false;
  }
  return true;
}

const Glue* glue_of(const fs::path& folder) {
  const std::string line = first_line(folder / "train.tsv");
  for (const Glue& g : kGlue)
    if (line == g.header || (g.header == kColaColumns && is_cola(line)))
      return fits(folder / "train.tsv", g) ? &g : nullptr;
  return nullptr;
}

// -1 stands for a label that is kept back.
bool has_labels(const fs::path& test, const Glue& g) {
  if (!fs::exists(test) || first_line(test) != g.header) return false;
  std::ifstream in(test);
  std::string header, row;
  std::getline(in, header), std::getline(in, row);
  const auto columns = split(g.header, '\t'), fields = split(row, '\t');
  for (std::size_t i = 0; i < std::min(columns.size(), fields.size()); ++i)
    if (columns[i] == g.label) return trim(fields[i]) != "-1";
  return false;
}

Description described(const Glue& g, const fs::path& folder) {
  Description d;
  d.name = folder_name(folder), d.format = "tsv", d.metric = g.metric;
  d.kind = std::string_view(g.label) == "score" ? TaskData::Kind::regression
                                                : TaskData::Kind::classification;
  // Its own test has no labels; one that has them is not GLUE's, and is used.
  const fs::path test = folder / "test.tsv";
  const bool labelled = has_labels(test, g);
  d.files = {{"train", "train.tsv"}, {"test", labelled ? "test.tsv" : g.dev}};
  if (labelled && fs::exists(folder / g.dev)) d.files["dev"] = g.dev;
  d.a = g.a, d.b = g.b, d.label = g.label;
  if (g.header == kColaColumns)
    for (const auto column : split(kColaColumns, '\t')) d.header.emplace_back(column);
  if (g.train_rows > 0 && !labelled) d.rows = {{"train", g.train_rows}, {"test", g.dev_rows}};
  d.prefix = g.prefix, d.fields = {g.a_field};
  if (*g.b_field) d.fields.emplace_back(g.b_field);
  if (*g.words[0]) d.labels = {"0", "1"}, d.words = {g.words[0], g.words[1]};
  d.note = labelled
               ? fmt::format("in the form of GLUE's {}, with a test.tsv that has labels", g.name)
               : fmt::format(
                     "GLUE's {}: test is the published {} (its own test has no labels), dev a "
                     "tenth of train",
                     g.name, g.dev);
  d.known_by =
      fmt::format("read as GLUE's {} by its header; a task.json describes other files", g.name);
  d.note += "; " + d.known_by;
  return d;
}

}  // namespace

std::string folder_name(const fs::path& folder) {
  return fs::absolute(folder / "x").lexically_normal().parent_path().filename();
}

std::optional<Description> glue_folder(const fs::path& folder) {
  const Glue* glue = glue_of(folder);
  if (!glue) return std::nullopt;
  return described(*glue, folder);
}

}  // namespace graft::data
