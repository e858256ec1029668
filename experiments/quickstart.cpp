// Teaches a language model the tone of a text: the whole way, as a program of your own would go it.
//
//   quickstart [MODEL_FOLDER [TEXT_FILE [ADAPTER_FOLDER [PROMPT]]]]     a text on each line
#include "nn/generate.h"
#include "nn/lm_batch.h"
#include "nn/models/folder.h"
#include "peft/folder.h"
#include "peft/methods.h"
#include "peft/trainable.h"

using namespace graft;

int main(int argc, char** argv) try {
  const std::string base = argc > 1 ? argv[1] : "experiments/bases/tiny";
  const std::string path = argc > 2 ? argv[2] : "experiments/quickstart.txt";
  const std::string out = argc > 3 ? argv[3] : "build/quickstart";
  const std::string prompt = argc > 4 ? argv[4] : "Weather for the harbour,";

  // Load: a decoder as the hub lays it out, and the texts as its tokens.
  const auto model = load_model(base);
  const Tokenizer tokenizer = Tokenizer::load(base);
  const auto texts = read_texts(path, tokenizer, model->arch());
  const auto write = [&](const char* when) {
    const GenerateSpec greedy{.stop = {model->arch().sep}};
    const auto answer =
        generate(*model, {prompt_tokens(model->arch(), tokenizer, prompt)}, greedy).at(0);
    fmt::print("{}: {}{}\n", when, prompt, tokenizer.decode(answer.tokens, true));
  };
  write("before");

  // Freeze: nothing to call. A loaded weight is a constant; only what an adapter brings learns.
  const std::uint64_t frozen = model->hash();
  const Adaptation lora(all_methods(), "lora:r=8,on=q+v", *model);
  fmt::print("{}\n", trainable_line(*model, lora));

  // Train: the loop that every training has.
  Optimizer optimizer(lora.parameters(), {.decay = 0});
  const Schedule rate{.peak = 2e-2, .steps = 300, .warmup = 30};
  for (int step = 0; step < rate.steps; ++step) {
    const Batch batch = lm_batch(texts, 8 * step, 8);
    Ctx ctx{.train = true, .key = {0, std::uint32_t(step)}};
    const Tensor loss = model->lm_loss(batch, ctx);
    Gradients gradients = backward(loss);
    optimizer.step(gradients, rate.at(step));
    if (step % 30 == 0) fmt::print("step {:>3}  loss {:.3f}\n", step, loss.item());
  }

  // Save: the adapter alone, beside the name of its base.
  save_adapter(out, lora, base, frozen);
  fmt::print("adapter in {}; base {}\n", out, model->hash() == frozen ? "unchanged" : "CHANGED");
  write("after");
} catch (const std::exception& e) {
  fmt::print(stderr, "quickstart: {}\n", e.what());
  return 1;
}
