// Records, grids, tables, pages and figures: the harness without a model.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"
#include "experiments/harness/progress.h"
#include "experiments/harness/record.h"
#include "nn/files/atomic.h"
#include "tensor/error.h"
#include "tests/experiments/claims.h"
#include "tests/nn/folder.h"

using namespace graft;
using graft::testing::case_of;
using graft::testing::effect_of;
using graft::testing::error_of;
using graft::testing::Folder;
namespace fs = std::filesystem;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

Run run_of(std::uint64_t seed, std::size_t examples = 3) {
  Run run;
  run.experiment = "rank";
  run.arm = {{{"lora", {{"r", 8}}}, {"lr", 3e-4}}, seed};
  run.core = "Haswell";
  run.weights_hash = "00ff";
  run.metrics = {{"accuracy", 0.75}, {"slope", std::nan("")}};
  run.predictions = {{"test", {0, 2, 1}}};
  run.scores["test"] = std::vector<float>(examples, 1.0f);
  run.scores["test"][0] = 0.25f;
  run.seconds = 1.5;
  run.peak_bytes = 1u << 30;
  return run;
}

void append_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::app | std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("the hash is FNV-1a with 128 bits") {
  CHECK(fnv1a_128("") == "6c62272e07bb014262b821756295c58d");
  CHECK(fnv1a_128("a") == "d228cb696f1a8caf78912b704e4a8964");
  CHECK(fnv1a_128("foobar") == "343e1662793c64bf6f0d3597ba446f18");
}

TEST_CASE("an arm's key depends on the values of its configuration alone") {
  Arm a{{{"r", 8}, {"lr", 1.0}}, 1}, b{{{"lr", 1}, {"r", 8}}, 1}, c{{{"lr", 1}, {"r", 8}}, 2};
  CHECK(a.key() == b.key());
  CHECK(b.key() != c.key());
  CHECK(a.key().size() == 32);
  CHECK(canonical({{"b", 2.0}, {"a", {1.5, -0.0}}}) == R"({"a":[1.5,0],"b":2})");
  CHECK_THROWS_AS(canonical(std::nan("")), Error);
}

TEST_CASE("grids multiply, add and nest") {
  Grid grid = one("task", "mnli") * (one("method", "lora") * axis("lora.r", {1, 2, 4}) +
                                     one("method", "full") * axis("lr", {1e-4, 3e-4}));
  REQUIRE(grid.points.size() == 5);
  CHECK(grid.points[1] ==
        nlohmann::json{{"task", "mnli"}, {"method", "lora"}, {"lora", {{"r", 2}}}});
  Grid merged = axis("", {{{"on", "q"}, {"r", 8}}, {{"on", "qv"}, {"r", 4}}}) * one("lora.r", 1);
  CHECK(merged.points[1] == nlohmann::json{{"on", "qv"}, {"r", 4}, {"lora", {{"r", 1}}}});
  std::uint64_t seeds[] = {1, 2};
  auto arms = expand(grid, seeds);
  REQUIRE(arms.size() == 10);
  CHECK(arms[4].seed == 1);
  CHECK(arms[5].seed == 2);
  CHECK(has(error_of([] { one("lora.r", 1) * one("lora.r", 2); }), "lora.r is set twice"));
  CHECK(has(error_of([&] { expand(grid + grid, seeds); }), "comes twice"));
  CHECK(has(error_of([&] { expand(Grid{}, seeds); }), "empty"));
}

TEST_CASE("shards are disjoint, together everything, and of even size") {
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t s = 0; s < 25; ++s) seeds.push_back(s);
  auto arms = expand(axis("r", {1, 2, 4, 8}), seeds);
  std::multiset<std::string> keys;
  for (int i = 0; i < 7; ++i) {
    auto part = select(arms, parse_shard(fmt::format("{}/7", i)));
    CHECK(part.size() >= 14);
    CHECK(part.size() <= 15);
    for (const Arm& arm : part) keys.insert(arm.key());
  }
  CHECK(keys.size() == 100);
  CHECK(std::set<std::string>(keys.begin(), keys.end()).size() == 100);
  for (const char* bad : {"8/8", "-1/8", "1", "a/b", "1/0", "1/8 "})
    CHECK_THROWS_AS(parse_shard(bad), Error);
}

TEST_CASE("a run survives its line") {
  Run run = from_line(to_line(run_of(7)));
  CHECK(run.arm.key() == run_of(7).arm.key());
  CHECK(run.metrics["accuracy"] == 0.75);
  CHECK(std::isnan(run.metrics["slope"]));
  CHECK(run.scores == run_of(7).scores);
  CHECK(run.predictions == run_of(7).predictions);
  CHECK(run.peak_bytes == 1u << 30);
  std::string line = to_line(run_of(7));
  line.replace(line.find("\"r\":8"), 5, "\"r\":9");
  CHECK(has(error_of([&] { from_line(line); }), "does not fit"));
  CHECK(has(error_of([] { from_line("{\"keys\": 1}"); }), "unknown field"));
}

TEST_CASE("recorded runs are found again, by every reader, from every shard's file") {
  Folder folder;
  CHECK(Records(folder.path / "none").runs().empty());
  {
    Records first(folder.path, "0of2"), second(folder.path, "1of2");
    first.append(run_of(1));
    second.append(run_of(2));
    CHECK(has(error_of([&] { first.append(run_of(1)); }), "recorded already"));
    CHECK(has(error_of([&] { Records(folder.path, "0of2"); }), "another process"));
  }
  Records all(folder.path);
  CHECK(all.runs().size() == 2);
  CHECK(all.has("rank", RunKind::full, run_of(2).arm));
  CHECK_FALSE(all.has("rank", RunKind::quick, run_of(2).arm));
  CHECK_FALSE(all.has("other", RunKind::full, run_of(2).arm));
  CHECK_THROWS_AS(all.append(run_of(3)), Error);
  std::uint64_t seeds[] = {2, 1}, more[] = {1, 3};
  CHECK(scores_of(all, "rank", RunKind::full, run_of(1).arm.config, seeds, "test").size() == 2);
  CHECK(has(
      error_of([&] { scores_of(all, "rank", RunKind::full, run_of(1).arm.config, more, "test"); }),
      "seed 3"));
}

TEST_CASE("a record cut off at any byte costs that record and nothing else") {
  Folder folder;
  fs::path path = folder.path / "runs.all.jsonl";
  std::string whole = to_line(run_of(1)) + "\n", torn = to_line(run_of(2)) + "\n";
  for (std::size_t kept = 0; kept < torn.size(); kept += 1 + kept / 20) {
    write_file_atomically(path, whole + torn.substr(0, kept));
    CHECK(Records(folder.path).runs().size() == 1);
    CHECK(read_file(path).size() == whole.size() + kept);  // a reader changes nothing
    Records records(folder.path, "all");
    CHECK(records.notes().size() == (kept > 0 ? 1 : 0));
    records.append(run_of(3));
    CHECK(read_file(path) == whole + to_line(run_of(3)) + "\n");
  }
  write_file_atomically(path, whole + std::string(40, '\0') + "\n");
  CHECK(Records(folder.path, "all").notes().size() == 1);
  write_file_atomically(path, "{broken\n" + whole);
  CHECK(has(error_of([&] { Records records(folder.path); }), "line 1"));
}

TEST_CASE("one run with two different results is an error") {
  Folder folder;
  Run other = run_of(1);
  append_bytes(folder.path / "runs.0of1.jsonl", to_line(other) + "\n");
  append_bytes(folder.path / "runs.0of2.jsonl", to_line(other) + "\n");
  CHECK(Records(folder.path).notes().size() == 1);
  other.weights_hash = "beef";
  append_bytes(folder.path / "runs.1of2.jsonl", to_line(other) + "\n");
  CHECK(has(error_of([&] { Records records(folder.path); }), "twice with different"));
}

TEST_CASE("a writer killed at a random moment loses no finished run") {
  Folder folder;
  std::uint64_t next = 0, random = 88172645463325252u;
  for (int round = 0; round < 40; ++round) {
    int reports[2];
    REQUIRE(::pipe(reports) == 0);
    pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      Records records(folder.path, "all");
      for (std::uint64_t seed = next;; ++seed) {
        records.append(run_of(seed, 2000));
        if (::write(reports[1], &seed, sizeof seed) != sizeof seed) ::_exit(1);
      }
    }
    ::close(reports[1]);
    std::set<std::uint64_t> finished;
    std::uint64_t seed = 0;
    auto hear = [&] { return ::read(reports[0], &seed, sizeof seed) == sizeof seed; };
    if (hear()) finished.insert(seed);  // it has begun to write
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    ::usleep(random % 8000);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (hear()) finished.insert(seed);
    ::close(reports[0]);

    Records records(folder.path, "all");
    for (std::uint64_t s : finished) CHECK(records.has("rank", RunKind::full, run_of(s).arm));
    // The child may have been killed between its append and its report: at most one more.
    std::uint64_t before = next;
    next = records.runs().size();
    CHECK(next - before - finished.size() <= 1);
  }
  CHECK(next >= 40);
}

TEST_CASE("the time left comes from arms of like cost") {
  Remaining left({"small", "small", "large", "large"});
  CHECK_FALSE(left.seconds());
  left.finished("small", 10);
  CHECK(*left.seconds() == doctest::Approx(30));  // nothing better is known of the large ones
  left.finished("large", 100);
  CHECK(*left.seconds() == doctest::Approx(110));
  CHECK_THROWS_AS(left.finished("medium", 1), Error);
  CHECK(duration(48.2) == "48 s");
  CHECK(duration(420) == "7 min");
  CHECK(duration(7500) == "2 h 05 min");
  CHECK(duration(3600 * 76.0) == "3 d 04 h");
}

TEST_CASE("progress rewrites one line on a terminal and prints plain lines elsewhere") {
  for (bool terminal : {false, true}) {
    char* buffer = nullptr;
    std::size_t size = 0;
    std::FILE* out = ::open_memstream(&buffer, &size);
    {
      Progress progress({"a", "a"}, out, terminal);
      progress.starting("r=1");
      progress.finished("r=1", "a", 5);
    }
    std::fclose(out);
    std::string text(buffer, size);
    std::free(buffer);
    CHECK(has(text, "[1/2] r=1"));
    CHECK(has(text, "[1/2 done, about 5 s left] r=1: 5 s"));
    CHECK(std::count(text.begin(), text.end(), '\n') == (terminal ? 1 : 2));
    CHECK(std::count(text.begin(), text.end(), '\r') == (terminal ? 2 : 0));
  }
}

TEST_CASE("steps are told now and then, with the time left, and the last one always") {
  char* buffer = nullptr;
  std::size_t size = 0;
  std::FILE* out = ::open_memstream(&buffer, &size);
  {
    StepProgress progress(out, true);
    for (int step = 11; step < 2000; ++step) progress.at(step, 2000, 1.25);
    ::usleep(1100000);
    progress.at(1999, 2000, 1.25);
    progress.at(2000, 2000, 0.5);
  }
  std::fclose(out);
  const std::string text(buffer, size);
  std::free(buffer);
  CHECK(has(text, "\r\x1b[Kstep 1999/2000  loss 1.2500  about 0 s left"));
  CHECK(text.ends_with("\r\x1b[Kstep 2000/2000  loss 0.5000  about 0 s left\n"));
  CHECK(std::count(text.begin(), text.end(), '\r') < 20);
}

TEST_CASE("rows are told on a terminal after a second, and the line is gone at the end") {
  for (const bool terminal : {true, false}) {
    char* buffer = nullptr;
    std::size_t size = 0;
    std::FILE* out = ::open_memstream(&buffer, &size);
    {
      RowProgress progress(out, 400, terminal);
      progress.at(1);
      ::usleep(1100000);
      progress.at(100);
      progress.at(101);
    }
    std::fclose(out);
    const std::string text(buffer, size);
    std::free(buffer);
    CHECK(text.starts_with(terminal ? "\r\x1b[K100/400 rows, about " : ""));
    CHECK(text.ends_with(terminal ? " s left\r\x1b[K" : ""));
    CHECK(std::count(text.begin(), text.end(), '/') == (terminal ? 1 : 0));
    CHECK(text.empty() != terminal);
  }
}

TEST_CASE("tuning is fair when all arms had one search and no best rate is at an edge") {
  auto tuning = [](std::string arm, std::size_t best) {
    Tuning t{std::move(arm), "t", {}, 2};
    for (std::size_t i = 0; i < 5; ++i)
      t.trials.push_back(
          {1e-4 * std::pow(10, 0.5 * static_cast<double>(i)), i == best ? 80. : 70., 0.5, 3});
    return t;
  };
  std::vector<Tuning> fair = {tuning("lora", 2), tuning("full", 1)};
  check_fair(fair);
  CHECK(has(tuning_table(fair).text(), "80.00 (0.50)*"));
  std::vector<Tuning> edge = {tuning("lora", 2), tuning("full", 4)};
  CHECK(has(error_of([&] { check_fair(edge); }), "edge"));
  fair[1].trials.pop_back();
  CHECK(has(error_of([&] { check_fair(fair); }), "same search"));
  // The arms of another task were not compared with those, and may have had another grid.
  for (Tuning& t : edge) t.trials.resize(5, {1e-2 * std::sqrt(10.), 60, 0.5, 3});
  edge.pop_back(), edge[0].task = "u";
  fair[1] = tuning("full", 1), fair.push_back(edge[0]);
  fair[2].trials.push_back({1e-1, 60, 0.5, 3});
  fair[2].trials.back().rate = fair[2].trials[4].rate * std::sqrt(10.);
  check_fair(fair);
  fair[2].trials[0].score = -std::numeric_limits<double>::infinity();
  CHECK(has(tuning_table(fair).text(), "diverged"));
}

TEST_CASE("a page escapes every text and needs nothing from outside") {
  Page page("a < b & \"c\"");
  page.summary("<script>1</script>");
  page.section("<s>");
  page.question("why <q>?");
  page.facts("<h>", {{"<n>", "<v>"}});
  page.paragraph("<p0>");
  page.table({"<cap>", {{"<col>", "<group>"}}, {{"<cell>"}}});
  page.figure("<?xml?><svg viewBox=\"0 0 640 400\"><g id='x'/><use href='#x'/></svg>", "<fig>");
  page.claims(judge(std::vector{case_of("<id>", {Test::Kind::above, 0}, effect_of(5, 1))}));
  page.notes(std::vector<std::string>{"<note>"});
  std::string html = page.html();
  for (const char* raw : {"<script", "<s>", "<q>", "<h>", "<n>", "<v>", "<p0>", "<cap>", "<col>",
                          "<group>", "<cell>", "<fig>", "<id>", "<note>", "http", "<?xml"})
    CHECK_MESSAGE(!has(html, raw), raw);
  for (const char* kept : {"a &lt; b &amp; &quot;c&quot;", "&lt;cell&gt;", "badge held",
                           "id='f1-x'", "href='#f1-x'", "Figure 1.", "Table 1."})
    CHECK_MESSAGE(has(html, kept), kept);
}

TEST_CASE("a result table keeps this run, the committed run and the paper apart") {
  Result result{"LoRA", "0.3 %", Measure{81.6, Interval{79.3, 83.9}, 5}, {}, "73.8", "0.02 %", ""};
  Table table = result_table("", "accuracy", std::vector{result}, 1);
  CHECK(has(table.text(), "81.6 [79.3, 83.9]"));
  result.now->interval.reset(), result.diverged_now = 1, result.diverged_committed = 2;
  const std::string lost = result_table("", "accuracy", std::vector{result}, 1).text();
  for (const char* part : {"81.6 [–]", "5, 1 diverged", " diverged  ", "2 diverged"})
    CHECK_MESSAGE(has(lost, part), part);
  std::set<std::string> groups;
  for (const Column& c : table.columns) groups.insert(c.group);
  CHECK(groups == std::set<std::string>{"", "this run", "committed full run", "paper"});
  table.rows[0].pop_back();
  CHECK_THROWS_AS(table.text(), Error);
}

TEST_CASE("a share has two digits, and the whole is 100 %") {
  CHECK(share_in_words(0.0031, 1) == "0.31 %");
  CHECK(share_in_words(6912000, 6957632) == "99 %");
  CHECK(share_in_words(99.6, 100) == "100 %");
  CHECK(share_in_words(5, 5) == "100 %");
}

TEST_CASE("a run that diverged says so, and an older one by its missing score on dev") {
  Run run = run_of(1);
  CHECK_FALSE(diverged(run));  // a metric that is no number is no sign of it
  run.scores.clear();
  CHECK_FALSE(diverged(run));
  run.metrics["dev"] = std::nan("");
  CHECK(diverged(from_line(to_line(run))));
  run.metrics = {{"diverged", 1}};
  CHECK(diverged(run));
}

TEST_CASE("figures are drawn with their script and data beside them") {
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) {
    MESSAGE("SKIPPED: gnuplot is not installed");
    return;
  }
  Folder folder;
  LinePlot lines{"rank <r>", true, {"it's ours", "accuracy_%", {}, {{"full", 74, {}}}}, {}};
  lines.ours.series = {{"empty", {{1, std::nan(""), {}}}},
                       {"{q} & more", {{1, 70, Interval{69, 71}}, {64, 72, {}}}}};
  lines.paper = Panel{"Paper", "accuracy", {{"{q} & more", {{1, 68, {}}, {64, 70, {}}}}}, {}};
  std::string svg = draw(lines, folder.path / "a plot's");
  for (const char* part : {"it&apos;s ours", "{q} &amp; more", "Paper", "class=\"paper\""})
    CHECK_MESSAGE((has(svg, part) || has(svg, "it's ours")), part);
  for (const char* end : {".svg", ".gp", ".dat"})
    CHECK(fs::exists(folder.path / (std::string("a plot's") + end)));
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 3);
  GroupPlot bars{"", {"a", "b"}, true, {"t", "y", {{"s", {{0, 1, {}}, {1, -2, {}}}}}, {}}, {}};
  CHECK(has(draw(bars, folder.path / "bars"), "</svg>"));
  HeatMap map{"t", "x", "y", "z", {"0", "1"}, {"0", "1"}, {{1, 2}, {std::nan(""), 3}}};
  CHECK(has(draw(map, folder.path / "map"), "3.0"));
  lines.ours.series[1].points[0].x = 0;
  CHECK(has(error_of([&] { draw(lines, folder.path / "bad"); }), "logarithmic"));
  map.cells[1] = {1};
  CHECK_THROWS_AS(draw(map, folder.path / "bad"), Error);
}
