// Models with the adapters of some layers switched off.
#include <numeric>

#include "experiments/ablations/adapter_layer_pruning.h"

namespace graft {

std::string name(const Span& span) { return fmt::format("span {}-{}", span.first, span.last); }

std::vector<Span> claimed_spans(int layers) {
  std::vector<Span> all{
      {0, layers - 1}, {2 * layers / 3, layers - 1}, {0, layers / 3 - 1}, {0, 5 * layers / 12 - 1}};
  for (int i = 0; i < layers; ++i) all.push_back({i, i});
  return all;
}

std::map<Span, std::vector<float>> predictions_without(
    Model& model, Adaptation& adaptation, const EncodedTask& task,
    const std::vector<EncodedExample>& examples) {
  NoRecord off;
  const int layers = model.arch().layers;
  std::map<Span, std::vector<float>> found;
  std::vector<std::int32_t> order(examples.size());
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t at = 0; at < order.size(); at += 64) {
    const Batch batch =
        make_batch(task, examples, order, at, std::min<std::size_t>(64, order.size() - at));
    Ctx ctx;
    Sequence below = model.embed(batch, ctx);  // every block so far with its edits
    for (int first = 0; first < layers; ++first) {
      Sequence bare = below;  // the edits from `first` on are off
      for (int last = first; last < layers; ++last) {
        adaptation.enable(last, last, false);
        bare = model.run_blocks(std::move(bare), ctx, last, last + 1);
        adaptation.enable(last, last, true);
        const Sequence top = model.finish(model.run_blocks(bare, ctx, last + 1, layers), ctx);
        append_predictions(task, model.head().scores(model, top, batch, ctx), found[{first, last}]);
      }
      below = model.run_blocks(std::move(below), ctx, first, first + 1);
    }
  }
  return found;
}

}  // namespace graft
