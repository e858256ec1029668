#include "nn/optim/task_rules.h"

#include <algorithm>
#include <cmath>

#include "tensor/kernels.h"

namespace graft {

TaskRules::TaskRules(std::vector<TaskRule> rules) : rules_(std::move(rules)) {
  for (const TaskRule& r : rules_) {
    check(r.lr || r.decay || r.dropout || r.pull,
          "rules: one says nothing; need lr=, decay=, dropout= or pull=");
    for (const auto& [name, value] : {std::pair{"lr", r.lr}, {"decay", r.decay}, {"pull", r.pull}})
      check(!value || (*value >= 0 && std::isfinite(*value)), "rules: {}={}; need at least 0", name,
            value.value_or(0));
    check(!r.dropout || (*r.dropout >= 0 && *r.dropout < 1),
          "rules: dropout={}; need 0 <= dropout < 1", r.dropout.value_or(0));
    check(r.first <= r.last, "rules: layers {}..{}", r.first, r.last);
  }
}

double TaskRules::value(int task, int layer, std::optional<double> TaskRule::*what,
                        double standard) const {
  double value = standard;
  for (const TaskRule& r : rules_)
    if ((r.*what).has_value() && r.covers(task, layer)) value = *(r.*what);
  return value;
}

namespace {

int task_of(const Ctx& ctx) {
  if (ctx.task >= 0 || !ctx.batch || ctx.batch->task.empty()) return ctx.task;
  const auto& of = ctx.batch->task;
  check(std::ranges::all_of(of, [&](std::int32_t t) { return t == of[0]; }),
        "rules: dropout by task needs batches of one task each");
  return of[0];
}

}  // namespace

std::vector<Handle> TaskRules::add_dropout(Model& model, int tasks) const {
  std::vector<Handle> handles;
  for (Block* block : model.all_blocks()) {
    const Site site = block->norm1.site;
    std::vector<double> p;
    for (int t = 0; t < tasks; ++t) p.push_back(dropout(t, site.layer));
    if (std::ranges::all_of(p, [](double x) { return x == 0; })) continue;
    const auto add = [&](Slot<Tensor, Sub, Ctx>& slot, Part part) {
      const std::uint32_t noise =
          stream_id((to_string(Site{site.stack, site.layer, part}) + "/task dropout").c_str());
      handles.push_back(slot.add("task dropout", [p, noise](Tensor y, const Sub&, const Ctx& ctx) {
        if (!ctx.train) return y;
        const int task = task_of(ctx);
        check(task >= 0 && task < static_cast<int>(p.size()),
              "rules: dropout by task, but a batch does not say whose it is");
        return graft::dropout(y, p[static_cast<std::size_t>(task)], {ctx.key, noise}, ctx.address);
      }));
    };
    add(block->attention.out, Part::attn);
    if (block->cross) add(block->cross->out, Part::cross);
    add(block->mlp.out, Part::mlp);
  }
  return handles;
}

void TaskRules::shape(int task, const Parameters& parameters, const std::vector<Array>& start,
                      TaskGradient& grads, bool with_rate) const {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const int layer = parameters[i]->site.layer;
    const double by = pull(task, layer), rate = with_rate ? lr(task, layer) : 1;
    if (by > 0) {
      kernels::axpy(grads[i], parameters[i]->value.value(), by);
      kernels::axpy(grads[i], start[i], -by);
    }
    if (rate != 1) kernels::scale(grads[i], grads[i], rate);
  }
}

RuledStep::RuledStep(const TaskRules& rules, const Parameters& parameters,
                     const std::vector<int>& tasks, double standard, bool with_rate) {
  for (const auto& p : parameters) {
    double lr = 0, decay = 0;
    for (int t : tasks) {
      lr += (with_rate ? rules.lr(t, p->site.layer) : 1) / double(tasks.size());
      decay += rules.decay(t, p->site.layer, standard) / double(tasks.size());
    }
    const bool other = p->decay && std::abs(decay - standard) > 1e-12;
    before_.push_back({p, p->lr_scale, p->decay, other ? decay : -1});
    p->lr_scale *= lr;
    if (other) p->decay = false;
  }
}

void RuledStep::finish(double rate) {
  for (const Before& b : before_)
    if (b.own > 0) {
      Array& w = b.parameter->value.value();
      kernels::scale(w, w, 1 - rate * b.parameter->lr_scale * b.own);
    }
}

RuledStep::~RuledStep() {
  for (const Before& b : before_) {
    b.parameter->lr_scale = b.lr_scale;
    b.parameter->decay = b.decays;
  }
}

}  // namespace graft
