// The `graft` program as its user runs it: output, errors, exit codes.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "nn/files/atomic.h"
#include "tests/experiments/program.h"
#include "tests/experiments/small_language.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("graft trains an adapter of a language task and generates with it") {
  const Shelf shelf;
  const std::string out = (shelf.folder / "run").string();
  Said s = graft_says(shelf.folder.path, "train --model decoder --task '" + shelf.task() +
                                             "' --method lora:r=2 --epochs 1 --lr 1e-2 --out '" +
                                             out + "'");
  CAPTURE(s.text);
  CHECK(s.status == 0);
  contains(s.text, "adapter in " + out);
  s = graft_says(shelf.folder.path, "generate --adapter '" + out +
                                        "/adapter' --prompt wolf --prompt hen "
                                        "--max-tokens 5 --beams 2");
  CHECK(s.status == 0);
  contains(s.text, "wolf\n  -> ");
  contains(s.text, "hen\n  -> ");
  s = graft_says(shelf, "eval '" + out + "/adapter' --generate");
  CHECK(s.status == 0);
  contains(s.text, "test loss ");
  contains(s.text, "of 7 written answers");
  const Said bare = graft_says(shelf, "generate --model decoder --prompt wolf --max-tokens 3");
  CHECK(bare.status == 0);
  CHECK(bare.text.ends_with("\n"));
}

TEST_CASE("graft exports an adapter for PEFT, imports it again and starts from it") {
  const Shelf shelf;
  const std::string at = shelf.folder.path.string() + "/";
  const std::string task = " --model decoder --task '" + shelf.task() + "'";
  const auto run = [&](const std::string& arguments) {
    const Said s = graft_says(shelf, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == 0);
    return s.text;
  };
  run("train" + task + " --method lora:r=2,on=q+v --epochs 1 --lr 1e-2 --out " + at + "run");
  contains(run("export " + at + "run/adapter --out " + at + "peft"), "PEFT folder in ");
  contains(run("import " + at + "peft" + task + " --out " + at + "back"),
           "lora:r=2,alpha=2,on=q+v in ");
  CHECK(run("eval " + at + "back") == run("eval " + at + "run/adapter"));
  const std::string again =
      run("train" + task + " --init " + at + "peft --epochs 1 --lr 1e-9 --out " + at +
          "again --log " + at + "log");
  contains(again, "starts from " + at + "peft: lora:r=2,alpha=2,on=q+v");
  CHECK(run("eval " + at + "again/adapter") == run("eval " + at + "run/adapter"));
  contains(run("replay " + at + "again/run.json"), "the same bits");
  CHECK(read_file(at + "log").starts_with("{"));
}

TEST_CASE(
    "an adapter goes on from its folder, or from PEFT's, to the uninterrupted run's weights") {
  const Shelf shelf;
  const std::string at = shelf.folder.path.string() + "/";
  const auto run = [&](const std::string& arguments, int status = 0) {
    const Said s = graft_says(shelf, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == status);
    return s.text;
  };
  const auto weights = [&](const std::string& arguments) {
    const std::string text = run("train " + arguments);
    const std::size_t from = text.find("weights ");
    return from == std::string::npos ? text : text.substr(from, 24);
  };
  const std::string train =
      "--model decoder --task '" + shelf.task() +
      "' --method ptuning:template=2+a,encoder=lstm,hidden=3 --lr 1e-2 --epochs 3 --out " + at;
  const std::string whole = weights(train + "whole");
  CHECK(weights(train + "first --stop-after 1") != whole);
  contains(run("export " + at + "first/adapter --out " + at + "peft"),
           "`graft train --resume " + at + "peft` goes on");
  CHECK(weights("--resume " + at + "peft --out " + at + "from_peft") == whole);
  CHECK(weights("--resume " + at + "first/adapter --stop-after 2 --out " + at + "second") != whole);
  CHECK(weights("--resume " + at + "second/adapter --out " + at + "third") == whole);
  contains(run("replay " + at + "third/run.json"), "the same bits");
  contains(run("replay " + at + "first/run.json"), "the same bits");

  const std::string again = "train --out " + at + "x --resume " + at;
  contains(run(again + "third/adapter", 1), "is finished: it did 3 of 3 epochs");
  contains(run(again + "second/adapter --epochs 4", 1), "a linear schedule over 4 has other rates");
  contains(run(again + "first/adapter --lr 0.1", 2), "--lr excludes --resume");
  fs::remove(at + "peft/training_state.safetensors");
  contains(run(again + "peft", 1), "`--init` starts from");
  run("train " + train + "bare --stop-after 1 --without-state");
  contains(run(again + "bare/adapter", 1), "has no training_state.safetensors");
  contains(run("train --out " + at + "x", 1), "give --task, or an adapter to --resume");
}

TEST_CASE("an adapter with a head goes to PEFT and comes back with its labels from the task") {
  const Shelf shelf;
  const std::string at = shelf.folder.path.string() + "/";
  write_tsv_task(data(), shelf.folder / "beasts");
  const auto run = [&](const std::string& arguments, int status = 0) {
    const Said s = graft_says(shelf, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == status);
    return s.text;
  };
  const std::string task = " --task " + at + "beasts";
  run("train --model encoder" + task + " --method lora:r=2,on=q+v --head dense --pool cls" +
      " --epochs 1 --lr 1e-2 --out " + at + "run");
  contains(run("export " + at + "run/adapter --out " + at + "peft"),
           "has no class with this head (head=dense, pool=cls): it is `classifier`");
  fs::remove(at + "peft/graft.json");  // as PEFT's own folders are
  const std::string to = "import " + at + "peft --model encoder --out " + at;
  contains(run(to + "x", 1), "has a head of 2 rows; give --task");
  contains(run(to + "x --task " + shelf.task(), 1), "needs no head");
  CHECK(!fs::exists(at + "x"));
  contains(run(to + "mean" + task), "does not say how its head pools: pool=mean is taken");
  run(to + "back" + task + " --pool cls");
  CHECK(run("eval " + at + "back") == run("eval " + at + "run/adapter"));
  contains(run(to + "back" + task + " --pool cls", 1), "has an adapter already");
  contains(
      run("train --model encoder" + task + " --init " + at + "peft --head linear --out " + at + "y",
          1),
      "--head linear, but the adapter in");
  contains(
      run("train --model encoder" + task + " --init " + at + "peft --epochs 1 --out " + at + "y"),
      "the rows of its head are taken for noun.animal, noun.food");
}

TEST_CASE("graft check tries a method alone, two of them, and one with every other") {
  const Shelf shelf;
  const auto run = [&](const std::string& arguments, int status = 0) {
    const Said s = graft_says(shelf, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == status);
    return s.text;
  };
  const std::string alone = run("check lora:r=2,on=q");
  contains(alone, "kept    training goes on from a file, bit for bit: adamw, sgd with momentum");
  CHECK(alone.find("in this order") == std::string::npos);
  const std::string two = run("check 'lora:r=2,on=q|bitfit'");
  contains(two, "kept    both act, in this order, each with its own gradient: merges");
  contains(two, "kept    the other order composes, or is refused with a reason: merges");
  const std::string pairs = run("check ia3 --pairs");
  contains(pairs, "composes  ia3|prompt:length=3 on a small decoder: does not merge: ");
  contains(pairs, "composes  bitfit|ia3 on a small encoder-decoder: merges");
  contains(pairs, "refused   ia3|ia3 on a small encoder: ia3|ia3: two methods make a parameter");
  contains(run("check ia3:k=1 --pairs", 1), "unknown option 'k'");
}

TEST_CASE("graft embed writes a row for each line") {
  const Shelf shelf;
  const std::string at = shelf.folder.path.string() + "/";
  write_file_atomically(at + "lines", "wolf\nthe otter by the river\n");
  const Said s = graft_says(
      shelf, "embed --model encoder --text " + at + "lines --normalize --out " + at + "rows");
  CHECK(s.status == 0);
  contains(s.text, "2 texts, 64 numbers each, in ");
  const SafetensorsReader rows(at + "rows");
  CHECK(rows.at("embeddings").shape == Shape{2, 64});
  CHECK(rows.metadata().at("normalized") == "yes");
}

TEST_CASE("graft ends with one line and a status that is not 0 where a command cannot be done") {
  const Shelf shelf;
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const Said s = graft_says(shelf.folder.path, arguments);
    CAPTURE(arguments);
    CHECK(s.status != 0);
    contains(s.text, why);
    CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
  };
  refused("fly", "no command is called 'fly'");
  refused("generate --model decoder", "no prompt");
  refused("generate --model encoder --prompt wolf", "need a decoder");
  refused("generate --model nowhere --prompt wolf", "model 'nowhere'");
  refused("generate --model decoder --prompt wolf --temperature 0.5", "in sampling only");
  refused("generate --adapter nowhere --prompt wolf", "nowhere");
  refused("eval nowhere", "nowhere");
  refused("export nowhere --out x", "nowhere");
  refused("import nowhere --model decoder --out x", "nowhere");
  refused("embed --model encoder --text nowhere --out x", "cannot read 'nowhere'");
  refused("embed --model encoder --text nowhere --pool max --out x",
          "there are mean, cls and last");
  refused("train --init nowhere --model decoder --task '" + shelf.task() + "' --out x", "nowhere");
  refused("train --model decoder --task nothing --out '" + (shelf.folder / "x").string() + "'",
          "task 'nothing'");
  const std::string there = (shelf.folder / "there").string();
  refused("train --device gpu --model decoder --task nothing --out '" + there + "'",
          "device 'gpu': there are cpu and cuda");
  CHECK_FALSE(std::filesystem::exists(there));
  for (const std::string command : {"train --task ", "multitask --tasks nought,"}) {
    refused(command + "nought --model decoder --out '" + there + "/./below/'", "task 'nought'");
    CHECK_FALSE(std::filesystem::exists(there));  // no folder is left of a command that failed
  }
  std::filesystem::create_directory(there);
  refused("train --task nothing --model decoder --out '" + there + "'", "task 'nothing'");
  CHECK(std::filesystem::exists(there));  // but what was there stays
  refused("count --arch nowhere --method ia3", "'nowhere' is no base, no folder");
  refused("check ia3 --device gpu", "device 'gpu'");
  refused("check ia3 --device cuda --pairs", "excludes");
  refused("eval nowhere --device gpu", "device 'gpu'");
  refused("generate --prompt wolf --device gpu", "device 'gpu'");
  refused("generate --prompt wolf --compute bf16", "the host computes in f32 alone");
  refused("embed --text nowhere --out x --compute int8", "compute int8: there are");
}

TEST_CASE("graft ends with one line and a status that is not 0 where a file means harm") {
  const Shelf shelf;
  const auto put = [&](const std::string& name, const std::string& text) {
    fs::create_directories((shelf.folder.path / name).parent_path());
    write_file_atomically(shelf.folder.path / name, text);
    return "'" + (shelf.folder.path / name).parent_path().string() + "'";
  };
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const Said s = graft_says(shelf, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == 1);
    CHECK(s.text.starts_with("graft: "));
    contains(s.text, why);
    CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
    CHECK(s.text.size() < 11'000);
  };
  const auto changed = [&](const char* key, const nlohmann::json& value) {
    auto config = nlohmann::json::parse(read_file(shelf.folder / "decoder" / "config.json"));
    config[key] = value;
    return config.dump();
  };
  const std::string llama = "--method lora:r=2 --arch ";
  refused("count " + llama + put("deep/config.json", changed("num_hidden_layers", 1 << 24)),
          "16777216 layers; need 512 at most");
  refused("count " + llama + put("nested/config.json", std::string(1 << 20, '[')), "nested");
  refused("explain " + llama + put("twice/config.json", R"({"a": 1, "a": 2})"), "is there twice");
  const std::string weights = read_file(shelf.folder / "decoder" / "model.safetensors");
  fs::copy(shelf.folder / "decoder", shelf.folder / "cut");
  refused("generate --prompt wolf --model " +
              put("cut/model.safetensors", weights.substr(0, weights.size() / 2)),
          "data_offsets");
  fs::copy(shelf.folder / "decoder", shelf.folder / "mute");
  refused("generate --prompt wolf --model " +
              put("mute/tokenizer.json", std::string("{\"a\":\x1b[31m\0}", 12)),
          "is zero");
  const std::string train = "train --model decoder --out '" + (shelf.folder / "x").string() + "' ";
  put("open/train.csv", "a,label\n\"x");
  refused(train + "--task " + put("open/task.json", R"({"format": "csv", "train": "train.csv"})"),
          "train.csv:2: a quote that never closes");
  refused("eval " + put("odd/adapter_config.json",
                        R"({"format": "graft-adapter-1", "spec": "", "more": {"model": 1}})"),
          "model is 1; need a text");
  for (const auto& [text, why] :
       {std::pair{"{\"run\": {}, \"run\": {}}", "key 'run' is there twice"},
        {"{\"run\": {}, \"weights_hash\": 1, \"core\": 1}", "core is 1; need a string"},
        {"{\"run\": {}, \"weights_hash\": 1}", "has no core"}}) {
    put("record/run.json", text);
    refused("replay '" + (shelf.folder / "record" / "run.json").string() + "'", why);
  }
}
