#include "peft/routed.h"

#include <algorithm>
#include <numeric>

#include "peft/routed_edits.h"

namespace graft {
namespace {

void add_places(PartOfBatch& part, const Sequence& s) {
  std::vector<std::int32_t> token_start;
  if (part.ctx.batch) token_start = starts_of(part.ctx.batch->length);
  const auto row_start = starts_of(s.length);
  std::int32_t here = 0;
  for (const int i : part.sequence) {
    const auto at = static_cast<std::size_t>(i);
    const std::int32_t moved = token_start.empty() ? 0 : token_start[at] - here;
    part.start.push_back(moved);
    if (!token_start.empty()) here += token_start[at + 1] - token_start[at];
    part.rows.length.push_back(s.length[at]);
    for (std::int32_t row = row_start[at]; row < row_start[at + 1]; ++row) {
      part.row.push_back(row);
      const std::int32_t source = s.source[static_cast<std::size_t>(row)];
      part.rows.source.push_back(source < 0 ? source : source - moved);
      part.rows.position.push_back(s.position[static_cast<std::size_t>(row)]);
      part.rows.example.push_back(s.example[static_cast<std::size_t>(row)]);
      if (!s.place.empty()) part.rows.place.push_back(s.place[static_cast<std::size_t>(row)]);
    }
  }
  part.of_rows = s.source.size();
}

}  // namespace

Batch some_of(const Batch& all, const std::vector<int>& of) {
  Batch b;
  const auto start = starts_of(all.length);
  for (const int i : of) {
    const auto begin = start[static_cast<std::size_t>(i)],
               end = start[static_cast<std::size_t>(i) + 1];
    append(b.token, all.token, begin, end);
    append(b.token_type, all.token_type, begin, end);
    append(b.token_label, all.token_label, begin, end);
    append(b.length, all.length, i, i + 1);
    append(b.example, all.example, i, i + 1);
    append(b.label, all.label, i, i + 1);
    append(b.target, all.target, i, i + 1);
    append(b.adapter, all.adapter, i, i + 1);
    append(b.task, all.task, i, i + 1);
  }
  if (all.source) b.source = std::make_shared<const Batch>(some_of(*all.source, of));
  b.divisor = all.divisor;
  return b;
}

PartOfBatch::PartOfBatch(const Ctx& all, const Sequence& s, int adapter) : ctx(all) {
  check(all.adapter.size() == s.length.size(),
        "routed: adapters of {} sequences in a batch of {}; Batch::adapter names each one's, -1 "
        "for the base",
        all.adapter.size(), s.length.size());
  for (std::size_t i = 0; i < s.length.size(); ++i)
    if (all.adapter[i] == adapter) sequence.push_back(static_cast<int>(i));
  add_places(*this, s);
  if (sequence.empty()) return;
  if (all.batch) batch = some_of(*all.batch, sequence);
  ctx.batch = all.batch ? &batch : nullptr;
  ctx.sequence = &rows;
  ctx.adapter.assign(sequence.size(), adapter);
  ctx.address = rows.address();
}

Tensor PartOfBatch::picked(const Tensor& of_all) const {
  if (!of_all.defined() || whole()) return of_all;
  check(of_all.dim(0) == static_cast<std::int64_t>(of_rows),
        "routed: an edit of {} rows where the batch has {}", of_all.dim(0), of_rows);
  if (one_run()) return slice(of_all, 0, row.front(), row.back() + 1);
  return gather(of_all, Array::of(row));
}

Tensor PartOfBatch::put_back(const Tensor& of_all, const Tensor& of_part) const {
  if (whole()) return of_part;
  std::vector<std::int32_t> from(of_rows);
  std::iota(from.begin(), from.end(), 0);
  for (std::size_t i = 0; i < row.size(); ++i)
    from[static_cast<std::size_t>(row[i])] = static_cast<std::int32_t>(of_rows + i);
  return gather(concat({of_all, of_part}, 0), Array::of(from));
}

Routed::Routed(const Methods& methods, const std::vector<Route>& routes, Model& model)
    : model_(model), heads_(routes.size()) {
  check(!routes.empty(), "routed: no adapters");
  RoutedEdits edits(static_cast<int>(routes.size()));
  for (const Route& r : routes) {
    check(!r.name.empty() && r.name != "base", "routed: an adapter called '{}'; that names {}",
          r.name, r.name.empty() ? "nothing" : "the bare model");
    check(std::ranges::count(names_, r.name) == 0, "routed: two adapters are called '{}'", r.name);
    names_.push_back(r.name);
    for (const auto& a : adapters_) a->suspend();  // a start may read the bare base
    adapters_.push_back(std::make_unique<Adaptation>(methods, r.spec, model));
    for (const auto& a : adapters_)
      if (a != adapters_.back()) a->resume();
    edits.route(*adapters_.back(), r.name);
  }
}

Routed::~Routed() {
  while (!adapters_.empty()) adapters_.pop_back();
}

std::int32_t Routed::index(const std::string& name) const {
  if (name == "base") return -1;
  const auto at = std::ranges::find(names_, name);
  check(at != names_.end(), "routed: no adapter is called '{}'; there are {}, and base", name,
        fmt::join(names_, ", "));
  return static_cast<std::int32_t>(at - names_.begin());
}

void Routed::set_head(int i, std::unique_ptr<Head> head) {
  auto& place = heads_.at(static_cast<std::size_t>(i));
  place = std::move(head);
  if (!place) return;
  place->each([](Weight& w) {
    Parameter& p = w.parameter();
    if (!p.trains()) p.value = Tensor::leaf(p.value.value(), p.label());
  });
}

const Head* Routed::head(int i) const {
  if (i >= 0 && heads_.at(static_cast<std::size_t>(i)))
    return heads_[static_cast<std::size_t>(i)].get();
  return model_.has_head() ? &model_.head() : nullptr;
}

Parameters Routed::parameters(int i) const {
  Parameters all = at(i).parameters();
  if (Head* head = heads_.at(static_cast<std::size_t>(i)).get())
    head->each([&](Weight& w) { all.push_back(std::make_shared<Parameter>(w.parameter())); });
  return all;
}

Sequence Routed::forward(const Batch& batch, Ctx& ctx) const {
  return model_.forward(batch, ctx, [&](const Sequence& s) {
    std::vector<std::int32_t> all;
    for (int i = -1; i < size(); ++i) {
      const auto own = part(s, batch, ctx, i);
      if (!own) continue;
      const Head* with = head(i);
      std::vector<std::int32_t> read;
      if (with)
        read = with->reads(model_, own->rows, own->batch);
      else if (!batch.token_label.empty())
        read = labelled_rows(own->rows, own->batch);
      if (read.empty() && (with || batch.token_label.empty()))
        all.insert(all.end(), own->row.begin(), own->row.end());
      const std::string whose = i < 0 ? "the base" : name(i);
      for (std::size_t r = 0; r < read.size(); ++r) {
        check((r == 0 ? 0 : read[r - 1] + 1) <= read[r] && read[r] < std::ssize(own->row),
              "routed: the head of {} reads row {} after {}; need ascending rows of 0..{}", whose,
              read[r], r == 0 ? -1 : read[r - 1], std::ssize(own->row) - 1);
        all.push_back(own->row[static_cast<std::size_t>(read[r])]);
      }
    }
    std::ranges::sort(all);
    return all;
  });
}

Parameters Routed::stored() const {
  Parameters all;
  for (const auto& adapter : adapters_)
    for (const auto& p : adapter->stored()) all.push_back(p);
  return all;
}

std::unique_ptr<PartOfBatch> Routed::part(const Sequence& s, const Batch& batch, const Ctx& ctx,
                                          int i) const {
  Ctx all = ctx;
  all.batch = &batch;
  all.adapter = batch.adapter;
  auto part = std::make_unique<PartOfBatch>(all, s, i);
  if (part->sequence.empty()) return nullptr;
  part->rows.rows = part->picked(s.rows);
  return part;
}

std::vector<std::vector<double>> Routed::scores(const Sequence& s, const Batch& batch,
                                                const Ctx& ctx) const {
  std::vector<std::vector<double>> out(batch.length.size());
  for (int i = -1; i < size(); ++i) {
    const auto own = part(s, batch, ctx, i);
    if (!own) continue;
    const Head* with = head(i);
    check(with != nullptr, "routed: {} has no head", i < 0 ? "the base" : name(i));
    const Tensor scores = with->scores(model_, own->rows, own->batch, own->ctx);
    const std::vector<double> all = scores.value().to_vector();
    const auto k = static_cast<std::ptrdiff_t>(scores.dim(1));
    for (std::size_t p = 0; p < own->sequence.size(); ++p) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(p) * k;
      out[static_cast<std::size_t>(own->sequence[p])].assign(begin, begin + k);
    }
  }
  return out;
}

RoutedTraining::RoutedTraining(Routed& routed, const Model& model,
                               const std::vector<OptimSpec>& specs)
    : routed_(routed), model_(model) {
  check(static_cast<int>(specs.size()) == routed.size(), "routed: optimizers for {} of {} adapters",
        specs.size(), routed.size());
  for (int i = 0; i < routed.size(); ++i)
    optimizers_.emplace_back(routed.parameters(i), specs[static_cast<std::size_t>(i)]);
}

std::vector<RoutedTraining::Step> RoutedTraining::step(const Batch& batch, Ctx ctx,
                                                       const std::vector<double>& rate) {
  check(rate.size() == optimizers_.size(), "routed: rates for {} of {} adapters", rate.size(),
        optimizers_.size());
  check(batch.divisor == 0, "routed: micro-batches (a divisor of {}); give the whole batch",
        batch.divisor);
  check(std::ranges::count(batch.adapter, -1) == 0,
        "routed: a batch to train on with sequences of no adapter");
  const Sequence s = routed_.forward(batch, ctx);
  std::vector<Step> steps(rate.size());
  Tensor total;
  for (int i = 0; i < routed_.size(); ++i) {
    const auto own = routed_.part(s, batch, ctx, i);
    if (!own) continue;
    Tensor loss;
    if (const Head* head = routed_.head(i))
      loss = head->loss(head->scores(model_, own->rows, own->batch, own->ctx), own->batch);
    else
      loss = model_.lm_loss(own->rows, own->batch, own->ctx);
    Step& step = steps[static_cast<std::size_t>(i)];
    step.sequences = static_cast<int>(own->sequence.size());
    step.loss = loss.item();
    if (const Tensor penalty = routed_.at(i).penalty(); penalty.defined()) loss = loss + penalty;
    total = total.defined() ? total + loss : loss;
  }
  check(total.defined(), "routed: a batch without sequences");
  Gradients gradients = backward(total);
  std::string wrong;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].sequences == 0) continue;
    const int which = static_cast<int>(i);
    try {
      routed_.after_backward(which, optimizers_[i].steps());
      steps[i].norm = optimizers_[i].step(gradients, rate[i]);
    } catch (const Error& e) {
      wrong += fmt::format("\n  {}: {}", routed_.name(which), e.what());
    }
  }
  check(wrong.empty(), "routed: a step that these did not take, but all others did:{}", wrong);
  return steps;
}

}  // namespace graft
