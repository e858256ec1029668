// Files of rows and tasks that are wrong or mean harm: one clear Error each, and soon.
#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/data/row_files.h"
#include "experiments/data/task_files.h"
#include "experiments/data/task_folders.h"
#include "experiments/data/text_clean.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

using data::RowFile;
using Reader = RowFile (*)(const fs::path&);

constexpr std::pair<const char*, Reader> kReaders[] = {
    {"csv", [](const fs::path& file) { return data::read_csv(file); }},
    {"tsv", [](const fs::path& file) { return data::read_tab_separated(file); }},
    {"jsonl", [](const fs::path& file) { return data::read_json_rows(file, false); }},
    {"json", [](const fs::path& file) { return data::read_json_rows(file, true); }},
    {"e2e",
     [](const fs::path& file) {
       return data::read_lines(file, "||", {"slots", "text"});
     }},
    {"text", [](const fs::path& file) { return data::read_lines(file, "", {"text"}); }}};

struct Rows : Folder {
  std::string path_of(const std::string& text) const {
    std::ofstream(path / "rows", std::ios::binary) << text;
    return (path / "rows").string();
  }
  std::string error(Reader read, const std::string& text) const {
    const std::string file = path_of(text);
    const std::string said = error_of([&] { read(file); });
    if (said != "(no error)")
      CHECK(said.starts_with(file + (said[file.size()] == ':' ? ":" : " ")));
    CHECK(said.size() < 11'000);
    return said;
  }
};

// A value of RunSpec that is wrong, as JSON.
std::string run_error(const char* key, const nlohmann::json& value) {
  return error_of([&] { RunSpec::from({{key, value}}); });
}

}  // namespace

TEST_CASE("rows that hold a zero byte or are not UTF-8 are refused with their line") {
  const Rows rows;
  const std::string zero("a\nb\0\n", 5), utf16(
                                             "\xff\xfe"
                                             "a\0\n\0",
                                             6);
  for (const auto& reader : kReaders) {
    CAPTURE(reader.first);
    const auto read = reader.second;
    contains(rows.error(read, zero), ":2: a zero byte; need text in UTF-8 (is the file UTF-16");
    contains(rows.error(read, utf16), ":1: a byte that is not valid UTF-8");
    contains(rows.error(read, "a\n\n\xed\xa0\x80"), ":3: a byte that is not valid UTF-8");
    CHECK(rows.error(read, "") != "(no error)");
  }
  for (const char* name : {"train.tsv", "dev.tsv", "test.tsv"})
    write_file_atomically(rows / name, "label\ta\nx\tone\ny\ttwo\n");
  CHECK(error_of([&] { load_tsv_task(rows.path); }) == "(no error)");
  write_file_atomically(rows / "dev.tsv", std::string("label\ta\nx\to\0e\n", 14));
  contains(error_of([&] { load_tsv_task(rows.path); }), "dev.tsv:2: a zero byte");
}

TEST_CASE("a CSV of 50 MB with a quote that never closes is refused with the quote's line") {
  const Rows rows;
  std::string text = "a,b\n1,\"";
  text.resize(50'000'000, 'x');
  for (std::size_t i = 100; i < text.size(); i += 100) text[i] = '\n';
  contains(rows.error(kReaders[0].second, text), ":2: a quote that never closes");
}

TEST_CASE("a table of a million columns is read, and an error about it is short") {
  const Rows rows;
  std::string header, row;
  for (int i = 0; i < 1'000'000; ++i) header += fmt::format("{}{}", i ? "\t" : "", i), row += "\t";
  row.pop_back();
  const RowFile f = data::read_tab_separated(rows.path_of(header + "\n" + row + "\n"));
  CHECK(f.columns.size() == 1'000'000);
  CHECK(f.column("999999") == 999'999);
  const std::string said = error_of([&] { (void)f.column("label"); });
  contains(said, "no column 'label'; there are 0, 1, 2");
  contains(said, " bytes left out) ... ");
  CHECK(said.size() < 11'000);
  contains(rows.error(kReaders[1].second, header + "\n1\t2\n"), ":2: 2 fields; there are 1000000");
  contains(rows.error(kReaders[1].second, header + "\t999999\n"), "a column is there twice");
}

TEST_CASE("rows of JSON are refused with their line where a key is wrong") {
  const Rows rows;
  const auto lines = [&](const std::string& text) { return rows.error(kReaders[2].second, text); };
  CHECK(lines("{\"a\": 1, \"b\": 2}\n{\"b\": \"x\", \"a\": true}\n") == "(no error)");
  const RowFile f = data::read_json_rows(rows / "rows", false);
  CHECK(f.rows == std::vector<std::vector<std::string>>{{"1", "2"}, {"true", "x"}});
  contains(lines("{\"a\": 1}\n{\"a\": 1, \"a\": 2}\n"), ":2: key 'a' is there twice");
  contains(lines("{\"a\": 1}\n{\"b\": 1}\n"), ":2: key 'b', which the first row lacks");
  contains(lines("{\"a\": 1, \"b\": 1}\n{\"a\": 1}\n"), ":2: no key 'b', which the first row has");
  contains(lines("{\"a\": {}}\n"), ":1: a is object; need a text or a number");
  contains(lines("{}\n"), ":1: an empty object; need an object with a key");
  contains(lines("[1]\n"), ":1: array; need an object");
  contains(lines("{\"a\": 1e999}\n"), ":1: not JSON");
  contains(lines("{\"a\": " + std::string(100'000, '[') + "}\n"),
           ":1: objects and arrays are nested");
  std::string many = "{";
  for (int i = 0; i < 10'001; ++i) many += fmt::format("{}\"{}\": 0", i ? "," : "", i);
  contains(lines(many + "}\n"), ":1: an object has more than 10000 keys");
  contains(rows.error(kReaders[3].second, "{\"a\": 1}"), "object; need an array of objects");
  contains(rows.error(kReaders[3].second, "[{\"a\": 1, \"a\": 1}]"), "key 'a' is there twice");
}

TEST_CASE("a task.json that repeats a key or counts in no numbers is refused") {
  const Folder folder;
  write_file_atomically(folder / "rows.csv", "a,label\nx,yes\ny,no\n");
  const auto refused = [&](const std::string& rest, const char* why) {
    write_file_atomically(folder / "task.json",
                          R"({"format": "csv", "train": "rows.csv")" + rest + "}");
    const std::string said = error_of([&] { load_published_folder(folder.path); });
    contains(said, "task.json: ");
    contains(said, why);
  };
  refused(R"(, "train": "rows.csv")", "key 'train' is there twice");
  refused(R"(, "rows": {"train": 1e300})", "rows has 1e+300; need a number of rows");
  refused(R"(, "rows": {"train": 4294967298})", "rows has 4294967298");
  refused(R"(, "rows": {"train": -1})", "rows has -1");
  refused(R"(, "rows": {"train": 18446744073709551615})", "rows has 18446744073709551615");
  refused(R"(, "rows": [2])", "rows is [2]; need numbers by split");
  refused(R"(, "labels": ["yes", "no", "yes"])", "labels has \"yes\" twice");
  refused(R"(, "labels": ["yes", 1])", "labels has 1; need a list of texts");
  write_file_atomically(folder / "task.json", R"({"format": "csv", "train": "rows.csv\u0000"})");
  contains(error_of([&] { load_published_folder(folder.path); }), "its name holds a zero byte");
  const std::string endless(5000, 'x');  // no file can have this name
  CHECK(!is_task_folder(endless));
  contains(error_of([&] { task_named(endless); }), "no folder with a train.tsv");
}

TEST_CASE("compressed data that was cut off or damaged is refused at every length") {
  // What gzip makes of "a text, a text, a text".
  const std::string packed(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x54\x28\x49\xad\x28\xd1\x51\x48\x44\xa1\x01\x83"
      "\x94\x1c\xda\x16\x00\x00\x00",
      30);
  CHECK(data::inflate(packed, "here") == "a text, a text, a text");
  for (std::size_t size = 0; size < packed.size(); ++size)
    CHECK(error_of([&] { data::inflate(std::string_view(packed).substr(0, size), "here"); }) ==
          "here: damaged or cut-off compressed data");
  for (const std::size_t at : {0, 12, 24, 27}) {
    std::string damaged = packed;
    damaged[at] = char(damaged[at] ^ 0x55);
    contains(error_of([&] { data::inflate(damaged, "here"); }), "here: damaged");
  }
}

TEST_CASE("a run's numbers that do not fit their fields are refused, not cut") {
  contains(run_error("epochs", 4294967297), "key 'epochs' has the wrong type or size");
  contains(run_error("seed", 4294967296), "key 'seed' has the wrong type or size");
  contains(run_error("batch", -4294967297), "key 'batch' has the wrong type or size");
  contains(run_error("epochs", 18446744073709551615u), "key 'epochs' has the wrong type or size");
  contains(run_error("batch", 1.5), "key 'batch' has the wrong type or size");
  CHECK(run_error("seed", 4294967295) == "(no error)");
}
